//! What a snapshot keeps of the registry, and how it comes back.
//!
//! Plain values out, plain values in; their bytes are in `snapshot.rs`, files are the server's. Keys
//! travel apart from this: [`Controller::export_keys`] walks the index by shard,
//! [`Controller::restore_keys`] fills it.
//!
//! ```text
//! export: journal rotated -> export() -> export_keys()...   while batches go on
//! restore: restore() each -> restore_keys()... -> Replay of the journals -> resume()
//! ```
//! Each worker is exported under its lock together with the journal's position, so that a replay
//! goes on exactly where its record ends. Keys are read later and may contain more: operations
//! applied again in order lead to the same sets. A set that a departure or a change-over killed
//! meanwhile may be exported in part, or its number may by then mean another set: the replay drops it.
//!
//! [`Controller::resume`] turns what was into what is to be proved: every location answers lookups at
//! once, the next batch that continues its numbers proves it exact, and a gap, or silence past the
//! grace time, asks for a sync. A session that was running has failed: what the worker sent while
//! nobody listened is unknown.

use std::time::Duration;

use kvatlas_protocol::{
    BatchId, ChunkHash, Location, OperationKind, SeqNum, SyncId, Timestamp, WorkerKey,
};

use crate::controller::Controller;
use crate::error::RestoreError;
use crate::full_sync::Session;
use crate::full_sync::schedule::{SyncReason, Want, jitter};
use crate::full_sync::window::Window;
use crate::index::{HolderId, HolderMeta};
use crate::journal::Journal;
use crate::registry::IfKnown;
use crate::registry::worker::{
    Incomplete, Limit, LocationState, Sync, Worker, WorkerAddress, WorkerState,
};
use crate::sequence::Sequence;

/// Bytes of a table per key, at least: what is reserved stays below the limit.
const RESERVED: usize = 16;

/// One worker as a snapshot keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRecord {
    /// Instance and rank.
    pub key: WorkerKey,
    /// Its addresses.
    pub address: WorkerAddress,
    /// When it registered.
    pub registered_at: Timestamp,
    /// Last heartbeat, if it ever sent one.
    pub last_heartbeat: Option<Timestamp>,
    /// A sync of whatever it syncs by default is wanted; and whether it was asked for.
    pub sync_wanted: Option<(SyncReason, bool)>,
    /// When it was last restored, if it registered with an earlier process.
    pub restored_at: Option<Timestamp>,
    /// The journal's position that this record is as of.
    pub position: u64,
    /// In the order in which it first named them.
    pub locations: Vec<LocationRecord>,
}

/// One location of a worker as a snapshot keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct LocationRecord {
    /// Location.
    pub location: Location,
    /// The set that lookups see, as [`Controller::export_keys`] names it; `None` before a first key.
    pub holder: Option<HolderId>,
    /// Where its numbers stand.
    pub sequence: SequenceRecord,
    /// Where it stands in full sync.
    pub sync: SyncRecord,
    /// What it did since it was asked to sync.
    pub window: Option<WindowRecord>,
    /// Last session that completed, and when.
    pub completed: Option<(SyncId, Timestamp)>,
    /// When a sync was last asked because of a gap.
    pub last_gap_sync: Option<Timestamp>,
    /// Sessions in a row that failed.
    pub failures: u32,
    /// A limit keeps some of its keys out.
    pub incomplete: Option<Incomplete>,
    /// When its numbers or a sync last proved its keys.
    pub proved_at: Option<Timestamp>,
}

/// Where a stream of numbers stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SequenceRecord {
    /// Last number applied.
    pub last: Option<SeqNum>,
    /// The next number is the base, whatever it is.
    pub any_next: bool,
    /// How far the stream was before it went back.
    pub reached: Option<SeqNum>,
    /// Gaps counted since registration.
    pub gaps: u64,
}

/// Where a location stands in full sync.
#[derive(Debug, Clone, PartialEq)]
pub enum SyncRecord {
    /// Its keys are what it reported.
    Idle,
    /// They were restored and are not proved yet.
    Unproved {
        /// When they were restored.
        since: Timestamp,
        /// When a sync will be asked for.
        until: Timestamp,
    },
    /// A sync is wanted.
    Wanted {
        /// Why.
        reason: SyncReason,
        /// Since when.
        since: Timestamp,
        /// It was asked for.
        asked: bool,
    },
    /// A session is running.
    Running(Box<SessionRecord>),
    /// A sync was wanted, and the worker cannot sync this location.
    Unrepairable {
        /// Why it was wanted.
        reason: SyncReason,
        /// When it was given up.
        since: Timestamp,
    },
}

