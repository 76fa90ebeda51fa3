//! The controller: everything the fronts may ask or report, in one place.
//!
//! Methods named `handle_*` take what happened and change state; plain verbs only read. Every
//! method takes `&self`, returns quickly, never awaits, logs, or reads a clock: time is the
//! argument `now`. Lock order: registry, then one worker, then the index.
//!
//! Who comes and goes is here; the other methods stand in the rooms they belong to: batches in
//! `ingest.rs`, full sync in `full_sync/handle.rs`, questions in `lookup.rs`, `scheme.rs` and
//! `stats.rs`, silence in `expiry.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

use kvatlas_protocol::{Timestamp, WorkerKey};

use crate::error::RegisterError;
use crate::full_sync::schedule::{Places, Want};
use crate::index::Index;
use crate::memory::Memory;
use crate::registry::worker::WorkerState;
use crate::registry::{Entry, IfKnown, Registry};
use crate::scheme::Schemes;

pub use crate::full_sync::schedule::{FullSyncRequest, SyncReason, SyncState};
pub use crate::full_sync::{SyncStart, SyncStatus};
pub use crate::ingest::BatchOutcome;
pub use crate::lookup::{InstanceMatch, PeerMatch, RankRun};
pub use crate::registry::worker::{Incomplete, Limit, WorkerAddress};
pub use crate::settings::Settings;
pub use crate::stats::{LocationInfo, SweepProgress, Totals, WorkerInfo};

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
    /// The worker was known under another address, which is now replaced (with a new epoch).
    pub readdressed: bool,
    /// Full syncs the worker is asked for, one per location (`None`: all it has).
    pub full_sync: Vec<FullSyncRequest>,
}

/// The state of one controller.
pub struct Controller {
    pub(crate) settings: Settings,
    pub(crate) registry: Registry,
    pub(crate) index: Index,
    pub(crate) memory: Memory,
    pub(crate) places: Places,
    pub(crate) schemes: Schemes,
    /// Sequence gaps since start, of workers that are gone too.
    gaps: AtomicU64,
}

impl Controller {
    /// An empty controller.
    pub fn new(settings: Settings) -> Self {
        Self {
            registry: Registry::new(settings.max_instances, settings.max_workers),
            index: Index::new(settings.hash_seed),
            memory: Memory::new(settings.max_index_bytes),
            places: Places::new(settings.full_sync_parallel),
            schemes: Schemes::new(settings.schemes.clone()),
            gaps: AtomicU64::new(0),
            settings,
        }
    }

    /// A RegisterMsg: a new worker, or a known one that restarted (its keys, sequence numbers and
    /// sync state are dropped; when this returns no lookup sees the old keys).
    pub fn handle_register(
        &self,
        worker: WorkerKey,
        address: WorkerAddress,
        now: Timestamp,
    ) -> Result<Registered, RegisterError> {
        let entry = self.registry.register(
            worker,
            address,
            WorkerState::default(),
            IfKnown::Replace,
            &self.index,
            now,
        )?;
        if let Some(old) = &entry.replaced {
            self.places.release(old.serial);
            self.schemes.forget(&old.key.instance);
        }
        Ok(Registered {
            replaced: entry.replaced.is_some(),
            epoch: entry.worker.serial,
        })
    }

    /// A DeRegisterMsg; whether the worker was known. An instance left empty goes with it.
    pub fn handle_deregister(&self, worker: &WorkerKey, _now: Timestamp) -> bool {
        self.remove(worker, None)
    }

    /// A HeartbeatMsg. An unknown worker is registered and asked for a full sync.
    pub fn handle_heartbeat(
        &self,
        key: WorkerKey,
        address: WorkerAddress,
        now: Timestamp,
    ) -> Result<HeartbeatReply, RegisterError> {
        let known = self.registry.find(key.instance.as_str(), key.worker);
        let (worker, registered) = match known {
            Some(worker) => (worker, false),
            None => {
                let entry = self.enroll(key, address.clone(), now)?;
                (entry.worker, entry.is_new)
            }
        };
        worker.heartbeat(now);
        let readdressed = !registered && self.registry.readdress(&worker, address);
        let mut full_sync = Vec::new();
        if worker.needs_attention() {
            let mut state = worker.state.lock();
            if !state.gone {
                full_sync = self.requests(&worker, &mut state, now);
            }
        }
        Ok(HeartbeatReply {
            registered,
            readdressed,
            full_sync,
        })
    }

    /// Registers a worker that is known only by its heartbeat: what it holds is to be asked for.
    pub(crate) fn enroll(
        &self,
        key: WorkerKey,
        address: WorkerAddress,
        now: Timestamp,
    ) -> Result<Entry, RegisterError> {
        let want = Want::new(SyncReason::WorkerReRegistered, now, Default::default());
        let state = WorkerState {
            default_want: Some(want),
            // It registered with an earlier process, or was taken for gone.
            restored: Some(now),
            ..WorkerState::default()
        };
        let known = IfKnown::Keep;
        self.registry
            .register(key, address, state, known, &self.index, now)
    }

    /// Any other message of a worker: a sign of life.
    pub fn handle_sign_of_life(&self, worker: &WorkerKey, now: Timestamp) {
        if let Some(worker) = self.registry.find(worker.instance.as_str(), worker.worker) {
            worker.seen(now);
        }
    }

    /// Removes a worker (with `serial`, only that registration of it); whether it was there.
    pub(crate) fn remove(&self, key: &WorkerKey, serial: Option<u64>) -> bool {
        let Some(worker) = self.registry.remove(key, serial, &self.index) else {
            return false;
        };
        self.places.release(worker.serial);
        if !self.registry.has_instance(key.instance.as_str()) {
            self.schemes.forget(&key.instance);
        }
        true
    }

    pub(crate) fn count_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// Panics if registry, facts and index disagree. For tests, with no call in flight.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        let fleet = self.registry.fleet();
        fleet.check_invariants();
        let mut visible = 0;
        let mut n_reporting = std::collections::HashMap::new();
        for worker in self.registry.workers() {
            let state = worker.state.lock();
            assert!(!state.gone, "a registered worker is not gone");
            let mut reports = false;
            for known in &state.locations {
                if let Some(holder) = known.holder {
                    visible += 1;
                    reports = true;
                    let facts = fleet.holder(holder).expect("a visible set has facts");
                    assert_eq!((facts.instance, facts.rank), (worker.instance, worker.rank));
                    assert_eq!(fleet.location(holder), Some(&known.name));
                }
                if let Some(hidden) = known.hidden() {
                    assert!(fleet.holder(hidden).is_none(), "a hidden set is hidden");
                }
            }
            *n_reporting.entry(worker.instance).or_insert(0) += u32::from(reports);
        }
        assert_eq!(fleet.holders().count(), visible, "facts without a worker");
        for (ordinal, n) in n_reporting {
            let instance = fleet.instance(ordinal).expect("an instance has facts");
            assert_eq!(instance.n_reporting, n);
        }
    }
}
