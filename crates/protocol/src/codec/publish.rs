//! Writing a worker's own stream without building the message first.

use super::encode;
use crate::message::{KVOpEvent, TAG, WireKey};

/// What every operation of a batch shares.
#[derive(Clone, Copy, Debug)]
pub struct BatchHeader<'a> {
    /// Instance that reports.
    pub instance_id: &'a str,
    /// Its rank.
    pub worker_id: i64,
    /// Storage backend the operations happened on.
    pub location: &'a str,
}

/// Appends a `BatchedKVOperationMsg` to `out`, byte for byte as
/// [`Message::encode_msgpack`](crate::message::Message::encode_msgpack) would write it.
pub fn encode_batch(header: BatchHeader<'_>, operations: &[KVOpEvent], out: &mut Vec<u8>) {
    begin(header, "BatchedKVOperationMsg", 5, out);
    encode::text("operations", out);
    encode::array(operations.len(), out);
    for operation in operations {
        crate::codec::wire::Wire::write(operation, out);
    }
}

/// Appends a `FullSyncBatchMsg` to `out`.
pub fn encode_full_sync_batch(
    header: BatchHeader<'_>,
    sync_id: &str,
    batch_id: i64,
    keys: &[WireKey],
    out: &mut Vec<u8>,
) {
    begin(header, "FullSyncBatchMsg", 7, out);
    encode::text("sync_id", out);
    encode::text(sync_id, out);
    encode::text("batch_id", out);
    encode::signed(batch_id, out);
    encode::text("keys", out);
    encode::array(keys.len(), out);
    for key in keys {
        crate::codec::wire::Wire::write(key, out);
    }
}

fn begin(header: BatchHeader<'_>, tag: &str, fields: usize, out: &mut Vec<u8>) {
    let BatchHeader {
        instance_id,
        worker_id,
        location,
    } = header;
    encode::map(fields, out);
    encode::text(TAG, out);
    encode::text(tag, out);
    encode::text("instance_id", out);
    encode::text(instance_id, out);
    encode::text("worker_id", out);
    encode::signed(worker_id, out);
    encode::text("location", out);
    encode::text(location, out);
}
