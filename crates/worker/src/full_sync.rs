//! The sending half of a full sync: every key of a location told anew, sans-I/O.
//!
//! ```text
//! request ─> delay ─> freeze ─> list keys ─> Start (asked, retried)
//!                                  ^            │ accepted
//!                 next location    │            v
//!                 ────────────────<┤         Batch.. , End (pushed)
//!                 thaw when the    │            │
//!                 fleet is ready   └─ complete ─┤ Status (asked): missing batches sent again
//! ```
//! One session at a time, one location a session, all locations of a run under one freeze.
//!
//! **Invariants.** A run ends: each step has a bounded number of attempts or a time budget, and the
//! engine is thawed whatever happened. Repeating the command while its location waits or runs
//! changes nothing (controllers repeat it until they see Start). Status may overtake End and
//! batches in flight (two sockets have no mutual order), so nothing is sent again before
//! `resend_after`.
//!
//! A location that failed has its next turn by itself: at once if the controller has forgotten the
//! session (LMCache's forgets with a restart, and asks once), else after pauses that double, at most
//! [`MAX_RETRIES`] times until it succeeds. Being asked for is always a turn.
//!
//! It keeps no clock and does not know which keys there are: `now`, keys and session ids are
//! arguments. Upstream: `cache_controller/full_sync_sender.py` (LocalCPUBackend only).

mod retry;
mod session;

use std::collections::VecDeque;
use std::time::Duration;

use kvatlas_protocol::message::{FullSyncStartRetMsg, FullSyncStatusRetMsg, Message};
use kvatlas_protocol::{ChunkHash, Location, Timestamp, WorkerKey};
use thiserror::Error;

use crate::config::KeySign;

pub use retry::MAX_RETRIES;
use retry::Retries;
use session::{Session, status};

/// First wait before asking for the status: a small sync is over in two round trips.
const FIRST_POLL: Duration = Duration::from_millis(20);
/// Statuses that know neither the session as complete nor anything missing, before it counts as
/// forgotten by the controller (a restart in mid-sync).
const MAX_BLANK_STATUSES: u32 = 4;
/// The same once the controller has asked for what is under way: nobody who knows the session does.
const MAX_BLANK_STATUSES_ASKED: u32 = 2;

/// Pace and patience; the names in parentheses are upstream's `extra_config` keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Keys of one batch (`full_sync_batch_size`, 2000).
    pub batch_size: usize,
    /// Pause between batches (`full_sync_batch_interval_ms`, 5).
    pub batch_interval: Duration,
    /// Upper end of the random delay before a run (`full_sync_startup_delay_s`, 5 s).
    pub startup_delay: Duration,
    /// Longest pause between status questions (`full_sync_status_poll_interval_s`, 5 s).
    pub status_poll_interval: Duration,
    /// Attempts at Start (`full_sync_max_retry_count`, 3).
    pub max_start_attempts: u32,
    /// Pause between attempts at Start (`full_sync_retry_delay_s`, 1 s).
    pub retry_delay: Duration,
    /// Status questions before giving up (`full_sync_max_poll_attempts`, 60), at the longest pause.
    pub max_poll_attempts: u32,
    /// Least age of a batch before it is sent again. Ours.
    pub resend_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_size: 2000,
            batch_interval: Duration::from_millis(5),
            startup_delay: Duration::from_secs(5),
            status_poll_interval: Duration::from_secs(5),
            max_start_attempts: 3,
            retry_delay: Duration::from_secs(1),
            max_poll_attempts: 60,
            resend_after: Duration::from_secs(1),
        }
    }
}

/// What the caller must now do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Stop (true) or resume (false) changing the cache.
    Freeze(bool),
    /// List the keys of the location and hand them to [`FullSync::handle_listed`].
    List(Location),
    /// Ask the controller; the answer goes to `handle_start_reply`, `handle_status_reply` or
    /// `handle_no_reply`.
    Ask(Message),
    /// Push to the controller, in order.
    Push(Message),
    /// A location is done; for counters and logs.
    Finished(Location, Result<(), Failure>),
}

