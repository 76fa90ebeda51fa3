//! Writing a snapshot while the controller goes on.
//!
//! Registry first, then the index shard by shard: no lock is held for longer than one worker's
//! record, and lookups take none anyway. To a temporary file, synced, renamed, the directory synced:
//! a snapshot is whole or not there.
//!
//! Between pieces of work the thread rests for as long as it worked, so that it takes at most half
//! a core from those who answer; the last snapshot of a process does not rest.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use kvatlas_controller::Controller;
use kvatlas_controller::snapshot::Encoder;
use kvatlas_protocol::Timestamp;

use super::dir::StateDir;
use super::frame::{self, Head, kind};

/// Longest stretch of work between two rests: about what a lookup that waits for the core is put off by.
const STRETCH: Duration = Duration::from_micros(250);
/// Bytes written at once.
const CHUNK: usize = 1 << 20;
/// Bytes after which the file is synced: one sync at the end would hold up the journal's.
const SYNC_EVERY: usize = 16 << 20;

/// A snapshot that was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Written {
    /// Begun at.
    pub at: Timestamp,
    /// Distinct keys in it.
    pub keys: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Time it took.
    pub took: Duration,
}

/// Writes one.
pub fn snapshot(dir: &StateDir, controller: &Controller, head: &Head) -> io::Result<Written> {
    let path = dir.unfinished();
    let outcome = write(dir, controller, head);
    if outcome.is_err() {
        // It may be what fills the disk.
        let _ = std::fs::remove_file(path);
    }
    outcome
}

fn write(dir: &StateDir, controller: &Controller, head: &Head) -> io::Result<Written> {
    let start = Instant::now();
    let mut pace = Pace {
        rests: !head.is_clean,
        since: start,
    };
    let mut out = Output {
        file: dir.create(&dir.unfinished())?,
        buffer: Vec::with_capacity(2 * CHUNK),
        written: 0,
        unsynced: 0,
    };
    frame::snapshot_start(head, &mut out.buffer);
    let mut encoder = Encoder::default();
    let mut block = Vec::new();
    let records = controller.export();
    let mut done = 0;
    while done < records.len() {
        block.clear();
        done += encoder.workers(&records[done..], &mut block);
        out.block(kind::WORKERS, &block)?;
        pace.rest();
    }
    drop(records);
    let mut next = Some(0);
    while let Some(from) = next {
        block.clear();
        next = encoder.keys(controller, from, &mut block);
        if !block.is_empty() {
            out.block(kind::KEYS, &block)?;
        }
        pace.rest();
    }
    out.block(kind::END, &encoder.n_keys().to_le_bytes())?;
    out.flush()?;
    out.file.sync_all()?;
    std::fs::rename(dir.unfinished(), dir.snapshot(head.position))?;
    dir.sync()?;
    Ok(Written {
        at: Timestamp(head.created),
        keys: encoder.n_keys(),
        bytes: out.written,
        took: start.elapsed(),
    })
}

struct Output {
    file: std::fs::File,
    buffer: Vec<u8>,
    written: u64,
    unsynced: usize,
}

impl Output {
    fn block(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        frame::block(kind, payload, &mut self.buffer);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.unsynced += self.buffer.len();
        self.buffer.clear();
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

struct Pace {
    rests: bool,
    since: Instant,
}

impl Pace {
    fn rest(&mut self) {
        let worked = self.since.elapsed();
        if self.rests && worked >= STRETCH {
            std::thread::sleep(worked.min(STRETCH * 2));
            self.since = Instant::now();
        }
    }
}
