//! The dispatch thread: a line of commands per worker, and the links that serve them.
//!
//! A line exists while its worker has commands or an open link. At most one command of a line is
//! current. Links are bounded; when all are in use by commands, lines wait for one to come free,
//! within their commands' deadlines, and an idle link is closed for another worker.
//! A turn of the loop costs O(lines with a current command), a look after them O(lines).

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvatlas_controller::plan::StepError;
use kvatlas_protocol::WorkerKey;
use zmq::{Context, POLLIN, PollItem};

use super::inbox::Inbox;
use super::link::{Heard, Link};
use super::links::{LinkSettings, Ticket};

/// How often the lines are looked after: deadlines are kept and a worker that died is reported this
/// soon. A look at a thousand lines is under a millisecond.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// The thread's state.
pub(super) struct Lines {
    settings: LinkSettings,
    inbox: Arc<Inbox>,
    woken: UnixStream,
    lines: HashMap<WorkerKey, Line>,
    /// Lines that may be able to begin their next command.
    ready: VecDeque<WorkerKey>,
    /// Lines that wait for a link to come free.
    starved: VecDeque<WorkerKey>,
    n_links: usize,
    /// Last field: dropped after the links.
    context: Context,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Ticket>,
    current: Option<Current>,
    link: Option<Link>,
    /// When the link had its last answer.
    idle_since: Option<Instant>,
}

/// The command a worker is at.
struct Current {
    ticket: Ticket,
    sent: bool,
}

impl Lines {
    pub(super) fn new(settings: LinkSettings, inbox: Arc<Inbox>, woken: UnixStream) -> Self {
        Self {
            settings,
            inbox,
            woken,
            lines: HashMap::new(),
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            n_links: 0,
            context: Context::new(),
        }
    }

    /// Serves until told to stop. Nothing a worker does ends this loop.
    pub(super) fn run(mut self) {
        let mut next_look = Instant::now() + LOOK_AFTER;
        loop {
            let arrived = self.inbox.fetch();
            for ticket in arrived.tickets {
                let worker = ticket.job.worker.clone();
                self.lines
                    .entry(worker.clone())
                    .or_default()
                    .waiting
                    .push_back(ticket);
                self.ready.push_back(worker);
            }
            if arrived.stopping {
                self.give_up_all();
                return;
            }
            self.begin_ready();
            for worker in self.wait(next_look) {
                self.listen(&worker);
            }
            if Instant::now() >= next_look {
                self.look_after();
                next_look = Instant::now() + LOOK_AFTER;
            }
        }
    }

    /// Begins the next command of every line that can.
    fn begin_ready(&mut self) {
        if self.n_links < self.settings.max_links || self.any_idle() {
            self.ready.append(&mut self.starved);
        }
        while let Some(worker) = self.ready.pop_front() {
            self.begin(&worker);
        }
    }

    /// Begins the next command of one line.
    fn begin(&mut self, worker: &WorkerKey) {
        let Some(line) = self.lines.get_mut(worker) else {
            return;
        };
        if line.current.is_some() {
            return;
        }
        let Some(next) = line.waiting.front() else {
            return;
        };
        let (endpoint, epoch) = (next.job.endpoint, next.job.epoch);
        let usable = line.link.as_ref().is_some_and(|link| {
            link.endpoint == endpoint && link.epoch == epoch && !link.has_unasked()
        });
        if !usable {
            self.close(worker);
            if self.n_links >= self.settings.max_links && !self.close_idlest() {
                self.starved.push_back(worker.clone());
                return;
            }
        }
        let Some(line) = self.lines.get_mut(worker) else {
            return;
        };
        if line.link.is_none() {
            match Link::open(&self.context, endpoint, epoch) {
                Ok(link) => {
                    line.link = Some(link);
                    self.n_links += 1;
                }
                // No descriptor or no place in the context: what was closed a moment ago still
                // holds one. An idle link makes room, and the next look tries again.
                Err(zmq::Error::EMFILE) => {
                    self.close_idlest();
                    self.starved.push_back(worker.clone());
                    return;
                }
                Err(error) => {
                    let ticket = line.waiting.pop_front();
                    if let Some(ticket) = ticket {
                        let error = StepError::NoLink(error.to_string());
                        self.end(worker, ticket, Err(error));
                    }
                    return;
                }
            }
        }
        let Some(ticket) = line.waiting.pop_front() else {
            return;
        };
        line.current = Some(Current {
            ticket,
            sent: false,
        });
        self.try_send(worker);
    }

    /// Sends a current command whose worker may have become connected.
    fn try_send(&mut self, worker: &WorkerKey) {
        let Some(line) = self.lines.get_mut(worker) else {
            return;
        };
        let (Some(current), Some(link)) = (&mut line.current, &line.link) else {
            return;
        };
        match link.send(&current.ticket.job.payload) {
            Ok(sent) => current.sent = sent,
            Err(error) => self.fail_current(worker, StepError::NoLink(error.to_string())),
        }
    }

