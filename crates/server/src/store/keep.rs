//! The thread that keeps state: journal to disk every few milliseconds, a snapshot now and then.
//!
//! ```text
//! Working --write fails, disk too slow, journals too large--> Failing --pause, then a new journal
//!    ^                                                           |      and a fresh snapshot-->
//!    +-----------------------------------------------------------+      Working when that is whole
//! ```
//! While it fails, serving goes on: what happens is not kept, and every restart would fall back to
//! what is on disk, which the workers' numbers then disprove. A full disk costs the older snapshot
//! and what led from it to the newer one; the newer one stays until a fresh one is whole.

use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::dir::{DirError, KEPT_SNAPSHOTS, StateDir};
use super::frame::{self, Head};
use super::remedy::{RETRY, is_full, remedy};
use super::write::{self, Written};
use super::{BUFFER, Knobs};
use crate::app::Shared;

/// Journals may grow to this many times `journal_max_bytes` before persistence is given up.
const MAX_GROWTH: u64 = 4;
/// Capacity a buffer may keep between two writes.
const KEPT_CAPACITY: usize = 8 << 20;

/// What the thread works with.
pub(super) struct Keep {
    shared: Arc<Shared>,
    knobs: Knobs,
    dir: Option<Arc<StateDir>>,
    seed: u64,
    /// The journal; `None` while persistence fails.
    file: Option<File>,
    spare: Vec<u8>,
    /// Bytes of journals since the last whole snapshot was begun, and in those it supersedes.
    since_snapshot: u64,
    superseded: u64,
    writing: Option<JoinHandle<io::Result<Written>>>,
    last_snapshot: Instant,
    retry_at: Option<Instant>,
    /// Journals from here on follow no snapshot yet: without one, no restart could use them.
    unfounded: Option<u64>,
}

impl Keep {
    /// `dir` is missing if it could not be opened; `snapshot_now` if what is there should be replaced.
    pub(super) fn new(
        shared: Arc<Shared>,
        knobs: Knobs,
        dir: Option<StateDir>,
        seed: u64,
        snapshot_now: bool,
    ) -> Self {
        let mut keep = Self {
            shared,
            knobs,
            dir: dir.map(Arc::new),
            seed,
            file: None,
            spare: Vec::new(),
            since_snapshot: 0,
            superseded: 0,
            writing: None,
            last_snapshot: Instant::now(),
            retry_at: None,
            unfounded: None,
        };
        let begun = match &keep.dir {
            Some(_) => keep.begin_file(keep.shared.controller.journal().first_position()),
            None => {
                keep.retry_at = Some(Instant::now() + RETRY);
                Ok(())
            }
        };
        let begun = match snapshot_now && keep.dir.is_some() {
            true => begun.and_then(|()| keep.begin_snapshot()),
            false => begun,
        };
        if let Err(error) = begun {
            keep.fail(&error);
        }
        keep
    }

    /// Runs until `stopped` says so, then writes everything down.
    pub(super) fn run(mut self, stopped: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(self.knobs.sync_every) {
            // A bug in one round costs what it would have written.
            if catch_unwind(AssertUnwindSafe(|| self.round())).is_err() {
                self.fail(&io::Error::other("a bug; see the log"));
            }
        }
        self.finish();
    }

    fn round(&mut self) {
        if self.file.is_some() {
            if let Err(error) = self.write_journal(false) {
                self.fail(&error);
            }
        } else {
            // Nobody will read it.
            drop(self.shared.controller.journal().take(Vec::new()));
            if self.retry_at.is_some_and(|at| Instant::now() >= at) {
                self.retry();
            }
        }
        self.look_after_snapshot();
    }

    /// Takes what was recorded and writes it; with `rotate` the next record begins another file.
    fn write_journal(&mut self, rotate: bool) -> io::Result<u64> {
        let journal = self.shared.controller.journal();
        let spare = std::mem::take(&mut self.spare);
        let taken = match rotate {
            true => journal.rotate(spare),
            false => journal.take(spare),
        };
        if let Some(file) = &mut self.file
            && !taken.bytes.is_empty()
        {
            let start = frame::group_start(taken.first, &taken.bytes);
            file.write_all(&start)
                .and_then(|()| file.write_all(&taken.bytes))
                .and_then(|()| file.sync_data())
                .map_err(|error| about("cannot write the journal", &error))?;
            self.since_snapshot += (frame::GROUP_HEADER + taken.bytes.len()) as u64;
            let bytes = self.since_snapshot + self.superseded;
            self.shared.store.saved(bytes, taken.next);
        }
        if taken.is_broken {
            return Err(io::Error::other(format!(
                "more than {BUFFER} bytes came between two writes: the disk is too slow"
            )));
        }
        if self.since_snapshot + self.superseded > self.knobs.max_bytes.saturating_mul(MAX_GROWTH) {
            return Err(io::Error::other(
                "journals grow faster than snapshots are written",
            ));
        }
        self.spare = taken.bytes;
        if self.spare.capacity() > KEPT_CAPACITY {
            self.spare = Vec::new();
        }
        Ok(taken.next)
    }

    fn begin_file(&mut self, position: u64) -> io::Result<()> {
        let dir = self.dir.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let (unbegun, path) = (dir.unbegun(), dir.journal(position));
        let begun = dir.create(&unbegun).and_then(|mut file| {
            file.write_all(&frame::journal_start(position))?;
            file.sync_all()?;
            std::fs::rename(&unbegun, &path)?;
            dir.sync()?;
            Ok(file)
        });
        let begun = begun.map_err(|error| {
            // Nothing is in it.
            let _ = std::fs::remove_file(unbegun);
            let _ = std::fs::remove_file(path);
            about("cannot begin a journal", &error)
        });
        self.file = Some(begun?);
        Ok(())
    }

