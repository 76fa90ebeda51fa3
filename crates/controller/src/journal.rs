//! The journal: what the controller accepted since the last snapshot, in order, as bytes.
//!
//! ```text
//! handle_*, apply_batch --append, under the worker's (or registry's) lock--> buffer
//!      store's thread: take() every few milliseconds --> file          (no I/O in here)
//! restart: snapshot, then replay() of the files since --> the same state (journal/replay.rs)
//! ```
//! The controller is deterministic, so inputs are enough: replaying them through the same handlers
//! leads to the same state. What depends on time or on other workers (a timeout, a question in a
//! heartbeat) is a record of its own. Records have positions, rising by one; a snapshot notes for
//! each worker the position it is as of, and replay skips what a worker already contains.
//!
//! **Invariants.** Records of one worker stand in the order in which they took effect. The buffer is
//! bounded: what does not fit is dropped with everything after it, and [`Taken::is_broken`] says so.
//! Lock: a leaf, held for the copying of one record.
//!
//! Bytes: docs/state-format.md.

pub(crate) mod bytes;
pub(crate) mod replay;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use kvatlas_protocol::{
    BatchId, ChunkHash, Location, Operation, OperationKind, SyncId, Timestamp, WorkerKey,
};
use parking_lot::{Mutex, MutexGuard};

use crate::registry::worker::{Worker, WorkerAddress};
use bytes::{put_hashes, put_i64, put_text, put_u64};

pub use bytes::Malformed;
pub use replay::Replay;

/// Records, by their first byte.
pub(crate) mod tag {
    pub(crate) const STREAM: u8 = 1;
    pub(crate) const BATCH: u8 = 2;
    pub(crate) const REGISTERED: u8 = 3;
    pub(crate) const REMOVED: u8 = 4;
    pub(crate) const READDRESSED: u8 = 5;
    pub(crate) const SYNC_STARTED: u8 = 6;
    pub(crate) const SYNC_BATCH: u8 = 7;
    pub(crate) const SYNC_ENDED: u8 = 8;
    pub(crate) const TIMED_OUT: u8 = 9;
    pub(crate) const ASKED: u8 = 10;
    pub(crate) const RESUMED: u8 = 11;
}

/// Flags of a batch record.
pub(crate) mod batch {
    /// Every number is the one before plus one.
    pub(crate) const CONSECUTIVE: u8 = 1;
    /// Every operation is an admit.
    pub(crate) const ADMITS: u8 = 2;
    /// Every operation is an evict.
    pub(crate) const EVICTS: u8 = 4;
}

const OFF: u8 = 0;
const REPLAYING: u8 = 1;
const ON: u8 = 2;

/// See the module's text. Off until [`Journal::start`].
#[derive(Debug, Default)]
pub struct Journal {
    mode: AtomicU8,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    buffer: Vec<u8>,
    /// Most bytes between two [`Journal::take`].
    limit: usize,
    /// Position of the first record in the buffer.
    first: u64,
    /// Position of the next record.
    next: u64,
    /// Ordinals of (registration, location) in the current file.
    streams: HashMap<(u64, u32), u64>,
    /// Time of the record before, in the current file.
    last: u64,
    broken: bool,
}

/// What was appended since the last time.
#[derive(Debug, Default)]
pub struct Taken {
    /// Records, one after the other.
    pub bytes: Vec<u8>,
    /// Position of the first one.
    pub first: u64,
    /// Position after the last one.
    pub next: u64,
    /// More came than the buffer may hold: what follows is lost until [`Journal::restart`].
    pub is_broken: bool,
}

impl Journal {
    /// Begins to record; the next record has `position`. `limit` bounds the buffer in bytes.
    pub fn start(&self, position: u64, limit: usize) {
        let mut inner = self.inner.lock();
        *inner = Inner {
            limit,
            first: position,
            next: position,
            ..Inner::default()
        };
        self.mode.store(ON, Ordering::Release);
    }

    /// Position of the next record.
    pub fn position(&self) -> u64 {
        self.inner.lock().next
    }

    /// Position of the first record that was not taken.
    pub fn first_position(&self) -> u64 {
        self.inner.lock().first
    }

    /// Takes what was appended; `spare` becomes the next buffer.
    pub fn take(&self, spare: Vec<u8>) -> Taken {
        take(&mut self.inner.lock(), spare)
    }

