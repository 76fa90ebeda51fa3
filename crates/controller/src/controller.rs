//! The controller: everything the fronts may ask or report, in one place.
//!
//! Methods named `handle_*` take what happened and change state; plain verbs only read. Every
//! method takes `&self`, returns quickly, never awaits, logs, or reads a clock: time is the
//! argument `now`. Lock order: registry, then one worker, then the index.

use std::time::Duration;

use kvatlas_protocol::{
    BatchId, ChunkHash, InstanceId, Location, Operation, SeqNum, SyncId, Timestamp, WorkerId,
    WorkerKey,
};

use crate::error::{BatchError, RegisterError, SyncError};

/// What an operator may set about the controller's decisions.
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
    /// Least time between two full syncs asked of one worker because of sequence gaps (60 s).
    pub gap_sync_interval: Duration,
    /// Most instances that may be registered.
    pub max_instances: usize,
    /// Most workers that may be registered.
    pub max_workers: usize,
    /// Most locations one worker may name (16).
    pub max_locations_per_worker: usize,
    /// Most keys one worker may hold over all its locations.
    pub max_keys_per_worker: u64,
    /// Seed of the index's keyed hash: random per process, never from the network.
    pub hash_seed: u64,
}

/// Address and peer address of a worker, as it reported them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerAddress {
    /// Host or ip of the worker's command socket; IPv6 without brackets.
    pub ip: String,
    /// Port of the worker's command socket.
    pub port: i64,
    /// `host:port` where peers fetch chunks, when P2P is on.
    pub peer_url: Option<String>,
}

/// What a registration changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The worker was known: its keys, sequence and sync state were dropped (a restart).
    pub replaced: bool,
    /// Number of this registration, unique over the controller's life: command links opened for an
    /// older one are stale.
    pub epoch: u64,
}

/// What a heartbeat is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeartbeatReply {
    /// The worker was unknown and has been registered.
    pub registered: bool,
    /// Full syncs the worker is asked for, one per location (`None`: all it has).
    pub full_sync: Vec<FullSyncRequest>,
}

/// One full sync asked of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullSyncRequest {
    /// Why.
    pub reason: SyncReason,
    /// Which location; `None` asks for whatever the worker syncs by default.
    pub location: Option<Location>,
}

/// Why a worker is asked to sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyncReason {
    /// The controller restarted and cannot prove the worker's keys.
    ControllerRestart,
    /// A heartbeat came from a worker that was not registered.
    WorkerReRegistered,
    /// The last sync failed or timed out.
    SyncFailedRetry,
    /// Operations were lost on the way.
    SequenceGap,
}

/// What a batch of operations did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchOutcome {
    /// Keys that became held.
    pub admitted: u64,
    /// Keys that ceased to be held.
    pub evicted: u64,
    /// Sequence gaps met.
    pub gaps: u64,
}

/// Start of a full sync, as reported.
#[derive(Debug, Clone)]
pub struct SyncStart {
    /// Worker that starts.
    pub worker: WorkerKey,
    /// Location it will list.
    pub location: Location,
    /// Its name for the session.
    pub sync_id: SyncId,
    /// Keys it will list.
    pub total_keys: i64,
    /// Batches it will send.
    pub batch_count: i64,
}

/// Answer to a status question.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncStatus {
    /// All batches of that session are in and the change-over is done.
    pub is_complete: bool,
    /// Share of registered workers that are ready, 0 to 1.
    pub global_progress: f64,
    /// The worker may leave its freeze.
    pub can_exit_freeze: bool,
    /// Batches not yet received, ascending.
    pub missing_batches: Vec<BatchId>,
}

/// One instance credited by a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceMatch {
    /// Instance.
    pub instance: InstanceId,
    /// Where its last credited chunk is.
    pub location: Location,
    /// Chunks of the unbroken run from chunk 0.
    pub chunks: usize,
}

/// The best peer for a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerMatch {
    /// Instance that holds the run.
    pub instance: InstanceId,
    /// Where its last credited chunk is.
    pub location: Location,
    /// Chunks of the unbroken run from the first hash.
    pub chunks: usize,
    /// Where to fetch them.
    pub peer_url: String,
}

/// One worker as shown to people and schedulers.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerInfo {
    /// Instance and rank.
    pub key: WorkerKey,
    /// Its addresses.
    pub address: WorkerAddress,
    /// When it registered.
    pub registered_at: Timestamp,
    /// Last heartbeat; the registration if it never sent one (as upstream shows it).
    pub last_heartbeat: Timestamp,
    /// Whether it ever sent a heartbeat.
    pub heartbeat_seen: bool,
    /// Last message of any kind.
    pub last_seen: Timestamp,
    /// Number of its registration.
    pub epoch: u64,
    /// Keys over all visible locations.
    pub key_count: u64,
    /// Keys and sequence per location.
    pub locations: Vec<LocationInfo>,
}

/// What one worker holds in one location.
#[derive(Debug, Clone, PartialEq)]
pub struct LocationInfo {
    /// Location.
    pub location: Location,
    /// Keys visible to lookups.
    pub key_count: u64,
    /// Last sequence number seen.
    pub last_seq: Option<SeqNum>,
    /// Gaps counted since registration.
    pub gaps: u64,
    /// Full-sync state.
    pub sync: SyncState,
}

/// Where one location of one worker stands in full sync.
#[derive(Debug, Clone, PartialEq)]
pub enum SyncState {
    /// Nothing asked, nothing running.
    Idle,
    /// Will be asked on heartbeats until it starts.
    Wanted {
        /// Why.
        reason: SyncReason,
        /// When it became wanted.
        since: Timestamp,
    },
    /// A session is running.
    Running {
        /// Session.
        sync_id: SyncId,
        /// Batches received.
        received: u64,
        /// Batches announced.
        announced: u64,
        /// When it started.
        since: Timestamp,
    },
    /// The last session completed.
    Completed {
        /// Session.
        sync_id: SyncId,
        /// When.
        at: Timestamp,
    },
}

