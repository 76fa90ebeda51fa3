//! What an LMCache worker and its cache controller must agree on.
//!
//! Ids and units, the 51 messages with their two encodings, and the chunk-hash algorithms.
//! Nothing here touches a socket, a clock, a lock or a log.

pub mod chunk_hash;
pub mod codec;
pub mod id;
pub mod message;
pub mod operation;

pub use chunk_hash::{Chain, HashAlgorithm, HashScheme, HashSeed, Root};
pub use id::{
    BatchId, ChunkHash, InstanceId, Location, SeqNum, SyncId, Timestamp, TokenCount, WorkerId,
    WorkerKey,
};
pub use message::{Message, WireKey};
pub use operation::{Operation, OperationKind};