/// A running session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRecord {
    /// Its name.
    pub sync_id: SyncId,
    /// When it started.
    pub since: Timestamp,
    /// Batches announced.
    pub announced: u64,
    /// Batches that are in.
    pub received: Vec<BatchId>,
    /// End came.
    pub ended: bool,
    /// The set it fills out of sight, if there were old keys.
    pub hidden: Option<HolderId>,
    /// What the worker evicted meanwhile.
    pub window: WindowRecord,
}

/// What a worker did around the moment it listed its keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WindowRecord {
    /// Some operation is missing here.
    pub doubtful: bool,
    /// The last operation on each key.
    pub last: Vec<(ChunkHash, OperationKind)>,
}

/// The sets a restored worker was given, in the order of its locations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredSets {
    /// The set that lookups see.
    pub visible: Vec<Option<HolderId>>,
    /// The set a running session fills.
    pub hidden: Vec<Option<HolderId>>,
}

impl Controller {
    /// What happened since the last snapshot.
    pub fn journal(&self) -> &Journal {
        self.registry.journal()
    }

    /// All workers in registration order. Each is consistent in itself.
    pub fn export(&self) -> Vec<WorkerRecord> {
        let workers = self.registry.workers();
        let records = workers.iter().filter_map(|worker| self.record(worker));
        records.collect()
    }

    fn record(&self, worker: &Worker) -> Option<WorkerRecord> {
        let state = worker.state.lock();
        if state.gone {
            return None;
        }
        let mut record = WorkerRecord {
            key: worker.key.clone(),
            // Below: what the position covers must be in it, later changes may be.
            address: WorkerAddress::default(),
            registered_at: worker.registered_at,
            last_heartbeat: worker.last_heartbeat(),
            sync_wanted: state.default_want.as_ref().map(|w| (w.reason, w.asked)),
            restored_at: state.restored,
            position: self.journal().position(),
            locations: state.locations.iter().map(export_location).collect(),
        };
        drop(state);
        record.address = worker.address.lock().0.clone();
        Some(record)
    }

    /// Calls `visit` with every key of one part of the hash space and its holders, sets that no
    /// record names among them, and returns where to go on; `None` at the end. Start from 0.
    pub fn export_keys(&self, from: u64, visit: impl FnMut(ChunkHash, &[HolderId])) -> Option<u64> {
        self.index.view().export(from, visit)
    }

    /// Registers a worker as a snapshot kept it, with empty sets.
    pub fn restore(&self, record: WorkerRecord) -> Result<RestoredSets, RestoreError> {
        let WorkerRecord {
            key,
            address,
            registered_at,
            last_heartbeat,
            sync_wanted,
            restored_at,
            position: _,
            locations,
        } = record;
        let mut state = WorkerState {
            default_want: sync_wanted.map(|(reason, asked)| Want {
                asked,
                ..Want::new(reason, registered_at, Duration::ZERO)
            }),
            restored: restored_at,
            ..WorkerState::default()
        };
        let mut sets = RestoredSets {
            visible: Vec::new(),
            hidden: Vec::new(),
        };
        let registered = locations
            .into_iter()
            .try_for_each(|record| {
                let known = self.restore_location(record)?;
                sets.visible.push(known.holder);
                sets.hidden.push(known.hidden());
                state.locations.push(known);
                Ok::<_, RestoreError>(())
            })
            .and_then(|()| {
                let registered = self.registry.register(
                    key,
                    address,
                    state,
                    IfKnown::Replace,
                    &self.index,
                    registered_at,
                );
                Ok(registered?)
            });
        match registered {
            Ok(entry) => {
                if let Some(at) = last_heartbeat {
                    entry.worker.heartbeat(at);
                }
                // Exported between its End and its change-over.
                for at in 0..sets.visible.len() {
                    self.complete(&entry.worker, at, registered_at);
                }
                Ok(sets)
            }
            Err(error) => {
                for holder in sets.visible.into_iter().chain(sets.hidden).flatten() {
                    self.index.retire(holder);
                }
                Err(error)
            }
        }
    }

