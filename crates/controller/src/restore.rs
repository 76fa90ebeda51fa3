//! What a snapshot keeps of the registry, and how it comes back.
//!
//! Plain values out, plain values in; files and formats are the server's. Keys travel apart from
//! this: [`Controller::export_keys`] walks the index by shard, [`Controller::restore_keys`] fills it.
//!
//! A restored location is unproved: it answers lookups at once, the next batch that continues its
//! numbers proves it exact, and a gap, or silence past the grace time, asks for a sync. A session
//! that was running is not kept: its old set is, and a sync is wanted.
//!
//! Keys and numbers are read one after the other while batches go on. Whoever writes a snapshot
//! replays the operations that came meanwhile: applied again in order they lead to the same sets.

use std::time::Duration;

use kvatlas_protocol::{ChunkHash, Location, SeqNum, Timestamp, WorkerKey};

use crate::controller::Controller;
use crate::error::RestoreError;
use crate::full_sync::schedule::{SyncReason, Want, jitter};
use crate::index::{HolderId, HolderMeta};
use crate::registry::IfKnown;
use crate::registry::worker::{LocationState, Sync, WorkerAddress, WorkerState};
use crate::sequence::Sequence;

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
    /// A sync of whatever it syncs by default is wanted.
    pub sync_wanted: Option<SyncReason>,
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
    /// Last sequence number applied.
    pub last_seq: Option<SeqNum>,
    /// Gaps counted since registration.
    pub gaps: u64,
    /// How far its keys could be trusted.
    pub trust: Trust,
}

/// How far a location's keys can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// They are what the worker reported, without a gap, up to the last number.
    Continuous,
    /// A sync is wanted or was running.
    Doubtful(SyncReason),
    /// Doubtful, and the worker cannot sync this location.
    Unrepairable(SyncReason),
}

impl Controller {
    /// All workers in registration order. Each is consistent in itself.
    pub fn export(&self) -> Vec<WorkerRecord> {
        let export = |known: &LocationState| LocationRecord {
            location: known.name.clone(),
            holder: known.holder,
            last_seq: known.sequence.last(),
            gaps: known.sequence.gaps(),
            trust: match &known.sync {
                Sync::Idle => Trust::Continuous,
                Sync::Unproved { .. } => Trust::Doubtful(SyncReason::ControllerRestart),
                Sync::Wanted(want) => Trust::Doubtful(want.reason),
                Sync::Running(_) => Trust::Doubtful(SyncReason::SyncFailedRetry),
                Sync::Unrepairable { reason, .. } => Trust::Unrepairable(*reason),
            },
        };
        let workers = self.registry.workers();
        workers
            .iter()
            .filter_map(|worker| {
                let address = worker.address.lock().0.clone();
                let state = worker.state.lock();
                (!state.gone).then(|| WorkerRecord {
                    key: worker.key.clone(),
                    address,
                    registered_at: worker.registered_at,
                    last_heartbeat: worker.last_heartbeat(),
                    sync_wanted: state.default_want.as_ref().map(|want| want.reason),
                    locations: state.locations.iter().map(export).collect(),
                })
            })
            .collect()
    }

    /// Calls `visit` with every key of one part of the hash space and its holders, sets that no
    /// record names among them, and returns where to go on; `None` at the end. Start from 0.
    pub fn export_keys(&self, from: u64, visit: impl FnMut(ChunkHash, &[HolderId])) -> Option<u64> {
        self.index.view().export(from, visit)
    }

    /// Registers a worker as a snapshot kept it, with empty sets, and returns the new set of each of
    /// its locations, in order. Until `now + grace` it may prove its keys by its numbers.
    pub fn restore(
        &self,
        record: WorkerRecord,
        now: Timestamp,
        grace: Duration,
    ) -> Result<Vec<Option<HolderId>>, RestoreError> {
        let WorkerRecord {
            key,
            address,
            registered_at,
            last_heartbeat,
            sync_wanted,
            locations,
        } = record;
        let spread = jitter(&key, self.settings.full_sync_jitter);
        let want = |reason| Want::new(reason, now, spread);
        let mut state = WorkerState {
            restored: true,
            default_want: sync_wanted.map(want),
            ..WorkerState::default()
        };
        for record in locations {
            let LocationRecord {
                location,
                holder,
                last_seq,
                gaps,
                trust,
            } = record;
            let mut known = LocationState::new(location);
            if holder.is_some() {
                known.holder = Some(self.index.open_holder(HolderMeta::default(), true)?);
            }
            known.sequence = Sequence::restored(last_seq, gaps);
            known.sync = match trust {
                Trust::Continuous if holder.is_none() && last_seq.is_none() => Sync::Idle,
                Trust::Continuous => Sync::Unproved {
                    since: now,
                    until: now + grace + spread,
                },
                Trust::Doubtful(_) => Sync::Wanted(want(SyncReason::ControllerRestart)),
                Trust::Unrepairable(reason) => Sync::Unrepairable { reason, since: now },
            };
            state.locations.push(known);
        }
        let holders: Vec<_> = state.locations.iter().map(|known| known.holder).collect();
        let registered = self.registry.register(
            key,
            address,
            state,
            IfKnown::Replace,
            &self.index,
            registered_at,
        );
        match registered {
            Ok(entry) => {
                if let Some(at) = last_heartbeat {
                    entry.worker.heartbeat(at);
                }
                entry.worker.seen(now);
                Ok(holders)
            }
            Err(error) => {
                for holder in holders.into_iter().flatten() {
                    self.index.retire(holder);
                }
                Err(error.into())
            }
        }
    }

    /// Keys of a set that [`Self::restore`] returned.
    pub fn restore_keys(&self, holder: HolderId, keys: &[ChunkHash]) {
        self.index.admit(holder, keys);
    }
}