/// Why a location's sync ended without success.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The engine could not list its keys.
    #[error("the engine could not list its keys")]
    NotListed,
    /// The controller refused Start every time.
    #[error("start refused: {0}")]
    Refused(String),
    /// The controller did not answer Start.
    #[error("the controller did not answer start")]
    Unanswered,
    /// The controller does not know the session any more.
    #[error("the controller forgot the session")]
    Forgotten,
    /// The time budget ran out before all batches were in.
    #[error("not complete within the time budget")]
    TimedOut,
}

/// The sender of one worker.
#[derive(Debug)]
pub struct FullSync {
    settings: Settings,
    worker: WorkerKey,
    sign: KeySign,
    /// Locations still to sync, in order.
    queue: VecDeque<Location>,
    /// Complete in this run; to be begun again if the controller forgets before the thaw.
    done: Vec<Location>,
    retries: Retries,
    state: State,
    /// What the engine was last told.
    frozen: bool,
    /// Returned by the next `poll`.
    pending: Option<Action>,
}

#[derive(Debug)]
enum State {
    Idle,
    Delaying {
        until: Timestamp,
    },
    Listing {
        location: Location,
        asked: bool,
    },
    Starting {
        session: Session,
        attempt: u32,
        wait: Wait,
    },
    Sending {
        session: Session,
        /// Batches to send, then End.
        left: VecDeque<usize>,
        next_at: Timestamp,
        /// Set when these are sent again: the budget goes on.
        until: Option<Timestamp>,
    },
    Polling {
        session: Session,
        poll: Poll,
        /// Statuses in a row that said nothing useful.
        blank: u32,
    },
    /// Everything is in; frozen until enough of the fleet is.
    Waiting {
        sync_id: String,
        poll: Poll,
    },
}

/// A question not yet asked, or asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Until(Timestamp),
    Answer,
}

#[derive(Debug)]
struct Poll {
    wait: Wait,
    /// Pause before the next question, doubling.
    pause: Duration,
    /// When patience ends.
    until: Timestamp,
}

impl FullSync {
    /// A sender with nothing to do.
    pub fn new(settings: Settings, worker: WorkerKey, sign: KeySign) -> Self {
        Self {
            settings,
            worker,
            sign,
            queue: VecDeque::new(),
            done: Vec::new(),
            retries: Retries::default(),
            state: State::Idle,
            frozen: false,
            pending: None,
        }
    }

    /// Asks for a sync of `locations`; those that wait or run already are left as they are. Asked
    /// for one whose batches are under way, the controller may have restarted and lost the session:
    /// its status is looked at at once.
    /// A run that is not under way begins after `delay` (random, chosen by the caller).
    pub fn handle_request(
        &mut self,
        locations: impl IntoIterator<Item = Location>,
        delay: Duration,
        now: Timestamp,
    ) {
        self.retries.set_spread(delay);
        for location in locations {
            if self.running() != Some(&location) {
                self.enqueue(location);
                continue;
            }
            match &mut self.state {
                State::Polling { session, poll, .. } if !session.asked_again => {
                    session.asked_again = true;
                    poll.pause = FIRST_POLL;
                    if poll.wait != Wait::Answer {
                        poll.wait = Wait::Until(now);
                    }
                }
                State::Sending { session, .. } => session.asked_again = true,
                _ => {}
            }
        }
        if matches!(self.state, State::Idle) && !self.queue.is_empty() {
            self.state = State::Delaying { until: now + delay };
        }
    }

    /// The keys asked for by [`Action::List`]; `None` if the engine failed to list them.
    /// `sync_id` names the session and must be new.
    pub fn handle_listed(&mut self, keys: Option<Vec<ChunkHash>>, sync_id: String, now: Timestamp) {
        let State::Listing { location, .. } = &self.state else {
            return;
        };
        let location = location.clone();
        let Some(keys) = keys else {
            return self.end(location, Err(Failure::NotListed), now);
        };
        // An empty location is one empty batch, as upstream.
        let batches = keys.len().div_ceil(self.settings.batch_size).max(1);
        self.state = State::Starting {
            session: Session {
                location,
                sync_id,
                keys,
                sent_at: vec![now; batches],
                end_sent_at: now,
                asked_again: false,
            },
            attempt: 0,
            wait: Wait::Until(now),
        };
    }

