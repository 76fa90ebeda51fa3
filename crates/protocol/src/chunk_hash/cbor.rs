//! Canonical CBOR of the two values that are hashed: `(previous, tokens, ())` and a string.
//!
//! Canonical (RFC 8949, section 4.2): the shortest head for every number and length, definite
//! lengths. Tuples are arrays. Writing only; nothing here reads CBOR.
//! Upstream: cbor2's `dumps(value, canonical=True)`.

const UNSIGNED: u8 = 0 << 5;
const NEGATIVE: u8 = 1 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;

pub(super) fn write_link<T: Copy + Into<i64>>(previous: u64, tokens: &[T], out: &mut Vec<u8>) {
    // Five bytes hold a u32; larger tokens are rare and may grow the buffer.
    out.reserve(tokens.len() * 5 + 32);
    write_head(ARRAY, 3, out);
    write_head(UNSIGNED, previous, out);
    write_head(ARRAY, tokens.len() as u64, out);
    for &token in tokens {
        let token: i64 = token.into();
        // A negative number n is written as -1 - n, which in two's complement is !n.
        if token < 0 {
            write_head(NEGATIVE, (!token).cast_unsigned(), out);
        } else {
            write_head(UNSIGNED, token.cast_unsigned(), out);
        }
    }
    write_head(ARRAY, 0, out);
}

pub(super) fn write_str(text: &str, out: &mut Vec<u8>) {
    write_head(TEXT, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// A data item's major type and number. The number follows in 1, 2, 4 or 8 bytes unless it is
/// below 24 and fits into the first byte.
///
/// Widths of tokens are unpredictable, so nothing branches on them: nine bytes are always written
/// and the superfluous cut off (`xxhash_cbor` of 8,192 tokens: 16 us, against 30 with a branch per width).
#[inline]
fn write_head(major: u8, number: u64, out: &mut Vec<u8>) {
    let small = number < 24;
    // 0, 1, 2 or 3 for 1, 2, 4 or 8 bytes.
    let log_width =
        u8::from(number > 0xff) + u8::from(number > 0xffff) + u8::from(number >> 32 != 0);
    let width = 1 << log_width;
    let first = if small { number as u8 } else { 24 + log_width };
    let [b0, b1, b2, b3, b4, b5, b6, b7] = (number << (64 - 8 * width)).to_be_bytes();
    let end = out.len() + if small { 1 } else { 1 + width };
    out.extend_from_slice(&[major | first, b0, b1, b2, b3, b4, b5, b6, b7]);
    out.truncate(end);
}
