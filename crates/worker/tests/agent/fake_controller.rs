//! A controller whose every answer the test controls, over real sockets on free ports.
//!
//! Pull messages are collected decoded; requests on reply and heartbeat are answered by the test's
//! closure on one thread (`None`: not answered).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvatlas_protocol::message::Message;

/// What came over pull, in order, and what was asked, in order.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) pushed: Vec<Message>,
    pub(crate) asked: Vec<(Front, Message)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Reply,
    Heartbeat,
}

pub(crate) struct FakeController {
    pub(crate) pull: String,
    pub(crate) reply: String,
    pub(crate) heartbeat: String,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeController {
    /// On free ports.
    pub(crate) fn start(
        answer: impl FnMut(Front, &Message) -> Option<Message> + Send + 'static,
    ) -> Self {
        Self::at(["127.0.0.1:*"; 3].map(String::from), answer)
    }

    /// At these addresses: pull, reply, heartbeat.
    pub(crate) fn at(
        addresses: [String; 3],
        mut answer: impl FnMut(Front, &Message) -> Option<Message> + Send + 'static,
    ) -> Self {
        let context = zmq::Context::new();
        let bind = |kind, address: &str| {
            let socket = context.socket(kind).unwrap();
            socket.set_linger(0).unwrap();
            // A port that was just left may take a moment.
            eventually("bind", || socket.bind(&format!("tcp://{address}")).is_ok());
            let bound = socket.get_last_endpoint().unwrap().unwrap();
            (socket, bound.strip_prefix("tcp://").unwrap().to_owned())
        };
        let (pull_socket, pull) = bind(zmq::PULL, &addresses[0]);
        let (reply_socket, reply) = bind(zmq::ROUTER, &addresses[1]);
        let (beat_socket, heartbeat) = bind(zmq::ROUTER, &addresses[2]);
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (seen, stop) = (seen.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut items = [
                        pull_socket.as_poll_item(zmq::POLLIN),
                        reply_socket.as_poll_item(zmq::POLLIN),
                        beat_socket.as_poll_item(zmq::POLLIN),
                    ];
                    zmq::poll(&mut items, 20).unwrap();
                    while let Ok(parts) = pull_socket.recv_multipart(zmq::DONTWAIT) {
                        let mut seen = seen.lock().unwrap();
                        seen.pushed
                            .extend(parts.iter().map(|part| Message::decode(part).unwrap()));
                    }
                    let fronts = [
                        (Front::Reply, &reply_socket),
                        (Front::Heartbeat, &beat_socket),
                    ];
                    for (front, socket) in fronts {
                        while let Ok(frames) = socket.recv_multipart(zmq::DONTWAIT) {
                            assert_eq!(frames.len(), 3, "identity, empty, payload");
                            assert!(frames[1].is_empty());
                            let question = Message::decode(&frames[2]).unwrap();
                            let said = answer(front, &question);
                            seen.lock().unwrap().asked.push((front, question));
                            if let Some(said) = said {
                                let reply = [&frames[0][..], b"", &said.encode_msgpack()];
                                socket.send_multipart(reply, 0).unwrap();
                            }
                        }
                    }
                }
            }
        });
        Self {
            pull,
            reply,
            heartbeat,
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// Looks at what was seen.
    pub(crate) fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    /// How many of these were asked on this front.
    pub(crate) fn count(&self, front: Front, tag: &str) -> usize {
        self.seen(|seen| {
            seen.asked
                .iter()
                .filter(|(at, message)| *at == front && message.tag() == tag)
                .count()
        })
    }

    /// Ends; the same addresses can be bound again.
    pub(crate) fn stop(mut self) -> [String; 3] {
        self.end();
        [
            self.pull.clone(),
            self.reply.clone(),
            self.heartbeat.clone(),
        ]
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for FakeController {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// Waits until `condition` holds; 20 seconds are for a machine under load.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
