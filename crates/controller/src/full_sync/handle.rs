//! The full-sync messages, and what a heartbeat must ask for.
//!
//! A location's old keys stay visible until the new set is complete and change over in one
//! publication; without old keys, batches show as they arrive. Timeouts are looked at whenever the
//! worker is heard of, and by `tick`: nobody else has to remember.
//!
//! Upstream: `kv_controller.py` (clears at Start, completes at End).

use std::time::Duration;

use kvatlas_protocol::{BatchId, ChunkHash, SyncId, Timestamp, WorkerId, WorkerKey};

use super::schedule::{FullSyncRequest, SyncReason, Want, jitter};
use super::window::Window;
use super::{MAX_BATCHES, MAX_MISSING_LISTED, Session, SyncStart, SyncStatus};
use crate::controller::Controller;
use crate::error::SyncError;
use crate::index::HolderMeta;
use crate::registry::worker::{Incomplete, Limit, LocationState, Sync, Worker, WorkerState};

/// Failures after which the pause before the next question grows no more.
const MAX_BACKOFF: u32 = 6;

impl Controller {
    /// FullSyncStart. Repeated with the same id it changes nothing.
    pub fn handle_sync_start(&self, start: SyncStart, now: Timestamp) -> Result<(), SyncError> {
        let SyncStart {
            worker: key,
            location,
            sync_id,
            total_keys,
            batch_count,
        } = start;
        let total_keys = in_range("total_keys", total_keys, i64::MAX)?;
        let announced = in_range("batch_count", batch_count, MAX_BATCHES)?;
        let worker = self
            .registry
            .find(key.instance.as_str(), key.worker)
            .ok_or_else(|| SyncError::UnknownWorker(key.clone()))?;
        worker.seen(now);
        let mut guard = worker.state.lock();
        let state = &mut *guard;
        if state.gone {
            return Err(SyncError::UnknownWorker(key));
        }
        self.check_timeouts(&worker, state, now);
        let limit = self.settings.max_locations_per_worker;
        let at = state
            .position_or_add(location.as_str(), limit)
            .ok_or_else(|| SyncError::TooManyLocations {
                worker: key.clone(),
                limit,
            })?;
        // A sync since the restart: what is listed now was not asked for before it.
        let has_synced = |known: &LocationState| {
            let completed = known.completed.as_ref();
            completed.is_some_and(|(_, at)| state.restored.is_none_or(|restored| *at > restored))
        };
        let is_unwatched = state.restored.is_some() && !state.locations.iter().any(has_synced);
        let known = &mut state.locations[at];
        if let Sync::Running(session) = &mut known.sync {
            if *session.sync_id() == sync_id {
                session.touch(now);
                return Ok(());
            }
            return Err(SyncError::Busy {
                location,
                running: session.sync_id().clone(),
            });
        }
        if known
            .completed
            .as_ref()
            .is_some_and(|(done, _)| *done == sync_id)
        {
            return Ok(());
        }
        if let Err(refusal) = self.fits(&key, known, total_keys) {
            self.keep_out(&worker, state, at, &refusal, now);
            return Err(refusal);
        }
        self.journal()
            .sync_started((&worker, at, &known.name), &sync_id, announced, now);
        let mut window = known.window.take().unwrap_or_else(|| {
            let mut unwatched = Window::default();
            // The controller before the restart may have asked: what happened since the worker
            // listed its keys is not known here. Nor is it where watching was given up.
            if is_unwatched || matches!(known.sync, Sync::Unrepairable { .. }) {
                unwatched.doubt();
            }
            unwatched
        });
        let admitted = window.take_admitted();
        let hidden = match known.holder {
            Some(holder) if self.index.count(holder) > 0 => {
                let hidden = self.index.open_holder(HolderMeta::default(), true);
                let hidden = hidden.map_err(|_| SyncError::TooManyHolders)?;
                self.index.admit(hidden, &admitted);
                Some(hidden)
            }
            _ => None,
        };
        let was_wanted = matches!(known.sync, Sync::Wanted(_));
        known.sync = Sync::Running(Box::new(Session::start(
            sync_id, announced, hidden, window, now,
        )));
        match &state.default_want {
            Some(want) if want.asked => {
                state.default_want = None;
                close_windows(state);
            }
            // It starts for reasons of its own; the default is still to be asked for.
            Some(_) => {}
            None if was_wanted => {}
            None => give_up_asked(state, now),
        }
        self.places.start(worker.serial, now);
        worker.summarize(state);
        Ok(())
    }

