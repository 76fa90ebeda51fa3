//! `kvatlas bench`: drives any LMCache-compatible controller over its real sockets and says what came out.
//!
//! ```text
//! args -> run -- controllers: trial (fresh process) -> cases -> samples --> results.jsonl
//!             -- peers:       kvidx trial (fresh process)   -> samples --/      |
//! results.jsonl (one or more) -> summary (median, min, max) -> table, comparison, document, charts
//! ```
//! **Invariants.** What is sent is encoded before the clock starts, the drain counts, and every case
//! compares what the controller answered with what it was told; a trial that fails that gives no number.
//!
//! Not here: the workload KVIDX-1, which measures an index inside one process (`tools/peers` and the
//! controller's own benches).

pub mod args;
mod cases;
mod chart;
mod compare;
mod digest;
mod document;
pub mod error;
mod http;
mod launch;
mod machine;
mod peers;
mod process;
mod progress;
pub mod record;
mod run;
mod sockets;
mod summary;
mod table;
mod traffic;

pub use args::Args;
pub use error::BenchError;
pub use run::run;
