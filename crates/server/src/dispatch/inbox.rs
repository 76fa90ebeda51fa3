//! The door between the fronts and the dispatch thread: counts what is under way, so that nothing
//! grows without bound, and wakes the thread.
//!
//! One lock, held for a few map operations.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;

use kvatlas_protocol::WorkerKey;
use parking_lot::Mutex;

use super::links::{LinkSettings, SubmitError, Ticket};

/// What was submitted and is not answered.
#[derive(Debug)]
pub(super) struct Inbox {
    settings: LinkSettings,
    state: Mutex<State>,
    /// One byte wakes the thread; when it is full the thread is awake anyway.
    wake: UnixStream,
}

#[derive(Debug, Default)]
struct State {
    /// Submitted, not yet fetched by the thread.
    arrived: Vec<Ticket>,
    /// Jobs under way by worker, fetched or not.
    pending: HashMap<WorkerKey, usize>,
    /// Payload bytes of all jobs under way.
    n_bytes: usize,
    stopping: bool,
}

/// What the thread finds when it looks.
pub(super) struct Arrived {
    pub(super) tickets: Vec<Ticket>,
    pub(super) stopping: bool,
}

impl Inbox {
    pub(super) fn new(settings: LinkSettings, wake: UnixStream) -> Self {
        Self {
            settings,
            state: Mutex::default(),
            wake,
        }
    }

    /// Takes all tickets or none.
    pub(super) fn put(&self, tickets: Vec<Ticket>) -> Result<(), SubmitError> {
        let LinkSettings {
            max_per_worker,
            max_pending_bytes,
            ..
        } = self.settings;
        let n_new: usize = tickets.iter().map(|ticket| ticket.job.payload.len()).sum();
        let mut state = self.state.lock();
        if state.stopping {
            return Err(SubmitError::Stopping);
        }
        // A single command larger than the limit still runs when nothing else does.
        let pending = state.n_bytes.saturating_add(n_new);
        if pending > max_pending_bytes && state.n_bytes > 0 {
            return Err(SubmitError::TooMuch {
                pending,
                limit: max_pending_bytes,
            });
        }
        if let Some(full) = tickets.iter().find(|ticket| {
            state
                .pending
                .get(&ticket.job.worker)
                .is_some_and(|pending| *pending >= max_per_worker)
        }) {
            return Err(SubmitError::LineFull {
                worker: full.job.worker.clone(),
                limit: max_per_worker,
            });
        }
        state.n_bytes = pending;
        for ticket in tickets {
            *state.pending.entry(ticket.job.worker.clone()).or_default() += 1;
            state.arrived.push(ticket);
        }
        drop(state);
        self.wake();
        Ok(())
    }

    /// Everything that arrived since the last look.
    pub(super) fn fetch(&self) -> Arrived {
        let mut state = self.state.lock();
        Arrived {
            tickets: std::mem::take(&mut state.arrived),
            stopping: state.stopping,
        }
    }

    /// A ticket is about to be answered.
    pub(super) fn ended(&self, ticket: &Ticket) {
        let mut state = self.state.lock();
        state.n_bytes = state.n_bytes.saturating_sub(ticket.job.payload.len());
        if let Some(pending) = state.pending.get_mut(&ticket.job.worker) {
            *pending -= 1;
            if *pending == 0 {
                state.pending.remove(&ticket.job.worker);
            }
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake();
    }

    fn wake(&self) {
        // Full means that a wake is under way; closed means that the thread has ended.
        drop((&self.wake).write(&[1]));
    }
}
