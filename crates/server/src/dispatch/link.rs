//! The connection to one worker's command socket.
//!
//! A DEALER that writes the empty frame of a REQ itself: on the wire it is what upstream sends, and
//! unlike a REQ it can be told apart whether a peer is connected. `IMMEDIATE` makes libzmq accept a
//! message only for a peer that has completed its handshake, so a command either was sent or was
//! not, and a broken connection is seen at once: the answer to a command can only come over the
//! connection that carried it. A link that failed a command in any way is dropped, never reused, so
//! that a late answer has no way to be taken for another command's.
//!
//! The price of `IMMEDIATE`, seen with libzmq 4.3: an answer whose connection ends before this
//! thread has read it is dropped with the connection, so a worker that answers and exits in the same
//! instant counts as one that did not answer.

use std::net::SocketAddr;

use zmq::{Context, DONTWAIT, Error, POLLIN, POLLOUT, PollItem, Socket};

/// Largest answer taken, in bytes; the answers themselves are some 50, an error text a few hundred.
const MAX_ANSWER_BYTES: i64 = 1 << 20;

/// Frames of an answer: an empty one and the payload; some more are forgiven.
const MAX_FRAMES: usize = 8;

/// Milliseconds between attempts to connect: a worker that comes up is reached this soon.
const RECONNECT_MS: i32 = 100;

/// Milliseconds for one attempt. The system's own limit is two minutes, longer than any command.
const CONNECT_TIMEOUT_MS: i32 = 3_000;

/// Milliseconds for a peer to complete ZeroMQ's handshake.
const HANDSHAKE_MS: i32 = 5_000;

/// One connection.
pub(super) struct Link {
    socket: Socket,
    pub(super) endpoint: SocketAddr,
    pub(super) epoch: u64,
}

/// What a link has to say while an answer is awaited.
pub(super) enum Heard {
    /// Nothing yet.
    Nothing,
    /// The answer.
    Answer(Vec<u8>),
    /// The connection that carried the command is gone.
    Broken,
}

impl Link {
    /// Begins to connect.
    pub(super) fn open(context: &Context, endpoint: SocketAddr, epoch: u64) -> Result<Self, Error> {
        let socket = context.socket(zmq::DEALER)?;
        socket.set_linger(0)?;
        socket.set_immediate(true)?;
        socket.set_ipv6(endpoint.is_ipv6())?;
        socket.set_maxmsgsize(MAX_ANSWER_BYTES)?;
        socket.set_rcvhwm(4)?;
        socket.set_reconnect_ivl(RECONNECT_MS)?;
        socket.set_connect_timeout(CONNECT_TIMEOUT_MS)?;
        socket.set_handshake_ivl(HANDSHAKE_MS)?;
        // A `SocketAddr` prints IPv6 in brackets, as ZeroMQ wants it.
        socket.connect(&format!("tcp://{endpoint}"))?;
        Ok(Self {
            socket,
            endpoint,
            epoch,
        })
    }

    /// Sends `payload` if a worker is connected; whether it was.
    pub(super) fn send(&self, payload: &[u8]) -> Result<bool, Error> {
        match self.socket.send_multipart([&[], payload], DONTWAIT) {
            Ok(()) => Ok(true),
            Err(Error::EAGAIN) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What has come, without waiting.
    pub(super) fn hear(&self) -> Result<Heard, Error> {
        let events = self.socket.get_events()?;
        if events.contains(POLLIN) {
            return match self.receive()? {
                Some(answer) => Ok(Heard::Answer(answer)),
                None => Ok(Heard::Nothing),
            };
        }
        // Nothing to read and nobody to write to: with `IMMEDIATE` there is no connection.
        if events.contains(POLLOUT) {
            Ok(Heard::Nothing)
        } else {
            Ok(Heard::Broken)
        }
    }

    /// Whether something is there that nobody asked for.
    pub(super) fn has_unasked(&self) -> bool {
        self.socket
            .get_events()
            .is_ok_and(|events| events.contains(POLLIN))
    }

    /// For polling until the worker is connected.
    pub(super) fn poll_connected(&self) -> PollItem<'_> {
        self.socket.as_poll_item(POLLOUT)
    }

    /// For polling until something came.
    pub(super) fn poll_answer(&self) -> PollItem<'_> {
        self.socket.as_poll_item(POLLIN)
    }

    /// One message's last frame.
    fn receive(&self) -> Result<Option<Vec<u8>>, Error> {
        let mut last = match self.socket.recv_bytes(DONTWAIT) {
            Ok(frame) => frame,
            Err(Error::EAGAIN) => return Ok(None),
            Err(error) => return Err(error),
        };
        for _ in 0..MAX_FRAMES {
            if !self.socket.get_rcvmore()? {
                return Ok(Some(last));
            }
            last = self.socket.recv_bytes(DONTWAIT)?;
        }
        Err(Error::EPROTO)
    }
}
