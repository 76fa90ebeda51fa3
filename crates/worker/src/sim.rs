//! A serving engine without a GPU: prompts come in, chunks are kept, evicted, pinned and moved, and
//! everything is reported through the library beside it as an engine would.
//!
//! ```text
//! Prompts (seeded) ─tokens─> chunk hashes ─> Instance gate ─> every rank's Tiers ─changes─> Reporter
//!                                               ^
//!               commands, freeze, chunks from peers (each waits for the request under way)
//! ```
//! What is real: the protocol, chunk hashes, capacities, LRU, pins, and chunks going to a peer over
//! a socket, by a move or because the peer misses them. What is not: tensors (a chunk is its hash and
//! length), and time (serving takes none).
//!
//! Keys are those of full chunks, as LMCache stores them (`save_unfull_chunk` off).
//! [`prompts`] and [`tiers`] decide and are deterministic; [`engine`], [`peer`] and [`fleet`] talk.

pub mod engine;
mod fetch;
pub mod fleet;
pub mod peer;
pub mod prompts;
mod random;
pub mod tiers;

pub use engine::{Instance, SimEngine};
pub use fetch::PeerTraffic;
pub use fleet::{
    Fleet, FleetConfig, SimError, SimInstance, Traffic, TrafficSettings, WorkerConfig, run_worker,
};
pub use prompts::{PromptSettings, Prompts};
pub use tiers::{CPU, Capacity, DISK, Tiers};
