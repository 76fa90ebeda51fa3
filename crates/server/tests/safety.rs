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
