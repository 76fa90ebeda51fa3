//! What outlives the process: snapshots and journals in a state directory.
//!
//! ```text
//! Store::open   before anything is served: files -> controller            store/load
//! Store::start  thread kvatlas-store: journal -> disk, snapshots, retries store/keep, store/write
//! Keeper::stop  after everything is served: last records, final snapshot
//! ```
//! [`Store`] is the whole of it for the rest of the process; what is on disk is known to the files
//! under `store/` only. Another implementation (a replicated log) would fill the same three calls:
//! the controller hands out records and takes them back, and knows no files.
//!
//! **Invariant**: nothing in here keeps the process from serving, except a directory that another
//! process uses. What cannot be kept or read is said: in the log, at `/sync`, in metrics.

pub mod dir;
pub mod frame;
mod keep;
pub mod load;
mod remedy;
pub mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use kvatlas_controller::Controller;
use kvatlas_controller::controller::Settings;
use kvatlas_protocol::Timestamp;
use parking_lot::Mutex;

use self::dir::{DirError, StateDir};
use self::keep::Keep;
use self::load::Restored;
use self::write::Written;
use crate::app::Shared;
use crate::config::Config;

/// Bytes of records that may wait for the disk: at full speed, more than a second.
const BUFFER: usize = 64 << 20;

/// How state is kept, from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Knobs {
    dir: PathBuf,
    sync_every: Duration,
    snapshot_every: Duration,
    max_bytes: u64,
}

/// Whether state is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Health {
    /// Nobody asked for it.
    Off,
    /// Yes.
    Working,
    /// No, although it should be; tried again every few seconds.
    Failing {
        /// What went wrong, the last time.
        reason: String,
        /// What can be done about it.
        remedy: &'static str,
        /// When it began.
        since: Timestamp,
    },
}

/// What there is to know about kept state.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Whether state is kept.
    pub health: Health,
    /// Bytes of journals that a restart would replay.
    pub journal_bytes: u64,
    /// The journal's position up to which it is on disk.
    pub saved: u64,
    /// The last snapshot of this process.
    pub last_snapshot: Option<Written>,
    /// What the start found.
    pub restored: Restored,
}

/// See the module's text.
#[derive(Debug)]
pub struct Store {
    knobs: Option<Knobs>,
    status: Mutex<Status>,
    /// From `open` to `start`.
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    dir: Option<StateDir>,
    seed: u64,
    snapshot_now: bool,
}

/// The running thread.
pub struct Keeper(Option<(Sender<()>, JoinHandle<()>)>);

