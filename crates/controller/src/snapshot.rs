//! A snapshot as bytes: blocks of worker records and blocks of keys, encoded from a controller that
//! goes on serving, decoded into one that does not serve yet.
//!
//! Keys are grouped by who holds them, a few thousand per block, in the order of the index: with the
//! same hash seed a restore fills the index front to back. 8 bytes a key plus a few per group.
//!
//! What does not parse is refused; framing, checksums and files are the server's. The bytes are
//! described in docs/state-format.md.

use std::collections::HashMap;
use std::ops::Range;

use kvatlas_protocol::{
    BatchId, ChunkHash, Location, OperationKind, SeqNum, SyncId, Timestamp, WorkerKey,
};

use crate::controller::Controller;
use crate::full_sync::schedule::SyncReason;
use crate::index::HolderId;
use crate::journal::bytes::{Bytes, Malformed, put_hashes, put_i64, put_text, put_time, put_u64};
use crate::journal::replay::{address, key};
use crate::journal::{put_address, put_key};
use crate::registry::worker::{Incomplete, Limit};
use crate::restore::{
    LocationRecord, SequenceRecord, SessionRecord, SyncRecord, WindowRecord, WorkerRecord,
};

/// A block of keys is closed when it has this many bytes.
const KEYS_BLOCK: usize = 32 * 1024;
/// A block of workers is closed when it has this many bytes.
const WORKERS_BLOCK: usize = 256 * 1024;

/// Encodes one snapshot.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Ordinal of a set in the snapshot plus one, by its position in the index; 0 is not in it.
    ordinals: Vec<u32>,
    n_sets: u32,
    n_keys: u64,
    /// Keys by the one set that has them.
    singles: Vec<Vec<ChunkHash>>,
    /// Which of `singles` are not empty.
    touched: Vec<u32>,
    /// Keys by the sets that have them.
    shared: HashMap<Box<[u32]>, Vec<ChunkHash>>,
    members: Vec<u32>,
}

impl Encoder {
    /// Encodes workers from the front of `records` into one block; how many.
    pub fn workers(&mut self, records: &[WorkerRecord], out: &mut Vec<u8>) -> usize {
        let start = out.len();
        for (done, record) in records.iter().enumerate() {
            if out.len() - start >= WORKERS_BLOCK {
                return done;
            }
            self.worker(record, out);
        }
        records.len()
    }

    /// Encodes keys from `from` on into one block and returns where to go on, `None` at the end.
    /// Start from 0, after all workers.
    pub fn keys(&mut self, controller: &Controller, from: u64, out: &mut Vec<u8>) -> Option<u64> {
        let start = out.len();
        let mut next = Some(from);
        while let Some(from) = next
            && out.len() - start < KEYS_BLOCK
        {
            next = controller.export_keys(from, |hash, holders| {
                self.members.clear();
                self.members.extend(holders.iter().filter_map(|holder| {
                    let ordinal = *self.ordinals.get(holder.index())?;
                    ordinal.checked_sub(1)
                }));
                self.n_keys += u64::from(!self.members.is_empty());
                match self.members[..] {
                    [] => {}
                    [only] => {
                        let keys = &mut self.singles[only as usize];
                        if keys.is_empty() {
                            self.touched.push(only);
                        }
                        keys.push(hash);
                    }
                    _ => match self.shared.get_mut(&self.members[..]) {
                        Some(keys) => keys.push(hash),
                        None => {
                            self.shared
                                .insert(self.members.as_slice().into(), vec![hash]);
                        }
                    },
                }
            });
            for only in self.touched.drain(..) {
                let keys = &mut self.singles[only as usize];
                put_u64(out, 1);
                put_u64(out, u64::from(only));
                put_u64(out, keys.len() as u64);
                put_hashes(out, keys, |key| *key);
                keys.clear();
            }
            for (members, keys) in self.shared.drain() {
                put_u64(out, members.len() as u64);
                for member in members {
                    put_u64(out, u64::from(member));
                }
                put_u64(out, keys.len() as u64);
                put_hashes(out, &keys, |key| *key);
            }
        }
        next
    }

    /// Distinct keys encoded.
    pub fn n_keys(&self) -> u64 {
        self.n_keys
    }

