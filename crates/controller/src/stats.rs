//! What is shown: workers, instances, totals. Pure reads; totals take no worker's lock.

use kvatlas_protocol::{InstanceId, Location, SeqNum, Timestamp, WorkerId, WorkerKey};

use crate::controller::Controller;
use crate::full_sync::schedule::{SyncReason, SyncState};
use crate::registry::worker::{Incomplete, Worker, WorkerAddress};

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
    /// Number of its registration or of its last change of address.
    pub epoch: u64,
    /// Keys over all visible locations.
    pub key_count: u64,
    /// A sync of whatever it syncs by default is wanted: why, and since when.
    pub sync_wanted: Option<(SyncReason, Timestamp)>,
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
    /// Last sequence number seen since registration or the last full sync.
    pub last_seq: Option<SeqNum>,
    /// Gaps counted since registration.
    pub gaps: u64,
    /// Full-sync state.
    pub sync: SyncState,
    /// A limit keeps some of its keys out.
    pub incomplete: Option<Incomplete>,
    /// When its numbers or a sync last proved its keys, after a restore or a sync.
    pub proved_at: Option<Timestamp>,
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
    /// Most it may have; 0 for no limit.
    pub index_limit_bytes: usize,
    /// Sequence gaps since start.
    pub gaps: u64,
    /// Workers with a session running.
    pub workers_syncing: usize,
    /// Workers whose last session completed.
    pub workers_completed: usize,
    /// Workers some of whose keys a limit keeps out.
    pub workers_incomplete: usize,
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
    /// Pairs of dead holders still to be freed; 0: nothing to do.
    pub remaining: u64,
}

impl Controller {
    /// All workers, in registration order.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.registry
            .workers()
            .iter()
            .map(|w| self.info(w))
            .collect()
    }

    /// The workers of one instance by rank; empty if unknown.
    pub fn workers_of(&self, instance: &str) -> Vec<WorkerInfo> {
        let workers = self.registry.workers_of(instance);
        workers.iter().map(|w| self.info(w)).collect()
    }

    /// One worker.
    pub fn worker(&self, worker: &WorkerKey) -> Option<WorkerInfo> {
        self.worker_by_rank(worker.instance.as_str(), worker.worker)
    }

    /// One worker, by the parts of its key.
    pub fn worker_by_rank(&self, instance: &str, worker: WorkerId) -> Option<WorkerInfo> {
        let worker = self.registry.find(instance, worker)?;
        Some(self.info(&worker))
    }

    /// Instances that have a worker on `ip`, in registration order.
    pub fn instances_on(&self, ip: &str) -> Vec<InstanceId> {
        let is_there = |worker: &std::sync::Arc<Worker>| worker.address.lock().0.ip == ip;
        self.registry
            .instances()
            .into_iter()
            .filter(|(_, workers)| workers.iter().any(is_there))
            .map(|(id, _)| id)
            .collect()
    }

    /// Instances in registration order with keys and workers each.
    pub fn instances(&self) -> Vec<(InstanceId, u64, usize)> {
        let (fleet, mut keys) = (self.registry.fleet(), Vec::new());
        keys.resize(fleet.n_instances(), 0);
        for facts in fleet.holders() {
            keys[facts.instance as usize] += self.index.count(facts.id);
        }
        self.registry
            .instances()
            .into_iter()
            .map(|(id, workers)| {
                let ordinal = workers.first().map_or(0, |worker| worker.instance);
                let n_keys = keys.get(ordinal as usize).copied().unwrap_or(0);
                (id, n_keys, workers.len())
            })
            .collect()
    }

    /// Totals over everything.
    pub fn totals(&self) -> Totals {
        let (instances, workers) = self.registry.sizes();
        let mut totals = Totals {
            instances,
            workers,
            index_bytes: self.index.memory_bytes(),
            index_limit_bytes: self.settings.max_index_bytes.unwrap_or(0),
            gaps: self.gaps(),
            ..Totals::default()
        };
        for facts in self.registry.fleet().holders() {
            totals.keys += self.index.count(facts.id);
        }
        let mut ready = 0_usize;
        self.registry.for_each(|worker| {
            let readiness = worker.readiness();
            ready += usize::from(readiness.ready);
            totals.workers_syncing += usize::from(readiness.syncing);
            totals.workers_completed += usize::from(readiness.completed);
            totals.workers_incomplete += usize::from(readiness.incomplete);
            totals.missing_batches += readiness.missing_batches;
        });
        if workers > 0 {
            totals.sync_progress = ready as f64 / workers as f64;
        }
        totals
    }

    /// Frees up to about `budget` index slots of dead holders.
    pub fn sweep(&self, budget: usize) -> SweepProgress {
        let step = self.index.sweep_step(budget);
        SweepProgress {
            dead_holders: step.holders,
            freed: step.removed,
            remaining: step.remaining,
        }
    }

    fn info(&self, worker: &Worker) -> WorkerInfo {
        let (address, epoch) = worker.address.lock().clone();
        let state = worker.state.lock();
        let locations: Vec<_> = state
            .locations
            .iter()
            .map(|known| LocationInfo {
                location: known.name.clone(),
                key_count: known.holder.map_or(0, |holder| self.index.count(holder)),
                last_seq: known.sequence.last(),
                gaps: known.sequence.gaps(),
                sync: known.sync_state(),
                incomplete: known.incomplete,
                proved_at: known.proved_at,
            })
            .collect();
        let sync_wanted = state.default_want.as_ref().map(|w| (w.reason, w.since));
        drop(state);
        WorkerInfo {
            key: worker.key.clone(),
            address,
            registered_at: worker.registered_at,
            last_heartbeat: worker.last_heartbeat().unwrap_or(worker.registered_at),
            heartbeat_seen: worker.last_heartbeat().is_some(),
            last_seen: worker.last_seen(),
            epoch,
            key_count: locations.iter().map(|location| location.key_count).sum(),
            sync_wanted,
            locations,
        }
    }
}
