//! What strangers, broken clients and foreign pages may not do, over real sockets.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

#[allow(dead_code, reason = "shared with the tests of the fronts")]
#[path = "fronts/support.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kvatlas_protocol::message::{HeartbeatMsg, Message};
use kvatlas_protocol::{ChunkHash, OperationKind};
use kvatlas_server::config::Config;

use crate::support::{Controller, Reply};

const JSON: (&str, &str) = ("content-type", "application/json");

fn set(config: &mut Config, key: &str, value: &str) {
    config.set(key, value).unwrap().unwrap();
}

/// One request with any headers, answered until the connection closes.
fn send(controller: &Controller, line: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut stream = TcpStream::connect(controller.addresses.http).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    let mut head = format!(
        "{line} HTTP/1.1\r\nhost: kv:9000\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    write!(stream, "{head}\r\n{body}").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let mut lines = reply.head.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn guarded() -> Controller {
    Controller::with(|config| {
        set(config, "read_token", "reading");
        set(config, "admin_token", "commanding");
        set(config, "metrics_open", "true");
    })
}

#[test]
fn roles_are_asked_for() {
    let controller = guarded();
    let lookup =
        |headers: &[(&str, &str)]| send(&controller, "POST /lookup", headers, r#"{"tokens": [1]}"#);
    let clear = |headers: &[(&str, &str)]| {
        let body = r#"{"instance_id": "a", "location": "LocalCPUBackend"}"#;
        send(&controller, "POST /clear", headers, body)
    };
    let reading = ("authorization", "Bearer reading");
    let commanding = ("authorization", "bearer commanding");
    let wrong = ("authorization", "Bearer readin");

    for refused in [
        lookup(&[JSON]),
        clear(&[JSON]),
        lookup(&[wrong]),
        clear(&[wrong]),
    ] {
        assert_eq!(refused.status, 401, "{refused:?}");
        assert!(header(&refused, "www-authenticate").is_some_and(|text| text.contains("bearer")));
        assert!(refused.json()["detail"].is_string());
    }
    assert_eq!(lookup(&[JSON, reading]).status, 200);
    assert_eq!(lookup(&[JSON, commanding]).status, 200);
    assert_eq!(clear(&[JSON, reading]).status, 403);
    // Past the door: there is no such instance.
    assert_eq!(clear(&[JSON, commanding]).status, 404);

    for path in ["/live", "/controller/workers", "/fleet", "/nope"] {
        assert_eq!(controller.get(path).status, 401, "{path}");
    }
    for path in ["/", "/static/app.js", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(controller.get(path).status, 200, "{path}");
    }
    let refused = |reason: &str| {
        controller.metric(&format!(
            "kvatlas_http_refused_total{{reason=\"{reason}\"}}"
        ))
    };
    assert_eq!((refused("unauthorized"), refused("forbidden")), (8.0, 1.0));
}

#[test]
fn a_session_cookie_watches_and_never_commands() {
    let controller = guarded();
    assert_eq!(send(&controller, "POST /session", &[], "").status, 401);
    let bearer = ("authorization", "Bearer commanding");
    let reply = send(&controller, "POST /session", &[bearer], "");
    assert_eq!(
        (reply.status, &reply.json()["role"]),
        (200, &"admin".into())
    );
    let cookie = header(&reply, "set-cookie").unwrap();
    assert!(cookie.contains("; httponly; samesite=strict"), "{cookie}");
    let pair = ("cookie", cookie.split(';').next().unwrap());
    assert_eq!(
        send(&controller, "GET /controller/workers", &[pair], "").status,
        200
    );
    let clear = send(&controller, "POST /clear", &[pair], "{}");
    assert_eq!(clear.status, 401);
    let forged = ("cookie", "kvatlas_session=0123456789abcdef");
    assert_eq!(
        send(&controller, "GET /controller/workers", &[forged], "").status,
        401
    );
}

#[test]
fn foreign_pages_change_nothing() {
    let controller = Controller::with(|config| {
        set(config, "cors_origins", "https://ops.example");
    });
    let clear = |headers: &[(&str, &str)]| {
        let body = r#"{"instance_id": "a", "location": "LocalCPUBackend"}"#;
        send(&controller, "POST /clear", headers, body)
    };
    for evil in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let refused = clear(&[JSON, evil]);
        assert_eq!(refused.status, 403, "{evil:?}");
        assert_eq!(header(&refused, "access-control-allow-origin"), None);
    }
    // Carried out: there is no such instance.
    assert_eq!(clear(&[JSON, ("origin", "http://kv:9000")]).status, 404);
    let listed = [
        JSON,
        ("origin", "https://ops.example"),
        ("sec-fetch-site", "cross-site"),
    ];
    let allowed = clear(&listed);
    assert_eq!(allowed.status, 404);
    assert_eq!(
        header(&allowed, "access-control-allow-origin"),
        Some("https://ops.example")
    );

    let preflight = |origin| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        send(&controller, "OPTIONS /lookup", &headers, "")
    };
    let allowed = preflight("https://ops.example");
    assert_eq!(allowed.status, 204);
    assert_eq!(
        header(&allowed, "access-control-allow-methods"),
        Some("get, post")
    );
    assert!(
        header(&allowed, "access-control-allow-headers")
            .unwrap()
            .contains("content-type")
    );
    let refused = preflight("https://evil.example");
    assert_eq!(refused.status, 405);
    assert_eq!(header(&refused, "access-control-allow-origin"), None);
}

