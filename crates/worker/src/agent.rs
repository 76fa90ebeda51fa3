//! The agent: what an engine holds to be a worker of a controller.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use kvatlas_protocol::{ChunkHash, WorkerKey};
//! # use kvatlas_worker::{Agent, AgentConfig, Engine};
//! # fn engine(reporter: kvatlas_worker::Reporter) -> Arc<dyn Engine> { unimplemented!() }
//! let config = AgentConfig::new(WorkerKey::new("replica-1", 0), "127.0.0.1:8300", "127.0.0.1:8400");
//! let agent = Agent::start(config, engine)?;
//! agent.reporter().admit(&"LocalCPUBackend".into(), ChunkHash(7));
//! agent.close(std::time::Duration::from_secs(1));
//! # Ok::<(), kvatlas_worker::AgentError>(())
//! ```
//! A [`Runtime`] is one event loop thread (and libzmq's own) for up to [`MAX_AGENTS`] agents;
//! [`Agent::start`] makes one for itself. A command or a key listing takes a thread while it runs.
//!
//! Locks: the publisher's, held for one push or one drain; the status's, never with the other.
//! Nothing is sent or logged under either.

mod event_loop;
mod worker;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvatlas_protocol::{ChunkHash, Location, OperationKind, Timestamp};
use parking_lot::Mutex;

use self::event_loop::{EventLoop, Order};
use self::worker::Worker;
use crate::commands::Engine;
use crate::config::AgentConfig;
use crate::error::{AgentError, EngineError};
use crate::publisher::Publisher;

/// Agents of one event loop: a ZeroMQ context has 1,023 sockets, an agent up to five.
pub const MAX_AGENTS: usize = 200;

/// How long a dropped agent may take to say goodbye.
const DROP_PATIENCE: Duration = Duration::from_millis(200);

/// An event loop that drives agents. Dropping it ends them without a word to the controller, as a
/// crash would.
pub struct Runtime {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    clock: Clock,
    context: zmq::Context,
    agents: Arc<AtomicU64>,
    next_id: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

/// One worker of a controller. Dropping it says goodbye; [`abandon`](Self::abandon) does not.
pub struct Agent {
    id: u64,
    shared: Arc<Shared>,
    orders: Sender<Order>,
    command_port: u16,
    closed: bool,
    /// The event loop, if it is this agent's own. After `orders` and before nothing: it ends last.
    _runtime: Option<Runtime>,
}

/// Where an engine reports what it admits and evicts. Cheap to clone, never blocks.
#[derive(Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
}

/// Asks the controller for peers, from any thread. Cheap to clone; says nothing once its agent ended.
#[derive(Clone)]
pub struct PeerFinder {
    id: u64,
    orders: Sender<Order>,
    shared: Arc<Shared>,
}

/// How an agent stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentStatus {
    /// The controller has answered registration.
    pub registered: bool,
    /// Heartbeats answered.
    pub heartbeats: u64,
    /// Heartbeats not answered.
    pub heartbeats_missed: u64,
    /// Locations synced.
    pub syncs_completed: u64,
    /// Syncs of a location that failed.
    pub syncs_failed: u64,
    /// A full sync is waiting or running.
    pub syncing: bool,
    /// Commands answered.
    pub commands: u64,
    /// Operations handed to ZeroMQ.
    pub operations_sent: u64,
    /// Operations waiting.
    pub operations_waiting: usize,
    /// Operations dropped for want of room; each left a gap in the sequence.
    pub operations_dropped: u64,
}

/// A peer that holds chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHit {
    /// Instance that holds them.
    pub instance: String,
    /// Its storage.
    pub location: Location,
    /// Chunks held from the first on.
    pub chunks: usize,
    /// Where to fetch them.
    pub peer_url: String,
}

/// What engine threads and the event loop share.
pub(crate) struct Shared {
    publisher: Mutex<Publisher>,
    status: Mutex<AgentStatus>,
    waker: Arc<Waker>,
    clock: Clock,
}

/// A pipe that ends the event loop's wait.
struct Waker {
    writer: UnixStream,
    reader: UnixStream,
    /// A byte is in the pipe: no need for another.
    signaled: AtomicBool,
}

/// Microseconds since the loop began.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Runtime {
    /// Starts the thread.
    pub fn start() -> Result<Self, AgentError> {
        let waker = Arc::new(Waker::new()?);
        let clock = Clock(Instant::now());
        let (orders, inbox) = mpsc::channel();
        let agents = Arc::new(AtomicU64::new(0));
        let event_loop = EventLoop::new(inbox, waker.clone(), clock, agents.clone());
        let thread = std::thread::Builder::new()
            .name("kvatlas-agents".into())
            .spawn(move || event_loop.run())?;
        Ok(Self {
            orders,
            waker,
            clock,
            context: zmq::Context::new(),
            agents,
            next_id: AtomicU64::new(0),
            thread: Some(thread),
        })
    }

    /// Adds a worker. `engine` is made with the reporter it needs.
    pub fn agent(
        &self,
        config: AgentConfig,
        engine: impl FnOnce(Reporter) -> Arc<dyn Engine>,
    ) -> Result<Agent, AgentError> {
        if self.agents.fetch_add(1, Ordering::Relaxed) >= MAX_AGENTS as u64 {
            self.agents.fetch_sub(1, Ordering::Relaxed);
            return Err(AgentError::Full { limit: MAX_AGENTS });
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared {
            publisher: Mutex::new(Publisher::new(config.batching.clone())),
            status: Mutex::default(),
            waker: self.waker.clone(),
            clock: self.clock,
        });
        let engine = engine(Reporter {
            shared: shared.clone(),
        });
        let worker = Worker::new(
            id,
            config,
            engine,
            shared.clone(),
            &self.context,
            self.orders.clone(),
        );
        let worker = worker.inspect_err(|_| {
            self.agents.fetch_sub(1, Ordering::Relaxed);
        })?;
        let command_port = worker.command_port();
        self.orders
            .send(Order::Add(Box::new(worker)))
            .map_err(|_| AgentError::Ended)?;
        self.waker.wake();
        Ok(Agent {
            id,
            shared,
            orders: self.orders.clone(),
            command_port,
            closed: false,
            _runtime: None,
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the agents' event loop panicked");
        }
    }
}

