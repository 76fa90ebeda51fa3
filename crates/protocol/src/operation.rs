//! One admit or evict of a worker's stream, as the hot path carries it.

use crate::id::{ChunkHash, SeqNum};

/// Whether a chunk came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// The worker now holds the chunk (`op_type` "admit").
    Admit,
    /// The worker no longer holds it (`op_type` "evict").
    Evict,
}

/// One admit or evict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Came or went.
    pub kind: OperationKind,
    /// Which chunk.
    pub hash: ChunkHash,
    /// Position in the stream of that worker and location.
    pub seq: SeqNum,
}
