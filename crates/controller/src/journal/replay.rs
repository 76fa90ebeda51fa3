//! Replaying a journal: records back through the handlers that wrote them.
//!
//! Nothing here trusts the bytes: what is malformed ends the replay, and what was applied until then
//! is a state that once was. What a handler refuses (a worker that is unknown by now) was without
//! effect when it was written too, or concerns a registration that is gone.

use std::collections::HashMap;
use std::time::Duration;

use kvatlas_protocol::{
    BatchId, ChunkHash, Location, Operation, OperationKind, SeqNum, SyncId, Timestamp, WorkerKey,
};

use super::bytes::{Bytes, Malformed};
use super::{batch, tag};
use crate::controller::Controller;
use crate::full_sync::SyncStart;
use crate::registry::worker::WorkerAddress;

/// A replay in progress: feeds groups of records, in order, to a controller that serves nobody yet.
pub struct Replay<'c> {
    controller: &'c Controller,
    /// Per restored worker, the position its record is as of.
    restored: HashMap<WorkerKey, u64>,
    /// Position of the next record.
    next: u64,
    streams: Vec<Stream>,
    last: u64,
    operations: Vec<Operation>,
    keys: Vec<ChunkHash>,
}

struct Stream {
    key: WorkerKey,
    location: Location,
    /// Records before this position are in the snapshot.
    from: u64,
}