impl Agent {
    /// Starts a worker on an event loop of its own.
    pub fn start(
        config: AgentConfig,
        engine: impl FnOnce(Reporter) -> Arc<dyn Engine>,
    ) -> Result<Self, AgentError> {
        let runtime = Runtime::start()?;
        let mut agent = runtime.agent(config, engine)?;
        agent._runtime = Some(runtime);
        Ok(agent)
    }

    /// Where the engine reports.
    pub fn reporter(&self) -> Reporter {
        Reporter {
            shared: self.shared.clone(),
        }
    }

    /// The port commands are taken on.
    pub fn command_port(&self) -> u16 {
        self.command_port
    }

    /// How it stands.
    pub fn status(&self) -> AgentStatus {
        let mut status = self.shared.status.lock().clone();
        let publisher = self.shared.publisher.lock();
        status.operations_waiting = publisher.waiting();
        status.operations_dropped = publisher.dropped();
        status
    }

    /// Asks the controller which peers hold a prefix of `hashes`; best first, empty for a miss.
    pub fn lookup_peers(
        &self,
        hashes: Vec<ChunkHash>,
        patience: Duration,
    ) -> Result<Vec<PeerHit>, EngineError> {
        self.peer_finder().lookup(hashes, patience)
    }

    /// What asks for peers where the agent is not at hand.
    pub fn peer_finder(&self) -> PeerFinder {
        PeerFinder {
            id: self.id,
            orders: self.orders.clone(),
            shared: self.shared.clone(),
        }
    }

    /// Tells every key anew, as if the controller had asked; all locations.
    pub fn request_full_sync(&self) {
        self.order(Order::Sync { id: self.id });
    }

    /// Sends what is waiting, deregisters, and ends; gives up after `patience`. A worker that the
    /// controller never heard of has nothing to say.
    pub fn close(mut self, patience: Duration) {
        self.leave(true, patience);
    }

    /// Ends without a word, as a crash would.
    pub fn abandon(mut self) {
        self.leave(false, Duration::from_secs(5));
    }

    fn leave(&mut self, deregister: bool, patience: Duration) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let (done, ended) = mpsc::channel();
        self.order(Order::Leave {
            id: self.id,
            deregister,
            patience,
            done,
        });
        // Ends with an error as soon as the loop drops its sender.
        let _ = ended.recv_timeout(patience + Duration::from_secs(1));
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            self.shared.waker.wake();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.leave(true, DROP_PATIENCE);
    }
}

impl PeerFinder {
    /// Which peers hold a prefix of `hashes`; best first, empty for a miss.
    pub fn lookup(
        &self,
        hashes: Vec<ChunkHash>,
        patience: Duration,
    ) -> Result<Vec<PeerHit>, EngineError> {
        let (reply, answer) = mpsc::channel();
        let asked = self.orders.send(Order::Lookup {
            id: self.id,
            hashes,
            reply,
        });
        // An event loop that has ended drops `reply`, and nobody waits.
        drop(asked);
        self.shared.waker.wake();
        answer
            .recv_timeout(patience)
            .map_err(|_| EngineError::NoAnswer)
    }

    /// Whether the controller knows the worker.
    pub fn is_registered(&self) -> bool {
        self.shared.status.lock().registered
    }
}

impl Reporter {
    /// A chunk is now held in `location`.
    pub fn admit(&self, location: &Location, hash: ChunkHash) {
        self.report(location, [(OperationKind::Admit, hash)]);
    }

    /// A chunk is no longer held in `location`.
    pub fn evict(&self, location: &Location, hash: ChunkHash) {
        self.report(location, [(OperationKind::Evict, hash)]);
    }

    /// Several at once, in order.
    pub fn report(
        &self,
        location: &Location,
        operations: impl IntoIterator<Item = (OperationKind, ChunkHash)>,
    ) {
        let now = self.shared.clock.now();
        let mut wake = false;
        {
            let mut publisher = self.shared.publisher.lock();
            for (kind, hash) in operations {
                wake |= publisher.push(location, kind, hash, now);
            }
        }
        if wake {
            self.shared.waker.wake();
        }
    }
}

impl Waker {
    fn new() -> std::io::Result<Self> {
        let (writer, reader) = UnixStream::pair()?;
        writer.set_nonblocking(true)?;
        reader.set_nonblocking(true)?;
        Ok(Self {
            writer,
            reader,
            signaled: AtomicBool::new(false),
        })
    }

    fn wake(&self) {
        if !self.signaled.swap(true, Ordering::AcqRel)
            && let Err(error) = (&self.writer).write_all(&[0])
            && error.kind() != ErrorKind::WouldBlock
        {
            tracing::error!(%error, "event loop not woken");
        }
    }

    /// Takes the signal back; what was asked before it is seen after this.
    fn clear(&self) {
        let mut bytes = [0; 16];
        while (&self.reader).read(&mut bytes).is_ok_and(|n| n > 0) {}
        self.signaled.store(false, Ordering::Release);
    }

    fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

impl Clock {
    fn now(self) -> Timestamp {
        Timestamp(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// What the loop takes from its inbox without waiting.
fn orders(inbox: &Receiver<Order>) -> impl Iterator<Item = Order> {
    std::iter::from_fn(|| inbox.try_recv().ok())
}
