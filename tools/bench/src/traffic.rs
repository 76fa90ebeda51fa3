//! What a fleet of engines says, encoded beforehand: names, keys, prompts, batches with their numbers.
//!
//! Everything is derived from positions, so that two controllers hear the same bytes.

use kvatlas_protocol::codec::publish::{BatchHeader, encode_batch, encode_full_sync_batch};
use kvatlas_protocol::message::{
    BatchedP2PLookupMsg, FullSyncEndMsg, FullSyncStartMsg, FullSyncStatusMsg, KVOpEvent, Message,
    RegisterMsg,
};
use kvatlas_protocol::{HashScheme, OperationKind, WireKey};

use crate::http;

/// The only storage backend of the fleet.
pub(crate) const LOCATION: &str = "LocalCPUBackend";
/// Operations of a message; LMCache's own batch size.
pub(crate) const BATCH: usize = 50;
/// Messages of a multipart.
pub(crate) const MULTIPART: usize = 20;
/// Prompts looked up over HTTP, and chains looked up by peers.
pub(crate) const PROMPTS: usize = 64;
/// Tokens of a prompt.
pub(crate) const PROMPT_TOKENS: usize = 8192;
/// Hashes of a chain.
pub(crate) const CHAIN: usize = 100;
/// Tokens of the vocabulary that prompts are drawn from.
const VOCABULARY: u64 = 128_000;

/// SplitMix64's output function: spreads positions over 64 bits.
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a key is for; each kind has its own part of the key space.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyOf {
    /// An instance's own chunks.
    Instance = 1,
    /// A chain that peers look up.
    Chain = 2,
    /// What an instance lists in its full sync.
    Sync = 3,
}

/// Key `at` of something.
pub(crate) fn key(kind: KeyOf, of: usize, at: usize) -> WireKey {
    let position = ((kind as u64) << 60) | ((of as u64) << 40) | at as u64;
    WireKey::signed(mix(position).cast_signed())
}

/// Name of an instance.
pub(crate) fn name(instance: usize) -> String {
    format!("engine-{instance:04}")
}

/// Which instance holds a prompt or chain.
pub(crate) fn holder(of: usize, instances: usize) -> usize {
    of % instances
}

fn tokens(prompt: usize) -> Vec<u32> {
    let token = |at| mix((4 << 60) | ((prompt as u64) << 32) | at as u64) % VOCABULARY;
    let small = |at| u32::try_from(token(at)).unwrap_or_default();
    (0..PROMPT_TOKENS).map(small).collect()
}

/// The chunks of a prompt, as LMCache hashes them unless configured otherwise.
pub(crate) fn prompt_keys(prompt: usize) -> Vec<WireKey> {
    let tokens = tokens(prompt);
    let chain = HashScheme::default().chain(&tokens);
    chain.map(WireKey::from_hash_signed).collect()
}

/// What instances store beside their own chunks, of prompt and chain `at`.
pub(crate) fn stored_keys(at: usize) -> Vec<WireKey> {
    let mut keys = prompt_keys(at);
    keys.extend((0..CHAIN).map(|position| key(KeyOf::Chain, at, position)));
    keys
}

/// `POST /lookup` of a prompt.
pub(crate) fn lookup(prompt: usize) -> Vec<u8> {
    let body = serde_json::json!({ "tokens": tokens(prompt) }).to_string();
    http::post("/lookup", &body)
}

/// A registration whose command socket is on this host.
pub(crate) fn register(instance: usize, port: u16) -> Vec<u8> {
    let message = RegisterMsg {
        instance_id: name(instance),
        worker_id: 0,
        ip: "127.0.0.1".to_owned(),
        port: port.into(),
        peer_init_url: Some(format!("127.0.0.1:{port}")),
    };
    Message::from(message).encode_msgpack()
}

/// A peer lookup of a chain by an instance that does not hold it.
pub(crate) fn peer_lookup(chain: usize, instances: usize) -> Vec<u8> {
    let message = BatchedP2PLookupMsg {
        hashes: (0..CHAIN).map(|at| key(KeyOf::Chain, chain, at)).collect(),
        instance_id: name(holder(chain + 1, instances)),
        worker_id: 0,
    };
    Message::from(message).encode_msgpack()
}

/// Messages of one instance, sent as one multipart.
pub(crate) struct Multipart {
    /// Who sends it.
    pub(crate) instance: usize,
    /// Its parts.
    pub(crate) parts: Vec<Vec<u8>>,
}

/// Encodes the streams of a fleet, each with its own sequence numbers.
pub(crate) struct Streams {
    next: Vec<i64>,
}

impl Streams {
    /// Streams of this many instances, all at their beginning.
    pub(crate) fn new(instances: usize) -> Self {
        Self {
            next: vec![0; instances],
        }
    }