    /// Waits until something happened or it is time to look after the lines; those with something
    /// to hear or to send.
    fn wait(&self, next_look: Instant) -> Vec<WorkerKey> {
        let mut workers = Vec::new();
        let mut items = vec![PollItem::from_fd(self.woken.as_raw_fd(), POLLIN)];
        for (worker, line) in &self.lines {
            if let (Some(current), Some(link)) = (&line.current, &line.link) {
                workers.push(worker);
                items.push(if current.sent {
                    link.poll_answer()
                } else {
                    link.poll_connected()
                });
            }
        }
        let timeout = if self.lines.is_empty() {
            -1
        } else {
            let wait = next_look.saturating_duration_since(Instant::now());
            // Rounded up, so that the last turn before the look is not a busy one.
            i64::try_from(wait.as_millis())
                .unwrap_or(i64::MAX)
                .saturating_add(1)
        };
        if let Err(error) = zmq::poll(&mut items, timeout) {
            // EINTR at most; a link that went wrong is found by the look after it.
            tracing::debug!(%error, "poll failed");
            return Vec::new();
        }
        let mut items = items.into_iter();
        if items.next().is_some_and(|wake| wake.is_readable()) {
            let mut bytes = [0; 256];
            while (&self.woken).read(&mut bytes).is_ok_and(|read| read > 0) {}
        }
        workers
            .into_iter()
            .zip(items)
            .filter(|(_, item)| item.is_readable() || item.is_writable())
            .map(|(worker, _)| worker.clone())
            .collect()
    }

    /// Looks at a line with a current command.
    fn listen(&mut self, worker: &WorkerKey) {
        let Some(line) = self.lines.get_mut(worker) else {
            return;
        };
        let (Some(current), Some(link)) = (&line.current, &line.link) else {
            return;
        };
        if !current.sent {
            self.try_send(worker);
            return;
        }
        match link.hear() {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Answer(answer)) => {
                let Some(Current { ticket, .. }) = line.current.take() else {
                    return;
                };
                line.idle_since = Some(Instant::now());
                self.end(worker, ticket, Ok(answer));
            }
            Ok(Heard::Broken) => self.fail_current(worker, StepError::Disconnected),
            Err(error) => {
                let error = StepError::undecodable(format_args!("transport error, {error}"));
                self.fail_current(worker, error);
            }
        }
    }

    /// Finds broken connections, ends what is past its deadline, closes what has been idle, forgets
    /// empty lines.
    fn look_after(&mut self) {
        let now = Instant::now();
        let workers: Vec<_> = self.lines.keys().cloned().collect();
        for worker in workers {
            self.listen(&worker);
            self.keep_deadline(&worker, now);
        }
    }

    fn keep_deadline(&mut self, worker: &WorkerKey, now: Instant) {
        let Some(line) = self.lines.get_mut(worker) else {
            return;
        };
        // A line's tickets may have different timeouts, so any of them may be due.
        let starved = line.current.is_none();
        let mut due = Vec::new();
        let mut at = 0;
        while let Some(ticket) = line.waiting.get(at) {
            if ticket.deadline() > now {
                at += 1;
            } else {
                due.extend(line.waiting.remove(at));
            }
        }
        if let Some(Current { ticket, sent }) = &line.current
            && ticket.deadline() <= now
        {
            let waited = ticket.timeout;
            let error = if *sent {
                StepError::NoAnswer { waited }
            } else {
                StepError::NeverConnected {
                    address: ticket.job.endpoint.to_string(),
                    waited,
                }
            };
            self.fail_current(worker, error);
        }
        for ticket in due {
            let error = if starved {
                StepError::NoLink(format!("{} connections are in use", self.n_links))
            } else {
                let waited = ticket.timeout;
                StepError::Busy { waited }
            };
            self.end(worker, ticket, Err(error));
        }
        let idle_close = self.settings.idle_close;
        if let Some(line) = self.lines.get(worker)
            && line.is_idle()
            && line
                .idle_since
                .is_none_or(|since| now.duration_since(since) >= idle_close)
        {
            self.close(worker);
            self.lines.remove(worker);
        }
    }

    /// Ends the current command of a line and drops the link it failed on.
    fn fail_current(&mut self, worker: &WorkerKey, error: StepError) {
        let ticket = self
            .lines
            .get_mut(worker)
            .and_then(|line| line.current.take());
        self.close(worker);
        if let Some(Current { ticket, .. }) = ticket {
            self.end(worker, ticket, Err(error));
        }
    }

    /// Answers a ticket; its line may go on.
    fn end(&mut self, worker: &WorkerKey, ticket: Ticket, result: Result<Vec<u8>, StepError>) {
        self.inbox.ended(&ticket);
        ticket.answer(result);
        self.ready.push_back(worker.clone());
    }

    fn close(&mut self, worker: &WorkerKey) {
        if let Some(line) = self.lines.get_mut(worker)
            && line.link.take().is_some()
        {
            line.idle_since = None;
            self.n_links -= 1;
        }
    }

    fn any_idle(&self) -> bool {
        !self.starved.is_empty()
            && self
                .lines
                .values()
                .any(|line| line.is_idle() && line.link.is_some())
    }

    /// Closes the link that has been idle longest; whether there was one.
    fn close_idlest(&mut self) -> bool {
        let idlest = self
            .lines
            .iter()
            .filter(|(_, line)| line.is_idle() && line.link.is_some())
            .min_by_key(|(_, line)| line.idle_since)
            .map(|(worker, _)| worker.clone());
        match idlest {
            Some(worker) => {
                self.close(&worker);
                true
            }
            None => false,
        }
    }

    fn give_up_all(&mut self) {
        let tickets: Vec<_> = self
            .lines
            .values_mut()
            .flat_map(|line| {
                let current = line.current.take().map(|current| current.ticket);
                current.into_iter().chain(line.waiting.drain(..))
            })
            .collect();
        for ticket in tickets {
            self.inbox.ended(&ticket);
            ticket.answer(Err(StepError::Stopping));
        }
    }
}

impl Line {
    fn is_idle(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }
}
