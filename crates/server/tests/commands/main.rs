//! Commands over HTTP, against the real process and workers on real ZeroMQ sockets.
#![allow(clippy::unwrap_used, missing_docs)]

mod client;
mod contract;
mod fleet;
mod scale;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use fleet::{Fleet, LONG, clear_of, reply};

#[tokio::test]
async fn every_command_reaches_both_ranks_with_its_arguments() {
    let mut fleet = Fleet::start().await;
    let (mut workers, mut targets) = (Vec::new(), Vec::new());
    for rank in 0..2 {
        workers.push(fleet.worker("a", rank, None, |request| reply(request, 512)));
        let url = format!("10.0.0.{rank}:7000");
        targets.push(fleet.worker("b", rank, Some(&url), |request| reply(request, 0)));
    }
    let place = json!({ "instance_id": "a", "location": "LocalCPUBackend" });
    let with = |extra: Value| {
        let mut body = place.clone();
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    let move_body = json!({
        "old_position": ["a", "LocalCPUBackend"], "new_position": ["b", "LocalDiskBackend"],
        "tokens": [1, 2, 3], "should_copy": true,
    });
    let cases = [
        ("/clear", "Clear", place.clone()),
        ("/pin", "Pin", with(json!({ "tokens": [1, 2] }))),
        (
            "/compress",
            "Compress",
            with(json!({ "method": "cachegen", "tokens": [7] })),
        ),
        (
            "/decompress",
            "Decompress",
            with(json!({ "method": "cachegen", "tokens": null })),
        ),
        (
            "/compress",
            "Compress",
            with(json!({ "method": "cachegen" })),
        ),
        ("/move", "Move", move_body),
    ];
    for (path, prefix, body) in cases {
        let (status, answer) = fleet.post(path, body).await;
        assert_eq!(
            (status, &answer["num_tokens"]),
            (200, &json!(512)),
            "{path}: {answer}"
        );
        assert!(answer["event_id"].as_str().unwrap().starts_with(prefix));
    }
    for (rank, worker) in workers.iter().enumerate() {
        let seen = worker.seen();
        assert!(seen[0].contains("ClearWorkerMsg") && seen[0].contains("LocalCPUBackend"));
        assert!(seen[1].contains("PinWorkerMsg") && seen[1].contains("tokens: [1, 2]"));
        assert!(seen[2].contains("CompressWorkerMsg") && seen[2].contains("tokens: Some([7])"));
        assert!(seen[3].contains("DecompressWorkerMsg") && seen[3].contains("tokens: None"));
        // Upstream's default of an absent list is the empty one.
        assert!(seen[4].contains("CompressWorkerMsg") && seen[4].contains("tokens: Some([])"));
        let url = format!("(\"10.0.0.{rank}:7000\", \"LocalDiskBackend\")");
        assert!(
            seen[5].contains(&url) && seen[5].contains("copy: Some(true)"),
            "{}",
            seen[5]
        );
    }
    assert!(targets.iter().all(|target| target.seen().is_empty()));
}

#[tokio::test]
async fn health_has_a_code_for_every_answer() {
    let mut fleet = Fleet::start().await;
    let _a = fleet.worker("a", 0, None, |request| reply(request, 0));
    let _b = fleet.worker("a", 1, None, |_| fleet::error("no memory"));
    let _c = fleet.worker("a", 2, None, |_| fleet::cleared(1));
    let _d = fleet.worker("a", 3, None, |_| b"\xc1".to_vec());
    let (status, answer) = fleet.post("/health", json!({ "instance_id": "a" })).await;
    assert_eq!(status, 200);
    assert_eq!(
        answer["error_codes"],
        json!({ "0": 0, "1": -1001, "2": -1002, "3": -1003 })
    );
    assert!(answer["event_id"].as_str().unwrap().starts_with("health"));
    let (status, answer) = fleet
        .post("/health", json!({ "instance_id": "nobody" }))
        .await;
    assert_eq!((status, &answer["error_codes"]), (200, &json!({})));
}

#[tokio::test]
async fn refusals_and_failures_have_their_status_and_name_the_worker() {
    let mut fleet = Fleet::start().await;
    let _a = fleet.worker("agree", 0, None, |_| fleet::cleared(512));
    let _b = fleet.worker("agree", 1, None, |_| fleet::cleared(511));
    let _c = fleet.worker("err", 0, None, |_| fleet::error("the disk is on fire"));
    let _d = fleet.worker("junk", 0, None, |_| b"junk".to_vec());
    fleet.register("gone", 0, fleet::free_port(), None);
    fleet.register("nowhere", 0, 70_000, None);
    let clear = async |instance: &str| {
        // Whoever answers has as long as a loaded machine takes.
        let path = match instance {
            "gone" => "/clear?timeout_s=0.5",
            _ => "/clear",
        };
        let (status, answer) = fleet.post(path, clear_of(instance)).await;
        (
            status,
            answer["detail"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let (status, detail) = clear("nobody").await;
    assert!(status == 404 && detail.contains("nobody"), "{detail}");
    let (status, detail) = clear("agree").await;
    assert!(
        status == 502 && detail.contains("agree:0 says 512"),
        "{detail}"
    );
    assert!(detail.contains("agree:1 says 511"), "{detail}");
    let (status, detail) = clear("err").await;
    assert!(status == 502 && detail.contains("err:0"), "{detail}");
    assert!(detail.contains("the disk is on fire"), "{detail}");
    let (status, detail) = clear("junk").await;
    assert!(status == 502 && detail.contains("junk:0"), "{detail}");
    let (status, detail) = clear("gone").await;
    assert!(status == 504 && detail.contains("gone:0"), "{detail}");
    let (status, detail) = clear("nowhere").await;
    assert!(status == 502 && detail.contains("nowhere:0"), "{detail}");

    let to =
        |instance: &str| json!({ "old_position": ["agree", "L"], "new_position": [instance, "L"] });
    let (status, answer) = fleet.post("/move", to("err")).await;
    assert_eq!(status, 409, "{answer}");
    fleet.register("dark", 0, 1, Some("10.0.0.9:1"));
    fleet.register("dark", 1, 1, None);
    let (status, answer) = fleet.post("/move", to("dark")).await;
    assert!(
        status == 409 && answer["detail"].as_str().unwrap().contains("rank 1"),
        "{answer}"
    );
    let (status, answer) = fleet.post("/move", to("nobody")).await;
    assert_eq!(status, 404, "{answer}");
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_fastapis_error() {
    let fleet = Fleet::start().await;
    let (status, answer) = fleet
        .post("/pin", json!({ "instance_id": "a", "tokens": ["x"] }))
        .await;
    assert_eq!(status, 422);
    let kinds: Vec<_> = answer["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["type"])
        .collect();
    assert_eq!(kinds, ["missing", "int_parsing"]);
    let (status, answer) = fleet.post("/clear?timeout_s=-1", clear_of("a")).await;
    assert_eq!(
        (status, &answer["detail"][0]["loc"]),
        (422, &json!(["query", "timeout_s"]))
    );
}

#[tokio::test]
async fn an_event_can_be_followed_from_start_to_end() {
    let mut fleet = Fleet::start().await;
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let _quick = fleet.worker("a", 0, None, |request| reply(request, 256));
    let _slow = fleet.worker("a", 1, None, move |request| {
        gate.recv().unwrap();
        reply(request, 256)
    });
    let (status, answer) = fleet.post("/clear?wait=false", clear_of("a")).await;
    assert_eq!(status, 202);
    let id = answer["event_id"].as_str().unwrap().to_owned();
    let step = |event: &Value, rank: usize| event["steps"][rank]["state"].clone();
    let event = fleet.until(&id, |event| step(event, 0) == "finished").await;
    assert_eq!(
        (&event["state"], step(&event, 1)),
        (&json!("running"), json!("running"))
    );
    assert_eq!(event["steps"][0]["worker"], "a:0");
    assert_eq!(event["steps"][0]["num_tokens"], 256);
    let check = async || {
        let (_, answer) = fleet.post("/check_finish", json!({ "event_id": id })).await;
        answer["status"].clone()
    };
    assert_eq!(check().await, "running");
    let (_, listed) = fleet.get("/events?state=running&instance_id=a").await;
    assert_eq!(listed["events"][0]["event_id"], *id);
    assert_eq!(listed["running_count"], 1);
    open.send(()).unwrap();
    let event = fleet.until(&id, |event| event["state"] != "running").await;
    assert_eq!(
        (&event["state"], &event["num_tokens"]),
        (&json!("finished"), &json!(256))
    );
    assert!(event["duration"].as_f64().unwrap() >= event["steps"][1]["duration"].as_f64().unwrap());
    assert_eq!(check().await, "finished");
    let (_, metrics) = fleet.get("/metrics").await;
    let line = "kvatlas_commands_total{command=\"clear\",state=\"finished\"} 1.0";
    assert!(metrics.as_str().unwrap().contains(line), "{metrics}");

    let (status, _) = fleet
        .post("/check_finish", json!({ "event_id": "Clear-nothing" }))
        .await;
    assert_eq!(status, 404);
    assert_eq!(fleet.get("/events/Clear-nothing").await.0, 404);
    assert_eq!(fleet.get("/events?state=bogus").await.0, 422);
    assert_eq!(
        fleet.get("/events?instance_id=b").await.1["events"],
        json!([])
    );
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_event_behind() {
    let mut fleet = Fleet::start().await;
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let worker = fleet.worker("a", 0, None, move |request| {
        gate.recv().unwrap();
        reply(request, 9)
    });
    let url = fleet.url();
    let asking = tokio::spawn(async move { fleet::post(&url, "/clear", clear_of("a")).await });
    fleet::eventually(|| !worker.seen().is_empty()).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    open.send(()).unwrap();
    let (_, listed) = fleet.get("/events").await;
    let id = listed["events"][0]["event_id"].as_str().unwrap().to_owned();
    let event = fleet.until(&id, |event| event["state"] != "running").await;
    assert_eq!(
        (&event["state"], &event["num_tokens"]),
        (&json!("finished"), &json!(9))
    );
}

#[tokio::test]
async fn a_silent_rank_is_named_and_the_next_command_works() {
    let mut fleet = Fleet::start().await;
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let _good = fleet.worker("a", 0, None, |request| reply(request, 1));
    let mut first = true;
    let _late = fleet.worker("a", 1, None, move |request| {
        if std::mem::take(&mut first) {
            gate.recv().unwrap();
            return reply(request, 77);
        }
        reply(request, 1)
    });
    let (status, answer) = fleet.post("/clear?timeout_s=2.5", clear_of("a")).await;
    let detail = answer["detail"].as_str().unwrap();
    assert!(
        status == 504 && detail.contains("a:1 did not answer within 2.5s"),
        "{answer}"
    );
    assert!(detail.contains("done by a:0: 1"), "{answer}");
    let id = answer["event_id"].as_str().unwrap();
    assert_eq!(
        fleet.get(&format!("/events/{id}")).await.1["state"],
        "partial"
    );
    // The answer of 77 comes now, over a connection that nobody listens to any more.
    open.send(()).unwrap();
    let (status, answer) = fleet.post("/clear", clear_of("a")).await;
    assert_eq!(
        (status, &answer["num_tokens"]),
        (200, &json!(1)),
        "{answer}"
    );
    // Health of a silent worker: the codes of those that answered stand beside the detail.
    fleet.register("a", 1, fleet::free_port(), None);
    let (status, answer) = fleet
        .post("/health?timeout_s=2.5", json!({ "instance_id": "a" }))
        .await;
    assert_eq!(
        (status, &answer["error_codes"]),
        (504, &json!({ "0": 1 })),
        "{answer}"
    );
}

#[tokio::test]
async fn deadlines_are_the_configured_ones_unless_a_request_has_its_own() {
    let keys = [("command_timeout_s", "0.3"), ("health_timeout_s", "0.2")];
    let fleet = Fleet::with(&keys).await;
    fleet.register("gone", 0, fleet::free_port(), None);
    let health = json!({ "instance_id": "gone" });
    for (path, body, deadline) in [
        ("/clear", clear_of("gone"), "300ms"),
        ("/clear?timeout_s=0.1", clear_of("gone"), "100ms"),
        ("/health", health.clone(), "200ms"),
        ("/health?timeout_s=0.1", health.clone(), "100ms"),
    ] {
        let begun = Instant::now();
        let (status, answer) = fleet.post(path, body).await;
        let detail = answer["detail"].as_str().unwrap();
        assert_eq!(status, 504, "{path}: {detail}");
        assert!(
            detail.contains("gone:0") && detail.contains(deadline),
            "{path}: {detail}"
        );
        assert!(begun.elapsed() < LONG / 2, "{path}");
    }
    // Health too is an event that need not be waited for.
    let (status, answer) = fleet.post("/health?wait=false", health).await;
    assert_eq!(status, 202, "{answer}");
    let id = answer["event_id"].as_str().unwrap();
    let event = fleet.until(id, |event| event["state"] != "running").await;
    assert_eq!(event["state"], "failed");
}

#[tokio::test]
async fn a_full_line_is_refused_by_the_workers_name() {
    let mut fleet = Fleet::start().await;
    let (_open, gate) = std::sync::mpsc::channel::<()>();
    let _mute = fleet.worker("a", 0, None, move |_| {
        let _ = gate.recv();
        Vec::new()
    });
    let mut refused = None;
    for _ in 0..64 {
        let (status, answer) = fleet.post("/clear?wait=false", clear_of("a")).await;
        if status != 202 {
            refused = Some((status, answer));
            break;
        }
    }
    let (status, answer) = refused.unwrap();
    assert!(
        status == 503 && answer["detail"].as_str().unwrap().contains("a:0"),
        "{answer}"
    );
    // A refused command is no event.
    let (_, listed) = fleet.get("/events").await;
    assert_eq!(listed["events"].as_array().unwrap().len(), 16);
}

#[tokio::test]
async fn stopping_answers_those_who_wait() {
    let mut fleet = Fleet::start().await;
    let (_open, gate) = std::sync::mpsc::channel::<()>();
    let worker = fleet.worker("a", 0, None, move |_| {
        let _ = gate.recv();
        Vec::new()
    });
    let url = fleet.url();
    let asking = tokio::spawn(async move { fleet::post(&url, "/clear", clear_of("a")).await });
    fleet::eventually(|| !worker.seen().is_empty()).await;
    let begun = Instant::now();
    fleet.stop().await;
    let (status, answer) = asking.await.unwrap();
    assert!(
        status == 504 && answer["detail"].as_str().unwrap().contains("stopping"),
        "{answer}"
    );
    assert!(begun.elapsed() < LONG / 2 + Duration::from_secs(10));
}