    /// Whether all keys of a location may come. Without room for them a sync would only freeze its
    /// engine, and fail.
    fn fits(&self, key: &WorkerKey, known: &LocationState, n_keys: u64) -> Result<(), SyncError> {
        let limit = self.settings.max_keys_per_worker;
        if n_keys > limit {
            let worker = key.clone();
            return Err(SyncError::TooManyKeys { worker, limit });
        }
        let held = known.holder.map_or(0, |holder| self.index.count(holder));
        let more = n_keys.saturating_sub(held);
        self.memory.fits(&self.index, more).map_err(|limit| {
            let worker = key.clone();
            SyncError::Memory { worker, limit }
        })
    }

    /// A location that does not fit is left as it is, and asked for again once there is room.
    fn keep_out(
        &self,
        worker: &Worker,
        state: &mut WorkerState,
        at: usize,
        refusal: &SyncError,
        now: Timestamp,
    ) {
        let known = &mut state.locations[at];
        known.sync = Sync::Idle;
        known.window = None;
        known.incomplete.get_or_insert(Incomplete {
            since: now,
            limit: match refusal {
                SyncError::Memory { .. } => Limit::IndexBytes,
                _ => Limit::Keys,
            },
        });
        if state.default_want.as_ref().is_some_and(|want| want.asked) {
            state.default_want = None;
            close_windows(state);
        }
        self.leave_place(worker, state);
        worker.summarize(state);
    }

