//! SHA-256, cut to the 64 bits that LMCache keeps: the digest's first 8 bytes, big-endian.

use sha2::{Digest, Sha256};

pub(super) fn head(bytes: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(bytes));
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
