//! The hot path against the strict reader, on valid and on damaged input.

use proptest::prelude::*;

use super::*;
use crate::codec::{encode, publish, wire};

fn kind() -> impl Strategy<Value = OperationKind> {
    prop_oneof![Just(OperationKind::Admit), Just(OperationKind::Evict)]
}

fn key() -> impl Strategy<Value = WireKey> {
    prop_oneof![
        any::<i64>().prop_map(WireKey::signed),
        any::<u64>().prop_map(WireKey::unsigned),
        (-200_i64..70_000).prop_map(WireKey::signed),
    ]
}

/// One entry of a map in some order, among unknown and repeated ones.
fn map(entries: Vec<(&'static str, Vec<u8>)>) -> impl Strategy<Value = Vec<u8>> {
    let n = entries.len();
    let extra = prop_oneof![
        4 => Just(Vec::new()),
        1 => Just(vec![("new_field", b"\x92\x81\xa1b\xc0\xcb\0\0\0\0\0\0\0\0".to_vec())]),
        1 => (0..n).prop_map({
            let entries = entries.clone();
            move |i| vec![entries[i].clone()]
        }),
    ];
    (extra, any::<bool>())
        .prop_flat_map(move |(extra, in_order)| {
            let mut all = entries.clone();
            all.extend(extra);
            if in_order {
                Just(all).boxed()
            } else {
                Just(all).prop_shuffle().boxed()
            }
        })
        .prop_map(|all| {
            let mut out = Vec::new();
            encode::map(all.len(), &mut out);
            for (name, value) in all {
                encode::text(name, &mut out);
                out.extend(value);
            }
            out
        })
}

fn item(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn wire(value: &impl wire::Wire) -> Vec<u8> {
    item(|out| value.write(out))
}

fn array(items: Vec<Vec<u8>>) -> Vec<u8> {
    item(|out| {
        encode::array(items.len(), out);
        out.extend(items.concat());
    })
}

fn event() -> impl Strategy<Value = Vec<u8>> {
    (kind(), key(), any::<i64>()).prop_flat_map(|(op_type, key, seq)| {
        map(vec![
            ("op_type", wire(&op_type)),
            ("key", wire(&key)),
            ("seq_num", wire(&seq)),
        ])
    })
}

fn part() -> impl Strategy<Value = Vec<u8>> {
    let head =
        (any::<i64>(), "[a-zΩ]{0,40}", "[A-Z]{0,8}").prop_map(|(rank, instance, location)| {
            vec![
                ("instance_id", wire(&instance)),
                ("worker_id", wire(&rank)),
                ("location", wire(&location)),
            ]
        });
    let batch = (head.clone(), prop::collection::vec(event(), 0..20)).prop_map(|(head, events)| {
        let mut entries = vec![("type", wire(&BATCH.to_owned()))];
        entries.extend(head);
        entries.push(("operations", array(events)));
        entries
    });
    let sync = (head, prop::collection::vec(key(), 0..20)).prop_map(|(head, keys)| {
        let mut entries = vec![("type", wire(&FULL_SYNC_BATCH.to_owned()))];
        entries.extend(head);
        entries.push(("sync_id", wire(&"s".to_owned())));
        entries.push(("batch_id", wire(&3_i64)));
        entries.push(("keys", wire(&keys)));
        entries
    });
    prop_oneof![batch, sync].prop_flat_map(map)
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..3_u8);
    (part(), prop::collection::vec(change, 1..3)).prop_map(|(mut part, changes)| {
        for (at, byte, how) in changes {
            if part.is_empty() {
                break;
            }
            let at = at.index(part.len());
            match how {
                0 => part[at] = byte,
                1 => part.truncate(at),
                _ => part.insert(at, byte),
            }
        }
        part
    })
}

/// What the strict reader makes of a part: sinks and message, or `None`.
fn strictly(part: &[u8]) -> Option<(PullMessage<'_>, Vec<Operation>, Vec<ChunkHash>)> {
    let (mut operations, mut keys) = (Vec::new(), Vec::new());
    let message = unpack(Message::decode(part).ok()?, &mut operations, &mut keys);
    Some((message, operations, keys))
}

fn hotly(part: &[u8]) -> Option<(PullMessage<'_>, Vec<Operation>, Vec<ChunkHash>)> {
    let (mut operations, mut keys) = (Vec::new(), Vec::new());
    let message = read_hot(part, &mut operations, &mut keys)?;
    Some((message, operations, keys))
}

proptest! {
    #[test]
    fn valid_parts_are_read_by_the_cursor_as_by_the_strict_reader(part in part()) {
        let strict = strictly(&part);
        prop_assert!(strict.is_some());
        prop_assert_eq!(hotly(&part), strict);
    }

    #[test]
    fn damaged_parts_get_the_same_verdict_and_leave_the_sinks_alone(part in damaged()) {
        // The cursor may leave to the strict reader what is not one of its two messages.
        let strict = strictly(&part);
        if let Some(hot) = hotly(&part) {
            prop_assert_eq!(Some(&hot), strict.as_ref());
        } else if let Some((message, ..)) = &strict {
            prop_assert!(matches!(message, PullMessage::Other(_)), "{message:?}");
        }
        let earlier = Operation {
            kind: OperationKind::Admit,
            hash: ChunkHash(7),
            seq: SeqNum(1),
        };
        let (mut operations, mut keys) = (vec![earlier], vec![ChunkHash(7)]);
        if decode_pull(&part, &mut operations, &mut keys).is_err() {
            prop_assert_eq!(operations, vec![earlier]);
            prop_assert_eq!(keys, vec![ChunkHash(7)]);
        } else {
            prop_assert_eq!(operations.first(), Some(&earlier));
            prop_assert!(strict.is_some());
        }
    }

    #[test]
    fn published_batches_are_the_messages_bytes(
        events in prop::collection::vec((kind(), key(), any::<i64>()), 0..40),
        keys in prop::collection::vec(key(), 0..40),
    ) {
        let events: Vec<KVOpEvent> = events
            .into_iter()
            .map(|(op_type, key, seq_num)| KVOpEvent { op_type, key, seq_num })
            .collect();
        let header = publish::BatchHeader { instance_id: "i", worker_id: 3, location: "l" };
        let mut out = Vec::new();
        publish::encode_batch(header, &events, &mut out);
        let message = Message::from(BatchedKVOperationMsg {
            instance_id: "i".into(),
            worker_id: 3,
            location: "l".into(),
            operations: events,
        });
        prop_assert_eq!(&out, &message.encode_msgpack());

        out.clear();
        publish::encode_full_sync_batch(header, "s", 9, &keys, &mut out);
        let message = Message::from(FullSyncBatchMsg {
            instance_id: "i".into(),
            worker_id: 3,
            location: "l".into(),
            sync_id: "s".into(),
            batch_id: 9,
            keys,
        });
        prop_assert_eq!(out, message.encode_msgpack());
    }
}

#[test]
fn a_single_admit_with_mooncakes_text_key_is_a_batch_of_one() {
    let json = br#"{"type":"KVEvictMsg","instance_id":"i","worker_id":1,
        "key":"model@vllm@2@1@cbf29ce484222325","location":"l"}"#;
    let (mut operations, mut keys) = (Vec::new(), Vec::new());
    let message = decode_pull(json, &mut operations, &mut keys);
    assert_eq!(message, Ok(PullMessage::batch("i".into(), 1, "l".into())));
    assert_eq!(
        operations,
        [Operation {
            kind: OperationKind::Evict,
            hash: ChunkHash(0xcbf2_9ce4_8422_2325),
            seq: SeqNum(0),
        }]
    );
}

#[test]
fn announced_lengths_allocate_nothing() {
    let mut part =
        b"\x82\xa4type\xb5BatchedKVOperationMsg\xaaoperations\xdd\xff\xff\xff\xff".to_vec();
    part.extend([0x80; 64]);
    let (mut operations, mut keys) = (Vec::new(), Vec::new());
    assert!(decode_pull(&part, &mut operations, &mut keys).is_err());
    assert_eq!(operations.capacity(), 0);
}