    /// Ends the journal's file and writes a snapshot as of there, beside what goes on.
    fn begin_snapshot(&mut self) -> io::Result<()> {
        let position = self.write_journal(true)?;
        self.begin_file(position)?;
        self.superseded += std::mem::take(&mut self.since_snapshot);
        let head = self.head(position, false);
        let dir = self.dir.clone().ok_or(io::ErrorKind::NotFound)?;
        let shared = Arc::clone(&self.shared);
        let writing = std::thread::Builder::new()
            .name("kvatlas-snap".into())
            .spawn(move || write::snapshot(&dir, &shared.controller, &head))?;
        self.writing = Some(writing);
        self.last_snapshot = Instant::now();
        Ok(())
    }

    fn look_after_snapshot(&mut self) {
        if let Some(writing) = self.writing.take_if(|writing| writing.is_finished()) {
            self.end_snapshot(writing);
        }
        let is_due = self.since_snapshot >= self.knobs.max_bytes
            || self.since_snapshot > 0 && self.last_snapshot.elapsed() >= self.knobs.snapshot_every;
        if is_due
            && self.file.is_some()
            && self.writing.is_none()
            && let Err(error) = self.begin_snapshot()
        {
            self.fail(&error);
        }
    }

    fn end_snapshot(&mut self, writing: JoinHandle<io::Result<Written>>) {
        let outcome = writing
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("writing a snapshot panicked")));
        match outcome {
            Ok(written) => {
                self.superseded = 0;
                self.unfounded = None;
                tracing::info!(
                    keys = written.keys,
                    bytes = written.bytes,
                    took_ms = written.took.as_millis() as u64,
                    "snapshot written"
                );
                if self
                    .shared
                    .store
                    .snapshot_written(written, self.file.is_some())
                {
                    tracing::info!("state is kept again");
                }
                if let Some(Err(error)) = self.dir.as_ref().map(|dir| dir.prune(KEPT_SNAPSHOTS)) {
                    tracing::warn!(%error, "cannot remove old snapshots and journals");
                }
            }
            Err(error) => self.fail(&about("cannot write a snapshot", &error)),
        }
    }

    /// Persistence stops, serving does not.
    fn fail(&mut self, error: &io::Error) {
        self.file = None;
        self.retry_at = Some(Instant::now() + RETRY);
        if let Some(dir) = &self.dir {
            if let Some(from) = self.unfounded.take() {
                let journals = dir.journals().unwrap_or_default().into_iter();
                for position in journals.filter(|&position| position >= from) {
                    let _ = std::fs::remove_file(dir.journal(position));
                }
            }
            if is_full(error) {
                let _ = dir.prune(1);
            }
        }
        let remedy = remedy(error);
        tracing::error!(
            reason = %error,
            remedy,
            retry_s = RETRY.as_secs(),
            "state is not kept: a restart now would need full syncs; serving goes on"
        );
        let now = self.shared.clock.now();
        self.shared.store.failing(error.to_string(), remedy, now);
    }

    fn retry(&mut self) {
        if self.writing.is_some() {
            return;
        }
        let outcome = self.open_again().and_then(|()| {
            let position = self.shared.controller.journal().restart();
            self.unfounded = Some(position);
            self.superseded = 0;
            self.since_snapshot = 0;
            self.begin_file(position)?;
            self.begin_snapshot()
        });
        match outcome {
            Ok(()) => self.retry_at = None,
            Err(error) => self.fail(&error),
        }
    }

    /// A directory that could not be opened at the start may be usable by now.
    fn open_again(&mut self) -> io::Result<()> {
        if self.dir.is_none() {
            let dir = StateDir::open(&self.knobs.dir).map_err(|error| match error {
                DirError::InUse(_) => io::Error::other(error),
                DirError::Unusable { ref source, .. } => io::Error::new(source.kind(), error),
            })?;
            let newest = dir.snapshots()?.into_iter().chain(dir.journals()?).max();
            let after = newest.map_or(0, |newest| newest + 1);
            self.shared.controller.journal().start(after, BUFFER);
            self.dir = Some(Arc::new(dir));
        }
        Ok(())
    }

    /// Nothing is served any more: the last records, and a snapshot of how things were left.
    fn finish(mut self) {
        if let Some(writing) = self.writing.take() {
            self.end_snapshot(writing);
        }
        if self.file.is_none() {
            tracing::warn!("state is not kept: the next start will need full syncs");
            return;
        }
        let outcome = self.write_journal(true).and_then(|position| {
            let dir = self.dir.as_ref().ok_or(io::ErrorKind::NotFound)?;
            let head = self.head(position, true);
            write::snapshot(dir, &self.shared.controller, &head)
        });
        match outcome {
            Ok(written) => {
                tracing::info!(
                    keys = written.keys,
                    bytes = written.bytes,
                    "final snapshot written"
                );
                if let Some(Err(error)) = self.dir.as_ref().map(|dir| dir.prune(KEPT_SNAPSHOTS)) {
                    tracing::warn!(%error, "cannot remove old snapshots and journals");
                }
            }
            Err(error) => {
                tracing::error!(%error, "no final snapshot: the next start replays the journal");
            }
        }
    }

    fn head(&self, position: u64, is_clean: bool) -> Head {
        Head {
            position,
            seed: self.seed,
            created: self.shared.clock.now().0,
            is_clean,
        }
    }
}

/// The same error, saying what could not be done.
fn about(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
