//! One registered worker: its address, its signs of life, and what it reports per location.
//!
//! A registration makes a new [`Worker`]; the one before is marked gone and never used again, so
//! whoever still holds it learns under its lock that it is too late.
//!
//! **Invariant**: sequence numbers, sync state and keys of a worker change under `state`'s lock.
//! Locks: registry -> `state` -> index; `address` is a leaf. Signs of life, the address and the
//! summary for metrics are outside `state`, so heartbeats and metrics never wait for a batch.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use kvatlas_protocol::{Location, SyncId, Timestamp, WorkerKey};
use parking_lot::Mutex;

use crate::full_sync::Session;
use crate::full_sync::schedule::{FullSyncRequest, SyncReason, SyncState, Want};
use crate::full_sync::window::Window;
use crate::index::HolderId;
use crate::sequence::Sequence;

/// Address and peer address of a worker, as it reported them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerAddress {
    /// Host or ip of the worker's command socket; IPv6 without brackets.
    pub ip: String,
    /// Port of the worker's command socket.
    pub port: i64,
    /// `host:port` where peers fetch chunks, when P2P is on.
    pub peer_url: Option<String>,
}

/// One registration of one worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub key: WorkerKey,
    /// Number of the registration, unique over the controller's life.
    pub serial: u64,
    /// Ordinal of its instance in the fleet.
    pub instance: u32,
    /// Ordinal of its rank in the fleet.
    pub rank: u32,
    pub registered_at: Timestamp,
    /// Address and the epoch of command links to it.
    pub address: Mutex<(WorkerAddress, u64)>,
    pub state: Mutex<WorkerState>,
    last_seen: AtomicU64,
    /// 0: never.
    last_heartbeat: AtomicU64,
    /// Some sync is wanted, running or to be proved: heartbeats must look.
    attention: AtomicBool,
    /// [`SYNCING`], [`FAILED`], [`COMPLETED`], [`INCOMPLETE`].
    readiness: AtomicU8,
    missing: AtomicU64,
}

const SYNCING: u8 = 1;
const FAILED: u8 = 2;
const COMPLETED: u8 = 4;
const INCOMPLETE: u8 = 8;

/// A worker's part in the fleet's sync figures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readiness {
    pub syncing: bool,
    pub completed: bool,
    /// As upstream counts: no session running, none failed.
    pub ready: bool,
    /// A limit keeps some of its keys out.
    pub incomplete: bool,
    pub missing_batches: u64,
}

/// What changes together.
#[derive(Debug, Default)]
pub(crate) struct WorkerState {
    /// Deregistered, expired or replaced.
    pub gone: bool,
    /// It comes from a snapshot: an earlier controller may have asked it for a sync.
    pub restored: Option<Timestamp>,
    /// In the order in which the worker first named them; never removed.
    pub locations: Vec<LocationState>,
    /// A sync of whatever the worker syncs by default is wanted.
    pub default_want: Option<Want>,
}

/// One location of a worker.
#[derive(Debug)]
pub(crate) struct LocationState {
    pub name: Location,
    /// The visible set; `None` until the first admit.
    pub holder: Option<HolderId>,
    pub sequence: Sequence,
    pub sync: Sync,
    /// What the worker did since it was asked to sync.
    pub window: Option<Window>,
    /// Last session that completed, and when.
    pub completed: Option<(SyncId, Timestamp)>,
    /// When a sync was last asked because of a gap.
    pub last_gap_sync: Option<Timestamp>,
    /// Sessions in a row that failed.
    pub failures: u32,
    /// Admits are missing because a limit refused them.
    pub incomplete: Option<Incomplete>,
    /// When its numbers or a sync last proved its keys after a restore.
    pub proved_at: Option<Timestamp>,
}

/// Some keys of a location are not in the index, although its worker reported them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incomplete {
    /// When the first was refused.
    pub since: Timestamp,
    /// What refused it.
    pub limit: Limit,
}

/// A limit that keeps keys out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Keys of one worker.
    Keys,
    /// Bytes of the index.
    IndexBytes,
}

/// Where a location stands in full sync.
#[derive(Debug)]
pub(crate) enum Sync {
    Idle,
    Unproved {
        since: Timestamp,
        until: Timestamp,
    },
    Wanted(Want),
    Running(Box<Session>),
    Unrepairable {
        reason: SyncReason,
        since: Timestamp,
    },
}

impl Worker {
    pub(crate) fn new(
        key: WorkerKey,
        (serial, instance, rank): (u64, u32, u32),
        address: WorkerAddress,
        state: WorkerState,
        now: Timestamp,
    ) -> Self {
        let worker = Self {
            key,
            serial,
            instance,
            rank,
            registered_at: now,
            address: Mutex::new((address, serial)),
            state: Mutex::default(),
            last_seen: AtomicU64::new(now.0),
            last_heartbeat: AtomicU64::new(0),
            attention: AtomicBool::new(false),
            readiness: AtomicU8::new(0),
            missing: AtomicU64::new(0),
        };
        worker.summarize(&state);
        *worker.state.lock() = state;
        worker
    }

    /// Any message came. Never goes back.
    pub(crate) fn seen(&self, now: Timestamp) {
        self.last_seen.fetch_max(now.0, Ordering::Relaxed);
    }

    /// A heartbeat came.
    pub(crate) fn heartbeat(&self, now: Timestamp) {
        self.seen(now);
        self.last_heartbeat
            .fetch_max(now.0.max(1), Ordering::Relaxed);
    }

    pub(crate) fn last_seen(&self) -> Timestamp {
        Timestamp(self.last_seen.load(Ordering::Relaxed))
    }

