//! The fleet's ZeroMQ sockets: one PUSH per instance, DEALERs that ask.
//!
//! A context holds at most 1,023 sockets, so a fleet has several.

use zmq::{Context, Socket, SocketType};

use kvatlas_protocol::Message;

use crate::error::BenchError;
use crate::traffic::Multipart;

/// Sockets of a context.
const PER_CONTEXT: usize = 500;
/// Longest wait for a reply, in milliseconds.
const TIMEOUT_MS: i32 = 60_000;

/// Opens many sockets of a kind to one port of this host.
pub(crate) fn connect(
    n_sockets: usize,
    kind: SocketType,
    port: u16,
) -> Result<Vec<Socket>, BenchError> {
    let mut sockets = Vec::with_capacity(n_sockets);
    let mut context = Context::new();
    for at in 0..n_sockets {
        if at > 0 && at % PER_CONTEXT == 0 {
            context = Context::new();
        }
        let socket = context.socket(kind)?;
        socket.set_linger(0)?;
        // The kernel's buffers and the controller set the pace, never this end's queue.
        socket.set_sndhwm(0)?;
        socket.set_rcvhwm(0)?;
        socket.set_rcvtimeo(TIMEOUT_MS)?;
        socket.connect(&format!("tcp://127.0.0.1:{port}"))?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// The PUSH sockets of a fleet.
pub(crate) struct Pushes(Vec<Socket>);

impl Pushes {
    /// One socket per instance.
    pub(crate) fn connect(instances: usize, port: u16) -> Result<Self, BenchError> {
        Ok(Self(connect(instances, zmq::PUSH, port)?))
    }

    /// Sends a multipart on its instance's socket.
    pub(crate) fn send(&self, multipart: &Multipart) -> Result<(), BenchError> {
        self.0[multipart.instance].send_multipart(&multipart.parts, 0)?;
        Ok(())
    }
}

/// A DEALER on the reply socket.
pub(crate) struct Asker(Socket);

impl Asker {
    /// Connects.
    pub(crate) fn connect(port: u16) -> Result<Self, BenchError> {
        let mut sockets = connect(1, zmq::DEALER, port)?;
        let socket = sockets.pop();
        socket.map(Self).ok_or(BenchError::Zmq(zmq::Error::EINVAL))
    }

    /// Wraps a DEALER.
    pub(crate) fn new(socket: Socket) -> Self {
        Self(socket)
    }

    /// Sends a request.
    pub(crate) fn send(&self, request: &[u8]) -> Result<(), BenchError> {
        self.0.send("", zmq::SNDMORE)?;
        self.0.send(request, 0)?;
        Ok(())
    }

    /// The payload of the next reply.
    pub(crate) fn receive(&self) -> Result<Vec<u8>, BenchError> {
        let frames = self.0.recv_multipart(0)?;
        Ok(frames.into_iter().next_back().unwrap_or_default())
    }

    /// One request, one reply.
    pub(crate) fn ask(&self, request: &[u8]) -> Result<Vec<u8>, BenchError> {
        self.send(request)?;
        self.receive()
    }

    /// Asks every request once, many at a time, and calls `check` with each reply.
    pub(crate) fn ask_all<'r>(
        &self,
        requests: impl IntoIterator<Item = &'r [u8]>,
        mut check: impl FnMut(Message) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        const OUTSTANDING: usize = 32;
        let mut waiting = 0;
        let mut requests = requests.into_iter();
        loop {
            while waiting < OUTSTANDING
                && let Some(request) = requests.next()
            {
                self.send(request)?;
                waiting += 1;
            }
            if waiting == 0 {
                return Ok(());
            }
            check(Message::decode(&self.receive()?)?)?;
            waiting -= 1;
        }
    }
}
