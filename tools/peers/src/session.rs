//! Sessions of the workload with what either side needs of them.

use dynamo_kv_router::LocalBlockHash;
use dynamo_kv_router::protocols::compute_seq_hash_for_block;

use crate::kvidx::{CHUNKS, SESSIONS, SHARED, key, unknown};

/// The 128 chunks of one session, in one generation.
pub struct Session {
    /// Chunk keys: what LMCache reports, and Dynamo's hash of the tokens of a block.
    pub keys: Vec<u64>,
    /// Dynamo's hash of a block with all before it, which its positional index recomputes in lookups.
    pub chained: Vec<u64>,
}

impl Session {
    /// A session from its keys.
    pub fn new(keys: Vec<u64>) -> Self {
        let local: Vec<_> = keys.iter().map(|&key| LocalBlockHash(key)).collect();
        Self {
            chained: compute_seq_hash_for_block(&local),
            keys,
        }
    }

    /// Generation `t` of every session.
    pub fn all(t: u64) -> Vec<Self> {
        let session = |s| Self::new((0..CHUNKS).map(|i| key(t, s, i)).collect());
        (0..SESSIONS).map(session).collect()
    }

    /// Makes sessions those of generation `t`, in the memory they have.
    pub fn renew(sessions: &mut [Self], t: u64) {
        for (s, session) in (0..).zip(sessions) {
            let mut keys = std::mem::take(&mut session.keys);
            keys.clear();
            keys.extend((0..CHUNKS).map(|i| key(t, s, i)));
            *session = Self::new(keys);
        }
    }

    /// Every session's shared prefix, then chunks that nobody holds.
    pub fn prefixes() -> Vec<Self> {
        let chunk = |s, i| {
            if i < SHARED {
                key(0, s, i)
            } else {
                unknown(s, i)
            }
        };
        let session = |s| Self::new((0..CHUNKS).map(|i| chunk(s, i)).collect());
        (0..SESSIONS).map(session).collect()
    }

    /// Chains that nobody holds a chunk of.
    pub fn misses() -> Vec<Self> {
        let session = |s| Self::new((0..CHUNKS).map(|i| unknown(s, i)).collect());
        (0..SESSIONS).map(session).collect()
    }
}
