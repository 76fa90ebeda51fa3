//! Who is asked to sync, and when.
//!
//! ```text
//! Idle --gap--> Wanted --Start--> Running --last batch after End--> Completed
//!                 ^  |              |  idle too long: Wanted again (retry)
//!   Unproved -----+  +-- the worker answers with another location: Unrepairable
//! ```
//!
//! A wanted sync is asked for on every heartbeat until it starts, at most `full_sync_parallel`
//! workers at a time. A worker that was asked and does not start loses its place after
//! [`UNANSWERED`] if another wants it; a running one keeps it. Delays are spread by a hash of the
//! worker's name: no dice, and a thousand workers do not come at once.
//!
//! Locks: [`Places`] is a leaf, taken under a worker's lock. Upstream asks everybody at once.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use kvatlas_protocol::{Location, SyncId, Timestamp, WorkerKey};
use parking_lot::Mutex;

/// How long an asked worker may keep a place without starting. Upstream's sender waits up to 5 s
/// before Start and then tries three times.
const UNANSWERED: Duration = Duration::from_secs(30);

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

/// Where one location of one worker stands in full sync.
#[derive(Debug, Clone, PartialEq)]
pub enum SyncState {
    /// Nothing asked, nothing running.
    Idle,
    /// Restored from a snapshot; the next batch's numbers, or a sync, will prove or mend it.
    Unproved {
        /// When it was restored.
        since: Timestamp,
    },
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
    /// The worker answered with a sync of another location: it cannot repair this one. Not asked
    /// again until it registers again.
    Unrepairable {
        /// Why a sync was wanted.
        reason: SyncReason,
        /// When it was given up.
        since: Timestamp,
    },
}

/// A sync that is to be asked for.
#[derive(Debug)]
pub(crate) struct Want {
    pub reason: SyncReason,
    pub since: Timestamp,
    /// Not asked for before.
    pub not_before: Timestamp,
    /// The worker was asked, so its list of keys may be made from now on.
    pub asked: bool,
}

impl Want {
    pub(crate) fn new(reason: SyncReason, since: Timestamp, delay: Duration) -> Self {
        Self {
            reason,
            since,
            not_before: since + delay,
            asked: false,
        }
    }
}

/// A delay in `[0, spread)` that is always the same for one worker.
pub(crate) fn jitter(worker: &WorkerKey, spread: Duration) -> Duration {
    // FNV-1a: any hash that is the same in every process will do; nothing is gained by collisions.
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for &byte in bytes {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    worker.hash(&mut hasher);
    // The low bits of FNV mix best.
    let share = (hasher.finish() & 0xffff) as f64 / 65_536.0;
    spread.mul_f64(share)
}

/// Places of the workers that were asked or are syncing.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    taken: Mutex<Vec<Place>>,
}

#[derive(Debug)]
struct Place {
    /// Number of the registration that holds it.
    serial: u64,
    since: Timestamp,
    running: bool,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            taken: Mutex::default(),
        }
    }

    /// A place for this registration, if it has or gets one.
    pub(crate) fn grant(&self, serial: u64, now: Timestamp) -> bool {
        let mut taken = self.taken.lock();
        if taken.iter().any(|place| place.serial == serial) {
            return true;
        }
        if taken.len() >= self.limit {
            taken.retain(|place| place.running || now.since(place.since) <= UNANSWERED);
        }
        let free = taken.len() < self.limit;
        if free {
            taken.push(Place {
                serial,
                since: now,
                running: false,
            });
        }
        free
    }

    /// This registration's worker started: it is not refused even without a place.
    pub(crate) fn start(&self, serial: u64, now: Timestamp) {
        let mut taken = self.taken.lock();
        match taken.iter_mut().find(|place| place.serial == serial) {
            Some(place) => place.running = true,
            None => taken.push(Place {
                serial,
                since: now,
                running: true,
            }),
        }
    }

    /// Nothing runs or is asked of this registration any more.
    pub(crate) fn release(&self, serial: u64) {
        self.taken.lock().retain(|place| place.serial != serial);
    }

    /// Registrations that hold a place.
    #[cfg(test)]
    pub(crate) fn holders(&self) -> Vec<u64> {
        self.taken.lock().iter().map(|place| place.serial).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleepers_lose_their_places_only_to_others_and_only_after_a_while() {
        let places = Places::new(1);
        let later = Timestamp(0) + UNANSWERED + Duration::from_secs(1);
        assert!(places.grant(1, Timestamp(0)));
        assert!(!places.grant(2, Timestamp(1)));
        assert!(places.grant(1, later));
        assert!(places.grant(2, later));
        assert!(!places.grant(1, later));
        places.start(2, later);
        assert!(!places.grant(1, later + UNANSWERED * 9));
        places.release(2);
        assert!(places.grant(1, later));
    }

    #[test]
    fn jitter_is_repeatable_and_spread() {
        let spread = Duration::from_secs(10);
        let delays: Vec<_> = (0..100)
            .map(|n| jitter(&WorkerKey::new(format!("i{n}"), 0), spread))
            .collect();
        assert_eq!(delays[3], jitter(&WorkerKey::new("i3", 0), spread));
        assert!(delays.iter().all(|d| *d < spread));
        for tenth in 0..5u32 {
            let band = spread / 5 * tenth..spread / 5 * (tenth + 1);
            assert!(delays.iter().any(|d| band.contains(d)), "{band:?}");
        }
    }
}