    /// One message of operations.
    pub(crate) fn batch(
        &mut self,
        instance: usize,
        operations: impl IntoIterator<Item = (OperationKind, WireKey)>,
    ) -> Vec<u8> {
        let seq = &mut self.next[instance];
        let events = operations.into_iter().map(|(op_type, key)| {
            let event = KVOpEvent {
                op_type,
                key,
                seq_num: *seq,
            };
            *seq += 1;
            event
        });
        let events: Vec<KVOpEvent> = events.collect();
        let mut out = Vec::new();
        encode_batch(header(&name(instance)), &events, &mut out);
        out
    }

    /// Admits of keys, as many multiparts as they need.
    pub(crate) fn admits(&mut self, instance: usize, keys: &[WireKey]) -> Vec<Multipart> {
        let multipart = |keys: &[WireKey]| {
            let batch = |keys: &[WireKey]| {
                self.batch(
                    instance,
                    keys.iter().map(|&key| (OperationKind::Admit, key)),
                )
            };
            Multipart {
                instance,
                parts: keys.chunks(BATCH).map(batch).collect(),
            }
        };
        keys.chunks(BATCH * MULTIPART).map(multipart).collect()
    }
}

fn header(instance_id: &str) -> BatchHeader<'_> {
    BatchHeader {
        instance_id,
        worker_id: 0,
        location: LOCATION,
    }
}

/// A full sync of one instance.
pub(crate) struct FullSync {
    /// Asked first.
    pub(crate) start: Vec<u8>,
    /// Pushed then, in this order, the last being the end.
    pub(crate) pushed: Vec<Vec<u8>>,
    /// Asked until it is complete.
    pub(crate) status: Vec<u8>,
}

/// A full sync that lists `keys`, `batch` of them in a message.
pub(crate) fn full_sync(
    (instance, sync_id): (usize, &str),
    keys: &[WireKey],
    batch: usize,
) -> FullSync {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let start = FullSyncStartMsg {
        instance_id: name(instance),
        worker_id: 0,
        location: LOCATION.to_owned(),
        sync_id: sync_id.to_owned(),
        total_keys: count(keys.len()),
        batch_count: count(keys.len().div_ceil(batch)),
    };
    let end = FullSyncEndMsg {
        instance_id: name(instance),
        worker_id: 0,
        location: LOCATION.to_owned(),
        sync_id: sync_id.to_owned(),
        actual_total_keys: count(keys.len()),
    };
    let status = FullSyncStatusMsg {
        instance_id: name(instance),
        worker_id: 0,
        sync_id: sync_id.to_owned(),
    };
    let batches = keys.chunks(batch).zip(0..).map(|(keys, id)| {
        let mut out = Vec::new();
        encode_full_sync_batch(header(&name(instance)), sync_id, id, keys, &mut out);
        out
    });
    let mut pushed: Vec<Vec<u8>> = batches.collect();
    pushed.push(Message::from(end).encode_msgpack());
    FullSync {
        start: Message::from(start).encode_msgpack(),
        pushed,
        status: Message::from(status).encode_msgpack(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn sequence_numbers_go_on_and_sizes_are_as_promised() {
        let mut streams = Streams::new(2);
        let keys: Vec<_> = (0..1050).map(|at| key(KeyOf::Instance, 1, at)).collect();
        let multiparts = streams.admits(1, &keys);
        let sizes: Vec<_> = multiparts.iter().map(|m| m.parts.len()).collect();
        assert_eq!(sizes, [MULTIPART, 1]);
        let mut next = 0;
        let mut seen = HashSet::new();
        for part in multiparts.iter().flat_map(|m| &m.parts) {
            let Message::BatchedKVOperationMsg(batch) = Message::decode(part).unwrap() else {
                panic!("not a batch");
            };
            assert_eq!(batch.instance_id, "engine-0001");
            for event in batch.operations {
                assert_eq!(event.seq_num, next);
                assert!(seen.insert(event.key));
                next += 1;
            }
        }
        assert_eq!(next, 1050);
    }

    #[test]
    fn nobody_asks_for_what_it_holds() {
        for instances in [2, 4, 50] {
            for chain in 0..PROMPTS {
                let Message::BatchedP2PLookupMsg(ask) =
                    Message::decode(&peer_lookup(chain, instances)).unwrap()
                else {
                    panic!("not a peer lookup");
                };
                assert_ne!(ask.instance_id, name(holder(chain, instances)));
                assert_eq!(ask.hashes.len(), CHAIN);
            }
        }
    }

    #[test]
    fn a_prompt_is_32_chunks() {
        assert_eq!(prompt_keys(3).len(), PROMPT_TOKENS / 256);
        assert_ne!(prompt_keys(3), prompt_keys(4));
    }
}