    /// The answer to Start; `false` if it answers something else, and the question still stands.
    pub fn handle_start_reply(&mut self, reply: FullSyncStartRetMsg, now: Timestamp) -> bool {
        let FullSyncStartRetMsg {
            sync_id,
            accepted,
            error_msg,
        } = reply;
        match &self.state {
            State::Starting {
                session,
                wait: Wait::Answer,
                ..
            } if session.sync_id == sync_id => {}
            _ => return false,
        }
        if !accepted {
            self.start_failed(Failure::Refused(error_msg.unwrap_or_default()), now);
        } else if let State::Starting { session, .. } =
            std::mem::replace(&mut self.state, State::Idle)
        {
            self.state = State::Sending {
                left: (0..session.sent_at.len()).collect(),
                session,
                next_at: now,
                until: None,
            };
        }
        true
    }

    /// The answer to a status question; `false` as for
    /// [`handle_start_reply`](Self::handle_start_reply).
    pub fn handle_status_reply(&mut self, reply: FullSyncStatusRetMsg, now: Timestamp) -> bool {
        let FullSyncStatusRetMsg {
            sync_id,
            is_complete,
            global_progress: _,
            can_exit_freeze,
            missing_batches,
        } = reply;
        match &mut self.state {
            State::Polling { session, poll, .. }
                if session.sync_id == sync_id && poll.wait == Wait::Answer =>
            {
                if is_complete {
                    let location = session.location.clone();
                    self.end(location, Ok(()), now);
                    if matches!(self.state, State::Idle) {
                        if can_exit_freeze {
                            self.end_run();
                        } else {
                            self.state = State::Waiting {
                                sync_id,
                                poll: self.first_poll(now),
                            };
                        }
                    }
                } else {
                    self.send_missing(&missing_batches, now);
                }
            }
            State::Waiting {
                sync_id: waiting,
                poll,
            } if *waiting == sync_id && poll.wait == Wait::Answer => {
                if !is_complete {
                    self.state = State::Idle;
                    self.begin_done_again(now);
                } else if can_exit_freeze {
                    self.end_run();
                } else {
                    poll.again(&self.settings, now);
                }
            }
            _ => return false,
        }
        true
    }

    /// The controller did not answer the last question.
    pub fn handle_no_reply(&mut self, now: Timestamp) {
        match &mut self.state {
            State::Starting { .. } => self.start_failed(Failure::Unanswered, now),
            State::Polling { poll, .. } | State::Waiting { poll, .. } => {
                poll.again(&self.settings, now);
            }
            _ => {}
        }
    }

    /// What must be done now; to be called until it returns `None`.
    pub fn poll(&mut self, now: Timestamp) -> Option<Action> {
        if let Some(action) = self.pending.take() {
            return Some(action);
        }
        if let State::Delaying { until } = self.state
            && until <= now
        {
            self.next_location();
        }
        // A new request while waiting for the fleet is served under the same freeze.
        if matches!(self.state, State::Idle | State::Waiting { .. }) {
            for location in self.retries.due(now) {
                self.enqueue(location);
            }
            if !self.queue.is_empty() {
                self.next_location();
            }
        }
        let freeze = !matches!(self.state, State::Idle | State::Delaying { .. });
        if freeze != self.frozen {
            self.frozen = freeze;
            return Some(Action::Freeze(freeze));
        }
        self.step(now)
    }

    /// When [`poll`](Self::poll) has something to do again, if time alone brings it.
    pub fn deadline(&self) -> Option<Timestamp> {
        let retry = self.retries.deadline();
        match &self.state {
            State::Idle => retry,
            State::Listing { .. } => None,
            State::Delaying { until } => Some(*until),
            State::Starting { wait, .. } => wait.until(),
            State::Sending { next_at, .. } => Some(*next_at),
            State::Polling { poll, .. } => poll.wait.until(),
            State::Waiting { poll, .. } => poll.wait.until().into_iter().chain(retry).min(),
        }
    }

