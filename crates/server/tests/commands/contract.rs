//! What scripts rely on: for every client command the shape of `--json`, the exit code, which command
//! lines are refused, and where tokens may come from.

use std::fs;

use serde_json::{Value, json};

use crate::client::{Ended, kvatlas};
use crate::fleet::{self, Fleet, LONG, Worker, reply};

/// Commands that workers carry out, as they are called when all is well.
const ORDERS: [&[&str]; 5] = [
    &["pin", "a", "1"],
    &["clear", "a"],
    &["move", "a", "b", "1"],
    &["compress", "a"],
    &["decompress", "a"],
];

/// The others.
const QUESTIONS: [&[&str]; 14] = [
    &["lookup", "1", "2"],
    &["workers"],
    &["workers", "a"],
    &["instances"],
    &["stats"],
    &["health"],
    &["health", "a"],
    &["check", "some-event"],
    &["events"],
    &["events", "some-event"],
    &["diagnose"],
    &["diagnose", "1"],
    &["sync"],
    &["sync", "a"],
];

/// Two instances whose workers obey everything, `b` with a peer URL.
async fn obedient() -> (Fleet, [Worker; 2]) {
    let mut fleet = Fleet::start().await;
    let answer = |request: &_| reply(request, 0);
    let workers = [
        fleet.worker("a", 0, None, answer),
        fleet.worker("b", 0, Some("10.0.0.1:7000"), answer),
    ];
    (fleet, workers)
}

/// The same value with names of types for leaves; of a list, its first element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => json!("bool"),
        Value::Number(number) if number.is_f64() => json!("float"),
        Value::Number(_) => json!("int"),
        Value::String(_) => json!("text"),
        Value::Array(items) => Value::Array(items.first().map(shape).into_iter().collect()),
        Value::Object(map) => {
            let fields = map.iter().map(|(name, value)| (name.clone(), shape(value)));
            Value::Object(fields.collect())
        }
    }
}

/// `value` with more fields.
fn with(mut value: Value, more: Value) -> Value {
    for (name, field) in more.as_object().unwrap() {
        value[name] = field.clone();
    }
    value
}

