//! A chunk hash as it stands on the wire: a Python int of 64 bits, signed or unsigned.
//!
//! The `builtin` algorithm gives i64 (often negative), the others u64. Two's complement makes both
//! the same 64 bits, which is all a [`ChunkHash`] holds; the sign is kept here so that a message
//! re-encodes byte for byte.

use std::fmt;

use crate::id::ChunkHash;

/// An int from -2^63 to 2^64-1: a chunk hash with the sign its sender gave it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WireKey {
    bits: u64,
    negative: bool,
}

impl WireKey {
    /// A key of the `builtin` algorithm.
    pub const fn signed(value: i64) -> Self {
        Self {
            bits: value.cast_unsigned(),
            negative: value < 0,
        }
    }

    /// A key of any other algorithm.
    pub const fn unsigned(value: u64) -> Self {
        Self {
            bits: value,
            negative: false,
        }
    }

    /// `hash` written as i64, as the `builtin` algorithm does.
    pub const fn from_hash_signed(hash: ChunkHash) -> Self {
        Self::signed(hash.0.cast_signed())
    }

    /// `hash` written as u64, as every algorithm but `builtin` does.
    pub const fn from_hash_unsigned(hash: ChunkHash) -> Self {
        Self::unsigned(hash.0)
    }

    /// The 64 bits without regard to sign.
    pub const fn hash(self) -> ChunkHash {
        ChunkHash(self.bits)
    }

    /// The number itself.
    pub const fn value(self) -> i128 {
        if self.negative {
            self.bits.cast_signed() as i128
        } else {
            self.bits as i128
        }
    }

    /// The key as i64 if it was negative.
    pub(crate) const fn negative(self) -> Option<i64> {
        if self.negative {
            Some(self.bits.cast_signed())
        } else {
            None
        }
    }

    /// Reads the key Mooncake's documentation shows in JSON: `model@format@world@rank@hexhash`.
    ///
    /// Only the last field matters: a Python int printed as hexadecimal, so with `-` if negative.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let (_, digits) = text.rsplit_once('@')?;
        let (negative, digits) = match digits.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, digits),
        };
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let magnitude = u64::from_str_radix(digits, 16).ok()?;
        if negative {
            0_i64.checked_sub_unsigned(magnitude).map(Self::signed)
        } else {
            Some(Self::unsigned(magnitude))
        }
    }
}

impl From<WireKey> for ChunkHash {
    fn from(key: WireKey) -> Self {
        key.hash()
    }
}

impl fmt::Debug for WireKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_is_kept_and_bits_are_shared() {
        assert_eq!(WireKey::signed(-1).value(), -1);
        assert_eq!(WireKey::unsigned(u64::MAX).value(), i128::from(u64::MAX));
        assert_eq!(
            WireKey::signed(-1).hash(),
            WireKey::unsigned(u64::MAX).hash()
        );
        assert_eq!(
            WireKey::from_hash_signed(ChunkHash(u64::MAX)),
            WireKey::signed(-1)
        );
        assert_eq!(WireKey::signed(5), WireKey::unsigned(5));
    }

    #[test]
    fn text_keys() {
        assert_eq!(
            WireKey::from_text("model@vllm@1@0@cbf29ce484222325"),
            Some(WireKey::unsigned(0xcbf2_9ce4_8422_2325))
        );
        assert_eq!(
            WireKey::from_text("m@v@1@0@-1f"),
            Some(WireKey::signed(-31))
        );
        assert_eq!(
            WireKey::from_text("m@-8000000000000000"),
            Some(WireKey::signed(i64::MIN))
        );
        for bad in [
            "",
            "ff",
            "m@v@1@0@",
            "m@v@1@0@xyz",
            "m@+5",
            "m@-",
            "m@-8000000000000001",
            "m@11112222333344445",
        ] {
            assert_eq!(WireKey::from_text(bad), None, "{bad}");
        }
    }
}