    /// FullSyncBatch; `Ok(false)` for a batch that was in already.
    #[expect(
        clippy::too_many_arguments,
        reason = "the message's fields, borrowed: a struct would only be taken apart again"
    )]
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
        let unknown = || {
            SyncError::UnknownWorker(WorkerKey {
                instance: instance.into(),
                worker,
            })
        };
        let unknown_session = || SyncError::UnknownSession(sync_id.into());
        let worker = self.registry.find(instance, worker).ok_or_else(unknown)?;
        worker.seen(now);
        let mut state = worker.state.lock();
        let at = state.position(location).ok_or_else(unknown_session)?;
        if state.locations[at].holder.is_none() && !keys.is_empty() {
            let running = matches!(&state.locations[at].sync,
                Sync::Running(session) if session.sync_id().as_str() == sync_id);
            if !running {
                return Err(unknown_session());
            }
            // The registry's lock comes before the worker's.
            drop(state);
            self.registry
                .open_location(&worker, at, &self.index)
                .map_err(|_| SyncError::TooManyHolders)?;
            state = worker.state.lock();
        }
        if state.gone {
            return Err(unknown());
        }
        let known = &mut state.locations[at];
        let Sync::Running(session) = &mut known.sync else {
            return is_completed(&known.completed, sync_id)
                .then_some(false)
                .ok_or_else(unknown_session);
        };
        if session.sync_id().as_str() != sync_id {
            return Err(unknown_session());
        }
        if !session.expects(batch)? {
            session.touch(now);
            return Ok(false);
        }
        if let Some(set) = session.hidden().or(known.holder) {
            let keys = session.still_held(keys);
            let limit = self.settings.max_keys_per_worker;
            if self.index.count(set).saturating_add(keys.len() as u64) > limit {
                return Err(SyncError::TooManyKeys {
                    worker: worker.key.clone(),
                    limit,
                });
            }
            self.memory
                .admits(&self.index, self.index.count(set), keys.len())
                .map_err(|limit| SyncError::Memory {
                    worker: worker.key.clone(),
                    limit,
                })?;
            self.index.admit(set, &keys);
        }
        self.registry
            .journal()
            .sync_batch((&worker, at, &known.name), batch, keys, now);
        session.received(batch, now);
        let is_finished = session.is_finished();
        worker.summarize(&state);
        drop(state);
        if is_finished {
            self.complete(&worker, at, now);
        }
        Ok(true)
    }

    /// FullSyncEnd; whether the sync is complete with it. The announced number of keys is not
    /// compared: what happened meanwhile changes it.
    pub fn handle_sync_end(
        &self,
        key: &WorkerKey,
        location: &str,
        sync_id: &str,
        _actual_total_keys: i64,
        now: Timestamp,
    ) -> Result<bool, SyncError> {
        let unknown_session = || SyncError::UnknownSession(sync_id.into());
        let worker = self
            .registry
            .find(key.instance.as_str(), key.worker)
            .ok_or_else(|| SyncError::UnknownWorker(key.clone()))?;
        worker.seen(now);
        let mut state = worker.state.lock();
        if state.gone {
            return Err(SyncError::UnknownWorker(key.clone()));
        }
        let at = state.position(location).ok_or_else(unknown_session)?;
        let known = &mut state.locations[at];
        match &mut known.sync {
            Sync::Running(session) if session.sync_id().as_str() == sync_id => {
                self.registry
                    .journal()
                    .sync_ended((&worker, at, &known.name), now);
                session.end(now);
                let is_finished = session.is_finished();
                worker.summarize(&state);
                drop(state);
                if is_finished {
                    self.complete(&worker, at, now);
                }
                Ok(is_finished)
            }
            _ if is_completed(&known.completed, sync_id) => Ok(true),
            _ => Err(unknown_session()),
        }
    }

    /// FullSyncStatus: also a sign of life of the worker. It names no location: the session is found
    /// by its id.
    ///
    /// The freeze may end when enough workers are ready, but not for a session whose End came while
    /// batches are missing: upstream's sender leaves before it resends them.
    pub fn handle_sync_status(&self, key: &WorkerKey, sync_id: &str, now: Timestamp) -> SyncStatus {
        let mut is_complete = false;
        let mut missing_batches = Vec::new();
        let mut awaits_resend = false;
        if let Some(worker) = self.registry.find(key.instance.as_str(), key.worker) {
            worker.seen(now);
            let mut state = worker.state.lock();
            self.check_timeouts(&worker, &mut state, now);
            for known in &state.locations {
                is_complete |= is_completed(&known.completed, sync_id);
                if let Sync::Running(session) = &known.sync
                    && session.sync_id().as_str() == sync_id
                {
                    missing_batches = session.missing(MAX_MISSING_LISTED);
                    awaits_resend = session.awaits_resend();
                }
            }
        }
        let global_progress = self.sync_progress();
        SyncStatus {
            is_complete,
            global_progress,
            can_exit_freeze: !awaits_resend
                && global_progress >= self.settings.full_sync_completion_threshold,
            missing_batches,
        }
    }

    /// Share of registered workers that are ready; 0 without workers, as upstream.
    pub(crate) fn sync_progress(&self) -> f64 {
        let (mut ready, mut all) = (0_u32, 0_u32);
        self.registry.for_each(|worker| {
            all += 1;
            ready += u32::from(worker.readiness().ready);
        });
        if all == 0 {
            return 0.0;
        }
        f64::from(ready) / f64::from(all)
    }

    /// A sync of one location is wanted; the worker's lock is held.
    pub(crate) fn want(
        &self,
        worker: &Worker,
        state: &mut WorkerState,
        at: usize,
        reason: SyncReason,
        now: Timestamp,
    ) {
        let Some(known) = state.locations.get_mut(at) else {
            return;
        };
        let spread = jitter(&worker.key, self.settings.full_sync_jitter);
        let delay = match reason {
            SyncReason::WorkerReRegistered => Duration::ZERO,
            SyncReason::ControllerRestart => spread,
            SyncReason::SyncFailedRetry => spread * (1 << known.failures.min(MAX_BACKOFF)),
            SyncReason::SequenceGap => known.last_gap_sync.map_or(Duration::ZERO, |last| {
                let interval = self.settings.gap_sync_interval;
                let next = last + interval + jitter(&worker.key, interval / 8);
                next.since(now)
            }),
        };
        // A window that is open stays: the worker may yet start with what it listed then.
        known.sync = Sync::Wanted(Want::new(reason, now, delay));
        worker.summarize(state);
    }

    /// What the heartbeat answered now asks of a worker; its lock is held.
    pub(crate) fn requests(
        &self,
        worker: &Worker,
        state: &mut WorkerState,
        now: Timestamp,
    ) -> Vec<FullSyncRequest> {
        self.check_timeouts(worker, state, now);
        // A worker does one sync at a time; a question now would be skipped, or answered with
        // another location.
        if state.is_syncing() {
            return Vec::new();
        }
        let is_due = |want: &Want| want.not_before <= now;
        let default_due = state.default_want.as_ref().is_some_and(is_due);
        let any_due = state
            .locations
            .iter()
            .any(|known| matches!(&known.sync, Sync::Wanted(want) if is_due(want)));
        if !(default_due || any_due) || !self.places.grant(worker.serial, now) {
            return Vec::new();
        }
        let requests = state.ask(default_due, |_, want| is_due(want), now);
        let locations: Vec<_> = requests
            .iter()
            .filter_map(|r| r.location.as_ref())
            .collect();
        self.journal()
            .asked(&worker.key, default_due, locations.into_iter(), now);
        requests
    }

    /// Fails idle sessions, gives up waiting for proof, and wants what a limit refused once there is
    /// room; the worker's lock is held.
    pub(crate) fn check_timeouts(&self, worker: &Worker, state: &mut WorkerState, now: Timestamp) {
        for at in 0..state.locations.len() {
            if state.locations[at].incomplete.is_some()
                && self.has_room(state)
                && self.want_refused(worker, state, at, now)
            {
                continue;
            }
            let known = &state.locations[at];
            let is_late = match &known.sync {
                Sync::Running(session) => session.is_idle(now, self.settings.full_sync_timeout),
                Sync::Unproved { until, .. } => now >= *until,
                _ => false,
            };
            if is_late && !self.journal().is_replaying() {
                self.journal().timed_out((worker, at, &known.name), now);
                self.time_out(worker, state, at, now);
            }
        }
    }

    /// Wants what a limit refused, unless a sync will bring it anyway; the worker's lock is held.
    pub(crate) fn want_refused(
        &self,
        worker: &Worker,
        state: &mut WorkerState,
        at: usize,
        now: Timestamp,
    ) -> bool {
        let known = &mut state.locations[at];
        // Numbers that continue prove nothing about keys that were refused.
        let is_quiet = matches!(known.sync, Sync::Idle | Sync::Unproved { .. });
        let wants = is_quiet && known.incomplete.take().is_some();
        if wants {
            self.want(worker, state, at, SyncReason::SequenceGap, now);
        }
        wants
    }

    /// One location waited too long.
    pub(crate) fn time_out(
        &self,
        worker: &Worker,
        state: &mut WorkerState,
        at: usize,
        now: Timestamp,
    ) {
        let Some(known) = state.locations.get_mut(at) else {
            return;
        };
        match &known.sync {
            Sync::Running(session) => {
                if let Some(hidden) = session.hidden() {
                    self.index.retire(hidden);
                }
                known.failures = known.failures.saturating_add(1);
                self.want(worker, state, at, SyncReason::SyncFailedRetry, now);
                self.leave_place(worker, state);
            }
            Sync::Unproved { .. } => {
                self.want(worker, state, at, SyncReason::ControllerRestart, now);
            }
            Sync::Idle | Sync::Wanted(_) | Sync::Unrepairable { .. } => {}
        }
    }

    /// The last batch is in: shows the new set.
    pub(crate) fn complete(&self, worker: &Worker, at: usize, now: Timestamp) {
        self.registry.change_over(worker, at, &self.index, |state| {
            let known = state.locations.get_mut(at)?;
            let Sync::Running(session) = &known.sync else {
                return None;
            };
            if !session.is_finished() {
                return None;
            }
            let hidden = session.hidden();
            let doubtful = session.is_doubtful();
            known.completed = Some((session.sync_id().clone(), now));
            known.sync = Sync::Idle;
            known.failures = 0;
            known.proved_at = Some(now);
            // Numbers went on while the worker was frozen: the next one is the new base.
            known.sequence.rebase();
            if doubtful {
                self.want(worker, state, at, SyncReason::SequenceGap, now);
            }
            self.leave_place(worker, state);
            hidden
        });
    }

    fn leave_place(&self, worker: &Worker, state: &WorkerState) {
        if !state.is_syncing() {
            self.places.release(worker.serial);
        }
    }
}

/// The worker was asked for some location and started another that nobody wanted: it cannot sync the
/// one it was asked for. Asking again would only freeze it again.
fn give_up_asked(state: &mut WorkerState, now: Timestamp) {
    for known in &mut state.locations {
        if let Sync::Wanted(want) = &known.sync
            && want.asked
        {
            known.sync = Sync::Unrepairable {
                reason: want.reason,
                since: now,
            };
            known.window = None;
        }
    }
}

/// The default sync has begun. Whatever else it covers is listed anew when its turn comes, and what
/// it does not cover would be watched for ever.
fn close_windows(state: &mut WorkerState) {
    for known in &mut state.locations {
        if !matches!(&known.sync, Sync::Wanted(want) if want.asked) {
            known.window = None;
        }
    }
}

fn is_completed(completed: &Option<(SyncId, Timestamp)>, sync_id: &str) -> bool {
    completed
        .as_ref()
        .is_some_and(|(done, _)| done.as_str() == sync_id)
}

fn in_range(what: &'static str, given: i64, limit: i64) -> Result<u64, SyncError> {
    u64::try_from(given)
        .ok()
        .filter(|_| given <= limit)
        .ok_or(SyncError::CountOutOfRange { what, given, limit })
}
