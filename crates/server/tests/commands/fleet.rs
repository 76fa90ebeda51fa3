//! A running controller and workers that answer commands as the test says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvatlas_controller::controller::WorkerAddress;
use kvatlas_protocol::message::{
    ClearWorkerRetMsg, CompressWorkerRetMsg, DecompressWorkerRetMsg, ErrorMsg, HealthWorkerRetMsg,
    Message, MoveWorkerRetMsg, PinWorkerRetMsg,
};
use kvatlas_protocol::{HashScheme, Operation, OperationKind, SeqNum, WorkerId, WorkerKey};
use kvatlas_server::app::{App, AppState};
use kvatlas_server::cli::client::remote::Remote;
use kvatlas_server::config::Config;
use kvatlas_server::logging::Levels;
use kvatlas_server::tls::client::Files;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Long enough for a loaded machine; no test that passes waits for it.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) struct Fleet {
    shared: AppState,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    running: tokio::task::JoinHandle<()>,
}

/// A REP socket that answers in a thread until dropped.
pub(crate) struct Worker {
    seen: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same, with these keys configured.
    pub(crate) async fn with(keys: &[(&str, &str)]) -> Self {
        let mut config = Config::default();
        let loopback = [
            ("controller_host", "127.0.0.1"),
            ("controller_port", "0"),
            (
                "controller_monitor_ports",
                r#"{"pull": 0, "reply": 0, "heartbeat": 0}"#,
            ),
            ("shutdown_timeout_s", "2"),
        ];
        for (key, value) in loopback.iter().chain(keys) {
            config.set(key, value).unwrap().unwrap();
        }
        let app = App::bind(config, Levels::detached(tracing::Level::INFO)).unwrap();
        let url = format!("http://{}", app.addresses().http);
        let shared = Arc::clone(app.shared());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let stopped = async move { drop(stopped.await) };
            app.run(stopped).await.unwrap();
        });
        Self {
            shared,
            url,
            stop: Some(stop),
            running,
        }
    }

    /// A worker that answers every command with what `answer` makes of it.
    pub(crate) fn worker(
        &mut self,
        instance: &str,
        rank: i64,
        peer_url: Option<&str>,
        answer: impl FnMut(&Message) -> Vec<u8> + Send + 'static,
    ) -> Worker {
        let (worker, port) = Worker::start(answer);
        self.register(instance, rank, i64::from(port), peer_url);
        worker
    }

    pub(crate) fn register(&self, instance: &str, rank: i64, port: i64, peer_url: Option<&str>) {
        let address = WorkerAddress {
            ip: "127.0.0.1".into(),
            port,
            peer_url: peer_url.map(str::to_owned),
        };
        let key = WorkerKey::new(instance, rank);
        let now = self.shared.clock.now();
        self.shared
            .controller
            .handle_register(key, address, now)
            .unwrap();
    }

    /// The worker reports that it holds `tokens`, by the default scheme.
    pub(crate) fn hold(&self, instance: &str, rank: i64, tokens: &[u32]) {
        let operations: Vec<Operation> = HashScheme::default()
            .chain(tokens)
            .zip(1..)
            .map(|(hash, seq)| Operation {
                kind: OperationKind::Admit,
                hash,
                seq: SeqNum(seq),
            })
            .collect();
        let now = self.shared.clock.now();
        self.shared
            .controller
            .apply_batch(
                instance,
                WorkerId(rank),
                "LocalCPUBackend",
                &operations,
                now,
            )
            .unwrap();
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        post(&self.url, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let remote = Remote::new(&self.url, None, &Files::default()).unwrap();
        let answer = remote.get(path, LONG).await.unwrap();
        (answer.status, answer.body)
    }

    /// The event `id` once it is as wanted.
    pub(crate) async fn until(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let give_up = Instant::now() + LONG;
        loop {
            let (status, event) = self.get(&format!("/events/{id}")).await;
            assert_eq!(status, 200, "{event}");
            if wanted(&event) {
                return event;
            }
            assert!(Instant::now() < give_up, "{event}");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.running.await.unwrap();
    }
}

impl Worker {
    fn start(mut answer: impl FnMut(&Message) -> Vec<u8> + Send + 'static) -> (Self, u16) {
        let socket = zmq::Context::new().socket(zmq::REP).unwrap();
        socket.set_linger(0).unwrap();
        socket.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = socket.get_last_endpoint().unwrap().unwrap();
        let port = endpoint.rsplit(':').next().unwrap().parse().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (for_thread, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if socket.poll(zmq::POLLIN, 20).unwrap() == 0 {
                    continue;
                }
                let request = Message::decode(&socket.recv_bytes(0).unwrap()).unwrap();
                for_thread.lock().unwrap().push(format!("{request:?}"));
                socket.send(answer(&request), 0).unwrap();
            }
        });
        let worker = Self {
            seen,
            stop,
            thread: Some(thread),
        };
        (worker, port)
    }

    /// The commands that came.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread held by a test's gate ends with the gate, which may be dropped later than this.
        drop(self.thread.take());
    }
}

pub(crate) async fn post(url: &str, path: &str, body: Value) -> (u16, Value) {
    let remote = Remote::new(url, None, &Files::default()).unwrap();
    let answer = remote.post(path, &body, LONG).await.unwrap();
    (answer.status, answer.body)
}

pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    let give_up = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < give_up, "did not come about");
        tokio::task::yield_now().await;
    }
}

pub(crate) fn clear_of(instance: &str) -> Value {
    json!({ "instance_id": instance, "location": "LocalCPUBackend" })
}

/// A well-behaved worker's answer to `request`.
pub(crate) fn reply(request: &Message, number: i64) -> Vec<u8> {
    let num_tokens = number;
    let answer: Message = match request {
        Message::ClearWorkerMsg(_) => ClearWorkerRetMsg { num_tokens }.into(),
        Message::PinWorkerMsg(_) => PinWorkerRetMsg { num_tokens }.into(),
        Message::CompressWorkerMsg(_) => CompressWorkerRetMsg { num_tokens }.into(),
        Message::DecompressWorkerMsg(_) => DecompressWorkerRetMsg { num_tokens }.into(),
        Message::MoveWorkerMsg(_) => MoveWorkerRetMsg { num_tokens }.into(),
        Message::HealthWorkerMsg(_) => HealthWorkerRetMsg { error_code: number }.into(),
        other => panic!("no command: {other:?}"),
    };
    answer.encode_msgpack()
}

pub(crate) fn cleared(num_tokens: i64) -> Vec<u8> {
    Message::from(ClearWorkerRetMsg { num_tokens }).encode_msgpack()
}

pub(crate) fn error(text: &str) -> Vec<u8> {
    Message::from(ErrorMsg { error: text.into() }).encode_msgpack()
}

/// A port that nobody listens on. One that was free a moment ago may be another test's by now; this
/// one the system gives to nobody.
pub(crate) fn free_port() -> i64 {
    1
}