    /// As [`Self::take`], and ends the file: what follows can be read without what went before.
    pub fn rotate(&self, spare: Vec<u8>) -> Taken {
        let mut inner = self.inner.lock();
        let taken = take(&mut inner, spare);
        inner.streams = HashMap::new();
        inner.last = 0;
        taken
    }

    /// Forgets what was not taken and records again, in a new file. Leaves a hole in the positions:
    /// nobody can mistake the new file for the continuation of the old one. Returns the position.
    pub fn restart(&self) -> u64 {
        let mut inner = self.inner.lock();
        let position = inner.next + 1;
        *inner = Inner {
            limit: inner.limit,
            first: position,
            next: position,
            ..Inner::default()
        };
        position
    }

    pub(crate) fn set_replaying(&self, replaying: bool) {
        let mode = if replaying { REPLAYING } else { OFF };
        self.mode.store(mode, Ordering::Release);
    }

    /// Records are being replayed: what time does is in them.
    pub(crate) fn is_replaying(&self) -> bool {
        self.mode.load(Ordering::Acquire) == REPLAYING
    }

    pub(crate) fn registered(
        &self,
        key: &WorkerKey,
        address: &WorkerAddress,
        by_heartbeat: bool,
        now: Timestamp,
    ) {
        self.append(|inner| {
            inner.head(tag::REGISTERED, now);
            put_key(&mut inner.buffer, key);
            put_address(&mut inner.buffer, address);
            inner.buffer.push(u8::from(by_heartbeat));
        });
    }

    pub(crate) fn removed(&self, key: &WorkerKey) {
        self.append(|inner| {
            inner.buffer.push(tag::REMOVED);
            put_key(&mut inner.buffer, key);
        });
    }

    pub(crate) fn readdressed(&self, key: &WorkerKey, address: &WorkerAddress) {
        self.append(|inner| {
            inner.buffer.push(tag::READDRESSED);
            put_key(&mut inner.buffer, key);
            put_address(&mut inner.buffer, address);
        });
    }

    pub(crate) fn batch(
        &self,
        (worker, at, location): (&Worker, usize, &Location),
        operations: &[Operation],
        now: Timestamp,
    ) {
        self.append(|inner| {
            let stream = inner.stream(worker, at, location);
            inner.head(tag::BATCH, now);
            let out = &mut inner.buffer;
            put_u64(out, stream);
            put_u64(out, operations.len() as u64);
            put_operations(out, operations);
        });
    }

    pub(crate) fn sync_started(
        &self,
        (worker, at, location): (&Worker, usize, &Location),
        sync_id: &SyncId,
        announced: u64,
        now: Timestamp,
    ) {
        self.append(|inner| {
            let stream = inner.stream(worker, at, location);
            inner.head(tag::SYNC_STARTED, now);
            put_u64(&mut inner.buffer, stream);
            put_text(&mut inner.buffer, sync_id.as_str());
            put_u64(&mut inner.buffer, announced);
        });
    }

    pub(crate) fn sync_batch(
        &self,
        (worker, at, location): (&Worker, usize, &Location),
        batch: BatchId,
        keys: &[ChunkHash],
        now: Timestamp,
    ) {
        self.append(|inner| {
            let stream = inner.stream(worker, at, location);
            inner.head(tag::SYNC_BATCH, now);
            put_u64(&mut inner.buffer, stream);
            put_i64(&mut inner.buffer, batch.0);
            put_u64(&mut inner.buffer, keys.len() as u64);
            put_hashes(&mut inner.buffer, keys, |key| *key);
        });
    }

    pub(crate) fn sync_ended(&self, stream: (&Worker, usize, &Location), now: Timestamp) {
        self.on_stream(tag::SYNC_ENDED, stream, now);
    }

    pub(crate) fn timed_out(&self, stream: (&Worker, usize, &Location), now: Timestamp) {
        self.on_stream(tag::TIMED_OUT, stream, now);
    }

