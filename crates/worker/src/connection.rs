//! One worker's four sockets. The only place in this crate that knows ZeroMQ.
//!
//! ```text
//! Push      PUSH   connects to pull       multipart, every part a message
//! Dealer    DEALER connects to reply,     ["", payload] both ways, one question at a time
//!                  and to heartbeat
//! Commands  REP    bound, the controller connects with REQ
//! ```
//! All calls return at once; the event loop polls. A question whose answer is overdue costs its
//! socket: a new one has a new identity, so that a late answer meets nobody (DEALER answers carry no
//! number to match). libzmq reconnects by itself and asks the resolver anew each time.

use std::collections::VecDeque;
use std::net::{ToSocketAddrs, UdpSocket};

use zmq::{Context, DONTWAIT, PollEvents, PollItem, Socket};

use crate::error::AgentError;

/// Parts of one PUSH multipart, as upstream.
const MAX_PARTS: usize = 50;
/// Multiparts libzmq may hold for a controller that is away; what is beyond waits in [`Push`].
const PUSH_HWM: i32 = 64;
/// Largest answer of a controller: a peer lookup of 128k hashes is below 2 MiB.
const MAX_ANSWER: i64 = 16 << 20;
/// Largest command: a million tokens are below 10 MiB.
const MAX_COMMAND: i64 = 64 << 20;
/// How long a closing PUSH socket may still send, in ms.
const PUSH_LINGER_MS: i32 = 1000;

/// Checks `host:port` (a `tcp://` in front is taken off) and makes it an endpoint.
pub(crate) fn endpoint(address: &str) -> Result<String, AgentError> {
    let bare = address.strip_prefix("tcp://").unwrap_or(address);
    let valid = bare
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0))
        && !bare.contains(['/', ' ', '\0']);
    if !valid {
        return Err(AgentError::Address {
            given: address.to_owned(),
        });
    }
    Ok(format!("tcp://{bare}"))
}

/// The address of the interface that leads to the controller at `address`; nothing is sent.
pub(crate) fn local_ip(address: &str) -> Option<String> {
    let bare = address.strip_prefix("tcp://").unwrap_or(address);
    let target = bare.to_socket_addrs().ok()?.next()?;
    let any = if target.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// The stream to the controller's pull socket, with what libzmq would not take yet.
pub(crate) struct Push {
    socket: Socket,
    outbox: VecDeque<Vec<u8>>,
}

impl Push {
    pub(crate) fn open(context: &Context, address: &str) -> Result<Self, AgentError> {
        let socket = open(context, zmq::PUSH, MAX_ANSWER)?;
        socket.set_sndhwm(PUSH_HWM)?;
        socket.connect(&endpoint(address)?)?;
        Ok(Self {
            socket,
            outbox: VecDeque::new(),
        })
    }

    /// Adds a message; it leaves with the next [`flush`](Self::flush).
    pub(crate) fn add(&mut self, message: Vec<u8>) {
        self.outbox.push_back(message);
    }

    /// Messages that have not left.
    pub(crate) fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Sends what libzmq takes; whether everything left.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.outbox.is_empty() {
            let parts = self.outbox.len().min(MAX_PARTS);
            let sent = self
                .socket
                .send_multipart(self.outbox.iter().take(parts).map(Vec::as_slice), DONTWAIT);
            if let Err(error) = sent {
                if error != zmq::Error::EAGAIN {
                    tracing::warn!(%error, "push failed, will be tried again");
                }
                return false;
            }
            self.outbox.drain(..parts);
        }
        true
    }

    /// Lets what was sent still leave after the socket is closed.
    pub(crate) fn linger(&self) {
        if let Err(error) = self.socket.set_linger(PUSH_LINGER_MS) {
            tracing::debug!(%error, "linger not set");
        }
    }

    /// For the event loop, while something waits.
    pub(crate) fn poll_item(&self) -> PollItem<'_> {
        self.socket.as_poll_item(zmq::POLLOUT)
    }
}

/// Questions to the controller, one at a time.
pub(crate) struct Dealer {
    context: Context,
    endpoint: String,
    socket: Socket,
}

impl Dealer {
    pub(crate) fn open(context: &Context, address: &str) -> Result<Self, AgentError> {
        let endpoint = endpoint(address)?;
        Ok(Self {
            context: context.clone(),
            socket: connect(context, &endpoint)?,
            endpoint,
        })
    }

