//! The hot path of the pull socket: batches read straight into operations.
//!
//! `BatchedKVOperationMsg` and `FullSyncBatchMsg` carry nearly all the traffic. They are read with
//! the bare cursor, without building the message and without an allocation per operation. Fields
//! may stand in any order; the order msgspec writes has a fast path:
//!
//! ```text
//! 83 a7 op_type a5 admit a3 key <int> a7 seq_num <int>        one operation, 19 + 9 + 8 + 1..9 bytes
//! ```
//!
//! Whatever the cursor does not take goes to the strict reader, which either accepts it (another
//! message, JSON, a single admit) or says what is wrong. So both give the same verdict.
//!
//! **Invariant.** A part counts whole or not at all: on an error the sinks are as they were.

use std::borrow::Cow;

use super::DecodeError;
use super::cursor::{Cursor, Token};
use super::reader::Reader;
use crate::id::{BatchId, ChunkHash, SeqNum, WorkerId};
use crate::message::{
    BatchedKVOperationMsg, FullSyncBatchMsg, KVAdmitMsg, KVEvictMsg, KVOpEvent, Message, WireKey,
};
use crate::operation::{Operation, OperationKind};

/// What one part of a multipart on the pull socket says, apart from what went into the sinks.
#[derive(Clone, Debug, PartialEq)]
pub enum PullMessage<'a> {
    /// A `BatchedKVOperationMsg`, or a single admit or evict; its operations were appended.
    Batch {
        /// Instance that reports.
        instance: Cow<'a, str>,
        /// Its rank.
        worker: WorkerId,
        /// Storage backend.
        location: Cow<'a, str>,
    },
    /// A `FullSyncBatchMsg`; its keys were appended.
    FullSyncBatch {
        /// Instance that reports.
        instance: Cow<'a, str>,
        /// Its rank.
        worker: WorkerId,
        /// Storage backend.
        location: Cow<'a, str>,
        /// Session the batch belongs to.
        sync: Cow<'a, str>,
        /// Number of the batch.
        batch: BatchId,
    },
    /// Any other message.
    Other(Box<Message>),
}

/// Reads one part. Operations of a batch are appended to `operations`, keys of a full-sync batch to
/// `keys`; both are left alone on an error.
pub fn decode_pull<'a>(
    part: &'a [u8],
    operations: &mut Vec<Operation>,
    keys: &mut Vec<ChunkHash>,
) -> Result<PullMessage<'a>, DecodeError> {
    let before = (operations.len(), keys.len());
    if let Some(message) = read_hot(part, operations, keys) {
        return Ok(message);
    }
    operations.truncate(before.0);
    keys.truncate(before.1);
    Message::decode(part).map(|message| unpack(message, operations, keys))
}

/// Turns a message of the strict reader into what the hot path gives.
fn unpack(
    message: Message,
    operations: &mut Vec<Operation>,
    keys: &mut Vec<ChunkHash>,
) -> PullMessage<'static> {
    match message {
        Message::BatchedKVOperationMsg(BatchedKVOperationMsg {
            instance_id,
            worker_id,
            location,
            operations: events,
        }) => {
            operations.extend(events.into_iter().map(Operation::from));
            PullMessage::batch(instance_id, worker_id, location)
        }
        Message::KVAdmitMsg(KVAdmitMsg {
            instance_id,
            worker_id,
            key,
            location,
            seq_num,
        }) => {
            operations.push(operation(OperationKind::Admit, key, seq_num));
            PullMessage::batch(instance_id, worker_id, location)
        }
        Message::KVEvictMsg(KVEvictMsg {
            instance_id,
            worker_id,
            key,
            location,
            seq_num,
        }) => {
            operations.push(operation(OperationKind::Evict, key, seq_num));
            PullMessage::batch(instance_id, worker_id, location)
        }
        Message::FullSyncBatchMsg(FullSyncBatchMsg {
            instance_id,
            worker_id,
            location,
            sync_id,
            batch_id,
            keys: all,
        }) => {
            keys.extend(all.into_iter().map(WireKey::hash));
            PullMessage::FullSyncBatch {
                instance: instance_id.into(),
                worker: WorkerId(worker_id),
                location: location.into(),
                sync: sync_id.into(),
                batch: BatchId(batch_id),
            }
        }
        other => PullMessage::Other(Box::new(other)),
    }
}

impl PullMessage<'static> {
    fn batch(instance: String, worker: i64, location: String) -> Self {
        Self::Batch {
            instance: instance.into(),
            worker: WorkerId(worker),
            location: location.into(),
        }
    }
}

fn operation(kind: OperationKind, key: WireKey, seq: i64) -> Operation {
    Operation {
        kind,
        hash: key.hash(),
        seq: SeqNum(seq),
    }
}

impl From<KVOpEvent> for Operation {
    fn from(event: KVOpEvent) -> Self {
        let KVOpEvent {
            op_type,
            key,
            seq_num,
        } = event;
        operation(op_type, key, seq_num)
    }
}

const BATCH: &str = "BatchedKVOperationMsg";
const FULL_SYNC_BATCH: &str = "FullSyncBatchMsg";