    /// About so many keys will come.
    pub fn reserve(&self, keys: usize) {
        let limit = self.settings.max_index_bytes.unwrap_or(usize::MAX);
        self.index.reserve(keys.min(limit / RESERVED));
    }

    /// Once what was restored needs an eighth more than the index may have: forgets all keys of the
    /// workers that have most, until the rest fits, and says whose. The others stay whole; these are
    /// incomplete since `then`, and asked for everything once there is room.
    pub fn shed(&self, then: Timestamp) -> Vec<WorkerKey> {
        let mut shed = Vec::new();
        let Some(limit) = self.settings.max_index_bytes else {
            return shed;
        };
        if self.index.fill().used <= limit.saturating_add(limit / 8) {
            return shed;
        }
        let size = |worker: &Worker| {
            let holders = worker.state.lock().holders();
            let sizes = holders.into_iter().map(|holder| self.index.count(holder));
            sizes.sum::<u64>()
        };
        let workers = self.registry.workers();
        let mut workers: Vec<_> = workers.iter().map(|w| (size(w), w)).collect();
        workers.sort_unstable_by_key(|(size, worker)| (*size, worker.serial));
        loop {
            let fill = self.index.fill();
            // Keys that others hold too stay: what leaves may be less than its share.
            let over = fill.used.saturating_sub(limit) as u64;
            let share = over.saturating_mul(fill.pairs) / fill.used.max(1) as u64;
            let mut freed = 0;
            while over > 0
                && freed <= share
                && let Some((size, worker)) = workers.pop_if(|(size, _)| *size > 0)
            {
                self.forget_keys(worker, then);
                shed.push(worker.key.clone());
                freed += size;
            }
            while self.index.sweep_step(usize::MAX).remaining > 0 {}
            if freed == 0 {
                return shed;
            }
        }
    }

    /// Registers a restored worker anew, without keys.
    fn forget_keys(&self, worker: &Worker, then: Timestamp) {
        let Some(mut record) = self.record(worker) else {
            return;
        };
        for known in &mut record.locations {
            known.holder = None;
            known.sync = SyncRecord::Idle;
            known.window = None;
            known.incomplete = Some(Incomplete {
                since: then,
                limit: Limit::IndexBytes,
            });
        }
        // Its place is its own: no limit refuses it.
        let _ = self.restore(record);
    }

    /// Keys of a set that [`Self::restore`] returned.
    pub fn restore_keys(&self, holder: HolderId, keys: &[ChunkHash]) {
        self.index.admit(holder, keys);
    }

    /// A new process goes on with what was restored. Until `now + grace` workers may prove their keys
    /// by their numbers; then they are asked to sync.
    pub fn resume(&self, now: Timestamp, grace: Duration) {
        self.journal().resumed(now, grace);
        for worker in self.registry.workers() {
            worker.seen(now);
            let spread = jitter(&worker.key, self.settings.full_sync_jitter);
            let mut state = worker.state.lock();
            state.restored = Some(now);
            if let Some(want) = &mut state.default_want {
                *want = Want::new(want.reason, now, spread);
            }
            for known in &mut state.locations {
                known.sequence.expect_next();
                if let Some(window) = &mut known.window {
                    window.doubt();
                }
                let hidden = known.hidden();
                let sync = std::mem::replace(&mut known.sync, Sync::Idle);
                known.sync = match sync {
                    Sync::Idle | Sync::Unproved { .. }
                        if known.holder.is_none() && known.sequence.last().is_none() =>
                    {
                        Sync::Idle
                    }
                    Sync::Idle | Sync::Unproved { .. } => Sync::Unproved {
                        since: now,
                        until: now + grace + spread,
                    },
                    Sync::Wanted(_) | Sync::Running(_) => {
                        Sync::Wanted(Want::new(SyncReason::ControllerRestart, now, spread))
                    }
                    unrepairable @ Sync::Unrepairable { .. } => unrepairable,
                };
                if let Some(hidden) = hidden {
                    self.index.retire(hidden);
                }
            }
            self.places.release(worker.serial);
            worker.summarize(&state);
        }
    }

