//! The same operations into a socket that throws them away: what libzmq and this generator leave room
//! for on this machine.

use std::thread;
use std::time::{Duration, Instant};

use super::ingest::wave;
use crate::error::BenchError;
use crate::process::Usage;
use crate::record::Value;
use crate::sockets::Pushes;
use crate::traffic::Streams;

/// Its name in results, and that of what is measured.
pub(crate) const NAME: &str = "transport";
pub(crate) const SUBJECT: &str = "libzmq alone";

/// Multiparts queued per connection: as many as KVAtlas allows.
const QUEUE: i32 = 8;
/// Longest wait for a message.
const DEADLINE: Duration = Duration::from_secs(60);

/// Sends this many admits of this many instances; they are received and counted, not read.
pub(crate) fn run(instances: usize, operations: usize) -> Result<Vec<Value>, BenchError> {
    let socket = zmq::Context::new().socket(zmq::PULL)?;
    socket.set_rcvhwm(QUEUE)?;
    socket.set_rcvtimeo(DEADLINE.as_millis().try_into().unwrap_or(-1))?;
    socket.bind("tcp://127.0.0.1:*")?;
    let endpoint = socket.get_last_endpoint()?.unwrap_or_default();
    let port = endpoint
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    let pushes = Pushes::connect(instances, port.ok_or(zmq::Error::EINVAL)?)?;

    let each = (operations / instances).max(1);
    let mut streams = Streams::new(instances);
    // So that every connection is up.
    for multipart in wave(&mut streams, instances, 0..1) {
        pushes.send(&multipart)?;
        receive(&socket, multipart.parts.len())?;
    }
    let multiparts = wave(&mut streams, instances, 1..each + 1);
    let messages = multiparts
        .iter()
        .map(|multipart| multipart.parts.len())
        .sum();
    let before = Usage::own();
    let began = Instant::now();
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let outcome = receive(&socket, messages);
            // Before this thread, and the socket's, are gone from what the kernel counts.
            outcome.map(|()| (began.elapsed(), Usage::own()))
        });
        for multipart in &multiparts {
            pushes.send(multipart)?;
        }
        receiver.join().expect("receiving does not panic")
    });
    let (took, after) = received?;
    let operations = (each * instances) as f64;
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    Ok(vec![
        Value::more("operations", "1/s", operations / took.as_secs_f64()),
        Value::less(
            "CPU of both ends per operation",
            "us",
            cpu * 1e6 / operations,
        ),
    ])
}

fn receive(socket: &zmq::Socket, messages: usize) -> Result<(), BenchError> {
    let mut part = zmq::Message::new();
    for _ in 0..messages {
        socket.recv(&mut part, 0)?;
    }
    Ok(())
}
