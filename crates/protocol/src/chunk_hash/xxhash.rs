//! XXH3-128, cut to the 64 bits that LMCache keeps: the canonical (big-endian) digest's first 8
//! bytes, which are its high half.

use xxhash_rust::xxh3::xxh3_128;

pub(super) fn head(bytes: &[u8]) -> u64 {
    (xxh3_128(bytes) >> 64) as u64
}