    pub(crate) fn asked<'a>(
        &self,
        key: &WorkerKey,
        by_default: bool,
        locations: impl ExactSizeIterator<Item = &'a Location>,
        now: Timestamp,
    ) {
        self.append(|inner| {
            inner.head(tag::ASKED, now);
            let out = &mut inner.buffer;
            put_key(out, key);
            out.push(u8::from(by_default));
            put_u64(out, locations.len() as u64);
            for location in locations {
                put_text(out, location.as_str());
            }
        });
    }

    pub(crate) fn resumed(&self, now: Timestamp, grace: Duration) {
        self.append(|inner| {
            inner.head(tag::RESUMED, now);
            let grace = u64::try_from(grace.as_micros()).unwrap_or(u64::MAX);
            put_u64(&mut inner.buffer, grace);
        });
    }

    fn on_stream(
        &self,
        tag: u8,
        (worker, at, location): (&Worker, usize, &Location),
        now: Timestamp,
    ) {
        self.append(|inner| {
            let stream = inner.stream(worker, at, location);
            inner.head(tag, now);
            put_u64(&mut inner.buffer, stream);
        });
    }

    #[inline]
    fn append(&self, write: impl FnOnce(&mut Inner)) {
        if self.mode.load(Ordering::Acquire) != ON {
            return;
        }
        let mut inner = self.inner.lock();
        inner.next += 1;
        if inner.broken {
            return;
        }
        write(&mut inner);
        // Once past the limit nothing more is added: one record may exceed it.
        inner.broken = inner.buffer.len() > inner.limit;
    }
}

fn take(inner: &mut MutexGuard<'_, Inner>, mut spare: Vec<u8>) -> Taken {
    spare.clear();
    let taken = Taken {
        bytes: std::mem::replace(&mut inner.buffer, spare),
        first: inner.first,
        next: inner.next,
        is_broken: inner.broken,
    };
    inner.first = inner.next;
    taken
}

impl Inner {
    /// A record's first byte and its time, as the difference to the record before.
    fn head(&mut self, tag: u8, now: Timestamp) {
        self.buffer.push(tag);
        put_i64(&mut self.buffer, now.0.wrapping_sub(self.last) as i64);
        self.last = now.0;
    }

    /// The ordinal of a worker's location in this file, introduced by a record that takes no position.
    fn stream(&mut self, worker: &Worker, at: usize, location: &Location) -> u64 {
        let known = self.streams.len() as u64;
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        let stream = *self.streams.entry((worker.serial, at)).or_insert(known);
        if stream == known {
            self.buffer.push(tag::STREAM);
            put_key(&mut self.buffer, &worker.key);
            put_text(&mut self.buffer, location.as_str());
        }
        stream
    }
}

pub(crate) fn put_key(out: &mut Vec<u8>, key: &WorkerKey) {
    put_text(out, key.instance.as_str());
    put_i64(out, key.worker.0);
}

pub(crate) fn put_address(out: &mut Vec<u8>, address: &WorkerAddress) {
    put_text(out, &address.ip);
    put_i64(out, address.port);
    out.push(u8::from(address.peer_url.is_some()));
    if let Some(url) = &address.peer_url {
        put_text(out, url);
    }
}

/// Numbers, kinds and hashes; the count stands before.
fn put_operations(out: &mut Vec<u8>, operations: &[Operation]) {
    let Some(first) = operations.first() else {
        return;
    };
    let (mut consecutive, mut n_admits) = (true, 0);
    let mut expected = first.seq.0;
    for operation in operations {
        consecutive &= operation.seq.0 == expected;
        expected = operation.seq.0.wrapping_add(1);
        n_admits += usize::from(operation.kind == OperationKind::Admit);
    }
    let kinds = match n_admits {
        n if n == operations.len() => batch::ADMITS,
        0 => batch::EVICTS,
        _ => 0,
    };
    let numbers = if consecutive { batch::CONSECUTIVE } else { 0 };
    out.push(kinds | numbers);
    put_i64(out, first.seq.0);
    if !consecutive {
        let mut last = first.seq.0;
        for operation in &operations[1..] {
            put_i64(out, operation.seq.0.wrapping_sub(last));
            last = operation.seq.0;
        }
    }
    if kinds == 0 {
        for eight in operations.chunks(8) {
            let bits = eight
                .iter()
                .enumerate()
                .map(|(bit, operation)| u8::from(operation.kind == OperationKind::Evict) << bit);
            out.push(bits.fold(0, |byte, bit| byte | bit));
        }
    }
    put_hashes(out, operations, |operation| operation.hash);
}
