//! Workload KVIDX-1 on Dynamo's indexes and on ours.
//!
//! One process is one trial of one subject: `kvidx trial <subject> <case>` prints its samples as JSON
//! lines, `kvidx list` the subjects and cases there are. `kvatlas bench --peers` repeats and summarizes.
//! `kvidx-memory` is the same program under an allocator that counts, for the case `memory`.
//!
//! Every trial checks the workload's checksum and its distinct pairs before it reports a number.

pub mod clock;
pub mod dynamo;
#[path = "../../../crates/controller/benches/index/kvidx.rs"]
#[allow(
    clippy::should_implement_trait,
    reason = "shared with the index's own benches"
)]
pub mod kvidx;
pub mod ours;
pub mod program;
pub mod session;
pub mod subject;
pub mod trial;
