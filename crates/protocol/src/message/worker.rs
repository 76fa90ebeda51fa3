//! What a worker reports: registration, departure, and the stream of admits and evicts.
//!
//! Upstream sends these over PUSH, except `RegisterMsg` since LMCache 0.3.11 (request and reply).
//! Fields and their order mirror `lmcache/v1/cache_controller/message.py`.

use super::key::WireKey;
use crate::codec::reader::Reader;
use crate::codec::wire::{Wire, fields};
use crate::codec::{DecodeError, encode};
use crate::operation::OperationKind;

/// A worker announces itself (also sent over push by LMCache 0.3.9 and 0.3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterMsg {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Address the worker listens on.
    pub ip: String,
    /// Port the worker takes commands on.
    pub port: i64,
    /// Where peers fetch KV from this worker, `host:port`; null without P2P.
    pub peer_init_url: Option<String>,
}

fields!(RegisterMsg {
    instance_id,
    worker_id,
    ip,
    port,
    peer_init_url
});

/// A worker leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeRegisterMsg {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Address the worker listens on.
    pub ip: String,
    /// Port the worker takes commands on.
    pub port: i64,
}

fields!(DeRegisterMsg {
    instance_id,
    worker_id,
    ip,
    port
});

/// One chunk was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KVAdmitMsg {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Chunk hash.
    pub key: WireKey,
    /// Storage backend name.
    pub location: String,
    /// Place in the worker's stream for this location.
    pub seq_num: i64,
}

fields!(KVAdmitMsg { instance_id, worker_id, key, location, seq_num = 0 });

/// One chunk was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KVEvictMsg {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Chunk hash.
    pub key: WireKey,
    /// Storage backend name.
    pub location: String,
    /// Place in the worker's stream for this location.
    pub seq_num: i64,
}

fields!(KVEvictMsg { instance_id, worker_id, key, location, seq_num = 0 });

/// Upstream's `OpType`.
impl Wire for OperationKind {
    fn write(&self, out: &mut Vec<u8>) {
        let word = match self {
            Self::Admit => "admit",
            Self::Evict => "evict",
        };
        encode::text(word, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.text()? {
            "admit" => Ok(Self::Admit),
            "evict" => Ok(Self::Evict),
            other => Err(DecodeError::unknown_word("`admit` or `evict`", other)),
        }
    }
}

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KVOpEvent {
    /// Admit or evict.
    pub op_type: OperationKind,
    /// Chunk hash.
    pub key: WireKey,
    /// Place in the worker's stream for this location.
    pub seq_num: i64,
}

fields!(KVOpEvent {
    op_type,
    key,
    seq_num
});

/// Operations of one worker on one location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchedKVOperationMsg {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Storage backend name.
    pub location: String,
    /// Operations in stream order.
    pub operations: Vec<KVOpEvent>,
}

fields!(BatchedKVOperationMsg {
    instance_id,
    worker_id,
    location,
    operations
});