impl Store {
    /// Restores what the configured directory has; an empty controller without one, or if it cannot
    /// be used.
    pub fn open(
        config: &Config,
        settings: Settings,
        now: Timestamp,
    ) -> Result<(Controller, Self), DirError> {
        let store = |knobs, health, restored, opened| Self {
            knobs,
            status: Mutex::new(Status {
                health,
                journal_bytes: 0,
                saved: 0,
                last_snapshot: None,
                restored,
            }),
            opened: Mutex::new(opened),
        };
        let Some(path) = config.state_dir.as_ref().filter(|_| !config.no_state) else {
            let controller = Controller::new(settings);
            return Ok((
                controller,
                store(None, Health::Off, Restored::default(), None),
            ));
        };
        let knobs = Knobs {
            dir: PathBuf::from(path),
            sync_every: Duration::from_millis(config.journal_sync_ms.0 as u64),
            snapshot_every: config.snapshot_interval_s,
            max_bytes: config.journal_max_bytes.0 as u64,
        };
        let seed = settings.hash_seed;
        let unusable = |error: &std::io::Error| {
            let reason = format!("{}: {error}", knobs.dir.display());
            let remedy = remedy::remedy(error);
            tracing::error!(
                reason,
                remedy,
                "state is not kept: a restart would need full syncs; serving goes on"
            );
            Health::Failing {
                reason,
                remedy,
                since: now,
            }
        };
        let opened = match StateDir::open(&knobs.dir) {
            Ok(dir) => load::load(&dir, &settings).map(|loaded| (dir, loaded)),
            Err(in_use @ DirError::InUse(_)) => return Err(in_use),
            Err(DirError::Unusable { source, .. }) => Err(source),
        };
        let (dir, loaded) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let health = unusable(&error);
                let controller = Controller::new(settings);
                let opened = Opened {
                    dir: None,
                    seed,
                    snapshot_now: false,
                };
                let store = store(Some(knobs), health, Restored::default(), Some(opened));
                return Ok((controller, store));
            }
        };
        let load::Loaded {
            controller,
            position,
            seed,
            restored,
        } = loaded;
        report(&knobs.dir, &restored);
        controller.journal().start(position, BUFFER);
        let grace = match restored.is_clean {
            true => Duration::MAX,
            false => config.restart_grace_s,
        };
        controller.resume(now, grace);
        let opened = Opened {
            dir: Some(dir),
            seed,
            // What had to be pieced together is written anew at once.
            snapshot_now: restored.records > 0 || !restored.damages.is_empty(),
        };
        let store = store(Some(knobs), Health::Working, restored, Some(opened));
        Ok((controller, store))
    }

    /// Begins to keep what happens.
    pub fn start(&self, shared: &Arc<Shared>) -> std::io::Result<Keeper> {
        let (Some(opened), Some(knobs)) = (self.opened.lock().take(), self.knobs.clone()) else {
            return Ok(Keeper(None));
        };
        let (stop, stopped) = channel();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("kvatlas-store".into())
            .spawn(move || {
                let Opened {
                    dir,
                    seed,
                    snapshot_now,
                } = opened;
                Keep::new(shared, knobs, dir, seed, snapshot_now).run(&stopped);
            })?;
        Ok(Keeper(Some((stop, thread))))
    }

    /// The directory, if state is to be kept.
    pub fn path(&self) -> Option<&Path> {
        self.knobs.as_ref().map(|knobs| knobs.dir.as_path())
    }

    /// How things are.
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    fn failing(&self, reason: String, remedy: &'static str, now: Timestamp) {
        let mut status = self.status.lock();
        let since = match status.health {
            Health::Failing { since, .. } => since,
            Health::Off | Health::Working => now,
        };
        status.health = Health::Failing {
            reason,
            remedy,
            since,
        };
    }

    fn saved(&self, bytes: u64, position: u64) {
        let mut status = self.status.lock();
        status.journal_bytes = bytes;
        status.saved = position;
    }

    /// Notes a snapshot; whether state is kept again with it.
    fn snapshot_written(&self, written: Written, is_journaling: bool) -> bool {
        let mut status = self.status.lock();
        status.last_snapshot = Some(written);
        let recovers = is_journaling && status.health != Health::Working;
        if recovers {
            status.health = Health::Working;
        }
        recovers
    }
}

impl Keeper {
    /// Writes down what is left and ends the thread. Nothing may change the controller any more.
    pub fn stop(self) {
        if let Some((stop, thread)) = self.0 {
            drop(stop);
            // A panic in it has been reported; there is nothing to save.
            let _ = thread.join();
        }
    }
}

fn report(dir: &Path, restored: &Restored) {
    for damage in &restored.damages {
        tracing::error!(
            damage,
            "state is damaged; workers whose keys cannot be proved will be asked to sync"
        );
    }
    if let Some(first) = restored.left_out.first() {
        tracing::warn!(
            workers = restored.left_out.len(),
            %first,
            "what was kept needs more than max_index_bytes: the keys of the largest workers are left out, until there is room; raise max_index_bytes if the machine has it"
        );
    }
    tracing::info!(
        dir = %dir.display(),
        workers = restored.workers,
        keys = restored.keys,
        records = restored.records,
        clean = restored.is_clean,
        took_ms = restored.took.as_millis() as u64,
        "state restored"
    );
}