    fn set(&mut self, holder: Option<HolderId>, out: &mut Vec<u8>) {
        let Some(holder) = holder else {
            return put_u64(out, 0);
        };
        self.n_sets += 1;
        if self.ordinals.len() <= holder.index() {
            self.ordinals.resize(holder.index() + 1, 0);
        }
        self.ordinals[holder.index()] = self.n_sets;
        self.singles.push(Vec::new());
        put_u64(out, u64::from(self.n_sets));
    }

    fn worker(&mut self, record: &WorkerRecord, out: &mut Vec<u8>) {
        let WorkerRecord {
            key,
            address,
            registered_at,
            last_heartbeat,
            sync_wanted,
            restored_at,
            position,
            locations,
        } = record;
        put_key(out, key);
        put_address(out, address);
        put_u64(out, registered_at.0);
        put_time(out, *last_heartbeat);
        match sync_wanted {
            None => out.push(0),
            Some((why, asked)) => out.extend([reason_code(*why), u8::from(*asked)]),
        }
        put_time(out, *restored_at);
        put_u64(out, *position);
        put_u64(out, locations.len() as u64);
        for location in locations {
            self.location(location, out);
        }
    }

    fn location(&mut self, record: &LocationRecord, out: &mut Vec<u8>) {
        let LocationRecord {
            location,
            holder,
            sequence,
            sync,
            window,
            completed,
            last_gap_sync,
            failures,
            incomplete,
            proved_at,
        } = record;
        put_text(out, location.as_str());
        self.set(*holder, out);
        put_sequence(out, sequence);
        match sync {
            SyncRecord::Idle => out.push(0),
            SyncRecord::Unproved { since, until } => {
                out.push(1);
                put_u64(out, since.0);
                put_u64(out, until.0);
            }
            SyncRecord::Wanted {
                reason,
                since,
                asked,
            } => {
                out.extend([2, reason_code(*reason)]);
                put_u64(out, since.0);
                out.push(u8::from(*asked));
            }
            SyncRecord::Running(session) => {
                out.push(3);
                let SessionRecord {
                    sync_id,
                    since,
                    announced,
                    received,
                    ended,
                    hidden,
                    window,
                } = &**session;
                put_text(out, sync_id.as_str());
                put_u64(out, since.0);
                put_u64(out, *announced);
                put_u64(out, received.len() as u64);
                received.iter().for_each(|batch| put_i64(out, batch.0));
                out.push(u8::from(*ended));
                self.set(*hidden, out);
                put_window(out, window);
            }
            SyncRecord::Unrepairable { reason, since } => {
                out.extend([4, reason_code(*reason)]);
                put_u64(out, since.0);
            }
        }
        out.push(u8::from(window.is_some()));
        if let Some(window) = window {
            put_window(out, window);
        }
        out.push(u8::from(completed.is_some()));
        if let Some((sync_id, at)) = completed {
            put_text(out, sync_id.as_str());
            put_u64(out, at.0);
        }
        put_time(out, *last_gap_sync);
        put_u64(out, u64::from(*failures));
        put_time(out, *proved_at);
        match incomplete {
            None => out.push(0),
            Some(Incomplete { since, limit }) => {
                out.push(limit_code(*limit));
                put_u64(out, since.0);
            }
        }
    }
}

/// Version of these bytes. 2 added what limits keep out.
pub const VERSION: u32 = 2;
/// The oldest that is read.
pub const OLDEST: u32 = 1;

/// Decodes one snapshot into an empty controller.
#[derive(Debug)]
pub struct Decoder {
    version: u32,
    created: Timestamp,
    /// The new sets, by ordinal.
    sets: Vec<Option<HolderId>>,
    /// Position that a worker is as of, and its sets.
    workers: HashMap<WorkerKey, (u64, Range<usize>)>,
    n_refused: usize,
    shed: Vec<WorkerKey>,
    keys: Vec<ChunkHash>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(VERSION, Timestamp(0))
    }
}

