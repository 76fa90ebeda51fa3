//! Numbers and texts as bytes, for journal and snapshot: LEB128 varints, zigzag for signed ones, a
//! text as its length and its bytes, a chunk hash as 8 bytes little-endian.
//!
//! **Invariant**: reading never panics and never reserves by an announced length: what is written
//! may come back from a damaged disk.

use kvatlas_protocol::{ChunkHash, Timestamp};

/// Bytes that do not mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed state: {0}")]
pub struct Malformed(pub &'static str);

pub(crate) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// 0 is none.
pub(crate) fn put_time(out: &mut Vec<u8>, time: Option<Timestamp>) {
    put_u64(out, time.map_or(0, |time| time.0.saturating_add(1)));
}

/// All hashes, 8 bytes each.
pub(crate) fn put_hashes<T>(out: &mut Vec<u8>, items: &[T], hash: impl Fn(&T) -> ChunkHash) {
    let start = out.len();
    out.resize(start + items.len() * 8, 0);
    for (bytes, item) in out[start..].chunks_exact_mut(8).zip(items) {
        bytes.copy_from_slice(&hash(item).0.to_le_bytes());
    }
}

/// Reads from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed("ends early"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("number of more than 64 bits"))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        let raw = self.u64()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        Ok(self.byte()? != 0)
    }

    pub(crate) fn time(&mut self) -> Result<Option<Timestamp>, Malformed> {
        Ok(self.u64()?.checked_sub(1).map(Timestamp))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let n = self.u64()?;
        let bytes = self.take(n)?;
        std::str::from_utf8(bytes).map_err(|_| Malformed("text is not UTF-8"))
    }

    pub(crate) fn take(&mut self, n: u64) -> Result<&'a [u8], Malformed> {
        let n = usize::try_from(n).map_err(|_| Malformed("ends early"))?;
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Malformed("ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// `n` hashes of 8 bytes each.
    pub(crate) fn hashes(
        &mut self,
        n: u64,
    ) -> Result<impl ExactSizeIterator<Item = ChunkHash> + 'a, Malformed> {
        let bytes = self.take(n.checked_mul(8).ok_or(Malformed("ends early"))?)?;
        Ok(bytes.chunks_exact(8).map(|bytes| {
            let mut hash = [0; 8];
            hash.copy_from_slice(bytes);
            ChunkHash(u64::from_le_bytes(hash))
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_texts_come_back(u: u64, i: i64, text: String) {
            let mut out = Vec::new();
            put_u64(&mut out, u);
            put_i64(&mut out, i);
            put_text(&mut out, &text);
            let mut bytes = Bytes(&out);
            prop_assert_eq!(bytes.u64(), Ok(u));
            prop_assert_eq!(bytes.i64(), Ok(i));
            prop_assert_eq!(bytes.text(), Ok(text.as_str()));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn anything_is_read_or_refused(raw: Vec<u8>) {
            let mut bytes = Bytes(&raw);
            while bytes.u64().is_ok() && bytes.text().is_ok() {}
            prop_assert!(bytes.0.len() <= raw.len());
        }
    }
}