/// What `--json` prints when all is well.
async fn answer(fleet: &Fleet, args: &[&str]) -> Value {
    let (code, out, error) = kvatlas(&fleet.url(), &[args, &["--json"]].concat(), "").await;
    assert_eq!((code, error.as_str()), (0, ""), "{args:?}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
}

#[tokio::test]
async fn questions_about_the_fleet_have_their_shape_in_json() {
    let (fleet, _workers) = obedient().await;
    fleet.hold("a", 0, &(0..512).collect::<Vec<_>>());
    let ask = async |args: &[&str]| shape(&answer(&fleet, args).await);

    let worker = json!({
        "instance_id": "text", "worker_id": "int", "ip": "text", "port": "int",
        "peer_init_url": null, "registration_time": "float", "last_heartbeat_time": "float",
        "key_count": "int",
    });
    let workers = json!({ "workers": [worker], "total_count": "int" });
    assert_eq!(ask(&["workers"]).await, workers);
    assert_eq!(ask(&["workers", "a"]).await, workers);

    let totals = json!({
        "total_key_count": "int", "total_instance_count": "int", "total_worker_count": "int",
    });
    let instance = json!({ "instance_id": "text", "key_count": "int", "worker_count": "int" });
    let instances = with(totals.clone(), json!({ "instances": [instance] }));
    assert_eq!(ask(&["instances"]).await, instances);
    let stats = with(totals, json!({ "running_count": "int" }));
    assert_eq!(ask(&["stats"]).await, stats);

    let codes = json!({ "event_id": "text", "error_codes": { "0": "int" } });
    assert_eq!(ask(&["health", "b"]).await, json!({ "b": codes }));
    assert_eq!(ask(&["health"]).await, json!({ "a": codes, "b": codes }));

    let location = json!({
        "location": "text", "state": "text", "key_count": "int", "last_seq": "int",
        "sequence_gaps": "int", "last_proof": null,
    });
    let worker = json!({
        "instance_id": "text", "worker_id": "int", "key_count": "int", "sync_wanted": null,
        "locations": [location],
    });
    let sync = json!({
        "progress": "float", "workers_syncing": "int", "workers_completed": "int", "workers_incomplete": "int",
        "missing_batches": "int", "sequence_gaps": "int", "persistence": { "state": "text" },
        "workers": [worker],
    });
    assert_eq!(ask(&["sync"]).await, sync);
    assert_eq!(ask(&["sync", "a"]).await, sync);
}

#[tokio::test]
async fn questions_about_a_prompt_have_their_shape_in_json() {
    let (fleet, _workers) = obedient().await;
    fleet.hold("b", 0, &(0..512).collect::<Vec<_>>());
    let tokens: Vec<String> = (0..512).map(|token| token.to_string()).collect();
    let prompt = tokens.iter().map(String::as_str);

    let args: Vec<&str> = std::iter::once("lookup").chain(prompt.clone()).collect();
    let found = answer(&fleet, &args).await;
    let layout = json!({ "b": ["LocalCPUBackend", 512] });
    assert_eq!(found["layout_info"], layout);
    assert!(found["event_id"].as_str().unwrap().starts_with("Lookup"));
    assert_eq!(found.as_object().unwrap().len(), 2);
    // Nobody holds it: an answer too, not a failure.
    let missed = answer(&fleet, &["lookup", "7"]).await;
    assert_eq!(missed["layout_info"], json!({}));

    let scheme = json!({ "algorithm": "text", "root": "text", "chunk_size": "int" });
    let confirmed = with(scheme.clone(), json!({ "instances": ["text"] }));
    let schemes = json!({
        "mode": "text", "candidates": "int", "confirmed": [confirmed], "unknown_for": [],
    });
    let diagnosis = json!({
        "instances": "int", "workers": "int", "keys": "int", "sequence_gaps": "int",
        "hash_schemes": schemes, "persistence": { "state": "text" },
    });
    let seen = with(answer(&fleet, &["diagnose"]).await, json!({ "reasons": 0 }));
    let expected = with(diagnosis.clone(), json!({ "reasons": "int" }));
    assert_eq!(shape(&seen), expected);
    let args: Vec<&str> = std::iter::once("diagnose").chain(prompt).collect();
    let seen = with(answer(&fleet, &args).await, json!({ "reasons": 0 }));
    let of_prompt = json!({
        "reasons": "int", "n_tokens": "int", "layout_info": { "b": ["text"] },
        "tried": [with(scheme, json!({
            "confirmed": "bool", "first_chunk_hash": "int", "first_chunk_hash_signed": "int",
            "matches": [{ "instance_id": "text", "location": "text", "chunks": "int" }],
        }))],
    });
    assert_eq!(shape(&seen), with(diagnosis, of_prompt));
    assert_eq!(seen["layout_info"], layout);
}

#[tokio::test]
async fn commands_and_their_events_have_their_shape_in_json() {
    let (fleet, _workers) = obedient().await;
    let step = json!({
        "worker": "text", "instance_id": "text", "worker_id": "int", "state": "text",
        "num_tokens": "int", "error": null, "duration": "float",
    });
    let event = json!({
        "event_id": "text", "command": "text", "instance_id": "text", "state": "text",
        "num_tokens": "int", "error": null, "started_at": "float", "finished_at": "float",
        "duration": "float", "steps": [step],
    });
    for order in ORDERS {
        let done = answer(&fleet, order).await;
        let expected = json!({ "event_id": "text", "num_tokens": "int" });
        assert_eq!(shape(&done), expected, "{order:?}");
        let begun = answer(&fleet, &[order, &["--no-wait"]].concat()).await;
        let expected = json!({ "event_id": "text", "status": "text" });
        assert_eq!(shape(&begun), expected, "{order:?}");
        let id = begun["event_id"].as_str().unwrap();
        fleet.until(id, |event| event["state"] != "running").await;
        let checked = answer(&fleet, &["check", id]).await;
        assert_eq!(checked, json!({ "status": "finished" }), "{order:?}");
        let seen = answer(&fleet, &["events", id]).await;
        assert_eq!(
            (&seen["command"], &seen["event_id"]),
            (&json!(order[0]), &json!(id))
        );
        let expected = match order[0] {
            "move" => with(event.clone(), json!({ "target_instance_id": "text" })),
            _ => event.clone(),
        };
        assert_eq!(shape(&seen), expected, "{order:?}");
    }
    let listed = answer(
        &fleet,
        &["events", "--state", "finished", "--instance", "a"],
    )
    .await;
    assert_eq!(listed["events"].as_array().unwrap().len(), 2 * ORDERS.len());
    let expected = json!({ "events": [event], "running_count": "int" });
    assert_eq!(shape(&listed), expected);
    let one = answer(&fleet, &["events", "--limit", "1"]).await;
    assert_eq!(one["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn without_json_every_answer_is_text_for_people() {
    let (fleet, _workers) = obedient().await;
    for args in ORDERS.iter().chain(&QUESTIONS) {
        if args.contains(&"some-event") {
            continue;
        }
        let (code, out, error) = kvatlas(&fleet.url(), args, "").await;
        assert_eq!((code, error.as_str()), (0, ""), "{args:?}");
        assert!(!out.is_empty() && !out.starts_with('{'), "{args:?}: {out}");
    }
}

#[tokio::test]
async fn nobody_there_is_3_for_every_command() {
    let nobody = format!("127.0.0.1:{}", fleet::free_port());
    for args in ORDERS.iter().chain(&QUESTIONS) {
        for json in [&[][..], &["--json"]] {
            let (code, out, error) = kvatlas(&nobody, &[args, json].concat(), "").await;
            assert_eq!((code, out.as_str()), (3, ""), "{args:?}");
            assert!(error.contains("cannot reach"), "{args:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_is_2_and_asks_nobody() {
    let (fleet, workers) = obedient().await;
    let url = fleet.url();
    for args in ORDERS.iter().chain(&QUESTIONS) {
        for wrong in [&["--bogus"][..], &["--url", "ftp://h"], &["--url", ""]] {
            let (code, out, error) = kvatlas(&url, &[args, wrong].concat(), "").await;
            assert_eq!((code, out.as_str()), (2, ""), "{args:?} {wrong:?}");
            assert!(!error.is_empty(), "{args:?} {wrong:?}");
        }
    }
    let misused: [&[&str]; 31] = [
        &["lookup"],
        &["lookup", "x"],
        &["lookup", "1.5"],
        &["lookup", "1", "-f", "x"],
        &["lookup", "-f", "/no/such/file"],
        &["lookup", "-f", "/"],
        &["workers", "a", "b"],
        &["instances", "a"],
        &["stats", "a"],
        &["pin"],
        &["pin", "a"],
        &["pin", "a", "x"],
        &["clear"],
        &["clear", "a", "b"],
        &["clear", "a", "--timeout", "soon"],
        &["move"],
        &["move", "a"],
        &["move", "a", "b", "x"],
        &["compress"],
        &["compress", "a", "x"],
        &["decompress"],
        &["decompress", "a", "--method"],
        &["health", "a", "b"],
        &["health", "a", "--timeout", "soon"],
        &["check"],
        &["check", "x", "y"],
        &["events", "--limit", "-1"],
        &["events", "--limit", "few"],
        &["diagnose", "x"],
        &["sync", "a", "b"],
        &["sync", "--token", "a\nb"],
    ];
    for args in misused {
        let (code, out, error) = kvatlas(&url, args, "").await;
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(!error.is_empty(), "{args:?}");
    }
    assert!(workers.iter().all(|worker| worker.seen().is_empty()));
    assert_eq!(fleet.get("/events").await.1["events"], json!([]));
}

#[tokio::test]
async fn what_is_not_there_is_4_and_what_is_refused_is_5() {
    let (fleet, workers) = obedient().await;
    let url = fleet.url();
    let missing: [&[&str]; 11] = [
        &["workers", "x"],
        &["pin", "x", "1"],
        &["clear", "x"],
        &["move", "x", "b", "1"],
        &["move", "a", "x", "1"],
        &["compress", "x"],
        &["decompress", "x"],
        &["health", "x"],
        &["check", "x"],
        &["events", "x"],
        &["sync", "x"],
    ];
    // `a` is without P2P; the others are values that the controller does not take.
    let refused: [&[&str]; 7] = [
        &["move", "b", "a", "1"],
        &["clear", "a", "--timeout=-1"],
        &["clear", "a", "--timeout", "1e300"],
        &["health", "a", "--timeout", "0"],
        &["events", "--state", "bogus"],
        &["pin", "a", "9223372036854775807", "--timeout=-0.1"],
        &["compress", "a", "--timeout", "nan"],
    ];
    for (expected, calls) in [(4, &missing[..]), (5, &refused[..])] {
        for args in calls {
            for json in [&[][..], &["--json"]] {
                let (code, out, error) = kvatlas(&url, &[args, json].concat(), "").await;
                assert_eq!((code, out.as_str()), (expected, ""), "{args:?}: {error}");
                assert!(error.starts_with("kvatlas: "), "{args:?}: {error}");
            }
        }
    }
    assert!(workers.iter().all(|worker| worker.seen().is_empty()));
}

#[tokio::test]
async fn failed_is_1_still_running_is_6() {
    let mut fleet = Fleet::start().await;
    let _a = fleet.worker("a", 0, None, |_| fleet::error("on fire"));
    let _b = fleet.worker("b", 0, Some("h:1"), |_| fleet::error("on fire"));
    let (_open, gate) = std::sync::mpsc::channel::<()>();
    let _mute = fleet.worker("mute", 0, None, move |_| {
        let _ = gate.recv();
        Vec::new()
    });
    let url = fleet.url();
    for order in ORDERS {
        let (code, out, error) = kvatlas(&url, order, "").await;
        assert_eq!((code, out.as_str()), (1, ""), "{order:?}");
        assert!(
            error.contains("a:0") && error.contains("on fire"),
            "{error}"
        );
        // A script is told which event, and by whom.
        let (code, out, _) = kvatlas(&url, &[order, &["--json"]].concat(), "").await;
        let out: Value = serde_json::from_str(&out).unwrap();
        assert!(out["detail"].as_str().unwrap().contains("on fire"), "{out}");
        let id = out["event_id"].as_str().unwrap();
        assert_eq!((code, kvatlas(&url, &["check", id], "").await.0), (1, 1));
    }
    let (code, out, _) = kvatlas(&url, &["health", "a", "--json"], "").await;
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &out["a"]["error_codes"]),
        (1, &json!({ "0": -1001 }))
    );
    let (code, out, _) = kvatlas(&url, &["health", "mute", "--timeout", "0.2"], "").await;
    assert!(code == 1 && out.contains("did not answer"), "{out}");

    let (code, id, _) = kvatlas(&url, &["clear", "mute", "--no-wait"], "").await;
    assert_eq!(code, 0);
    let (code, out, _) = kvatlas(&url, &["check", id.trim()], "").await;
    assert_eq!((code, out.as_str()), (6, "running\n"));
}

#[tokio::test]
async fn tokens_come_from_arguments_a_file_or_standard_input() {
    let (fleet, workers) = obedient().await;
    fleet.hold("a", 0, &[1, 2, 3]);
    let url = fleet.url();
    let file = |name: &str, text: &str| {
        let path = format!(
            "{}/{}-{name}",
            env!("CARGO_TARGET_TMPDIR"),
            std::process::id()
        );
        fs::write(&path, text).unwrap();
        path
    };
    let json_list = file("list.json", "[1, 2, 3]");
    let body = file("body.json", r#"{"tokens": [1, 2, 3], "other": 9}"#);
    let column = file("column.txt", "1\n2\n3\n");
    let sources: [(&[&str], &str); 7] = [
        (&["1", "2", "3"], ""),
        (&["-"], "1 2 3"),
        (&["-f", "-"], r#"{"tokens": [1, 2, 3]}"#),
        (&["--file", &json_list], ""),
        (&["-f", &body], ""),
        (&["-f", &column], ""),
        (&["1,2", "3"], ""),
    ];
    for (source, stdin) in sources {
        let call = async |args: &[&str]| -> Ended {
            let ended = kvatlas(&url, &[args, source, &["--json"]].concat(), stdin).await;
            assert_eq!(ended.0, 0, "{args:?} {source:?}: {}", ended.2);
            ended
        };
        for order in [
            &["pin", "a"][..],
            &["compress", "a"],
            &["decompress", "a"],
            &["move", "a", "b"],
        ] {
            call(order).await;
            let seen = workers[0].seen().pop().unwrap();
            assert!(seen.contains("[1, 2, 3]"), "{order:?} {source:?}: {seen}");
        }
        for question in ["lookup", "diagnose"] {
            let out: Value = serde_json::from_str(&call(&[question]).await.1).unwrap();
            let expected = json!({ "a": ["LocalCPUBackend", 3] });
            assert_eq!(out["layout_info"], expected, "{question} {source:?}");
        }
    }
    // What is no token is named with where it stands, and nobody is asked.
    let before = workers[0].seen().len();
    for (source, stdin, named) in [
        (["-f", &*file("bad", "1 two 3")], "", "\"two\""),
        (["-f", "-"], "1 ]2x", "standard input"),
        (["-f", "-"], "\u{0}", "standard input"),
    ] {
        let (code, _, error) = kvatlas(&url, &[&["pin", "a"], &source[..]].concat(), stdin).await;
        assert!(code == 2 && error.contains(named), "{source:?}: {error}");
    }
    assert_eq!(workers[0].seen().len(), before);
}

#[tokio::test]
async fn a_token_opens_what_it_is_for() {
    let fleet = Fleet::with(&[("read_token", "reading"), ("admin_token", "commanding")]).await;
    fleet.register("a", 0, fleet::free_port(), None);
    let url = fleet.url();
    let call = async |args: &[&str]| kvatlas(&url, args, "").await.0;
    assert_eq!(call(&["stats"]).await, 5);
    assert_eq!(call(&["stats", "--token", "wrong"]).await, 5);
    assert_eq!(call(&["stats", "--token", "reading"]).await, 0);
    let clear = ["clear", "a", "--timeout", "0.2", "--token"];
    assert_eq!(call(&[&clear[..], &["reading"]].concat()).await, 5);
    // Let through: the worker is not there.
    assert_eq!(call(&[&clear[..], &["commanding"]].concat()).await, 1);
    let (_, _, error) = kvatlas(&url, &["stats", "--token", "secret-word"], "").await;
    assert!(!error.contains("secret-word"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_no_controllers_is_a_failure() {
    for (status, code) in [
        ("200 OK", 3),
        ("500 Internal Server Error", 1),
        ("404 Not Found", 4),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: 6\r\n\r\n<html>");
        let serving = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(head.as_bytes()).await;
            }
        });
        let called = tokio::time::timeout(LONG, kvatlas(&url, &["stats"], "")).await;
        let (seen, out, error) = called.unwrap();
        serving.abort();
        assert_eq!(seen, code, "{status}: {out} {error}");
    }
}
