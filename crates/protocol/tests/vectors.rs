//! The reference's own bytes: what it writes we write, what it accepts or refuses so do we.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use kvatlas_protocol::Message;
use serde_json::Value;

fn lines(file: &str) -> Vec<Value> {
    let path = format!("{}/testdata/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn bytes_of(line: &Value) -> Vec<u8> {
    hex::decode(line["msgpack"].as_str().unwrap()).unwrap()
}

fn as_json(message: &Message) -> Value {
    serde_json::from_str(&message.encode_json()).unwrap()
}

#[test]
fn every_message_decodes_to_its_value_and_encodes_to_its_bytes() {
    let mut seen = BTreeSet::new();
    for line in lines("messages.jsonl") {
        let bytes = bytes_of(&line);
        let message = Message::decode(&bytes).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(message.tag(), line["type"]);
        assert_eq!(as_json(&message), line["value"]);
        assert_eq!(hex::encode(message.encode_msgpack()), line["msgpack"]);

        let from_json = Message::decode(line["value"].to_string().as_bytes()).unwrap();
        assert_eq!(from_json, message);
        let own_json = Message::decode(message.encode_json().as_bytes()).unwrap();
        assert_eq!(own_json, message);
        seen.insert(message.tag());
    }
    assert_eq!(seen, Message::TAGS.iter().copied().collect());
    assert_eq!(seen.len(), 51);
}

#[test]
fn verdicts_are_the_reference_decoders() {
    let cases = lines("decoding.jsonl");
    assert!(!cases.is_empty());
    for line in cases {
        let case = &line["case"];
        match (Message::decode(&bytes_of(&line)), line.get("ok")) {
            (Ok(message), Some(value)) => {
                let mut found = as_json(&message);
                // A default the line leaves out is not what the case is about.
                if let (Some(found), Some(value)) = (found.as_object_mut(), value.as_object()) {
                    found.retain(|field, _| value.contains_key(field));
                }
                assert_eq!(&found, value, "{case}");
            }
            (Err(_), None) => {}
            (Ok(message), None) => panic!("{case}: accepted as {message:?}"),
            (Err(error), Some(_)) => panic!("{case}: refused: {error}"),
        }
    }
}

#[test]
fn errors_name_the_field_what_was_expected_and_what_was_found() {
    let cases = [
        (
            r#"{"type":"BatchedKVOperationMsg","instance_id":"i","worker_id":0,"location":"l",
               "operations":[{"op_type":"touch","key":1,"seq_num":0}]}"#,
            "expected `admit` or `evict`, found 'touch' at `$.operations[0].op_type`",
        ),
        (
            r#"{"type":"ClearWorkerRetMsg","num_tokens":5.0}"#,
            "expected int, found float at `$.num_tokens`",
        ),
        (
            r#"{"type":"HeartbeatRetMsg","commands":[{"command_type":"reboot"}]}"#,
            "unknown value 'reboot' at `$.commands[0].command_type`",
        ),
        (
            r#"{"type":"ErrorMsg"}"#,
            "required field `error` is missing at `$`",
        ),
        (
            r#"{"type":"HealthRetMsg","event_id":"e","error_codes":{"one":1}}"#,
            "expected int, found str at `$.error_codes (a key)`",
        ),
    ];
    for (json, text) in cases {
        assert_eq!(
            Message::decode(json.as_bytes()).unwrap_err().to_string(),
            text
        );
    }
}
