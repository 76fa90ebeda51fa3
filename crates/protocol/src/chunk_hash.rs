//! Chunk hashes: how a prompt's tokens become the keys that workers report.
//!
//! A prompt is cut into chunks of `chunk_size` tokens, the last one possibly shorter, and
//! `hash_i = f((hash_{i-1}, tokens of chunk i, ()))` with `hash_{-1}` the root (upstream's
//! `NONE_HASH`). The third member is upstream's place for extra keys; it never fills it. `f` is the
//! algorithm: one file each, over one of two encodings of that Python tuple.
//!
//! ```text
//! builtin                   CPython's hash() of the tuple                i64 (may be negative)
//! sha256_cbor, xxhash_cbor  canonical CBOR  -> SHA-256 or XXH3-128 |
//! sha256, xxhash            pickle 5        -> SHA-256 or XXH3-128 | first 8 bytes, big-endian, u64
//! ```
//!
//! **Invariant**: a hash is its 64 bits. `builtin` counts signed, the others unsigned, and
//! [`ChunkHash`] holds the two's complement of either; only [`ChunkHash::from_signed`] and
//! [`ChunkHash::as_signed`] convert. Because the previous hash is itself hashed as a Python int,
//! each algorithm reads those bits back in its own signedness.
//!
//! A [`Chain`] hashes one chunk per `next()`: a lookup that stops at the first miss pays for no
//! more. It allocates nothing per chunk (one buffer per chain, reused; none for `builtin`).
//! Tokens are anything that widens to i64: `u32` on the hot path, `i64` for whatever else a caller
//! sends. Beyond i64 no worker has tokens (they are 64-bit tensors), so there is no type for it.
//!
//! Finding out which scheme a fleet uses is not done here.
//! Upstream: `lmcache/v1/token_database.py`, `vllm/utils/hashing.py`.

mod builtin;
mod cbor;
mod none_hash;
mod pickle;
mod sha256;
#[cfg(test)]
mod tests;
mod xxhash;

use std::fmt;
use std::iter::FusedIterator;
use std::num::NonZeroUsize;
use std::slice::Chunks;
use std::str::FromStr;

pub use self::none_hash::{HashSeed, InvalidHashSeed, Root, UnknownRoot};
use crate::id::ChunkHash;

/// How a chunk and the hash before it are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashAlgorithm {
    /// CPython's own tuple hash; LMCache's default.
    #[default]
    Builtin,
    /// SHA-256 over canonical CBOR.
    Sha256Cbor,
    /// XXH3-128 over canonical CBOR.
    XxhashCbor,
    /// SHA-256 over pickle protocol 5.
    Sha256,
    /// XXH3-128 over pickle protocol 5.
    Xxhash,
}

/// Everything that decides a prompt's chunk hashes: algorithm, root and chunk size.
///
/// Two processes find each other's chunks only if all three agree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HashScheme {
    algorithm: HashAlgorithm,
    root: Root,
    chunk_size: NonZeroUsize,
    /// The root's value under this algorithm: computed once, it starts every chain.
    root_value: ChunkHash,
}

/// The chunk hashes of one prompt, computed as they are asked for.
#[derive(Clone, Debug)]
pub struct Chain<'a, T> {
    algorithm: HashAlgorithm,
    previous: ChunkHash,
    chunks: Chunks<'a, T>,
    /// Holds the encoded chunk while it is hashed.
    scratch: Vec<u8>,
}

/// A hash algorithm's name that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown hash algorithm {name:?}, expected builtin, sha256_cbor, xxhash_cbor, sha256 or xxhash"
)]
pub struct UnknownAlgorithm {
    /// What was given.
    pub name: String,
}

/// A root that has no value under an algorithm: every process would draw its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("root {root} is random under {algorithm}: no other process can compute its chunk hashes")]
pub struct RandomRoot {
    /// The algorithm asked for.
    pub algorithm: HashAlgorithm,
    /// The root that has no value under it.
    pub root: Root,
}

impl HashAlgorithm {
    /// All of them, the likeliest first: the order in which to try.
    pub const ALL: [Self; 5] = [
        Self::Builtin,
        Self::Sha256Cbor,
        Self::XxhashCbor,
        Self::Sha256,
        Self::Xxhash,
    ];

