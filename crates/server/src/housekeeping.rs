//! What runs beside the fronts, on one thread of its own: expiry of silent workers, full-sync
//! timeouts, and the sweep of departed holders.
//!
//! The sweep goes in short steps with pauses between, so that a million keys of a departed worker
//! never hold anybody up. The tasks are shown at `/periodic-threads` as upstream shows its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use kvatlas_protocol::Timestamp;

use crate::app::Shared;
use crate::history::{self, Sample};

/// Index slots freed in one step of the sweep: well under a millisecond.
const SWEEP_STEP: usize = 4096;
/// Pause between two steps of the sweep.
const SWEEP_PAUSE: Duration = Duration::from_millis(1);
/// Time between two rounds when there is nothing to sweep.
const ROUND: Duration = Duration::from_millis(500);
/// Longest time between two looks for timeouts, whatever `health_check_interval` says: full syncs
/// time out also when expiry is off.
const MAX_EXPIRY_INTERVAL: Duration = Duration::from_secs(5);

/// The tasks, as far as the outside may know them.
#[derive(Debug, Default)]
pub struct Housekeeping {
    /// Looks for silent workers and idle full syncs.
    pub expiry: Task,
    /// Frees the index slots of departed holders.
    pub sweep: Task,
    /// Keeps samples for the page.
    pub history: Task,
}

/// How one task is doing.
#[derive(Debug, Default)]
pub struct Task {
    runs: AtomicU64,
    last_run: AtomicU64,
    last_micros: AtomicU64,
}

/// The thread.
pub struct Keeper {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Task {
    /// Completed runs.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// When the last run began; `None` before the first.
    pub fn last_run(&self) -> Option<Timestamp> {
        Some(Timestamp(self.last_run.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }

    /// How long it took.
    pub fn last_duration(&self) -> Duration {
        Duration::from_micros(self.last_micros.load(Ordering::Relaxed))
    }

    fn run<T>(&self, shared: &Shared, work: impl FnOnce(Timestamp) -> T) -> T {
        let start = shared.clock.now();
        let outcome = work(start);
        let took = shared.clock.now().since(start);
        self.last_run.store(start.0, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.last_micros.store(micros, Ordering::Relaxed);
        self.runs.fetch_add(1, Ordering::Relaxed);
        outcome
    }
}

impl Housekeeping {
    /// Starts the thread.
    pub fn start(&self, shared: &Arc<Shared>) -> std::io::Result<Keeper> {
        let (stop, stopped) = channel();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("kvatlas-keeper".into())
            .stack_size(512 * 1024)
            .spawn(move || keep(&shared, &stopped))?;
        Ok(Keeper { stop, thread })
    }
}

impl Keeper {
    /// Ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        // A panic in it has been reported; there is nothing to save.
        let _ = self.thread.join();
    }
}

/// How often timeouts are looked for.
pub fn expiry_interval(shared: &Shared) -> Duration {
    let configured = shared.config.health_check_interval.0;
    configured.map_or(MAX_EXPIRY_INTERVAL, |interval| {
        interval.min(MAX_EXPIRY_INTERVAL)
    })
}

fn keep(shared: &Shared, stopped: &Receiver<()>) {
    let mut pause = Duration::ZERO;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
        // A bug in one round costs the round.
        pause = catch_unwind(AssertUnwindSafe(|| round(shared))).unwrap_or(ROUND);
    }
}

/// Does what is due; how long to pause.
fn round(shared: &Shared) -> Duration {
    let tasks = &shared.housekeeping;
    let interval = expiry_interval(shared);
    let due = |task: &Task, interval: Duration| {
        task.last_run()
            .is_none_or(|last| shared.clock.now().since(last) >= interval)
    };
    if due(&tasks.expiry, interval) {
        tasks.expiry.run(shared, |now| expire(shared, now));
    }
    if due(&tasks.history, history::INTERVAL) {
        tasks.history.run(shared, |now| {
            shared.history.keep(Sample::take(shared, now));
        });
    }
    let progress = tasks
        .sweep
        .run(shared, |_| shared.controller.sweep(SWEEP_STEP));
    shared.metrics.swept(progress);
    if progress.dead_holders > 0 {
        SWEEP_PAUSE
    } else {
        ROUND.min(interval)
    }
}

fn expire(shared: &Shared, now: Timestamp) {
    let expired = shared.controller.expire(now);
    shared.metrics.expired(expired.len());
    for worker in expired {
        tracing::warn!(%worker, "worker removed: silent for too long");
    }
}
