//! Whatever a message holds comes back, from MessagePack and from JSON, and nothing panics.
#![allow(clippy::unwrap_used)]

use indexmap::IndexMap;
use kvatlas_protocol::message::{
    BatchedKVOperationMsg, BatchedP2PLookupMsg, BatchedP2PLookupRetMsg, CommandArgs,
    FullSyncStatusRetMsg, HealthRetMsg, HeartbeatCommand, HeartbeatMsg, HeartbeatRetMsg, KVOpEvent,
    LookupRetMsg, MoveWorkerMsg, QueryWorkerInfoRetMsg, RegisterRetMsg, Value, WorkerInfo,
};
use kvatlas_protocol::{Message, OperationKind, WireKey};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,40}",
        "[a-z]{0,300}",
        Just("\u{1f600}\"\\\u{0}\n".to_owned())
    ]
}

fn key() -> impl Strategy<Value = WireKey> {
    prop_oneof![
        any::<i64>().prop_map(WireKey::signed),
        any::<u64>().prop_map(WireKey::unsigned),
    ]
}

fn finite() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL
}

/// Values that both encodings can say.
fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::Unsigned),
        (i64::MIN..0).prop_map(Value::Negative),
        finite().prop_map(Value::Float),
        text().prop_map(Value::Text),
    ];
    scalar.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec((text().prop_map(Value::Text), inner), 0..6).prop_map(Value::Map),
        ]
    })
}

fn map<K: std::hash::Hash + Eq, V>(entries: Vec<(K, V)>) -> IndexMap<K, V> {
    entries.into_iter().collect()
}

fn operation() -> impl Strategy<Value = KVOpEvent> {
    (any::<bool>(), key(), any::<i64>()).prop_map(|(admit, key, seq_num)| KVOpEvent {
        op_type: if admit {
            OperationKind::Admit
        } else {
            OperationKind::Evict
        },
        key,
        seq_num,
    })
}

fn command() -> impl Strategy<Value = HeartbeatCommand> {
    let args = option::of(vec((text(), value()), 0..5).prop_map(map));
    (option::of(text()), args, any::<bool>()).prop_map(|(reason, args, full_sync)| {
        let args = CommandArgs { reason, args };
        if full_sync {
            HeartbeatCommand::FullSync(args)
        } else {
            HeartbeatCommand::HeartbeatCommand(args)
        }
    })
}

fn reports() -> impl Strategy<Value = Message> {
    prop_oneof![
        (
            text(),
            any::<i64>(),
            text(),
            any::<i64>(),
            option::of(text())
        )
            .prop_map(
                |(instance_id, worker_id, ip, port, peer_init_url)| HeartbeatMsg {
                    instance_id,
                    worker_id,
                    ip,
                    port,
                    peer_init_url,
                }
                .into()
            ),
        (text(), any::<i64>(), text(), vec(operation(), 0..40)).prop_map(
            |(instance_id, worker_id, location, operations)| BatchedKVOperationMsg {
                instance_id,
                worker_id,
                location,
                operations,
            }
            .into()
        ),
        (vec(key(), 0..40), text(), any::<i64>()).prop_map(|(hashes, instance_id, worker_id)| {
            BatchedP2PLookupMsg {
                hashes,
                instance_id,
                worker_id,
            }
            .into()
        }),
    ]
}

fn answers() -> impl Strategy<Value = Message> {
    prop_oneof![
        vec((text(), text()), 0..20).prop_map(|entries| RegisterRetMsg {
            extra_config: map(entries),
        }
        .into()),
        vec(command(), 0..4).prop_map(|commands| HeartbeatRetMsg { commands }.into()),
        vec((text(), text(), any::<i64>(), text()), 0..4)
            .prop_map(|layout_info| BatchedP2PLookupRetMsg { layout_info }.into()),
        (
            text(),
            any::<[bool; 2]>(),
            finite(),
            vec(any::<i64>(), 0..9)
        )
            .prop_map(
                |(sync_id, [is_complete, can_exit_freeze], global_progress, missing_batches)| {
                    FullSyncStatusRetMsg {
                        sync_id,
                        is_complete,
                        global_progress,
                        can_exit_freeze,
                        missing_batches,
                    }
                    .into()
                }
            ),
        (text(), vec((text(), (text(), any::<i64>())), 0..9)).prop_map(|(event_id, entries)| {
            LookupRetMsg {
                event_id,
                layout_info: map(entries),
            }
            .into()
        }),
        (text(), vec(any::<(i64, i64)>(), 0..20)).prop_map(|(event_id, entries)| HealthRetMsg {
            event_id,
            error_codes: map(entries),
        }
        .into()),
        (text(), vec(worker_info(), 0..4)).prop_map(|(event_id, worker_infos)| {
            QueryWorkerInfoRetMsg {
                event_id,
                worker_infos,
            }
            .into()
        }),
        (
            text(),
            (text(), text()),
            option::of(vec(any::<i64>(), 0..40)),
            option::of(any::<bool>())
        )
            .prop_map(
                |(worker_event_id, new_position, tokens, copy)| MoveWorkerMsg {
                    old_position: worker_event_id.clone(),
                    worker_event_id,
                    new_position,
                    tokens,
                    copy,
                }
                .into()
            ),
    ]
}