/// Reads the two hot messages; `None` for anything else, valid or not.
fn read_hot<'a>(
    part: &'a [u8],
    operations: &mut Vec<Operation>,
    keys: &mut Vec<ChunkHash>,
) -> Option<PullMessage<'a>> {
    let tag = Reader::new(part).peek_tag(crate::message::TAG).ok()?;
    let mut fields = HotFields::default();
    let is_batch = match tag {
        BATCH => true,
        FULL_SYNC_BATCH => false,
        _ => return None,
    };
    let mut cursor = Cursor::new(part);
    let Ok(Token::Map(length)) = cursor.token() else {
        return None;
    };
    let (operations_before, keys_before) = (operations.len(), keys.len());
    for _ in 0..length {
        match cursor.text()? {
            b"type" if cursor.text()? == tag.as_bytes() => {}
            b"type" => return None,
            b"instance_id" => fields.instance = Some(utf8(&mut cursor)?),
            b"worker_id" => fields.worker = Some(WorkerId(int(&mut cursor)?)),
            b"location" => fields.location = Some(utf8(&mut cursor)?),
            b"operations" if is_batch => {
                operations.truncate(operations_before);
                read_operations(&mut cursor, operations)?;
                fields.has_elements = true;
            }
            b"sync_id" if !is_batch => fields.sync = Some(utf8(&mut cursor)?),
            b"batch_id" if !is_batch => fields.batch = Some(BatchId(int(&mut cursor)?)),
            b"keys" if !is_batch => {
                keys.truncate(keys_before);
                read_keys(&mut cursor, keys)?;
                fields.has_elements = true;
            }
            _ => cursor.skip().ok()?,
        }
    }
    if !cursor.rest().is_empty() || !fields.has_elements {
        return None;
    }
    if is_batch {
        Some(PullMessage::Batch {
            instance: fields.instance?.into(),
            worker: fields.worker?,
            location: fields.location?.into(),
        })
    } else {
        Some(PullMessage::FullSyncBatch {
            instance: fields.instance?.into(),
            worker: fields.worker?,
            location: fields.location?.into(),
            sync: fields.sync?.into(),
            batch: fields.batch?,
        })
    }
}

/// Fields of the two messages as they turn up.
#[derive(Default)]
struct HotFields<'a> {
    instance: Option<&'a str>,
    worker: Option<WorkerId>,
    location: Option<&'a str>,
    sync: Option<&'a str>,
    batch: Option<BatchId>,
    /// `operations` or `keys` was there.
    has_elements: bool,
}

fn read_operations(cursor: &mut Cursor<'_>, operations: &mut Vec<Operation>) -> Option<()> {
    let Ok(Token::Array(length)) = cursor.token() else {
        return None;
    };
    for _ in 0..length {
        let mut ahead = *cursor;
        let operation = match read_operation_in_order(&mut ahead) {
            Some(operation) => {
                *cursor = ahead;
                operation
            }
            None => read_operation(cursor)?,
        };
        operations.push(operation);
    }
    Some(())
}

/// One operation with the bytes in msgspec's order.
#[inline(always)]
fn read_operation_in_order(cursor: &mut Cursor<'_>) -> Option<Operation> {
    let kind = if cursor.eat(b"\x83\xa7op_type\xa5admit\xa3key") {
        OperationKind::Admit
    } else if cursor.eat(b"\x83\xa7op_type\xa5evict\xa3key") {
        OperationKind::Evict
    } else {
        return None;
    };
    let hash = hash(cursor)?;
    if !cursor.eat(b"\xa7seq_num") {
        return None;
    }
    let seq = SeqNum(int(cursor)?);
    Some(Operation { kind, hash, seq })
}

/// One operation with its fields in any order.
fn read_operation(cursor: &mut Cursor<'_>) -> Option<Operation> {
    let Ok(Token::Map(length)) = cursor.token() else {
        return None;
    };
    let (mut kind, mut key, mut seq) = (None, None, None);
    for _ in 0..length {
        match cursor.text()? {
            b"op_type" => {
                kind = Some(match cursor.text()? {
                    b"admit" => OperationKind::Admit,
                    b"evict" => OperationKind::Evict,
                    _ => return None,
                });
            }
            b"key" => key = Some(hash(cursor)?),
            b"seq_num" => seq = Some(SeqNum(int(cursor)?)),
            _ => cursor.skip().ok()?,
        }
    }
    Some(Operation {
        kind: kind?,
        hash: key?,
        seq: seq?,
    })
}

fn read_keys(cursor: &mut Cursor<'_>, keys: &mut Vec<ChunkHash>) -> Option<()> {
    let Ok(Token::Array(length)) = cursor.token() else {
        return None;
    };
    for _ in 0..length {
        keys.push(hash(cursor)?);
    }
    Some(())
}

fn utf8<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    std::str::from_utf8(cursor.text()?).ok()
}

#[inline(always)]
fn int(cursor: &mut Cursor<'_>) -> Option<i64> {
    let (bits, is_negative) = cursor.integer()?;
    let value = bits.cast_signed();
    // Beyond i64 the sign bit is set without the number being negative.
    (is_negative == (value < 0)).then_some(value)
}

#[inline(always)]
fn hash(cursor: &mut Cursor<'_>) -> Option<ChunkHash> {
    cursor.integer().map(|(bits, _)| ChunkHash(bits))
}

#[cfg(test)]
mod tests;
