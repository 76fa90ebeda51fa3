//! Where a chain starts: upstream's `NONE_HASH`, by what the worker's environment was.
//!
//! ```text
//! absent               0                        no vLLM in the worker's process, or one without it
//! pythonhashseed:TEXT  f(TEXT)                  vLLM, and PYTHONHASHSEED=TEXT in the environment
//! vllm-none-hash       f("vllm-none-hash")      vLLM >= 0.33, no PYTHONHASHSEED, SHA-256 algorithms
//! ```
//! With `builtin`, `f` of a string is CPython's seeded string hash, so `TEXT` is both the key and
//! the message. A root that every process draws for itself has no value, and no scheme.
//! Upstream: `vllm/v1/core/kv_cache_utils.py` (`init_none_hash`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{HashAlgorithm, builtin};
use crate::id::ChunkHash;

/// Value of [`Root::Absent`] under every algorithm.
pub(super) const ABSENT: ChunkHash = ChunkHash(0);

/// What vLLM hashes for lack of a seed.
const VLLM_NONE_HASH: &str = "vllm-none-hash";

/// A source of the hash before the first chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// vLLM is not importable where LMCache runs: 0.
    #[default]
    Absent,
    /// vLLM is, and `PYTHONHASHSEED` is set.
    PythonHashSeed(HashSeed),
    /// vLLM is (0.33 or later), and `PYTHONHASHSEED` is not set.
    VllmNoneHash,
}

/// A value of `PYTHONHASHSEED` that CPython starts with, as it was spelled.
///
/// The spelling counts: `7` and `007` seed the same string hash but are different strings.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashSeed(Arc<str>);

/// A `PYTHONHASHSEED` that CPython refuses to start with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PYTHONHASHSEED {text:?} is neither \"random\" nor an integer from 0 to 4294967295")]
pub struct InvalidHashSeed {
    /// What was given, shortened.
    pub text: String,
}

/// A text that names no root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownRoot {
    /// None of the three forms.
    #[error("unknown root {text:?}, expected absent, pythonhashseed:SEED or vllm-none-hash")]
    Form {
        /// What was given.
        text: String,
    },
    /// The form is known, the seed is not one.
    #[error(transparent)]
    Seed(#[from] InvalidHashSeed),
}

impl Root {
    /// The chunk hash before the first; `None` if every process draws its own.
    pub fn value(&self, algorithm: HashAlgorithm) -> Option<ChunkHash> {
        match (self, algorithm) {
            (Self::Absent, _) => Some(ABSENT),
            (Self::PythonHashSeed(seed), HashAlgorithm::Builtin) => match seed.number() {
                Some(number) => Some(ChunkHash::from_signed(builtin::string(&seed.0, number))),
                // The empty string hashes to 0 whatever the key.
                None if seed.0.is_empty() => Some(ABSENT),
                None => None,
            },
            (Self::PythonHashSeed(seed), _) => algorithm.hash_str(&seed.0),
            (Self::VllmNoneHash, HashAlgorithm::Sha256 | HashAlgorithm::Sha256Cbor) => {
                algorithm.hash_str(VLLM_NONE_HASH)
            }
            (Self::VllmNoneHash, _) => None,
        }
    }
}

impl FromStr for Root {
    type Err = UnknownRoot;

    /// Reads `absent`, `pythonhashseed:SEED` (or `PYTHONHASHSEED=SEED`) and `vllm-none-hash`.
    fn from_str(text: &str) -> Result<Self, UnknownRoot> {
        let seed = text
            .strip_prefix("pythonhashseed:")
            .or_else(|| text.strip_prefix("PYTHONHASHSEED="));
        match (text, seed) {
            (_, Some(seed)) => Ok(Self::PythonHashSeed(seed.parse()?)),
            ("absent", None) => Ok(Self::Absent),
            (VLLM_NONE_HASH, None) => Ok(Self::VllmNoneHash),
            (_, None) => Err(UnknownRoot::Form { text: text.into() }),
        }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::PythonHashSeed(seed) => write!(f, "pythonhashseed:{seed}"),
            Self::VllmNoneHash => f.write_str(VLLM_NONE_HASH),
        }
    }
}

impl HashSeed {
    /// Characters accepted; a seed has ten digits, the rest is room for signs and zeros.
    const MAX_LENGTH: usize = 64;

    /// The number that seeds CPython; `None` if it draws one (`random`, or empty).
    fn number(&self) -> Option<u32> {
        parse_number(&self.0)
    }
}

impl FromStr for HashSeed {
    type Err = InvalidHashSeed;

    fn from_str(text: &str) -> Result<Self, InvalidHashSeed> {
        let drawn = matches!(text, "" | "random");
        if text.len() <= Self::MAX_LENGTH && (drawn || parse_number(text).is_some()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidHashSeed {
                text: text.chars().take(Self::MAX_LENGTH).collect(),
            })
        }
    }
}

impl From<u32> for HashSeed {
    fn from(seed: u32) -> Self {
        Self(seed.to_string().into())
    }
}

impl fmt::Display for HashSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HashSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Reads as C's `strtoul` does: white space, a sign, decimal digits, nothing after them.
fn parse_number(text: &str) -> Option<u32> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    match text.strip_prefix('-') {
        // Negative numbers wrap to beyond 32 bits, except this one.
        Some(zeros) => (!zeros.is_empty() && zeros.bytes().all(|b| b == b'0')).then_some(0),
        // Rust's own parser takes one plus sign.
        None => text.parse().ok(),
    }
}
