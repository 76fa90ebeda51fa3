//! A controller inside the test, a worker whose frames the test controls, and an HTTP client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvatlas_protocol::message::{
    BatchedKVOperationMsg, DeRegisterMsg, KVOpEvent, Message, RegisterMsg, WireKey,
};
use kvatlas_protocol::{ChunkHash, HashScheme, OperationKind};
use kvatlas_server::app::{Addresses, App};
use kvatlas_server::config::Config;
use kvatlas_server::logging::Levels;
use serde_json::Value;
use tokio::sync::oneshot;

pub(crate) const LOCATION: &str = "LocalCPUBackend";
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until the answer is there.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// A running controller; stopped when dropped.
pub(crate) struct Controller {
    pub(crate) addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Controller {
    /// On loopback and free ports.
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// The same, with changes to the configuration.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        for (key, value) in [
            ("controller_host", "127.0.0.1"),
            ("controller_port", "0"),
            (
                "controller_monitor_ports",
                r#"{"pull": 0, "reply": 0, "heartbeat": 0}"#,
            ),
        ] {
            config.set(key, value).unwrap().unwrap();
        }
        change(&mut config);
        let app = App::bind(config, Levels::detached(tracing::Level::INFO)).unwrap();
        let addresses = app.addresses().clone();
        let shared = std::sync::Arc::clone(app.shared());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let stopped = async {
                let _ = stopped.await;
            };
            runtime.block_on(app.run(stopped)).unwrap();
        });
        let controller = Self {
            addresses,
            stop: Some(stop),
            thread: Some(thread),
        };
        // Not every test's controller can be asked in plain HTTP.
        eventually("readiness", || shared.is_ready().then_some(()));
        if controller.addresses.tls {
            return controller;
        }
        eventually("readiness", || {
            (controller.get("/readyz").status == 200).then_some(())
        });
        controller
    }

    pub(crate) fn stop(mut self) {
        self.end();
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.request("GET", path, "", b"")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Reply {
        self.request("POST", path, "application/json", body.as_bytes())
    }

    pub(crate) fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Reply {
        request(self.addresses.http, method, path, kind, body)
    }

    /// A value of the metrics page.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let page = self.get("/metrics").body;
        let line = page.lines().find(|line| {
            line.strip_prefix(sample)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        let line = line.unwrap_or_else(|| panic!("no {sample} in {page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) fn bad_frames(&self, front: &str, reason: &str) -> f64 {
        self.metric(&format!(
            "kvatlas_bad_frames_total{{front=\"{front}\",reason=\"{reason}\"}}"
        ))
    }

    /// What a lookup credits, in its order.
    pub(crate) fn lookup(&self, tokens: &[i64]) -> Vec<(String, String, u64)> {
        let body = serde_json::json!({ "tokens": tokens }).to_string();
        layout(&self.post("/lookup", &body).json())
    }

    pub(crate) fn keys(&self) -> u64 {
        let stats = self.get("/controller/key-stats").json();
        stats["total_key_count"].as_u64().unwrap()
    }

    pub(crate) fn wait_for_keys(&self, keys: u64) {
        eventually(&format!("{keys} keys"), || {
            (self.keys() == keys).then_some(())
        });
    }

    pub(crate) fn worker(&self, instance: &str, rank: i64) -> Worker {
        Worker::connect(&self.addresses, instance, rank)
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            if !std::thread::panicking() {
                outcome.unwrap();
            }
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn layout(answer: &Value) -> Vec<(String, String, u64)> {
    let layout = answer["layout_info"].as_object();
    let layout = layout.unwrap_or_else(|| panic!("no layout in {answer}"));
    layout
        .iter()
        .map(|(instance, value)| {
            let location = value[0].as_str().unwrap().to_owned();
            (instance.clone(), location, value[1].as_u64().unwrap())
        })
        .collect()
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    kind: &str,
    body: &[u8],
) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: kvatlas\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses by the head alone may close before it has read the body.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    Reply {
        status: status
            .parse()
            .unwrap_or_else(|_| panic!("no status in {head:?}")),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// The wire of one worker.
pub(crate) struct Worker {
    pub(crate) instance: String,
    pub(crate) rank: i64,
    pub(crate) push: zmq::Socket,
    pub(crate) reply: zmq::Socket,
    pub(crate) heartbeat: zmq::Socket,
    seq: i64,
}

impl Worker {
    fn connect(addresses: &Addresses, instance: &str, rank: i64) -> Self {
        let context = zmq::Context::new();
        let connect = |kind, port: u16| {
            let socket = context.socket(kind).unwrap();
            socket.set_linger(0).unwrap();
            let patience = i32::try_from(PATIENCE.as_millis()).unwrap();
            socket.set_rcvtimeo(patience).unwrap();
            socket.set_sndtimeo(patience).unwrap();
            socket.connect(&format!("tcp://127.0.0.1:{port}")).unwrap();
            socket
        };
        let ports = addresses.ports;
        Self {
            instance: instance.to_owned(),
            rank,
            push: connect(zmq::PUSH, ports.pull),
            reply: connect(zmq::DEALER, ports.reply.unwrap()),
            heartbeat: connect(zmq::DEALER, ports.heartbeat.unwrap()),
            seq: 0,
        }
    }

    pub(crate) fn registration(&self, ip: &str) -> Message {
        Message::RegisterMsg(RegisterMsg {
            instance_id: self.instance.clone(),
            worker_id: self.rank,
            ip: ip.to_owned(),
            port: 5000,
            peer_init_url: Some(format!("{ip}:5001")),
        })
    }

    /// Registers and waits for the answer.
    pub(crate) fn register(&self) -> Message {
        self.ask(&self.registration("10.0.0.1"))
    }

    pub(crate) fn deregistration(&self) -> Message {
        Message::DeRegisterMsg(DeRegisterMsg {
            instance_id: self.instance.clone(),
            worker_id: self.rank,
            ip: "10.0.0.1".into(),
            port: 5000,
        })
    }

    /// One request as upstream's workers send it.
    pub(crate) fn ask(&self, request: &Message) -> Message {
        ask(&self.reply, &request.encode_msgpack())
    }

    pub(crate) fn batch(&mut self, kind: OperationKind, hashes: &[ChunkHash]) -> Vec<u8> {
        let operations = hashes
            .iter()
            .map(|hash| {
                let seq_num = self.seq;
                self.seq += 1;
                KVOpEvent {
                    op_type: kind,
                    key: WireKey::from_hash_signed(*hash),
                    seq_num,
                }
            })
            .collect();
        Message::BatchedKVOperationMsg(BatchedKVOperationMsg {
            instance_id: self.instance.clone(),
            worker_id: self.rank,
            location: LOCATION.into(),
            operations,
        })
        .encode_msgpack()
    }

    pub(crate) fn admit(&mut self, hashes: &[ChunkHash]) {
        let part = self.batch(OperationKind::Admit, hashes);
        self.push.send(part, 0).unwrap();
    }

    pub(crate) fn push_all(&self, parts: &[Vec<u8>]) {
        self.push.send_multipart(parts, 0).unwrap();
    }
}

/// One request on a DEALER with the empty delimiter.
pub(crate) fn ask(socket: &zmq::Socket, payload: &[u8]) -> Message {
    socket.send_multipart([b"".as_slice(), payload], 0).unwrap();
    let frames = socket.recv_multipart(0).unwrap();
    assert_eq!(frames.len(), 2, "{frames:?}");
    assert!(frames[0].is_empty());
    Message::decode(&frames[1]).unwrap()
}

/// Chunk hashes of `tokens` under LMCache's default scheme.
pub(crate) fn hashes(tokens: &[i64]) -> Vec<ChunkHash> {
    HashScheme::default().chain(tokens).collect()
}

/// `n` tokens that differ per `seed`.
pub(crate) fn tokens(seed: i64, n: usize) -> Vec<i64> {
    (0..n)
        .map(|at| (i64::try_from(at).unwrap() * 7919 + seed * 104_729) % 128_000)
        .collect()
}
