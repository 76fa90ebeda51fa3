//! The way to the workers: bytes to each of them, its bytes back, by a deadline.
//!
//! One thread owns one connection per worker that has something to do (`link`) and polls them all,
//! so that two hundred workers obey together and none waits for another. Per worker one command is
//! outstanding; the next ones stand in a bounded line, and what would not fit is refused before any
//! worker of that command is told. Every job ends by its deadline.
//!
//! ```text
//! front (tokio) --submit--> inbox (bounded) --wake--> thread: line per worker -> link -> worker
//!       ^------------------- one channel per command, as wide as its jobs --------------'
//! ```
//!
//! Does not know what a command means: payloads are bytes. Keeps no facts: connections only. Its
//! ZeroMQ context is its own, so that a storm of commands leaves the sockets of the fronts alone.
//! Locks: the inbox's, held for a few map operations, never while sending or polling.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvatlas_controller::plan::StepError;
use kvatlas_protocol::WorkerKey;
use thiserror::Error;
use tokio::sync::mpsc;

use super::inbox::Inbox;
use super::lines::Lines;

/// Bounds of the links; none of them needs tuning.
#[derive(Clone, Copy, Debug)]
pub struct LinkSettings {
    /// Commands to one worker that are running or waiting.
    pub max_per_worker: usize,
    /// Bytes of all payloads that are running or waiting.
    pub max_pending_bytes: usize,
    /// Connections open at the same time. A libzmq context holds 1,023 sockets, and a closed one
    /// counts until its reaper has been there.
    pub max_links: usize,
    /// How long an unused connection stays open for the next command.
    pub idle_close: Duration,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            max_per_worker: 16,
            max_pending_bytes: 256 << 20,
            max_links: 900,
            idle_close: Duration::from_secs(45),
        }
    }
}

/// One message to one worker.
#[derive(Debug)]
pub struct Job {
    /// Number of the step in its plan; comes back with the answer.
    pub number: usize,
    /// To whom.
    pub worker: WorkerKey,
    /// Where it listens.
    pub endpoint: SocketAddr,
    /// Registration that said so; a link opened under another one is not used.
    pub epoch: u64,
    /// What it is told.
    pub payload: Vec<u8>,
}

/// What came of one job.
#[derive(Debug)]
pub struct Answer {
    /// Number of the job.
    pub number: usize,
    /// The worker's bytes.
    pub result: Result<Vec<u8>, StepError>,
    /// From submission.
    pub took: Duration,
}

/// Why no job of a command was taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// A worker's line is full.
    #[error("worker {worker} already has {limit} commands running or waiting; try again later")]
    LineFull {
        /// Which worker.
        worker: WorkerKey,
        /// How long its line may be.
        limit: usize,
    },
    /// All lines together hold too much.
    #[error(
        "commands of {pending} bytes are running or waiting, the limit is {limit}; try again later"
    )]
    TooMuch {
        /// Bytes there would be.
        pending: usize,
        /// Bytes there may be.
        limit: usize,
    },
    /// The process is stopping.
    #[error("the controller is stopping")]
    Stopping,
}

/// The way to the workers. Dropping it stops the thread.
#[derive(Debug)]
pub struct Links {
    inbox: Arc<Inbox>,
    thread: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl Links {
    /// Starts the thread.
    pub fn start(settings: LinkSettings) -> std::io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let inbox = Arc::new(Inbox::new(settings, wake));
        let lines = Lines::new(settings, Arc::clone(&inbox), woken);
        let thread = std::thread::Builder::new()
            .name("dispatch".into())
            .spawn(move || lines.run())?;
        Ok(Self {
            inbox,
            thread: parking_lot::Mutex::new(Some(thread)),
        })
    }

    /// Takes all `jobs` or none; each is answered within `timeout`, in any order.
    pub fn submit(
        &self,
        jobs: Vec<Job>,
        timeout: Duration,
    ) -> Result<mpsc::Receiver<Answer>, SubmitError> {
        let submitted = Instant::now();
        // As wide as the jobs, so that answering never waits for the one who asked.
        let (answers, receiver) = mpsc::channel(jobs.len().max(1));
        let tickets = jobs.into_iter().map(|job| Ticket {
            job,
            submitted,
            timeout,
            answers: answers.clone(),
        });
        self.inbox.put(tickets.collect())?;
        Ok(receiver)
    }

    /// Fails everything that runs or waits and refuses what comes; returns when the thread ended,
    /// which takes milliseconds.
    pub fn stop(&self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the dispatch thread panicked");
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A job under way.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) job: Job,
    submitted: Instant,
    pub(super) timeout: Duration,
    answers: mpsc::Sender<Answer>,
}

impl Ticket {
    pub(super) fn deadline(&self) -> Instant {
        self.submitted + self.timeout
    }

    pub(super) fn answer(self, result: Result<Vec<u8>, StepError>) {
        // Fails only if nobody waits any more; the channel is as wide as the jobs.
        drop(self.answers.try_send(Answer {
            number: self.job.number,
            result,
            took: self.submitted.elapsed(),
        }));
    }
}