impl Decoder {
    /// For bytes of a version from [`OLDEST`] to [`VERSION`], made at `created`.
    pub fn new(version: u32, created: Timestamp) -> Self {
        Self {
            version,
            created,
            sets: Vec::new(),
            workers: HashMap::new(),
            n_refused: 0,
            shed: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// Restores the workers of one block.
    pub fn workers(&mut self, controller: &Controller, block: &[u8]) -> Result<(), Malformed> {
        let mut bytes = Bytes(block);
        while !bytes.is_empty() {
            let record = read_worker(&mut bytes, self.version)?;
            let (key, position) = (record.key.clone(), record.position);
            let n_before = self.sets.len();
            let named: Vec<_> = record
                .locations
                .iter()
                .map(|location| match &location.sync {
                    SyncRecord::Running(session) => (location.holder, session.hidden),
                    _ => (location.holder, None),
                })
                .collect();
            let n_named = named.iter().flat_map(|&(v, h)| [v, h]).flatten().count();
            match controller.restore(record) {
                Ok(sets) => {
                    let range = n_before..n_before + n_named;
                    self.workers.insert(key, (position, range));
                    let pairs = sets.visible.into_iter().zip(sets.hidden);
                    let new = pairs.flat_map(|(visible, hidden)| [visible, hidden]);
                    self.sets.extend(new.flatten().map(Some));
                }
                Err(_) => self.n_refused += 1,
            }
            self.sets.resize(n_before + n_named, None);
        }
        Ok(())
    }

    /// Restores the keys of one block.
    pub fn keys(&mut self, controller: &Controller, block: &[u8]) -> Result<(), Malformed> {
        let mut bytes = Bytes(block);
        let mut members = Vec::new();
        while !bytes.is_empty() {
            members.clear();
            for _ in 0..bytes.u64()? {
                let ordinal = usize::try_from(bytes.u64()?).ok();
                let set = ordinal.and_then(|ordinal| self.sets.get(ordinal));
                members.push(set.ok_or(Malformed("unknown set"))?);
            }
            let n = bytes.u64()?;
            self.keys.clear();
            self.keys.extend(bytes.hashes(n)?);
            for member in members.iter().copied().flatten() {
                controller.restore_keys(*member, &self.keys);
            }
        }
        for worker in controller.shed(self.created) {
            if let Some((_, range)) = self.workers.get(&worker) {
                self.sets[range.clone()].fill(None);
            }
            self.shed.push(worker);
        }
        Ok(())
    }

    /// Workers whose keys were left out, for all of them need more than the index may have.
    pub fn shed(&self) -> &[WorkerKey] {
        &self.shed
    }

    /// Workers that the controller's limits kept out.
    pub fn n_refused(&self) -> usize {
        self.n_refused
    }

    /// The journal's positions that the workers are as of.
    pub fn positions(self) -> HashMap<WorkerKey, u64> {
        let workers = self.workers.into_iter();
        workers
            .map(|(key, (position, _))| (key, position))
            .collect()
    }
}

fn put_sequence(out: &mut Vec<u8>, record: &SequenceRecord) {
    let SequenceRecord {
        last,
        any_next,
        reached,
        gaps,
    } = record;
    let flag = |set: bool, bit: u8| u8::from(set) << bit;
    out.push(flag(last.is_some(), 0) | flag(*any_next, 1) | flag(reached.is_some(), 2));
    for number in [last, reached].into_iter().flatten() {
        put_i64(out, number.0);
    }
    put_u64(out, *gaps);
}

fn put_window(out: &mut Vec<u8>, record: &WindowRecord) {
    let WindowRecord { doubtful, last } = record;
    out.push(u8::from(*doubtful));
    put_u64(out, last.len() as u64);
    for (hash, kind) in last {
        out.push(u8::from(*kind == OperationKind::Evict));
        out.extend_from_slice(&hash.0.to_le_bytes());
    }
}

fn read_worker(bytes: &mut Bytes<'_>, version: u32) -> Result<WorkerRecord, Malformed> {
    Ok(WorkerRecord {
        key: key(bytes)?,
        address: address(bytes)?,
        registered_at: Timestamp(bytes.u64()?),
        last_heartbeat: bytes.time()?,
        sync_wanted: match bytes.byte()? {
            0 => None,
            code => Some((reason(code)?, bytes.flag()?)),
        },
        restored_at: bytes.time()?,
        position: bytes.u64()?,
        locations: {
            let n = bytes.u64()?;
            let mut locations = Vec::new();
            for _ in 0..n {
                locations.push(read_location(bytes, version)?);
            }
            locations
        },
    })
}

/// Sets are named by their ordinal here; [`Controller::restore`] only asks whether there is one.
fn read_location(bytes: &mut Bytes<'_>, version: u32) -> Result<LocationRecord, Malformed> {
    Ok(LocationRecord {
        location: Location::from(bytes.text()?),
        holder: read_set(bytes)?,
        sequence: {
            let flags = bytes.byte()?;
            let mut number = |bit: u8| match flags >> bit & 1 {
                0 => Ok(None),
                _ => bytes.i64().map(|seq| Some(SeqNum(seq))),
            };
            SequenceRecord {
                last: number(0)?,
                any_next: flags & 2 != 0,
                reached: number(2)?,
                gaps: bytes.u64()?,
            }
        },
        sync: match bytes.byte()? {
            0 => SyncRecord::Idle,
            1 => SyncRecord::Unproved {
                since: Timestamp(bytes.u64()?),
                until: Timestamp(bytes.u64()?),
            },
            2 => SyncRecord::Wanted {
                reason: reason(bytes.byte()?)?,
                since: Timestamp(bytes.u64()?),
                asked: bytes.flag()?,
            },
            3 => SyncRecord::Running(Box::new(SessionRecord {
                sync_id: SyncId::from(bytes.text()?),
                since: Timestamp(bytes.u64()?),
                announced: bytes.u64()?,
                received: {
                    let n = bytes.u64()?;
                    let mut received = Vec::new();
                    for _ in 0..n {
                        received.push(BatchId(bytes.i64()?));
                    }
                    received
                },
                ended: bytes.flag()?,
                hidden: read_set(bytes)?,
                window: read_window(bytes)?,
            })),
            4 => SyncRecord::Unrepairable {
                reason: reason(bytes.byte()?)?,
                since: Timestamp(bytes.u64()?),
            },
            _ => return Err(Malformed("unknown sync state")),
        },
        window: match bytes.flag()? {
            true => Some(read_window(bytes)?),
            false => None,
        },
        completed: match bytes.flag()? {
            true => Some((SyncId::from(bytes.text()?), Timestamp(bytes.u64()?))),
            false => None,
        },
        last_gap_sync: bytes.time()?,
        failures: u32::try_from(bytes.u64()?).unwrap_or(u32::MAX),
        proved_at: bytes.time()?,
        incomplete: match version {
            1 => None,
            _ => read_incomplete(bytes)?,
        },
    })
}

fn read_incomplete(bytes: &mut Bytes<'_>) -> Result<Option<Incomplete>, Malformed> {
    let limit = match bytes.byte()? {
        0 => return Ok(None),
        1 => Limit::Keys,
        2 => Limit::IndexBytes,
        _ => return Err(Malformed("unknown limit")),
    };
    let since = Timestamp(bytes.u64()?);
    Ok(Some(Incomplete { since, limit }))
}

fn read_set(bytes: &mut Bytes<'_>) -> Result<Option<HolderId>, Malformed> {
    let ordinal = bytes.u64()?.checked_sub(1);
    let id = |ordinal| u32::try_from(ordinal).map_err(|_| Malformed("set number"));
    ordinal
        .map(|o| id(o).map(HolderId::from_ordinal))
        .transpose()
}

fn read_window(bytes: &mut Bytes<'_>) -> Result<WindowRecord, Malformed> {
    let doubtful = bytes.flag()?;
    let n = bytes.u64()?;
    let mut last = Vec::new();
    for _ in 0..n {
        let kind = match bytes.flag()? {
            true => OperationKind::Evict,
            false => OperationKind::Admit,
        };
        last.extend(bytes.hashes(1)?.map(|hash| (hash, kind)));
    }
    Ok(WindowRecord { doubtful, last })
}

fn limit_code(limit: Limit) -> u8 {
    match limit {
        Limit::Keys => 1,
        Limit::IndexBytes => 2,
    }
}

fn reason_code(reason: SyncReason) -> u8 {
    match reason {
        SyncReason::ControllerRestart => 1,
        SyncReason::WorkerReRegistered => 2,
        SyncReason::SyncFailedRetry => 3,
        SyncReason::SequenceGap => 4,
    }
}

fn reason(code: u8) -> Result<SyncReason, Malformed> {
    Ok(match code {
        1 => SyncReason::ControllerRestart,
        2 => SyncReason::WorkerReRegistered,
        3 => SyncReason::SyncFailedRetry,
        4 => SyncReason::SequenceGap,
        _ => return Err(Malformed("unknown reason")),
    })
}
