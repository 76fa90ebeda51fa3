//! What an operator may set about the controller's decisions.

use std::time::Duration;

use crate::scheme::SchemeChoice;

/// Limits and times; `Settings::default()` is what the server starts with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Silence after which a worker is removed (`lmcache_worker_timeout`, 300 s).
    pub worker_timeout: Duration,
    /// Also expire workers that never sent a heartbeat (`expire_without_heartbeat`, false).
    pub expire_without_heartbeat: bool,
    /// Share of workers that must be ready before a freeze is lifted (0.8).
    pub full_sync_completion_threshold: f64,
    /// Silence after which a running full sync fails (300 s).
    pub full_sync_timeout: Duration,
    /// Workers asked to sync at the same time (32).
    pub full_sync_parallel: usize,
    /// Over how long first questions after a restart, and repeated ones after a failure, are
    /// spread (5 s). Which worker comes when follows from its name.
    pub full_sync_jitter: Duration,
    /// Least time between two full syncs asked of one location because of sequence gaps (60 s).
    pub gap_sync_interval: Duration,
    /// Most instances that may be registered.
    pub max_instances: usize,
    /// Most workers that may be registered.
    pub max_workers: usize,
    /// Most locations one worker may name (16).
    pub max_locations_per_worker: usize,
    /// Most keys one worker may hold over all its locations, give or take one message.
    pub max_keys_per_worker: u64,
    /// Most bytes of the index; `None` for as many as there are.
    pub max_index_bytes: Option<usize>,
    /// How prompts are hashed, or among which schemes to find out.
    pub schemes: SchemeChoice,
    /// Seed of the index's keyed hash: random per process, never from the network.
    pub hash_seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            worker_timeout: Duration::from_secs(300),
            expire_without_heartbeat: false,
            full_sync_completion_threshold: 0.8,
            full_sync_timeout: Duration::from_secs(300),
            full_sync_parallel: 32,
            full_sync_jitter: Duration::from_secs(5),
            gap_sync_interval: Duration::from_secs(60),
            max_instances: 100_000,
            max_workers: 100_000,
            max_locations_per_worker: 16,
            max_keys_per_worker: 1 << 32,
            max_index_bytes: None,
            schemes: SchemeChoice::default(),
            hash_seed: 0,
        }
    }
}