    /// Sends a question; `false` if it could not be sent.
    pub(crate) fn ask(&self, payload: &[u8]) -> bool {
        self.socket
            .send_multipart([b"".as_slice(), payload], DONTWAIT)
            .is_ok()
    }

    /// The answer, if it is there.
    pub(crate) fn answer(&self) -> Option<Vec<u8>> {
        self.socket.recv_multipart(DONTWAIT).ok()?.pop()
    }

    /// Gives up the outstanding question, and with it the socket.
    pub(crate) fn give_up(&mut self) {
        match connect(&self.context, &self.endpoint) {
            Ok(socket) => self.socket = socket,
            Err(error) => tracing::warn!(%error, endpoint = self.endpoint, "socket not reopened"),
        }
    }

    /// For the event loop, while an answer is awaited.
    pub(crate) fn poll_item(&self) -> PollItem<'_> {
        self.socket.as_poll_item(zmq::POLLIN)
    }
}

/// Commands from the controller, strictly one answer each.
pub(crate) struct Commands {
    socket: Socket,
    port: u16,
}

impl Commands {
    pub(crate) fn bind(context: &Context, host: &str, port: u16) -> Result<Self, AgentError> {
        let socket = open(context, zmq::REP, MAX_COMMAND)?;
        let endpoint = if port == 0 {
            format!("tcp://{host}:*")
        } else {
            format!("tcp://{host}:{port}")
        };
        socket.bind(&endpoint).map_err(|source| AgentError::Bind {
            endpoint: endpoint.clone(),
            source,
        })?;
        let bound = match socket.get_last_endpoint()? {
            Ok(bound) => bound,
            Err(_) => endpoint,
        };
        let port = bound
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .unwrap_or(port);
        Ok(Self { socket, port })
    }

    /// The port that is bound.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A command, if there is one. It must be answered before the next.
    pub(crate) fn command(&self) -> Option<Vec<u8>> {
        self.socket.recv_multipart(DONTWAIT).ok()?.pop()
    }

    /// Answers the last command. If the asker is gone, libzmq drops it.
    pub(crate) fn answer(&self, payload: &[u8]) {
        if let Err(error) = self.socket.send(payload, DONTWAIT) {
            tracing::warn!(%error, "answer to a command not sent");
        }
    }

    /// For the event loop, while no command runs.
    pub(crate) fn poll_item(&self) -> PollItem<'_> {
        self.socket.as_poll_item(zmq::POLLIN)
    }
}

/// Waits for any of `items`, at most `timeout_ms`; an interrupted wait is a short one.
pub(crate) fn wait(items: &mut [PollItem<'_>], timeout_ms: i64) {
    if let Err(error) = zmq::poll(items, timeout_ms)
        && error != zmq::Error::EINTR
    {
        tracing::error!(%error, "poll failed");
    }
}

/// A poll item for the wake-up pipe.
pub(crate) fn pipe_item<'a>(fd: std::os::fd::RawFd) -> PollItem<'a> {
    PollItem::from_fd(fd, zmq::POLLIN)
}

/// Whether the item has what it was polled for.
pub(crate) fn ready(item: &PollItem<'_>) -> bool {
    item.get_revents() != PollEvents::empty()
}

fn connect(context: &Context, endpoint: &str) -> Result<Socket, AgentError> {
    let socket = open(context, zmq::DEALER, MAX_ANSWER)?;
    // Heartbeats to a controller that is away: a few are enough.
    socket.set_sndhwm(8)?;
    socket.connect(endpoint)?;
    Ok(socket)
}

fn open(context: &Context, kind: zmq::SocketType, limit: i64) -> Result<Socket, AgentError> {
    let socket = context.socket(kind)?;
    socket.set_linger(0)?;
    socket.set_maxmsgsize(limit)?;
    socket.set_ipv6(true)?;
    socket.set_reconnect_ivl_max(2000)?;
    // Finds out that a controller's host is gone, which TCP alone may not for hours.
    socket.set_heartbeat_ivl(5_000)?;
    socket.set_heartbeat_timeout(15_000)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(endpoint("host:8300").unwrap(), "tcp://host:8300");
        assert_eq!(endpoint("tcp://10.0.0.1:1").unwrap(), "tcp://10.0.0.1:1");
        assert_eq!(endpoint("[::1]:8300").unwrap(), "tcp://[::1]:8300");
        for bad in [
            "",
            "host",
            "host:",
            ":1",
            "host:0",
            "host:99999",
            "ipc://x",
            "a b:1",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
        assert_eq!(local_ip("127.0.0.1:8300").as_deref(), Some("127.0.0.1"));
    }
}
