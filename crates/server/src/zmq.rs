//! The sockets workers talk to, over libzmq: one thread a socket, messages decoded and answered in
//! that thread.
//!
//! ```text
//! io thread 0 --- pull       PULL    thread kvatlas-pull
//! io thread 1 --- reply      ROUTER  thread kvatlas-reply
//!             \-- heartbeat  ROUTER  thread kvatlas-beat
//! ```
//! Requests never share a thread with operations. Sockets are bound by [`Sockets::bind`], before
//! anything runs, so that an address in use is an error of the start and port 0 is known.
//!
//! **Invariants.** Nothing a peer sends ends a thread: a message costs itself ([`contained`]). Queues
//! are bounded by high-water marks, frames by `max_message_bytes`. What libzmq cannot bound is the
//! number of parts of one multipart and of connections; see ARCHITECTURE.md.

pub mod heartbeat;
pub mod pull;
pub mod reply;
mod router;

use std::net::{IpAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use zmq::{Context, Socket, SocketType};

use crate::app::Shared;
use crate::config::Config;
use crate::metrics::{Fault, Front};

/// Multiparts of operations queued per connection. libzmq counts multiparts, and one may hold 50
/// batches (200 KB): 8 keep the reader busy and a slow controller's memory small. With 4, a small fleet
/// costs a seventh more processor time an operation; with 16, it takes twice the memory.
const PULL_QUEUE: i32 = 8;
/// Requests queued per connection, and replies not yet taken by it.
const REQUEST_QUEUE: i32 = 1000;
/// Time a connection may take to greet, in milliseconds; half-open ones end here.
const HANDSHAKE_MS: i32 = 3_000;
/// Time between ZMTP pings, in milliseconds.
const PING_MS: i32 = 15_000;
/// Silence after a ping that ends a connection, in milliseconds.
const PING_TIMEOUT_MS: i32 = 45_000;
/// How often a waiting thread looks whether it should stop, in milliseconds.
const STOP_CHECK_MS: i32 = 200;
/// Connections waiting to be accepted: a fleet reconnects all at once.
const BACKLOG: i32 = 4096;

/// A socket that could not be set up.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot bind the {front} socket to {host}:{port}: {reason}")]
pub struct BindError {
    /// Which socket.
    pub front: &'static str,
    /// Host asked for.
    pub host: String,
    /// Port asked for.
    pub port: u16,
    /// What the system says.
    pub reason: String,
}

/// Bound sockets, not yet served.
pub struct Sockets {
    context: Context,
    pull: Bound,
    reply: Option<Bound>,
    heartbeat: Option<Bound>,
}

/// Ports really bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Port of the pull front.
    pub pull: u16,
    /// Port of the reply front.
    pub reply: Option<u16>,
    /// Port of the heartbeat front.
    pub heartbeat: Option<u16>,
}

/// Threads that serve the sockets.
pub struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Dropped after the sockets: libzmq waits for them.
    _context: Context,
}

struct Bound {
    socket: Socket,
    port: u16,
}

impl Sockets {
    /// Binds all sockets that are configured.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let context = Context::new();
        // Fails only once sockets exist.
        let _ = context.set_io_threads(2);
        let ports = config.controller_monitor_ports;
        let bind = |front, port| bind(&context, front, port, config);
        let pull = bind(Front::Pull, ports.pull)?;
        let reply = ports
            .reply
            .map(|port| bind(Front::Reply, port))
            .transpose()?;
        let heartbeat = match ports.heartbeat {
            None => None,
            Some(port) => match bind(Front::Heartbeat, port) {
                Ok(bound) => Some(bound),
                Err(error) if ports.heartbeat_is_default => {
                    tracing::warn!(%error, "default heartbeat port is taken, taking a free one");
                    Some(bind(Front::Heartbeat, 0)?)
                }
                Err(error) => return Err(error),
            },
        };
        Ok(Self {
            context,
            pull,
            reply,
            heartbeat,
        })
    }

    /// Ports really bound.
    pub fn ports(&self) -> Ports {
        Ports {
            pull: self.pull.port,
            reply: self.reply.as_ref().map(|bound| bound.port),
            heartbeat: self.heartbeat.as_ref().map(|bound| bound.port),
        }
    }

    /// Starts one thread a socket.
    pub fn serve(self, shared: &Arc<Shared>) -> std::io::Result<Running> {
        let mut running = Running {
            stop: Arc::default(),
            threads: Vec::new(),
            _context: self.context,
        };
        running.spawn("kvatlas-pull", self.pull, shared, pull::serve)?;
        if let Some(reply) = self.reply {
            running.spawn("kvatlas-reply", reply, shared, |socket, shared, stop| {
                router::serve(socket, shared, stop, Front::Reply, reply::answer);
            })?;
        }
        if let Some(heartbeat) = self.heartbeat {
            running.spawn("kvatlas-beat", heartbeat, shared, |socket, shared, stop| {
                router::serve(socket, shared, stop, Front::Heartbeat, heartbeat::answer);
            })?;
        }
        Ok(running)
    }
}

