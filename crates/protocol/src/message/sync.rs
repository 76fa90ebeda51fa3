//! The full-sync session: Start and Status are asked, Batch and End are pushed.
//!
//! Fields and their order mirror `lmcache/v1/cache_controller/message.py`. What the messages mean
//! to the state machine stands with the controller's full sync, not here.

use super::key::WireKey;
use crate::codec::wire::fields;

/// A worker asks to begin a full sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullSyncStartMsg {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Storage backend name.
    pub location: String,
    /// Full-sync session.
    pub sync_id: String,
    /// Keys the worker is about to send.
    pub total_keys: i64,
    /// Batches the worker is about to send.
    pub batch_count: i64,
}

fields!(FullSyncStartMsg {
    instance_id,
    worker_id,
    location,
    sync_id,
    total_keys,
    batch_count
});

/// Whether the full sync may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullSyncStartRetMsg {
    /// Full-sync session.
    pub sync_id: String,
    /// Whether the session may begin.
    pub accepted: bool,
    /// Why it may not.
    pub error_msg: Option<String>,
}

fields!(FullSyncStartRetMsg { sync_id, accepted, error_msg = None });

/// Part of a worker's full set of keys (push).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullSyncBatchMsg {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Storage backend name.
    pub location: String,
    /// Full-sync session.
    pub sync_id: String,
    /// Number of this batch, from 0.
    pub batch_id: i64,
    /// Chunk hashes of this batch.
    pub keys: Vec<WireKey>,
}

fields!(FullSyncBatchMsg {
    instance_id,
    worker_id,
    location,
    sync_id,
    batch_id,
    keys
});

/// Every batch has been sent (push).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullSyncEndMsg {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Storage backend name.
    pub location: String,
    /// Full-sync session.
    pub sync_id: String,
    /// Keys sent in all batches, for verification.
    pub actual_total_keys: i64,
}

fields!(FullSyncEndMsg {
    instance_id,
    worker_id,
    location,
    sync_id,
    actual_total_keys
});

/// A worker asks how its full sync stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullSyncStatusMsg {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Full-sync session.
    pub sync_id: String,
}

fields!(FullSyncStatusMsg {
    instance_id,
    worker_id,
    sync_id
});

/// How the full sync stands.
#[derive(Clone, Debug, PartialEq)]
pub struct FullSyncStatusRetMsg {
    /// Full-sync session.
    pub sync_id: String,
    /// Whether this worker's session is complete.
    pub is_complete: bool,
    /// Share of the fleet that is in sync, 0 to 1.
    pub global_progress: f64,
    /// Whether the worker may take up normal reporting.
    pub can_exit_freeze: bool,
    /// Batches to send again.
    pub missing_batches: Vec<i64>,
}

fields!(FullSyncStatusRetMsg { sync_id, is_complete, global_progress, can_exit_freeze, missing_batches = Vec::new() });