fn worker_info() -> impl Strategy<Value = WorkerInfo> {
    (text(), any::<i64>(), option::of(text()), finite()).prop_map(
        |(instance_id, worker_id, peer_init_url, time)| WorkerInfo {
            ip: instance_id.clone(),
            instance_id,
            worker_id,
            port: worker_id,
            peer_init_url,
            registration_time: time,
            last_heartbeat_time: -time,
        },
    )
}

proptest! {
    #[test]
    fn messages_come_back(message in prop_oneof![reports(), answers()]) {
        let bytes = message.encode_msgpack();
        let from_bytes = Message::decode(&bytes);
        prop_assert_eq!(from_bytes.as_ref(), Ok(&message));
        let from_json = Message::decode(message.encode_json().as_bytes());
        prop_assert_eq!(from_json.as_ref(), Ok(&message));
    }

    #[test]
    fn every_truncation_is_refused(message in prop_oneof![reports(), answers()], cut in any::<prop::sample::Index>()) {
        let bytes = message.encode_msgpack();
        prop_assert!(Message::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let json = message.encode_json();
        prop_assert!(Message::decode(&json.as_bytes()[..cut.index(json.len())]).is_err());
    }

    #[test]
    fn garbage_does_no_harm(garbage in vec(any::<u8>(), 0..200), json in "\\{[\\[\\]{}\":,a-e0-9\\\\.-]{0,80}") {
        prop_assert!(Message::decode(&garbage).is_err());
        prop_assert!(Message::decode(json.as_bytes()).is_err());
    }
}

/// A heartbeat answer whose only argument is an array nested `depth` deep.
fn nested(depth: usize) -> Vec<u8> {
    let mut out = b"\x82\xa4type\xafHeartbeatRetMsg\xa8commands\x91\x82".to_vec();
    out.extend(b"\xaccommand_type\xa9full_sync\xa4args\x81\xa1a");
    out.extend(std::iter::repeat_n(0x91, depth));
    out.push(0xc0);
    out
}

#[test]
fn depth_is_limited_without_recursion() {
    let deepest = kvatlas_protocol::codec::MAX_VALUE_DEPTH as usize - 1;
    assert!(Message::decode(&nested(deepest)).is_ok());
    let error = Message::decode(&nested(deepest + 1)).unwrap_err();
    assert_eq!(error.reason().as_str(), "too_deep");
    assert!(Message::decode(&nested(5_000_000)).is_err());

    let unknown = |depth: usize| {
        let mut out = b"\x83\xa4type\xa8ErrorMsg\xa5error\xa1e\xa1x".to_vec();
        out.extend(std::iter::repeat_n(0x91, depth));
        out.push(0xc0);
        out
    };
    assert!(Message::decode(&unknown(900)).is_ok());
    assert!(Message::decode(&unknown(5_000_000)).is_err());
    let json = format!(
        "{{\"type\":\"ErrorMsg\",\"error\":\"e\",\"x\":{}",
        "[".repeat(5_000_000)
    );
    assert!(Message::decode(json.as_bytes()).is_err());
}

#[test]
fn repeated_fields_are_all_checked_and_the_last_one_counts() {
    let error = |json: &str| Message::decode(json.as_bytes()).map(|m| m.encode_json());
    assert_eq!(
        error(r#"{"error":"a","type":"ErrorMsg","error":"b"}"#),
        Ok(r#"{"type":"ErrorMsg","error":"b"}"#.to_owned())
    );
    assert!(error(r#"{"type":"ErrorMsg","error":1,"error":"b"}"#).is_err());
    assert!(error(r#"{"type":"ErrorMsg","error":"b","type":"ClearMsg"}"#).is_err());
}
