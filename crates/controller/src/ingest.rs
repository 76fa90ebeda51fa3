//! What workers report as it happens: batches of admits and evicts.
//!
//! Under the worker's lock: numbers advance, keys change in the visible set and, while a full sync
//! fills a hidden one, there too, so that lookups stay exact meanwhile and the change-over loses
//! nothing. Upstream discards operations during a sync.

use kvatlas_protocol::{Operation, OperationKind, SeqNum, Timestamp, WorkerId, WorkerKey};

use crate::controller::Controller;
use crate::error::BatchError;
use crate::full_sync::schedule::SyncReason;
use crate::registry::worker::{Incomplete, Limit, Sync, WorkerState};

/// What a batch of operations did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchOutcome {
    /// Keys that became held.
    pub admitted: u64,
    /// Keys that ceased to be held.
    pub evicted: u64,
    /// Breaks in the sequence numbers: 0 or 1, as upstream counts them once a batch.
    pub gaps: u64,
}

impl Controller {
    /// Operations of one worker and location, in order.
    pub fn apply_batch(
        &self,
        instance: &str,
        worker: WorkerId,
        location: &str,
        operations: &[Operation],
        now: Timestamp,
    ) -> Result<BatchOutcome, BatchError> {
        let unknown = || {
            BatchError::UnknownWorker(WorkerKey {
                instance: instance.into(),
                worker,
            })
        };
        let worker = self.registry.find(instance, worker).ok_or_else(unknown)?;
        worker.seen(now);
        if operations.is_empty() {
            return Ok(BatchOutcome::default());
        }
        let limit = self.settings.max_locations_per_worker;
        let mut state = worker.state.lock();
        if state.gone {
            return Err(unknown());
        }
        let at =
            state
                .position_or_add(location, limit)
                .ok_or_else(|| BatchError::TooManyLocations {
                    worker: worker.key.clone(),
                    limit,
                })?;
        let admits = |operation: &Operation| operation.kind == OperationKind::Admit;
        if state.locations[at].holder.is_none() && operations.iter().any(admits) {
            // The registry's lock comes before the worker's.
            drop(state);
            self.registry
                .open_location(&worker, at, &self.index)
                .map_err(|_| BatchError::TooManyHolders)?;
            state = worker.state.lock();
            if state.gone {
                return Err(unknown());
            }
        }
        let full = self.refusal(&worker.key, &state, at, operations.len());
        let evictions: Vec<_>;
        let applied = if full.is_some() {
            evictions = operations.iter().copied().filter(|o| !admits(o)).collect();
            &evictions[..]
        } else {
            operations
        };
        let full = full.filter(|_| applied.len() < operations.len());

        let is_restored = state.restored.is_some();
        let known = &mut state.locations[at];
        self.journal()
            .batch((&worker, at, &known.name), operations, now);
        let is_first = known.sequence.is_new();
        let continuity = known.sequence.advance(operations);
        // Streams begin at 0 or 1; what came before the restart may have been lost with its end. A
        // window that is open, and a session, began after it (those from before are doubted by the
        // restart itself): their listing has what came before.
        let is_midstream = is_restored && is_first && operations[0].seq > SeqNum(1);
        if continuity.broken {
            self.count_gap();
        }
        let mut outcome = BatchOutcome {
            gaps: u64::from(continuity.broken),
            ..BatchOutcome::default()
        };
        if let Some(holder) = known.holder {
            let done = self.index.apply(holder, applied);
            outcome.admitted = done.added;
            outcome.evicted = done.removed;
        }
        if let Some(window) = &mut known.window {
            window.note(applied);
            if continuity.doubtful {
                window.doubt();
            }
        }
        match &mut known.sync {
            Sync::Running(session) => {
                session.note(applied, continuity.doubtful);
                if let Some(hidden) = session.hidden() {
                    self.index.apply(hidden, applied);
                }
            }
            Sync::Unproved { .. } if continuity.continued && !continuity.doubtful => {
                known.sync = Sync::Idle;
                known.proved_at = Some(now);
                worker.summarize(&state);
            }
            Sync::Unproved { .. } => {
                self.want(&worker, &mut state, at, SyncReason::ControllerRestart, now);
            }
            Sync::Idle if continuity.doubtful || is_midstream => {
                self.want(&worker, &mut state, at, SyncReason::SequenceGap, now);
            }
            Sync::Idle | Sync::Wanted(_) | Sync::Unrepairable { .. } => {}
        }
        let Some(refusal) = full else {
            return Ok(outcome);
        };
        let known = &mut state.locations[at];
        if known.incomplete.is_none() {
            let limit = match refusal {
                BatchError::Memory { .. } => Limit::IndexBytes,
                _ => Limit::Keys,
            };
            known.incomplete = Some(Incomplete { since: now, limit });
            worker.summarize(&state);
        }
        Err(refusal)
    }

    /// Why a worker may admit nothing in a location, if so.
    fn refusal(
        &self,
        worker: &WorkerKey,
        state: &WorkerState,
        at: usize,
        n_operations: usize,
    ) -> Option<BatchError> {
        let limit = self.settings.max_keys_per_worker;
        if self.n_keys(state) >= limit {
            let worker = worker.clone();
            return Some(BatchError::TooManyKeys { worker, limit });
        }
        let holder = state.locations[at].holder;
        let n_keys = holder.map_or(0, |holder| self.index.count(holder));
        match self.memory.admits(&self.index, n_keys, n_operations) {
            Ok(()) => None,
            Err(limit) => {
                let worker = worker.clone();
                Some(BatchError::Memory { worker, limit })
            }
        }
    }

    /// Whether a worker that was refused something has room for it now, with some to spare.
    pub(crate) fn has_room(&self, state: &WorkerState) -> bool {
        let limit = self.settings.max_keys_per_worker;
        self.n_keys(state) < limit - limit / 8 && self.memory.is_roomy(&self.index)
    }

    /// Keys of a worker that lookups can see.
    pub(crate) fn n_keys(&self, state: &WorkerState) -> u64 {
        let visible = state.locations.iter().filter_map(|known| known.holder);
        visible.map(|holder| self.index.count(holder)).sum()
    }
}
