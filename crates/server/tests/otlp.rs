//! A controller that sends traces, a collector that is a socket, and a simulated engine.
//!
//! Only in builds with the feature `otlp`: `make otlp`.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const PATIENCE: Duration = Duration::from_secs(30);
const TRACE: [u8; 16] = *b"0123456789abcdef";

/// Ended with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kvatlas(arguments: &[&str]) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_kvatlas"))
        .args(arguments)
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Process(child)
}

/// One request on a connection of its own; head and body of the answer.
fn ask(address: &str, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// What was posted to the collector, with the path.
type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Takes whatever comes.
fn collector() -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let received = Received::default();
    let kept = Arc::clone(&received);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.to_lowercase());
            }
            let length = lines
                .iter()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.trim().parse().unwrap());
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            let path = lines.first().cloned().unwrap_or_default();
            kept.lock().push((path, body));
        }
    });
    (endpoint, received)
}

fn holds(received: &Received, needle: &[u8]) -> bool {
    let bodies = received.lock();
    bodies
        .iter()
        .any(|(_, body)| body.windows(needle.len()).any(|part| part == needle))
}

#[test]
fn requests_commands_and_workers_are_spans_of_the_callers_trace() {
    let (endpoint, received) = collector();
    let ports = r#"{"pull": 0, "reply": 0, "heartbeat": 0}"#;
    let mut controller = kvatlas(&[
        "serve",
        "--no-state",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--monitor-ports",
        ports,
        "--otlp-endpoint",
        &endpoint,
    ]);
    let lines = BufReader::new(controller.0.stdout.take().unwrap()).lines();
    let line = lines
        .map_while(Result::ok)
        .find(|line| line.starts_with("listening "))
        .unwrap();
    let at = |name: &str| {
        let part = line.split(' ').find_map(|part| part.strip_prefix(name));
        part.unwrap().to_owned()
    };
    let (http, pull, reply) = (at("http="), at("pull="), at("reply="));
    let _worker = kvatlas(&[
        "worker",
        "--instance-id",
        "demo",
        "--pull-url",
        &pull,
        "--reply-url",
        &reply,
        "--worker-ports",
        "0",
        "--advertise-ip",
        "127.0.0.1",
    ]);
    eventually("the engine is registered", || {
        let workers = ask(&http, "GET", "/controller/workers", "", "");
        workers.contains(r#""total_count":1"#)
    });
    let caller = format!("traceparent: 00-{}-00000000000000aa-01\r\n", hex(&TRACE));
    let answer = ask(
        &http,
        "POST",
        "/health",
        &caller,
        r#"{"instance_id": "demo"}"#,
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let event_id = answer
        .split('"')
        .find(|part| part.starts_with("health"))
        .unwrap();
    for needle in [
        b"POST /health".as_slice(),
        b"command health",
        event_id.as_bytes(),
        b"worker demo:0",
        b"kvatlas",
        &TRACE,
    ] {
        let what = String::from_utf8_lossy(needle).into_owned();
        eventually(&what, || holds(&received, needle));
    }
    let bodies = received.lock();
    assert!(
        bodies
            .iter()
            .all(|(path, _)| path.starts_with("post /v1/traces "))
    );
}

#[test]
fn endpoints_that_are_no_addresses_end_the_start() {
    for endpoint in ["collector:4318", "https://collector:4318", "http://", "x y"] {
        let process = Command::new(env!("CARGO_BIN_EXE_kvatlas"))
            .args([
                "serve",
                "--no-state",
                "--port",
                "0",
                "--otlp-endpoint",
                endpoint,
            ])
            .output()
            .unwrap();
        assert_eq!(process.status.code(), Some(2), "{endpoint}");
        let said = String::from_utf8_lossy(&process.stderr).into_owned();
        assert!(said.contains("otlp_endpoint"), "{endpoint}: {said}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