    /// LMCache's name of the algorithm (`pre_caching_hash_algorithm`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Sha256Cbor => "sha256_cbor",
            Self::XxhashCbor => "xxhash_cbor",
            Self::Sha256 => "sha256",
            Self::Xxhash => "xxhash",
        }
    }

    /// Hash of one chunk after `previous`. What `scratch` held is lost.
    fn link<T: Copy + Into<i64>>(
        self,
        previous: ChunkHash,
        tokens: &[T],
        scratch: &mut Vec<u8>,
    ) -> ChunkHash {
        scratch.clear();
        match self {
            Self::Builtin => {
                return ChunkHash::from_signed(builtin::link(previous.as_signed(), tokens));
            }
            Self::Sha256Cbor | Self::XxhashCbor => cbor::write_link(previous.0, tokens, scratch),
            Self::Sha256 | Self::Xxhash => pickle::write_link(previous.0, tokens, scratch),
        }
        self.digest(scratch)
    }

    /// Hash of an ASCII string; `None` for `builtin`, whose string hash needs a seed.
    fn hash_str(self, text: &str) -> Option<ChunkHash> {
        let mut encoded = Vec::new();
        match self {
            Self::Builtin => return None,
            Self::Sha256Cbor | Self::XxhashCbor => cbor::write_str(text, &mut encoded),
            Self::Sha256 | Self::Xxhash => pickle::write_str(text, &mut encoded),
        }
        Some(self.digest(&encoded))
    }

    fn digest(self, encoded: &[u8]) -> ChunkHash {
        ChunkHash(match self {
            Self::Sha256Cbor | Self::Sha256 => sha256::head(encoded),
            Self::Builtin | Self::XxhashCbor | Self::Xxhash => xxhash::head(encoded),
        })
    }
}

impl FromStr for HashAlgorithm {
    type Err = UnknownAlgorithm;

    /// Reads LMCache's names, and `sha256_cbor_64bit`, as older vLLM called `sha256_cbor`.
    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        if name == "sha256_cbor_64bit" {
            return Ok(Self::Sha256Cbor);
        }
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| UnknownAlgorithm { name: name.into() })
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl HashScheme {
    /// The scheme of these three, unless the root is random under the algorithm.
    pub fn new(
        algorithm: HashAlgorithm,
        root: Root,
        chunk_size: NonZeroUsize,
    ) -> Result<Self, RandomRoot> {
        match root.value(algorithm) {
            Some(root_value) => Ok(Self {
                algorithm,
                root,
                chunk_size,
                root_value,
            }),
            None => Err(RandomRoot { algorithm, root }),
        }
    }

    /// How chunks are hashed.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Where chains start.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Tokens in a chunk.
    pub fn chunk_size(&self) -> NonZeroUsize {
        self.chunk_size
    }

    /// The chunk hashes of `tokens`, first chunk first, the last partial chunk included.
    pub fn chain<'a, T: Copy + Into<i64>>(&self, tokens: &'a [T]) -> Chain<'a, T> {
        Chain {
            algorithm: self.algorithm,
            previous: self.root_value,
            chunks: tokens.chunks(self.chunk_size.get()),
            scratch: Vec::new(),
        }
    }
}

impl Default for HashScheme {
    /// What LMCache does unless it is configured otherwise, and all that its controller can do.
    fn default() -> Self {
        Self {
            algorithm: HashAlgorithm::Builtin,
            root: Root::Absent,
            chunk_size: const { NonZeroUsize::new(256).unwrap() },
            root_value: none_hash::ABSENT,
        }
    }
}

impl fmt::Display for HashScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            algorithm,
            root,
            chunk_size,
            root_value: _,
        } = self;
        write!(f, "{algorithm}, root {root}, chunk size {chunk_size}")
    }
}

impl<T: Copy + Into<i64>> Iterator for Chain<'_, T> {
    type Item = ChunkHash;

    fn next(&mut self) -> Option<ChunkHash> {
        let tokens = self.chunks.next()?;
        self.previous = self
            .algorithm
            .link(self.previous, tokens, &mut self.scratch);
        Some(self.previous)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.chunks.size_hint()
    }
}

impl<T: Copy + Into<i64>> ExactSizeIterator for Chain<'_, T> {}
impl<T: Copy + Into<i64>> FusedIterator for Chain<'_, T> {}

impl ChunkHash {
    /// The bits of a hash that counts signed: `builtin`, or any key read as a negative number.
    pub fn from_signed(hash: i64) -> Self {
        Self(hash.cast_unsigned())
    }

    /// The same bits counted signed, as `builtin` does.
    pub fn as_signed(self) -> i64 {
        self.0.cast_signed()
    }
}