    pub(crate) fn last_heartbeat(&self) -> Option<Timestamp> {
        match self.last_heartbeat.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Timestamp(at)),
        }
    }

    /// Whether a heartbeat must look at the sync state.
    pub(crate) fn needs_attention(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let bits = self.readiness.load(Ordering::Relaxed);
        Readiness {
            syncing: bits & SYNCING != 0,
            completed: bits & COMPLETED != 0,
            ready: bits & (SYNCING | FAILED) == 0,
            incomplete: bits & INCOMPLETE != 0,
            missing_batches: self.missing.load(Ordering::Relaxed),
        }
    }

    /// Brings what is read without the lock up to date; whoever changed `state.sync` calls it.
    pub(crate) fn summarize(&self, state: &WorkerState) {
        let mut bits = 0;
        let mut missing = 0;
        let mut attention = state.default_want.is_some();
        for location in &state.locations {
            if location.incomplete.is_some() {
                bits |= INCOMPLETE;
                attention = true;
            }
            match &location.sync {
                Sync::Idle | Sync::Unrepairable { .. } => {}
                Sync::Unproved { .. } => attention = true,
                Sync::Wanted(want) => {
                    attention = true;
                    if want.reason == SyncReason::SyncFailedRetry {
                        bits |= FAILED;
                    }
                }
                Sync::Running(session) => {
                    attention = true;
                    bits |= SYNCING;
                    missing += session.n_missing();
                }
            }
            if location.completed.is_some() {
                bits |= COMPLETED;
            }
        }
        if bits & (SYNCING | FAILED) != 0 {
            bits &= !COMPLETED;
        }
        self.readiness.store(bits, Ordering::Relaxed);
        self.missing.store(missing, Ordering::Relaxed);
        self.attention.store(attention, Ordering::Release);
    }
}

impl WorkerState {
    /// Where `location` stands in `locations`.
    pub(crate) fn position(&self, location: &str) -> Option<usize> {
        self.locations
            .iter()
            .position(|known| known.name.as_str() == location)
    }

    /// Where `location` stands, added if need be; `None` beyond `limit` locations.
    pub(crate) fn position_or_add(&mut self, location: &str, limit: usize) -> Option<usize> {
        self.position(location).or_else(|| {
            (self.locations.len() < limit).then(|| {
                let mut added = LocationState::new(location.into());
                if self.default_want.as_ref().is_some_and(|want| want.asked) {
                    added.window = Some(Window::default());
                }
                self.locations.push(added);
                self.locations.len() - 1
            })
        })
    }

    /// Notes that the worker is asked now, by default or for the wanted locations that `is_due`
    /// picks, and says what for. What it lists from now on counts.
    pub(crate) fn ask(
        &mut self,
        by_default: bool,
        is_due: impl Fn(&Location, &Want) -> bool,
        now: Timestamp,
    ) -> Vec<FullSyncRequest> {
        let mut requests = Vec::new();
        if by_default && let Some(want) = &mut self.default_want {
            want.asked = true;
            requests.push(FullSyncRequest {
                reason: want.reason,
                location: None,
            });
        }
        for known in &mut self.locations {
            let mut asked = by_default;
            if let Sync::Wanted(want) = &mut known.sync
                && is_due(&known.name, want)
            {
                asked = true;
                want.asked = true;
                if want.reason == SyncReason::SequenceGap {
                    known.last_gap_sync = Some(now);
                }
                requests.push(FullSyncRequest {
                    reason: want.reason,
                    location: Some(known.name.clone()),
                });
            }
            if asked && known.window.is_none() {
                known.window = Some(Window::default());
                // What it lists from here on has what was refused before.
                known.incomplete = None;
            }
        }
        requests
    }

    /// A session runs in some location.
    pub(crate) fn is_syncing(&self) -> bool {
        self.locations
            .iter()
            .any(|location| matches!(location.sync, Sync::Running(_)))
    }

    /// All sets of the worker, hidden ones included.
    pub(crate) fn holders(&self) -> Vec<HolderId> {
        self.locations
            .iter()
            .flat_map(|location| [location.holder, location.hidden()])
            .flatten()
            .collect()
    }
}

impl LocationState {
    pub(crate) fn new(name: Location) -> Self {
        Self {
            name,
            holder: None,
            sequence: Sequence::default(),
            sync: Sync::Idle,
            window: None,
            completed: None,
            last_gap_sync: None,
            failures: 0,
            incomplete: None,
            proved_at: None,
        }
    }

    /// The set a running session fills while the old one is shown.
    pub(crate) fn hidden(&self) -> Option<HolderId> {
        match &self.sync {
            Sync::Running(session) => session.hidden(),
            _ => None,
        }
    }

    /// The state as shown to people.
    pub(crate) fn sync_state(&self) -> SyncState {
        match (&self.sync, &self.completed) {
            (Sync::Idle, None) => SyncState::Idle,
            (Sync::Idle, Some((sync_id, at))) => SyncState::Completed {
                sync_id: sync_id.clone(),
                at: *at,
            },
            (Sync::Unproved { since, .. }, _) => SyncState::Unproved { since: *since },
            (Sync::Wanted(want), _) => SyncState::Wanted {
                reason: want.reason,
                since: want.since,
            },
            (Sync::Running(session), _) => SyncState::Running {
                sync_id: session.sync_id().clone(),
                received: session.n_received(),
                announced: session.announced(),
                since: session.since(),
            },
            (Sync::Unrepairable { reason, since }, _) => SyncState::Unrepairable {
                reason: *reason,
                since: *since,
            },
        }
    }
}
