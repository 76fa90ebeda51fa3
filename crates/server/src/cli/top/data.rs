//! The controller's answers, as far as they are shown. What is missing is nothing: another version of
//! the controller may say less.

use serde::{Deserialize, Serialize};

/// One second of GET /live.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Sample {
    /// Seconds since 1970.
    pub at: f64,
    pub instances: u64,
    pub workers: u64,
    pub keys: u64,
    pub index_bytes: u64,
    pub gaps: u64,
    pub workers_syncing: u64,
    pub commands_running: u64,
    pub operations: u64,
    pub bad_messages: u64,
    pub lookups: Lookups,
    pub peer_lookups: Lookups,
}

/// Running totals of lookups.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Lookups {
    pub hits: u64,
    pub misses: u64,
    /// At or below each bound, then all.
    pub latency: Vec<u64>,
}

/// The beginning of GET /live.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct History {
    pub bounds: Vec<f64>,
    pub samples: Vec<Sample>,
}

/// GET /controller/key-stats.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Stats {
    pub instances: Vec<Instance>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Instance {
    pub instance_id: String,
    pub key_count: u64,
    pub worker_count: u64,
}

/// GET /fleet: a page of workers.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Fleet {
    pub total_count: usize,
    pub matching_count: usize,
    pub offset: usize,
    pub workers: Vec<Worker>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Worker {
    pub instance_id: String,
    pub worker_id: i64,
    pub ip: String,
    pub port: i64,
    pub heartbeat_seen: bool,
    pub silent_s: f64,
    pub key_count: u64,
    pub gaps: u64,
    pub locations: Vec<Location>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Location {
    pub location: String,
    pub key_count: u64,
    pub sync: String,
    pub incomplete: Option<Incomplete>,
}

/// Which limit keeps keys out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Incomplete {
    pub limit: String,
}

/// GET /sync.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Sync {
    pub progress: f64,
    pub workers_syncing: u64,
    pub workers_incomplete: u64,
    pub missing_batches: u64,
    pub sequence_gaps: u64,
    pub persistence: Persistence,
    pub workers: Vec<SyncWorker>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Persistence {
    pub state: String,
    pub reason: Option<String>,
    pub directory: Option<String>,
    pub journal_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct SyncWorker {
    pub instance_id: String,
    pub worker_id: i64,
    pub key_count: u64,
    pub sync_wanted: Option<SyncWanted>,
    pub locations: Vec<SyncLocation>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct SyncWanted {
    pub reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct SyncLocation {
    pub location: String,
    pub state: String,
    pub reason: Option<String>,
    pub batches_received: Option<u64>,
    pub batches_announced: Option<u64>,
    pub key_count: u64,
    pub sequence_gaps: u64,
    pub incomplete: Option<Incomplete>,
}