impl<'c> Replay<'c> {
    /// Replays on top of a snapshot as of `position`, whose workers are as of `restored`.
    pub fn new(
        controller: &'c Controller,
        restored: HashMap<WorkerKey, u64>,
        position: u64,
    ) -> Self {
        controller.journal().set_replaying(true);
        Self {
            controller,
            restored,
            next: position,
            streams: Vec::new(),
            last: 0,
            operations: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// Position of the record that would continue what was replayed.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Another file begins.
    pub fn begin_file(&mut self) {
        self.streams.clear();
        self.last = 0;
    }

    /// Replays records; those before the first malformed one took effect.
    pub fn records(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut bytes = Bytes(bytes);
        while !bytes.is_empty() {
            self.record(&mut bytes)?;
        }
        Ok(())
    }

    /// The end: the controller is as it was after the last record.
    pub fn finish(self) -> u64 {
        self.controller.journal().set_replaying(false);
        self.next
    }

    fn record(&mut self, bytes: &mut Bytes<'_>) -> Result<(), Malformed> {
        let tag = bytes.byte()?;
        if tag == tag::STREAM {
            let key = key(bytes)?;
            self.streams.push(Stream {
                from: self.restored.get(&key).copied().unwrap_or(0),
                key,
                location: bytes.text()?.into(),
            });
            return Ok(());
        }
        match tag {
            tag::BATCH => {
                let now = self.time(bytes)?;
                let stream = self.stream(bytes)?;
                self.operations(bytes)?;
                if let Some(Stream { key, location, .. }) = self.current(stream) {
                    let instance = key.instance.as_str();
                    let _ = self.controller.apply_batch(
                        instance,
                        key.worker,
                        location.as_str(),
                        &self.operations,
                        now,
                    );
                }
            }
            tag::REGISTERED => {
                let now = self.time(bytes)?;
                let (key, address) = (key(bytes)?, address(bytes)?);
                let by_heartbeat = bytes.flag()?;
                if self.is_current(&key) {
                    let _ = match by_heartbeat {
                        true => self.controller.enroll(key, address, now).map(drop),
                        false => self.controller.handle_register(key, address, now).map(drop),
                    };
                }
            }
            tag::REMOVED => {
                let key = key(bytes)?;
                if self.is_current(&key) {
                    self.controller.remove(&key, None);
                }
            }
            tag::READDRESSED => {
                let (key, address) = (key(bytes)?, address(bytes)?);
                if self.is_current(&key) {
                    self.controller.readdress(&key, address);
                }
            }
            tag::SYNC_STARTED => {
                let now = self.time(bytes)?;
                let stream = self.stream(bytes)?;
                let sync_id = SyncId::from(bytes.text()?);
                let announced = bytes.u64()?;
                if let Some(Stream { key, location, .. }) = self.current(stream) {
                    let start = SyncStart {
                        worker: key.clone(),
                        location: location.clone(),
                        sync_id,
                        total_keys: 0,
                        batch_count: i64::try_from(announced).unwrap_or(i64::MAX),
                    };
                    let _ = self.controller.handle_sync_start(start, now);
                }
            }
            tag::SYNC_BATCH => {
                let now = self.time(bytes)?;
                let stream = self.stream(bytes)?;
                let number = BatchId(bytes.i64()?);
                let n = bytes.u64()?;
                self.keys.clear();
                self.keys.extend(bytes.hashes(n)?);
                if let Some(Stream { key, location, .. }) = self.current(stream)
                    && let Some(sync_id) = self.controller.running_sync(key, location.as_str())
                {
                    let _ = self.controller.handle_sync_batch(
                        key.instance.as_str(),
                        key.worker,
                        location.as_str(),
                        sync_id.as_str(),
                        number,
                        &self.keys,
                        now,
                    );
                }
            }
            tag::SYNC_ENDED => {
                let now = self.time(bytes)?;
                let stream = self.stream(bytes)?;
                if let Some(Stream { key, location, .. }) = self.current(stream)
                    && let Some(sync_id) = self.controller.running_sync(key, location.as_str())
                {
                    let _ = self.controller.handle_sync_end(
                        key,
                        location.as_str(),
                        sync_id.as_str(),
                        0,
                        now,
                    );
                }
            }
            tag::TIMED_OUT => {
                let now = self.time(bytes)?;
                let stream = self.stream(bytes)?;
                if let Some(Stream { key, location, .. }) = self.current(stream) {
                    self.controller.replay_timeout(key, location.as_str(), now);
                }
            }
            tag::ASKED => {
                let now = self.time(bytes)?;
                let key = key(bytes)?;
                let by_default = bytes.flag()?;
                let mut locations = Vec::new();
                for _ in 0..bytes.u64()? {
                    locations.push(bytes.text()?);
                }
                if self.is_current(&key) {
                    self.controller
                        .replay_question(&key, by_default, &locations, now);
                }
            }
            tag::RESUMED => {
                let now = self.time(bytes)?;
                let grace = Duration::from_micros(bytes.u64()?);
                self.controller.resume(now, grace);
            }
            _ => return Err(Malformed("unknown record")),
        }
        self.next += 1;
        Ok(())
    }

    fn time(&mut self, bytes: &mut Bytes<'_>) -> Result<Timestamp, Malformed> {
        self.last = self.last.wrapping_add(bytes.i64()? as u64);
        Ok(Timestamp(self.last))
    }

    fn stream(&self, bytes: &mut Bytes<'_>) -> Result<usize, Malformed> {
        usize::try_from(bytes.u64()?)
            .ok()
            .filter(|&stream| stream < self.streams.len())
            .ok_or(Malformed("unknown stream"))
    }

    /// The stream, unless its worker already contains the record.
    fn current(&self, stream: usize) -> Option<&Stream> {
        self.streams
            .get(stream)
            .filter(|stream| self.next >= stream.from)
    }

    fn is_current(&self, key: &WorkerKey) -> bool {
        self.restored.get(key).is_none_or(|&from| self.next >= from)
    }

    fn operations(&mut self, bytes: &mut Bytes<'_>) -> Result<(), Malformed> {
        self.operations.clear();
        let n = bytes.u64()?;
        if n == 0 {
            return Ok(());
        }
        let flags = bytes.byte()?;
        let first = bytes.i64()?;
        // From here on the bytes bound `n`: every operation takes some.
        let mut differences = Bytes(bytes.0);
        if flags & batch::CONSECUTIVE == 0 {
            for _ in 1..n {
                bytes.i64()?;
            }
        }
        let kinds = match flags & (batch::ADMITS | batch::EVICTS) {
            0 => Some(bytes.take(n.div_ceil(8))?),
            _ => None,
        };
        let all = match flags & batch::EVICTS {
            0 => OperationKind::Admit,
            _ => OperationKind::Evict,
        };
        let mut seq = first;
        for (at, hash) in bytes.hashes(n)?.enumerate() {
            if at > 0 {
                seq = seq.wrapping_add(match flags & batch::CONSECUTIVE {
                    0 => differences.i64()?,
                    _ => 1,
                });
            }
            let kind = match kinds {
                Some(bits) if bits[at / 8] >> (at % 8) & 1 == 1 => OperationKind::Evict,
                Some(_) => OperationKind::Admit,
                None => all,
            };
            self.operations.push(Operation {
                kind,
                hash,
                seq: SeqNum(seq),
            });
        }
        Ok(())
    }
}

pub(crate) fn key(bytes: &mut Bytes<'_>) -> Result<WorkerKey, Malformed> {
    let instance = bytes.text()?;
    Ok(WorkerKey::new(instance, bytes.i64()?))
}

pub(crate) fn address(bytes: &mut Bytes<'_>) -> Result<WorkerAddress, Malformed> {
    Ok(WorkerAddress {
        ip: bytes.text()?.to_owned(),
        port: bytes.i64()?,
        peer_url: match bytes.flag()? {
            true => Some(bytes.text()?.to_owned()),
            false => None,
        },
    })
}
