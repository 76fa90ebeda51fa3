//! Many workers at once and many commands one after another.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use kvatlas_protocol::message::{Message, RegisterMsg};
use serde_json::{Value, json};

use crate::fleet::{Fleet, LONG, clear_of, reply};

/// REP sockets that one thread answers, until dropped.
struct Workers {
    ports: Vec<i64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// `count` of them; nobody answers before `together` have been asked.
    fn start(count: usize, together: usize) -> Self {
        let context = zmq::Context::new();
        let sockets: Vec<zmq::Socket> = (0..count)
            .map(|_| {
                let socket = context.socket(zmq::REP).unwrap();
                socket.set_linger(0).unwrap();
                socket.bind("tcp://127.0.0.1:*").unwrap();
                socket
            })
            .collect();
        let port = |socket: &zmq::Socket| {
            let endpoint = socket.get_last_endpoint().unwrap().unwrap();
            endpoint.rsplit(':').next().unwrap().parse().unwrap()
        };
        let ports = sockets.iter().map(port).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut asked: Vec<(usize, Vec<u8>)> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let mut items: Vec<_> = sockets
                    .iter()
                    .map(|s| s.as_poll_item(zmq::POLLIN))
                    .collect();
                zmq::poll(&mut items, 20).unwrap();
                for (at, socket) in sockets.iter().enumerate() {
                    if let Ok(request) = socket.recv_bytes(zmq::DONTWAIT) {
                        asked.push((at, reply(&Message::decode(&request).unwrap(), 256)));
                    }
                }
                if asked.len() >= together {
                    for (at, answer) in asked.drain(..) {
                        sockets[at].send(answer, 0).unwrap();
                    }
                }
            }
        });
        Self {
            ports,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

#[tokio::test]
async fn two_hundred_workers_of_an_instance_and_as_many_instances_are_commanded_at_once() {
    // Nobody answers before all have been asked: one after another they would never be.
    let workers = Workers::start(200, 200);
    let fleet = Fleet::start().await;
    for (rank, port) in workers.ports.iter().enumerate() {
        fleet.register("wide", rank as i64, *port, None);
    }
    let (status, answer) = fleet.post("/clear", clear_of("wide")).await;
    assert_eq!(
        (status, &answer["num_tokens"]),
        (200, &json!(256)),
        "{answer}"
    );
    let id = answer["event_id"].as_str().unwrap();
    let (_, event) = fleet.get(&format!("/events/{id}")).await;
    let steps = event["steps"].as_array().unwrap();
    assert!(steps.len() == 200 && steps.iter().all(|step| step["state"] == "finished"));

    let fleet = Fleet::start().await;
    for (at, port) in workers.ports.iter().enumerate() {
        fleet.register(&format!("narrow-{at}"), 0, *port, None);
    }
    let commands: Vec<_> = (0..200)
        .map(|at| {
            let (url, body) = (fleet.url(), clear_of(&format!("narrow-{at}")));
            tokio::spawn(async move { crate::fleet::post(&url, "/clear", body).await })
        })
        .collect();
    for command in commands {
        let (status, answer) = command.await.unwrap();
        assert_eq!(
            (status, &answer["num_tokens"]),
            (200, &json!(256)),
            "{answer}"
        );
    }
}

/// A controller process with the addresses it said; killed when dropped.
struct Process {
    child: Child,
    http: String,
    reply: String,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kvatlas"))
            .args([
                "--host=127.0.0.1",
                "--port=0",
                "--no-state",
                "--monitor-ports",
            ])
            .arg(r#"{"pull": 0, "reply": 0, "heartbeat": 0}"#)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines
            .map_while(Result::ok)
            .find(|line| line.starts_with("listening "))
            .expect("it says where it listens");
        let address = |name: &str| {
            let field = line.split(' ').find_map(|field| field.strip_prefix(name));
            field.unwrap().to_owned()
        };
        Self {
            http: address("http="),
            reply: address("reply="),
            child,
        }
    }

    /// Registers each of `ports` as an instance of its own.
    fn register(&self, ports: &[i64]) {
        let socket = zmq::Context::new().socket(zmq::DEALER).unwrap();
        socket.set_rcvtimeo(LONG.as_millis() as i32).unwrap();
        socket.connect(&format!("tcp://{}", self.reply)).unwrap();
        for (at, port) in ports.iter().enumerate() {
            let message = Message::from(RegisterMsg {
                instance_id: at.to_string(),
                worker_id: 0,
                ip: "127.0.0.1".into(),
                port: *port,
                peer_init_url: None,
            });
            let frames = [Vec::new(), message.encode_msgpack()];
            socket.send_multipart(frames, 0).unwrap();
            let answer = socket.recv_multipart(0).unwrap().pop().unwrap();
            assert_eq!(Message::decode(&answer).unwrap().tag(), "RegisterRetMsg");
        }
    }

    /// One connection, used again and again.
    fn connect(&self) -> Connection {
        let stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Connection(BufReader::new(stream))
    }

    /// Resident memory, in KiB.
    fn resident(&self) -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let size = line.unwrap().split_whitespace().nth(1);
        size.unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn call(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: k\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut status, mut length) = (0, 0);
        for line in self.0.by_ref().lines() {
            let line = line.unwrap().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

/// `count` commands to each of `lanes` workers, side by side; the id of the first.
fn command(process: &Process, lanes: usize, count: usize) -> String {
    std::thread::scope(|scope| {
        let lane = |at: usize| {
            let mut connection = process.connect();
            move || {
                let ids = (0..count).map(|_| {
                    let (status, answer) =
                        connection.call("POST", "/clear", &clear_of(&at.to_string()));
                    assert_eq!(status, 200, "{answer}");
                    answer["event_id"].as_str().unwrap().to_owned()
                });
                ids.fold(None, |first: Option<String>, id| first.or(Some(id)))
            }
        };
        let running: Vec<_> = (0..lanes).map(|at| scope.spawn(lane(at))).collect();
        let mut firsts = running.into_iter().map(|lane| lane.join().unwrap());
        firsts.next().flatten().unwrap()
    })
}

#[test]
fn ten_thousand_events_are_kept_and_memory_stays_flat() {
    const KEPT: usize = 10_000;
    const LANES: usize = 8;
    let workers = Workers::start(LANES, 1);
    let process = Process::start();
    process.register(&workers.ports);
    let first = command(&process, LANES, KEPT / LANES);
    let mut connection = process.connect();
    let mut check = |id: &str| {
        let (status, answer) = connection.call("POST", "/check_finish", &json!({ "event_id": id }));
        (status, answer["status"].clone())
    };
    assert_eq!(check(&first), (200, json!("finished")));
    let full = process.resident();
    let later = command(&process, LANES, KEPT / 2 / LANES);
    let grown = process.resident() - full;
    assert!(grown < 4 * 1024, "{grown} KiB for {} events", KEPT / 2);
    assert_eq!(check(&first).0, 404, "the oldest has left");
    assert_eq!(check(&later), (200, json!("finished")));
    let (_, listed) = connection.call("GET", "/events?limit=10000", &Value::Null);
    let n_listed = listed["events"].as_array().map(Vec::len);
    assert_eq!(n_listed, Some(KEPT), "{:.200}", listed.to_string());
}