impl Running {
    /// Ends all threads and closes their sockets; returns when that is done.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A thread that panicked has closed its socket; there is nothing left to save.
            let _ = thread.join();
        }
    }

    fn spawn(
        &mut self,
        name: &str,
        bound: Bound,
        shared: &Arc<Shared>,
        serve: fn(&Socket, &Shared, &AtomicBool),
    ) -> std::io::Result<()> {
        let (shared, stop) = (Arc::clone(shared), Arc::clone(&self.stop));
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .stack_size(512 * 1024)
            .spawn(move || serve(&bound.socket, &shared, &stop))?;
        self.threads.push(thread);
        Ok(())
    }
}

/// Runs `work`; a panic in it is counted and costs only this message.
fn contained<T>(shared: &Shared, front: Front, work: impl FnOnce() -> T) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(work));
    outcome
        .inspect_err(|_| shared.metrics.fault(front, Fault::Panic))
        .ok()
}

/// Where a frame came from, for the log.
fn peer_address(frame: &mut zmq::Message) -> Option<String> {
    frame.gets("Peer-Address").map(str::to_owned)
}

/// Whether a receive ended only because nothing came in time.
fn is_idle(error: zmq::Error) -> bool {
    matches!(error, zmq::Error::EAGAIN | zmq::Error::EINTR)
}

fn bind(context: &Context, front: Front, port: u16, config: &Config) -> Result<Bound, BindError> {
    let host = &config.controller_host;
    let refused = |reason: String| BindError {
        front: front.name(),
        host: host.clone(),
        port,
        reason,
    };
    let address = bind_host(host).map_err(refused)?;
    let socket = open(context, front, address.contains(['[', '*']), config)
        .map_err(|error| refused(error.to_string()))?;
    socket
        .bind(&format!("tcp://{address}:{port}"))
        .map_err(|error| refused(error.to_string()))?;
    let endpoint = socket.get_last_endpoint().ok().and_then(Result::ok);
    let port = endpoint
        .as_deref()
        .and_then(|endpoint| endpoint.trim_end_matches('\0').rsplit(':').next())
        .and_then(|port| port.parse().ok())
        .unwrap_or(port);
    Ok(Bound { socket, port })
}

fn open(context: &Context, front: Front, ipv6: bool, config: &Config) -> zmq::Result<Socket> {
    let socket = match front {
        Front::Pull => {
            let socket = context.socket(SocketType::PULL)?;
            socket.set_rcvhwm(PULL_QUEUE)?;
            socket.set_affinity(0b01)?;
            socket
        }
        Front::Reply | Front::Heartbeat => {
            let socket = context.socket(SocketType::ROUTER)?;
            socket.set_rcvhwm(REQUEST_QUEUE)?;
            socket.set_sndhwm(REQUEST_QUEUE)?;
            // A reply nobody can take is an error to count, not silence.
            socket.set_router_mandatory(true)?;
            // A worker that reconnects under its old identity replaces the dead connection.
            socket.set_router_handover(true)?;
            socket.set_affinity(0b10)?;
            socket
        }
    };
    let frame = i64::try_from(config.max_message_bytes.0).unwrap_or(i64::MAX);
    socket.set_maxmsgsize(frame)?;
    socket.set_linger(0)?;
    socket.set_ipv6(ipv6)?;
    socket.set_backlog(BACKLOG)?;
    socket.set_handshake_ivl(HANDSHAKE_MS)?;
    socket.set_heartbeat_ivl(PING_MS)?;
    socket.set_heartbeat_timeout(PING_TIMEOUT_MS)?;
    socket.set_tcp_keepalive(1)?;
    socket.set_rcvtimeo(STOP_CHECK_MS)?;
    Ok(socket)
}

/// A host as libzmq's bind takes it: it resolves no names.
fn bind_host(host: &str) -> Result<String, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare {
        "" | "*" => return Ok("*".into()),
        _ => {}
    }
    let ip = match bare.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => (bare, 0)
            .to_socket_addrs()
            .map_err(|error| error.to_string())?
            .next()
            .ok_or("the name has no address")?
            .ip(),
    };
    Ok(match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    })
}
