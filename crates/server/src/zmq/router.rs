//! The loop of a ROUTER socket: a request in, its answer out under the same envelope.
//!
//! ```text
//! [identity, "", payload]          a DEALER or REQ as upstream's: answered [identity, "", reply]
//! [identity, payload]              a DEALER without a delimiter:  answered [identity, reply]
//! [identity, id, "", payload]      a REQ that correlates:         answered [identity, id, "", reply]
//! ```
//! The payload is the last frame, all frames before it go back as they came. Upstream answers the
//! first form only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zmq::{DONTWAIT, Message, SNDMORE, Socket};

use super::{contained, is_idle};
use crate::app::Shared;
use crate::metrics::{Fault, Front};

/// Most frames before the payload.
const MAX_ENVELOPE: usize = 8;
/// Largest frame before the payload, in bytes: identities have at most 255.
const MAX_ENVELOPE_FRAME: usize = 256;

/// Answers one payload; never fails, because an error is an answer too.
pub(super) type Answer = fn(&Shared, &mut Message) -> Vec<u8>;

/// Rest after a receive that failed for no known reason: no busy loop, no flood of lines.
pub(super) const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Serves `socket` until `stop`.
pub(super) fn serve(
    socket: &Socket,
    shared: &Shared,
    stop: &AtomicBool,
    front: Front,
    answer: Answer,
) {
    let mut envelope = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match receive(socket, shared, front, &mut envelope) {
            Ok(Some(mut payload)) => {
                shared.metrics.message_begins(front);
                let reply = contained(shared, front, || answer(shared, &mut payload));
                if let Some(reply) = reply {
                    send(socket, shared, front, envelope.drain(..), reply);
                }
                shared.metrics.message_ends(front);
            }
            Ok(None) => {
                shared.metrics.message_begins(front);
                shared.fault(front, Fault::Envelope, None, &"too few or too large frames");
                shared.metrics.message_ends(front);
            }
            Err(error) if is_idle(error) => {}
            Err(zmq::Error::ETERM | zmq::Error::ENOTSOCK) => return,
            Err(error) => {
                tracing::warn!(front = front.name(), %error, "cannot receive");
                std::thread::sleep(ERROR_PAUSE);
            }
        }
    }
}

/// One request: its envelope into `envelope`, its payload returned. `None` if it is none.
fn receive(
    socket: &Socket,
    shared: &Shared,
    front: Front,
    envelope: &mut Vec<Message>,
) -> zmq::Result<Option<Message>> {
    envelope.clear();
    let mut usable = true;
    let mut last = first(socket, shared, front)?;
    while last.get_more() {
        let next = socket.recv_msg(0)?;
        let frame = std::mem::replace(&mut last, next);
        if envelope.len() < MAX_ENVELOPE && frame.len() <= MAX_ENVELOPE_FRAME {
            envelope.push(frame);
        } else {
            usable = false;
        }
    }
    Ok((usable && !envelope.is_empty()).then_some(last))
}

/// The first frame, noting whether it was waiting already.
fn first(socket: &Socket, shared: &Shared, front: Front) -> zmq::Result<Message> {
    match socket.recv_msg(DONTWAIT) {
        Ok(frame) => {
            shared.metrics.pending(front, true);
            Ok(frame)
        }
        Err(zmq::Error::EAGAIN) => {
            shared.metrics.pending(front, false);
            socket.recv_msg(0)
        }
        Err(error) => Err(error),
    }
}

/// Sends without waiting: a peer that is gone or does not read loses its reply.
fn send(
    socket: &Socket,
    shared: &Shared,
    front: Front,
    envelope: impl Iterator<Item = Message>,
    reply: Vec<u8>,
) {
    for frame in envelope {
        if socket.send(frame, SNDMORE | DONTWAIT).is_err() {
            return shared.metrics.reply_dropped(front);
        }
    }
    if socket.send(reply, DONTWAIT).is_err() {
        shared.metrics.reply_dropped(front);
    }
}