    /// Whether a run is waiting or under way; a failed one's next turn does not count.
    pub fn is_active(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Whether operations should wait: LMCache's controller discards those that arrive while a worker
    /// syncs, whatever their location. Ours does not, and takes them in order afterwards as well.
    pub fn holds_operations(&self) -> bool {
        match self.state {
            State::Listing { .. }
            | State::Starting { .. }
            | State::Sending { .. }
            | State::Polling { .. } => true,
            State::Idle | State::Delaying { .. } | State::Waiting { .. } => false,
        }
    }

    /// The location of the session under way.
    pub fn running(&self) -> Option<&Location> {
        match &self.state {
            State::Listing { location, .. } => Some(location),
            State::Starting { session, .. }
            | State::Sending { session, .. }
            | State::Polling { session, .. } => Some(&session.location),
            State::Idle | State::Delaying { .. } | State::Waiting { .. } => None,
        }
    }

    /// The location whose keys are being listed or are listed and not yet announced: an operation that
    /// is sent now may be in neither the list nor what the controller adds to it.
    pub fn unannounced(&self) -> Option<&Location> {
        match &self.state {
            State::Listing { location, .. } => Some(location),
            State::Starting { session, .. } => Some(&session.location),
            _ => None,
        }
    }

    /// Drops everything; the next `poll` thaws the engine. For an agent that closes.
    pub fn abandon(&mut self) {
        self.queue.clear();
        self.done.clear();
        self.retries = Retries::default();
        self.state = State::Idle;
        self.pending = None;
    }

    fn step(&mut self, now: Timestamp) -> Option<Action> {
        let settings = &self.settings;
        match &mut self.state {
            State::Idle | State::Delaying { .. } => None,
            State::Listing { location, asked } => {
                (!std::mem::replace(asked, true)).then(|| Action::List(location.clone()))
            }
            State::Starting { session, wait, .. } => {
                if !wait.due(now) {
                    return None;
                }
                *wait = Wait::Answer;
                Some(Action::Ask(session.start(&self.worker)))
            }
            State::Sending {
                session,
                left,
                next_at,
                until,
            } => {
                if *next_at > now {
                    return None;
                }
                if let Some(batch) = left.pop_front() {
                    // The last batch and End go together.
                    if !left.is_empty() {
                        *next_at = now + settings.batch_interval;
                    }
                    session.sent_at[batch] = now;
                    let message =
                        session.batch(batch, settings.batch_size, &self.worker, self.sign);
                    return Some(Action::Push(message));
                }
                session.end_sent_at = now;
                let end = session.end(&self.worker);
                let until = *until;
                let mut poll = self.first_poll(now);
                poll.until = until.unwrap_or(poll.until);
                if let State::Sending { session, .. } =
                    std::mem::replace(&mut self.state, State::Idle)
                {
                    self.state = State::Polling {
                        session,
                        poll,
                        blank: 0,
                    };
                }
                Some(Action::Push(end))
            }
            State::Polling { session, poll, .. } => {
                if !poll.wait.due(now) {
                    return None;
                }
                if poll.until <= now {
                    let location = session.location.clone();
                    self.end(location, Err(Failure::TimedOut), now);
                    return self.poll(now);
                }
                poll.wait = Wait::Answer;
                Some(Action::Ask(status(&self.worker, &session.sync_id)))
            }
            State::Waiting { sync_id, poll } => {
                if !poll.wait.due(now) {
                    return None;
                }
                if poll.until <= now {
                    // Serving matters more than the fleet's progress; upstream thaws here too.
                    self.end_run();
                    return self.poll(now);
                }
                poll.wait = Wait::Answer;
                Some(Action::Ask(status(&self.worker, sync_id)))
            }
        }
    }

    fn start_failed(&mut self, failure: Failure, now: Timestamp) {
        let State::Starting {
            session,
            attempt,
            wait,
        } = &mut self.state
        else {
            return;
        };
        *attempt += 1;
        if *attempt < self.settings.max_start_attempts {
            *wait = Wait::Until(now + self.settings.retry_delay);
            return;
        }
        let location = session.location.clone();
        let mut put_off = VecDeque::new();
        if failure == Failure::Unanswered {
            // Nobody is there: the other locations would fare no better, and the engine is frozen.
            put_off = std::mem::take(&mut self.queue);
        }
        self.end(location, Err(failure.clone()), now);
        for location in put_off {
            self.note_failure(location, &failure, now);
        }
    }

    /// Not complete: sends again what has been missing for long enough, or asks again later.
    fn send_missing(&mut self, missing: &[i64], now: Timestamp) {
        let State::Polling {
            session,
            poll,
            blank,
        } = &mut self.state
        else {
            return;
        };
        let until = poll.until;
        let resend_after = self.settings.resend_after;
        let mut left = VecDeque::new();
        if missing.is_empty() {
            if now.since(session.end_sent_at) >= resend_after {
                *blank += 1;
                let enough = if session.asked_again {
                    MAX_BLANK_STATUSES_ASKED
                } else {
                    MAX_BLANK_STATUSES
                };
                if *blank >= enough {
                    let location = session.location.clone();
                    return self.end(location, Err(Failure::Forgotten), now);
                }
                session.end_sent_at = now;
                let end = session.end(&self.worker);
                poll.again(&self.settings, now);
                self.pending = Some(Action::Push(end));
                return;
            }
        } else {
            *blank = 0;
            for &batch in missing {
                let Ok(batch) = usize::try_from(batch) else {
                    continue;
                };
                if let Some(sent_at) = session.sent_at.get_mut(batch)
                    && now.since(*sent_at) >= resend_after
                {
                    // Also keeps a repeated number from being queued twice.
                    *sent_at = now;
                    left.push_back(batch);
                }
            }
        }
        if left.is_empty() {
            return poll.again(&self.settings, now);
        }
        if let State::Polling { session, .. } = std::mem::replace(&mut self.state, State::Idle) {
            self.state = State::Sending {
                session,
                left,
                next_at: now,
                until: Some(until),
            };
        }
    }

    fn end(&mut self, location: Location, result: Result<(), Failure>, now: Timestamp) {
        match &result {
            Ok(()) => self.done.push(location.clone()),
            Err(failure) => {
                self.note_failure(location.clone(), failure, now);
                if *failure == Failure::Forgotten {
                    self.begin_done_again(now);
                }
            }
        }
        let is_ok = result.is_ok();
        self.pending = Some(Action::Finished(location, result));
        self.next_location();
        if !is_ok && matches!(self.state, State::Idle) {
            self.end_run();
        }
    }

    /// The fleet is ready, or has been waited for long enough.
    fn end_run(&mut self) {
        self.state = State::Idle;
        self.retries.forget(&std::mem::take(&mut self.done));
    }

    /// Whoever forgot a session of this run has restarted, and lost what was complete as well.
    fn begin_done_again(&mut self, now: Timestamp) {
        for location in std::mem::take(&mut self.done) {
            self.note_failure(location, &Failure::Forgotten, now);
        }
    }

    /// Decides when `location` has its next turn.
    fn note_failure(&mut self, location: Location, failure: &Failure, now: Timestamp) {
        let asked_again = matches!(&self.state,
            State::Sending { session, .. } | State::Polling { session, .. } if session.asked_again);
        let pause = self.settings.retry_delay * 2;
        let times = self
            .retries
            .handle_failed(&location, pause, asked_again, now);
        if times == 1 && *failure == Failure::Forgotten {
            self.enqueue(location);
        }
    }

    /// `location` gets a turn in this run.
    fn enqueue(&mut self, location: Location) {
        self.done.retain(|done| *done != location);
        self.retries.handle_turn(&location);
        if !self.queue.contains(&location) {
            self.queue.push_back(location);
        }
    }

    fn next_location(&mut self) {
        self.state = match self.queue.pop_front() {
            Some(location) => State::Listing {
                location,
                asked: false,
            },
            None => State::Idle,
        };
    }

    fn first_poll(&self, now: Timestamp) -> Poll {
        let pause = FIRST_POLL.min(self.settings.status_poll_interval);
        Poll {
            wait: Wait::Until(now + pause),
            pause,
            until: now + self.settings.status_poll_interval * self.settings.max_poll_attempts,
        }
    }
}

impl Wait {
    fn due(self, now: Timestamp) -> bool {
        matches!(self, Self::Until(at) if at <= now)
    }

    fn until(self) -> Option<Timestamp> {
        match self {
            Self::Until(at) => Some(at),
            Self::Answer => None,
        }
    }
}

impl Poll {
    fn again(&mut self, settings: &Settings, now: Timestamp) {
        self.pause = (self.pause * 2).min(settings.status_poll_interval);
        self.wait = Wait::Until(now + self.pause);
    }
}

#[cfg(test)]
#[path = "full_sync/tests.rs"]
mod tests;