#[test]
fn every_answer_has_security_headers() {
    let controller = Controller::start();
    for path in [
        "/",
        "/healthz",
        "/nope",
        "/lookup",
        "/metrics",
        "/static/app.js",
    ] {
        let reply = controller.get(path);
        for name in [
            "x-content-type-options",
            "x-frame-options",
            "referrer-policy",
            "content-security-policy",
            "cache-control",
        ] {
            assert!(header(&reply, name).is_some(), "{path} {name}");
        }
    }
    // The page may run its own files; everything else nothing at all.
    let policy = |path: &str| {
        header(&controller.get(path), "content-security-policy")
            .unwrap()
            .to_owned()
    };
    assert!(policy("/").contains("script-src 'self'"));
    assert!(!policy("/metrics").contains("script-src"));
}

/// Sends `text`, then reads until the server closes.
fn exchange(controller: &Controller, text: &str) -> String {
    let mut stream = TcpStream::connect(controller.addresses.http).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn refused(controller: &Controller, reason: &str) -> f64 {
    controller.metric(&format!(
        "kvatlas_http_refused_total{{reason=\"{reason}\"}}"
    ))
}

#[test]
fn slow_heads_and_bodies_are_ended() {
    let controller = Controller::with(|config| {
        // Our own heads have to come in time, on a loaded machine too.
        set(config, "header_timeout_s", "1.5");
        set(config, "body_timeout_s", "0.3");
    });
    // Silence, half a head, and half a request of each size that is read in its own way.
    assert_eq!(exchange(&controller, ""), "");
    assert_eq!(
        exchange(&controller, "POST /lookup HTTP/1.1\r\nhost: x\r\n"),
        ""
    );
    for length in [
        "content-length: 100",
        "content-length: 1000000",
        "transfer-encoding: chunked",
    ] {
        let head = format!("POST /lookup HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n");
        let answer = exchange(&controller, &head);
        assert!(answer.starts_with("HTTP/1.1 408"), "{length}: {answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(refused(&controller, "slow"), 3.0);
}

/// Sends one byte now and then until the server ends it; what it answered.
fn drip(address: std::net::SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let pause = Some(Duration::from_millis(20));
    stream.set_read_timeout(pause).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    for _ in 0..1000 {
        if stream.write_all(b"a").is_err() {
            break;
        }
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn those_who_send_a_byte_at_a_time_are_ended_and_the_others_are_served() {
    let controller = Controller::with(|config| {
        set(config, "header_timeout_s", "2");
        set(config, "body_timeout_s", "2");
    });
    let address = controller.addresses.http;
    let heads = "GET /healthz HTTP/1.1\r\nx: ";
    let bodies = "POST /lookup HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
    let start = std::time::Instant::now();
    let slow: Vec<_> = (0..100)
        .map(|n| std::thread::spawn(move || drip(address, [heads, bodies][n % 2])))
        .collect();
    // They are all there, and nobody notices.
    support::eventually("all are connected", || {
        (controller.metric("kvatlas_http_connections") > 100.0).then_some(())
    });
    let mut n_served = 0;
    while slow.iter().any(|one| !one.is_finished()) {
        assert_eq!(controller.get("/healthz").body, "ok\n");
        n_served += 1;
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "each byte gave them more time"
        );
    }
    assert!(n_served > 10, "{n_served}");
    let answers: Vec<String> = slow.into_iter().map(|one| one.join().unwrap()).collect();
    let told = answers
        .iter()
        .filter(|text| text.starts_with("HTTP/1.1 408"));
    assert_eq!(told.count(), 50, "heads are just closed: {answers:?}");
}

#[test]
fn a_body_too_large_ends_its_connection_aloud() {
    let controller = Controller::with(|config| set(config, "max_body_bytes", "100000"));
    let head = "POST /lookup HTTP/1.1\r\nhost: x\r\ncontent-length: 100001\r\n\r\n";
    let answer = exchange(&controller, head);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(refused(&controller, "size"), 1.0);
}

#[test]
fn requests_beyond_the_limit_are_told_to_come_back() {
    let controller = Controller::with(|config| set(config, "max_http_requests", "1"));
    // Keeps the only place by a body that does not come. One that finds the
    // place taken, by a request of ours, is refused; so each try sends another.
    let mut slow = Vec::new();
    let reply = support::eventually("429", || {
        let mut stream = TcpStream::connect(controller.addresses.http).unwrap();
        let head = b"POST /lookup HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n";
        stream.write_all(head).unwrap();
        slow.push(stream);
        let reply = controller.get("/healthz");
        (reply.status == 429).then_some(reply)
    });
    assert_eq!(header(&reply, "retry-after"), Some("1"));
    assert!(
        reply.json()["detail"]
            .as_str()
            .unwrap()
            .contains("max_http_requests")
    );
    drop(slow);
    support::eventually("room again", || {
        (controller.get("/healthz").status == 200).then_some(())
    });
    assert!(refused(&controller, "concurrency") >= 1.0);
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_out() {
    // Both ends of each connection are files of this process.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let controller = Controller::with(|config| {
        set(config, "max_http_connections", "1000");
        // None of them ends by itself while the test runs.
        set(config, "header_timeout_s", "600");
    });
    // Somebody who watches all the while.
    let mut live = TcpStream::connect(controller.addresses.http).unwrap();
    live.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut first = [0; 12];
    live.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    let mut idle = Vec::new();
    for n in 0..10_000 {
        let mut stream = TcpStream::connect(controller.addresses.http).unwrap();
        if n % 3 == 0 {
            // Refused by then, perhaps: it may be told before it is read.
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nx: ");
        }
        idle.push(stream);
        if n % 1000 == 0 {
            assert_eq!(controller.get("/healthz").body, "ok\n");
        }
    }
    let open = controller.metric("kvatlas_http_connections");
    assert!(open <= 1000.0, "{open}");
    let evicted = controller.metric("kvatlas_http_evicted_total");
    assert!(evicted >= 9000.0, "{evicted}");
    // A stream is never idle.
    let mut more = [0; 1];
    live.read_exact(&mut more).unwrap();
    drop(idle);
}

fn error(reply: Message) -> String {
    match reply {
        Message::ErrorMsg(reply) => reply.error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn instances_that_fit_no_pattern_are_not_registered() {
    let controller = Controller::with(|config| set(config, "allow_instances", "pod-*,b"));
    for known in ["pod-1", "b"] {
        let reply = controller.worker(known, 0).register();
        assert!(matches!(reply, Message::RegisterRetMsg(_)), "{reply:?}");
    }
    let stranger = controller.worker("pod", 0);
    assert!(error(stranger.register()).contains("allow_instances"));
    let beat = Message::HeartbeatMsg(HeartbeatMsg {
        instance_id: "pod".into(),
        worker_id: 0,
        ip: "10.0.0.1".into(),
        port: 5000,
        peer_init_url: None,
    });
    let reply = support::ask(&stranger.heartbeat, &beat.encode_msgpack());
    assert!(error(reply).contains("allow_instances"));
    assert_eq!(controller.bad_frames("reply", "not_admitted"), 1.0);
    assert_eq!(controller.bad_frames("heartbeat", "not_admitted"), 1.0);
    let workers = controller.get("/controller/workers").json();
    assert_eq!(workers["total_count"], 2);
}

#[test]
fn workers_from_outside_the_networks_are_not_heard() {
    // This test comes from 127.0.0.1.
    let controller = Controller::with(|config| set(config, "allow_sources", "10.0.0.0/8"));
    let mut stranger = controller.worker("a", 0);
    assert!(error(stranger.register()).contains("127.0.0.1"));
    stranger.admit(&[ChunkHash(1)]);
    support::eventually("the operations are refused", || {
        (controller.bad_frames("pull", "not_admitted") == 1.0).then_some(())
    });

    let controller = Controller::with(|config| {
        set(config, "allow_sources", "127.0.0.0/8,10.0.0.0/8");
    });
    let mut worker = controller.worker("a", 0);
    let elsewhere = worker.ask(&worker.registration("192.168.0.1"));
    assert!(error(elsewhere).contains("192.168.0.1"));
    worker.register();
    worker.admit(&[ChunkHash(1)]);
    controller.wait_for_keys(1);
}

#[test]
fn caps_are_refused_and_counted() {
    let controller = Controller::with(|config| {
        set(config, "max_instances", "2");
        set(config, "max_workers", "3");
        set(config, "max_keys_per_worker", "2");
    });
    let mut greedy = controller.worker("a", 0);
    greedy.register();
    controller.worker("b", 0).register();
    assert!(error(controller.worker("c", 0).register()).contains("max_instances"));
    controller.worker("b", 1).register();
    assert!(error(controller.worker("b", 2).register()).contains("max_workers"));
    assert_eq!(controller.bad_frames("reply", "limit"), 2.0);

    greedy.admit(&[ChunkHash(1), ChunkHash(2)]);
    controller.wait_for_keys(2);
    greedy.admit(&[ChunkHash(3)]);
    support::eventually("the admit is refused", || {
        (controller.bad_frames("pull", "limit") == 1.0).then_some(())
    });
    // Wherever people look, with what to do.
    let fleet = controller.get("/fleet?q=a:0").json();
    let incomplete = &fleet["workers"][0]["locations"][0]["incomplete"];
    assert_eq!(incomplete["limit"], "max_keys_per_worker");
    let remedy = incomplete["remedy"].as_str().unwrap();
    assert!(remedy.contains("raise max_keys_per_worker"), "{remedy}");
    let sync = controller.get("/sync").json();
    assert_eq!(sync["workers_incomplete"], 1);
    assert_eq!(
        &sync["workers"][0]["locations"][0]["incomplete"],
        incomplete
    );
    let reasons = controller.get("/diagnose").json()["reasons"].to_string();
    let said = "max_keys_per_worker is reached: keys of a:0 are not all known";
    assert!(reasons.contains(said), "{reasons}");
    assert_eq!(controller.keys(), 2);
    // Everybody else is served.
    let mut other = controller.worker("b", 0);
    other.admit(&[ChunkHash(4)]);
    controller.wait_for_keys(3);
}

#[test]
fn a_worker_that_fills_the_memory_is_stopped_and_the_others_go_on() {
    let limit = 2 << 20;
    let controller = Controller::with(|config| {
        set(config, "max_index_bytes", &limit.to_string());
    });
    assert_eq!(
        controller.metric("kvatlas_index_limit_bytes"),
        f64::from(limit)
    );
    let mut wild = controller.worker("wild", 0);
    let mut other = controller.worker("other", 0);
    wild.register();
    other.register();
    other.admit(&[ChunkHash(1)]);
    controller.wait_for_keys(1);
    let hashes = |from: u64, n: u64| -> Vec<_> { (from..from + n).map(ChunkHash).collect() };
    let refusals = || controller.bad_frames("pull", "limit");
    let keys = |instance: &str| {
        let path = format!("/controller/workers?instance_id={instance}");
        let workers = controller.get(&path).json();
        workers["workers"][0]["key_count"].as_u64().unwrap()
    };
    // Far more than fits: 12 bytes each at least. The last is refused for sure.
    for n in 0..400 {
        wild.admit(&hashes((1 << 32) + (n << 16), 1000));
    }
    let received = "kvatlas_messages_total{front=\"pull\"}";
    support::eventually("all have been read", || {
        (controller.metric(received) == 401.0).then_some(())
    });
    assert!(refusals() >= 1.0);
    let bytes = || controller.metric("kvatlas_index_bytes");
    assert!(bytes() < f64::from(limit), "{}", bytes());
    // Messages of two workers may overtake each other: these come again and again.
    let mut from = 2;
    support::eventually("the other goes on", || {
        other.admit(&hashes(from, 10));
        from += 10;
        let workers = controller
            .get("/controller/workers?instance_id=other")
            .json();
        (workers["workers"][0]["key_count"].as_u64()? > 100).then_some(())
    });
    support::eventually("only one is incomplete", || {
        (controller.metric("kvatlas_workers_incomplete") == 1.0).then_some(())
    });
    // What it evicts is taken.
    let before = keys("wild");
    let batch = wild.batch(OperationKind::Evict, &hashes(1 << 32, 1000));
    wild.push_all(&[batch]);
    support::eventually("it is evicted", || {
        (keys("wild") == before - 1000).then_some(())
    });
}