/// Totals for metrics and `/controller/key-stats`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// Registered instances.
    pub instances: usize,
    /// Registered workers.
    pub workers: usize,
    /// Visible (chunk, holder) pairs: upstream's `kv_pool_keys_count`.
    pub keys: u64,
    /// Bytes of the index.
    pub index_bytes: usize,
    /// Sequence gaps since start.
    pub gaps: u64,
    /// Workers with a session running.
    pub workers_syncing: usize,
    /// Workers whose last session completed.
    pub workers_completed: usize,
    /// Share of workers that are ready, 0 to 1; 0 with no workers (as upstream).
    pub sync_progress: f64,
    /// Batches missing over all running sessions.
    pub missing_batches: u64,
}

/// Progress of the background sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepProgress {
    /// Dead holders whose slots are not freed yet.
    pub dead_holders: usize,
    /// Pairs freed by this step.
    pub freed: u64,
}

/// The state of one controller.
pub struct Controller {
    #[expect(dead_code, reason = "filled in with the registry")]
    settings: Settings,
}

#[expect(
    unused_variables,
    clippy::todo,
    reason = "contract first, bodies follow"
)]
impl Controller {
    /// An empty controller.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// A RegisterMsg: a new worker, or a known one that restarted (its keys, sequence numbers and
    /// sync state are dropped; when this returns no lookup sees the old keys).
    pub fn handle_register(
        &self,
        worker: WorkerKey,
        address: WorkerAddress,
        now: Timestamp,
    ) -> Result<Registered, RegisterError> {
        todo!()
    }

    /// A DeRegisterMsg; whether the worker was known. An instance left empty goes with it.
    pub fn handle_deregister(&self, worker: &WorkerKey, now: Timestamp) -> bool {
        todo!()
    }

    /// A HeartbeatMsg. An unknown worker is registered and asked for a full sync.
    pub fn handle_heartbeat(
        &self,
        worker: WorkerKey,
        address: WorkerAddress,
        now: Timestamp,
    ) -> Result<HeartbeatReply, RegisterError> {
        todo!()
    }

    /// Operations of one worker and location, in order.
    pub fn apply_batch(
        &self,
        instance: &str,
        worker: WorkerId,
        location: &str,
        operations: &[Operation],
        now: Timestamp,
    ) -> Result<BatchOutcome, BatchError> {
        todo!()
    }

    /// FullSyncStart.
    pub fn handle_sync_start(&self, start: SyncStart, now: Timestamp) -> Result<(), SyncError> {
        todo!()
    }

    /// FullSyncBatch; `Ok(false)` for a batch that was in already.
    pub fn handle_sync_batch(
        &self,
        instance: &str,
        worker: WorkerId,
        location: &str,
        sync_id: &str,
        batch: BatchId,
        keys: &[ChunkHash],
        now: Timestamp,
    ) -> Result<bool, SyncError> {
        todo!()
    }

    /// FullSyncEnd; whether the sync is complete with it.
    pub fn handle_sync_end(
        &self,
        worker: &WorkerKey,
        location: &str,
        sync_id: &str,
        actual_total_keys: i64,
        now: Timestamp,
    ) -> Result<bool, SyncError> {
        todo!()
    }

    /// FullSyncStatus: also a sign of life of the worker.
    pub fn handle_sync_status(
        &self,
        worker: &WorkerKey,
        sync_id: &str,
        now: Timestamp,
    ) -> SyncStatus {
        todo!()
    }

    /// Any other message of a worker: a sign of life.
    pub fn handle_sign_of_life(&self, worker: &WorkerKey, now: Timestamp) {
        todo!()
    }

    /// Every instance's own unbroken run from chunk 0, longest first, ties in registration order.
    /// `hashes` is pulled only as far as somebody holds the prefix.
    pub fn lookup(&self, hashes: impl Iterator<Item = ChunkHash>) -> Vec<InstanceMatch> {
        todo!()
    }

    /// The best peers of `asker` for `hashes`, best first.
    pub fn peer_lookup(&self, hashes: &[ChunkHash], asker: &WorkerKey) -> Vec<PeerMatch> {
        todo!()
    }

    /// Removes workers silent for longer than the timeout and fails idle syncs; who was removed.
    pub fn expire(&self, now: Timestamp) -> Vec<WorkerKey> {
        todo!()
    }

    /// Frees up to `budget` index slots of dead holders.
    pub fn sweep(&self, budget: usize) -> SweepProgress {
        todo!()
    }

    /// All workers, in registration order.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        todo!()
    }

    /// The workers of one instance by rank; empty if unknown.
    pub fn workers_of(&self, instance: &str) -> Vec<WorkerInfo> {
        todo!()
    }

    /// One worker.
    pub fn worker(&self, worker: &WorkerKey) -> Option<WorkerInfo> {
        todo!()
    }

    /// Instances that have a worker on `ip`, in registration order.
    pub fn instances_on(&self, ip: &str) -> Vec<InstanceId> {
        todo!()
    }

    /// Instances in registration order with keys and workers each.
    pub fn instances(&self) -> Vec<(InstanceId, u64, usize)> {
        todo!()
    }

    /// Totals over everything.
    pub fn totals(&self) -> Totals {
        todo!()
    }

    /// Whether any live holder has `hash`, with the instances that do (for scheme discovery).
    pub fn instances_holding(&self, hash: ChunkHash) -> Vec<InstanceId> {
        todo!()
    }
}