    /// A recorded change of address.
    pub(crate) fn readdress(&self, key: &WorkerKey, address: WorkerAddress) {
        if let Some(worker) = self.registry.find(key.instance.as_str(), key.worker) {
            self.registry.readdress(&worker, address);
        }
    }

    /// The session that runs in a location.
    pub(crate) fn running_sync(&self, key: &WorkerKey, location: &str) -> Option<SyncId> {
        let worker = self.registry.find(key.instance.as_str(), key.worker)?;
        let state = worker.state.lock();
        match &state.locations[state.position(location)?].sync {
            Sync::Running(session) => Some(session.sync_id().clone()),
            _ => None,
        }
    }

    /// A recorded timeout of a session, or of the wait for proof.
    pub(crate) fn replay_timeout(&self, key: &WorkerKey, location: &str, now: Timestamp) {
        if let Some(worker) = self.registry.find(key.instance.as_str(), key.worker) {
            let mut state = worker.state.lock();
            if let Some(at) = state.position(location) {
                self.time_out(&worker, &mut state, at, now);
            }
        }
    }

    /// Recorded questions of a heartbeat's answer.
    pub(crate) fn replay_question(
        &self,
        key: &WorkerKey,
        by_default: bool,
        locations: &[&str],
        now: Timestamp,
    ) {
        if let Some(worker) = self.registry.find(key.instance.as_str(), key.worker) {
            let mut state = worker.state.lock();
            // What a limit refused was asked for because there was room.
            for at in 0..state.locations.len() {
                if locations.contains(&state.locations[at].name.as_str()) {
                    self.want_refused(&worker, &mut state, at, now);
                }
            }
            state.ask(
                by_default,
                |known, _| locations.contains(&known.as_str()),
                now,
            );
        }
    }

    fn restore_location(&self, record: LocationRecord) -> Result<LocationState, RestoreError> {
        let LocationRecord {
            location,
            holder,
            sequence,
            sync,
            window,
            completed,
            last_gap_sync,
            failures,
            incomplete,
            proved_at,
        } = record;
        let open = || self.index.open_holder(HolderMeta::default(), true);
        let mut known = LocationState::new(location);
        known.sequence = Sequence::restored(sequence);
        known.sync = match sync {
            SyncRecord::Idle => Sync::Idle,
            SyncRecord::Unproved { since, until } => Sync::Unproved { since, until },
            SyncRecord::Wanted {
                reason,
                since,
                asked,
            } => Sync::Wanted(Want {
                asked,
                ..Want::new(reason, since, Duration::ZERO)
            }),
            SyncRecord::Running(session) => {
                let hidden = session.hidden.map(|_| open()).transpose()?;
                Sync::Running(Box::new(Session::restored(*session, hidden)))
            }
            SyncRecord::Unrepairable { reason, since } => Sync::Unrepairable { reason, since },
        };
        known.window = window.map(Window::restored);
        known.completed = completed;
        known.last_gap_sync = last_gap_sync;
        known.failures = failures;
        known.incomplete = incomplete;
        known.proved_at = proved_at;
        if holder.is_some() {
            known.holder = Some(open()?);
        }
        Ok(known)
    }
}

fn export_location(known: &LocationState) -> LocationRecord {
    LocationRecord {
        location: known.name.clone(),
        holder: known.holder,
        sequence: known.sequence.record(),
        sync: match &known.sync {
            Sync::Idle => SyncRecord::Idle,
            Sync::Unproved { since, until } => SyncRecord::Unproved {
                since: *since,
                until: *until,
            },
            Sync::Wanted(want) => SyncRecord::Wanted {
                reason: want.reason,
                since: want.since,
                asked: want.asked,
            },
            Sync::Running(session) => SyncRecord::Running(Box::new(session.record())),
            Sync::Unrepairable { reason, since } => SyncRecord::Unrepairable {
                reason: *reason,
                since: *since,
            },
        },
        window: known.window.as_ref().map(Window::record),
        completed: known.completed.clone(),
        last_gap_sync: known.last_gap_sync,
        failures: known.failures,
        incomplete: known.incomplete,
        proved_at: known.proved_at,
    }
}
