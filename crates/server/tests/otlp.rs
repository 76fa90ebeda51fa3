//! A controller that sends traces, a collector that is a socket, and a simulated engine.
//!
//! Only in builds with the feature `otlp`: `make otlp`.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

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

/// Takes whatever comes, in clear text.
fn collector() -> (String, Received) {
    collecting("http", |stream| stream)
}

/// Takes whatever comes over TLS, with `certificate`.
fn collector_over_tls(certificate: &Certified) -> (String, Received) {
    let chain = vec![certificate.chain.clone()];
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, certificate.key.clone_key())
        .unwrap();
    let config = Arc::new(config);
    collecting("https", move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        StreamOwned::new(connection, stream)
    })
}

fn collecting<S: Read + Write>(
    scheme: &str,
    shake_hands: impl Fn(TcpStream) -> S + Send + 'static,
) -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let endpoint = format!("{scheme}://localhost:{port}");
    let received = Received::default();
    let kept = Arc::clone(&received);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Whoever does not trust us goes away in the middle.
            if let Ok(request) = take(shake_hands(stream.unwrap())) {
                kept.lock().push(request);
            }
        }
    });
    (endpoint, received)
}

/// First line and body of a request, which is answered.
fn take(mut stream: impl Read + Write) -> std::io::Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(&mut stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
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
    reader.read_exact(&mut body)?;
    let answer =
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answer.as_bytes())?;
    stream.flush()?;
    Ok((lines.first().cloned().unwrap_or_default(), body))
}

/// A certificate for localhost, and the file of the authority that signed it.
struct Certified {
    chain: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    authority: PathBuf,
}

impl Certified {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let by = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = format!("kvatlas-otlp-{name}-{}.pem", std::process::id());
        let authority = std::env::temp_dir().join(file);
        std::fs::write(&authority, by.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        let chain = params.signed_by(&key, &by).unwrap().der().clone();
        Self {
            chain,
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            authority,
        }
    }
}

impl Drop for Certified {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.authority);
    }
}

/// A controller that sends its traces to `endpoint`, and where it answers.
fn sending(endpoint: &str, authority: &Path, log: Stdio) -> (Process, String) {
    let mut controller = Command::new(env!("CARGO_BIN_EXE_kvatlas"))
        .args([
            "--no-state",
            "--host=127.0.0.1",
            "--port=0",
            "--monitor-ports",
        ])
        .arg(r#"{"pull": 0, "reply": 0, "heartbeat": 0}"#)
        .args(["--otlp-endpoint", endpoint])
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", authority)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(controller.stdout.take().unwrap()).lines();
    let http = lines
        .find_map(|line| {
            let line = line.unwrap();
            let first = line.strip_prefix("listening http=")?.split(' ').next();
            first.map(str::to_owned)
        })
        .unwrap();
    (Process(controller), http)
}

#[test]
fn a_collector_behind_tls_is_trusted_as_far_as_it_is_vouched_for() {
    let known = Certified::new("known");
    let (endpoint, received) = collector_over_tls(&known);
    let (controller, http) = sending(&endpoint, &known.authority, Stdio::null());
    eventually("a request of ours", || {
        ask(&http, "GET", "/healthz", "", "");
        holds(&received, b"GET /healthz")
    });
    drop(controller);

    // Vouched for by somebody else: nothing is sent, and that is said.
    let other = Certified::new("other");
    let (endpoint, received) = collector_over_tls(&other);
    let (mut controller, http) = sending(&endpoint, &known.authority, Stdio::piped());
    ask(&http, "GET", "/healthz", "", "");
    let log = BufReader::new(controller.0.stderr.take().unwrap());
    let said = log
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains("traces cannot be sent"));
    assert!(said.unwrap().contains("certificate"));
    assert!(received.lock().is_empty());
}

#[test]
fn authorities_that_cannot_be_read_end_the_start() {
    let process = Command::new(env!("CARGO_BIN_EXE_kvatlas"))
        .args([
            "--no-state",
            "--port=0",
            "--otlp-endpoint=https://collector:4318",
        ])
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent/ca.pem")
        .output()
        .unwrap();
    assert_eq!(process.status.code(), Some(2));
    let said = String::from_utf8_lossy(&process.stderr).into_owned();
    assert!(said.contains("/nonexistent/ca.pem"), "{said}");
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
    for endpoint in ["collector:4318", "ftp://collector:4318", "http://", "x y"] {
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
