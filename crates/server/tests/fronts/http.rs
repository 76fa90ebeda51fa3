//! The other endpoints, and what a request may not do.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::support::{Controller, eventually};

#[test]
fn schema_errors_are_fastapis() {
    let controller = Controller::start();
    for (path, body, errors) in [
        (
            "/lookup",
            "{}",
            json!([{"type": "missing", "loc": ["body", "tokens"], "msg": "Field required", "input": {}}]),
        ),
        (
            "/lookup",
            r#"{"tokens": "x"}"#,
            json!([{"type": "list_type", "loc": ["body", "tokens"], "msg": "Input should be a valid list", "input": "x"}]),
        ),
        (
            "/lookup",
            r#"{"tokens": [1, null]}"#,
            json!([{"type": "int_type", "loc": ["body", "tokens", 1], "msg": "Input should be a valid integer", "input": null}]),
        ),
        (
            "/lookup",
            "",
            json!([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": null}]),
        ),
        (
            "/query_worker_info",
            r#"{"instance_id": 5}"#,
            json!([{"type": "string_type", "loc": ["body", "instance_id"], "msg": "Input should be a valid string", "input": 5}]),
        ),
    ] {
        let reply = controller.post(path, body);
        assert_eq!(reply.status, 422, "{path} {body}");
        assert_eq!(reply.json()["detail"], errors, "{path} {body}");
    }
    let reply = controller.get("/controller/workers?instance_id=a&worker_id=x");
    assert_eq!(reply.status, 422);
    assert_eq!(
        reply.json()["detail"][0]["loc"],
        json!(["query", "worker_id"])
    );
    let reply = controller.post("/lookup", "{\"tokens\": [1,");
    assert_eq!(
        (reply.status, &reply.json()["detail"][0]["type"]),
        (422, &json!("json_invalid"))
    );
}

#[test]
fn unknown_paths_and_methods_have_a_detail() {
    let controller = Controller::start();
    for (method, path, status) in [
        ("GET", "/nope", 404),
        ("POST", "/run_script", 404),
        ("GET", "/lookup", 405),
        ("GET", "/env", 404),
    ] {
        let reply = controller.request(method, path, "", b"");
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(reply.json()["detail"].is_string());
    }
}

#[test]
fn bodies_are_json_in_utf8_whatever_their_type() {
    let controller = Controller::start();
    let body = r#"{"tokens": [1]}"#;
    let marked = format!("\u{feff}{body}");
    for kind in [
        "",
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
    ] {
        for body in [body, marked.as_str()] {
            let reply = controller.request("POST", "/lookup", kind, body.as_bytes());
            assert_eq!(reply.status, 200, "{kind} {}", reply.body);
        }
    }
    let utf16: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let reply = controller.request("POST", "/lookup", "application/json", &utf16);
    assert_eq!(reply.status, 422);
    assert_eq!(reply.json()["detail"][0]["type"], "json_invalid");
}

#[test]
fn bodies_over_the_limit_are_refused() {
    let controller = Controller::with(|config| {
        config.set("max_body_bytes", "1000").unwrap().unwrap();
        config.set("max_tokens", "10").unwrap().unwrap();
    });
    let reply = controller.post("/lookup", &"x".repeat(2000));
    assert_eq!(reply.status, 413);
    assert!(
        reply.json()["detail"]
            .as_str()
            .unwrap()
            .contains("1000 bytes")
    );
    let reply = controller.post("/lookup", r#"{"tokens": [1,1,1,1,1,1,1,1,1,1,1]}"#);
    assert_eq!(reply.status, 413);
    assert_eq!(controller.post("/lookup", r#"{"tokens": [1]}"#).status, 200);
}

#[test]
fn workers_are_listed_in_every_form() {
    let controller = Controller::start();
    for (instance, rank) in [("a", 1), ("a", 0), ("b", 0)] {
        controller.worker(instance, rank).register();
    }
    let list = |path: &str| {
        let reply = controller.get(path).json();
        let workers = reply["workers"].as_array().unwrap().clone();
        assert_eq!(reply["total_count"], workers.len());
        workers.len()
    };
    assert_eq!(list("/controller/workers"), 3);
    assert_eq!(list("/controller/workers?worker_id=0"), 3);
    assert_eq!(list("/controller/workers?instance_id=a"), 2);
    let one = controller.get("/controller/workers?instance_id=a&worker_id=1");
    let names: Vec<String> = one.json().as_object().unwrap().keys().cloned().collect();
    let wanted = [
        "instance_id",
        "worker_id",
        "ip",
        "port",
        "peer_init_url",
        "registration_time",
        "last_heartbeat_time",
        "key_count",
    ];
    assert_eq!(names, wanted);
    assert_eq!(
        controller.get("/controller/workers?instance_id=x").status,
        404
    );
    assert_eq!(
        controller
            .get("/controller/workers?instance_id=a&worker_id=9")
            .status,
        404
    );
    let stats = controller.get("/controller/key-stats").json();
    assert_eq!(
        (&stats["total_instance_count"], &stats["total_worker_count"]),
        (&json!(2), &json!(3))
    );
    let infos = |body: &str| {
        let reply = controller.post("/query_worker_info", body).json();
        assert!(
            reply["event_id"]
                .as_str()
                .unwrap()
                .starts_with("QueryWorkerInfo")
        );
        reply["worker_infos"].as_array().unwrap().len()
    };
    assert_eq!(infos(r#"{"instance_id": "all"}"#), 3);
    assert_eq!(infos(r#"{"instance_id": "all", "worker_ids": [0]}"#), 2);
    assert_eq!(infos(r#"{"instance_id": "a", "worker_ids": [1, 7]}"#), 1);
    assert_eq!(infos(r#"{"instance_id": "x"}"#), 0);
    let reply = controller.post("/query_instance", r#"{"event_id": "e", "ip": "10.0.0.1"}"#);
    assert_eq!(reply.json()["res"], "a");
    assert_eq!(reply.json()["instances"], json!(["a", "b"]));
    assert_eq!(
        controller
            .post("/query_instance", r#"{"ip": "1.1.1.1"}"#)
            .status,
        404
    );
}

#[test]
fn metrics_have_upstreams_names() {
    let controller = Controller::start();
    let reply = controller.get("/metrics");
    assert!(
        reply
            .head
            .contains("content-type: text/plain; version=0.0.4")
    );
    for name in [
        "kv_pool_keys_count",
        "registered_workers_count",
        "pull_socket_message_count",
        "reply_socket_message_count",
        "pull_socket_has_pending",
        "reply_socket_has_pending",
        "pull_socket_active_requests",
        "reply_socket_active_requests",
        "kv_op_seq_discontinuity_count",
        "full_sync_workers_syncing",
        "full_sync_workers_completed",
        "full_sync_global_progress",
        "full_sync_missing_batches_total",
    ] {
        let sample = format!("lmcache:cache_controller_{name}{{role=\"controller\"}}");
        assert_eq!(controller.metric(&sample), 0.0, "{name}");
    }
    controller.worker("a", 0).register();
    let sample = "lmcache:cache_controller_registered_workers_count{role=\"controller\"}";
    assert_eq!(controller.metric(sample), 1.0);
    assert_eq!(controller.post("/metrics/reset", "").body, "ok");
}

#[test]
fn operators_pages_answer() {
    let controller = Controller::start();
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/version",
        "/threads",
        "/diagnose",
        "/periodic-threads",
    ] {
        assert_eq!(controller.get(path).status, 200, "{path}");
    }
    eventually("every task has run", || {
        let tasks = controller.get("/periodic-threads").json();
        let tasks = tasks["threads"].as_array().unwrap().clone();
        tasks
            .iter()
            .all(|task| task["total_runs"] != 0)
            .then_some(())
    });
    // A machine under load may keep a task waiting for three of its intervals.
    eventually("no task is late", || {
        let health = controller.get("/periodic-threads-health").json();
        (health["healthy"] == true).then_some(())
    });
    assert_eq!(
        controller.get("/periodic-threads/sweep").json()["name"],
        "sweep"
    );
    assert_eq!(controller.get("/periodic-threads/nope").status, 404);
    let text = controller
        .get("/loglevel?logger_name=kvatlas_server&level=debug")
        .body;
    assert_eq!(text, "Set kvatlas_server level to DEBUG");
    assert!(
        controller
            .get("/loglevel")
            .body
            .contains("kvatlas_server: DEBUG\n")
    );
    let text = controller
        .get("/loglevel?logger_name=kvatlas_server::http")
        .body;
    assert_eq!(text, "kvatlas_server::http: DEBUG");
    assert_eq!(controller.get("/loglevel?level=loud").status, 400);
}

#[test]
fn half_open_connections_keep_nobody_out() {
    let controller = Controller::start();
    let idle: Vec<TcpStream> = (0..200)
        .map(|n| {
            let mut stream = TcpStream::connect(controller.addresses.http).unwrap();
            if n % 2 == 0 {
                stream
                    .write_all(b"POST /lookup HTTP/1.1\r\ncontent-length: 100\r\n")
                    .unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(controller.get("/healthz").body, "ok\n");
    drop(idle);
}

#[test]
fn stopping_ends_the_sockets() {
    let controller = Controller::start();
    let ports = [
        controller.addresses.http.port(),
        controller.addresses.ports.pull,
    ];
    // Whoever gets these ports next does not matter: connections that are open end.
    let open = ports.map(|port| TcpStream::connect(("127.0.0.1", port)).unwrap());
    assert_eq!(controller.get("/healthz").status, 200);
    controller.stop();
    for mut stream in open {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut rest = Vec::new();
        // A greeting of ZeroMQ perhaps, then the end or a reset.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn a_body_that_no_handler_reads_does_not_cost_the_connection() {
    let controller = Controller::start();
    let mut stream = TcpStream::connect(controller.addresses.http).unwrap();
    let body = "x".repeat(30_000);
    let head = "POST /run_script HTTP/1.1\r\nhost: x\r\ncontent-length: 30000\r\n\r\n";
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut length = 0;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(answers.read_line(&mut line).unwrap(), 0, "closed");
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        answers.read_exact(&mut answer).unwrap();
        assert_eq!(answer, br#"{"detail":"Not Found"}"#);
    }
}

#[test]
fn a_body_left_unread_is_told_to_the_client() {
    let controller = Controller::start();
    let mut stream = TcpStream::connect(controller.addresses.http).unwrap();
    // Announced and never sent: the answer does not wait for it, and says that it will not.
    let head = "POST /run_script HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}
