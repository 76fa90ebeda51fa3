//! The pull front: operations, full-sync batches, and what older workers push.
//!
//! Every part of a multipart is one message, and a bad one costs only itself. Batches of one worker
//! and location that follow each other are applied as one: the controller takes its locks once.
//! LMCache 0.3.9 pushes RegisterMsg and HeartbeatMsg too; what would be answered is dropped, except
//! that the worker is known from then on.
//!
//! Upstream: `controller_manager.py` (`handle_batched_push_request`).

use std::sync::atomic::{AtomicBool, Ordering};

use kvatlas_controller::error::{BatchError, SyncError};
use kvatlas_protocol::codec::pull::{PullMessage, decode_pull};
use kvatlas_protocol::message::{DeRegisterMsg, FullSyncEndMsg, Message};
use kvatlas_protocol::{BatchId, ChunkHash, Operation, WorkerId, WorkerKey};
use zmq::{DONTWAIT, Socket};

use super::router::ERROR_PAUSE;
use super::{contained, heartbeat, is_idle, peer_address, reply};
use crate::app::Shared;
use crate::metrics::{Fault, Front};

/// Operations gathered before they are applied even if more of the same follow: bounds the buffer.
const MAX_GATHERED: usize = 64 * 1024;
/// Capacity a buffer may keep between multiparts, in elements.
const KEPT_CAPACITY: usize = 128 * 1024;

/// Serves `socket` until `stop`.
pub(super) fn serve(socket: &Socket, shared: &Shared, stop: &AtomicBool) {
    let mut part = zmq::Message::new();
    let mut intake = Intake::new(shared);
    while !stop.load(Ordering::Relaxed) {
        match first(socket, shared, &mut part) {
            Ok(()) => {}
            Err(error) if is_idle(error) => continue,
            Err(zmq::Error::ETERM | zmq::Error::ENOTSOCK) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot receive operations");
                std::thread::sleep(ERROR_PAUSE);
                continue;
            }
        }
        loop {
            let is_last = !part.get_more();
            intake.part(&mut part);
            // The rest of a multipart is there already: libzmq hands it over as a whole.
            if is_last || socket.recv(&mut part, 0).is_err() {
                break;
            }
        }
        intake.end_of_multipart();
    }
}

fn first(socket: &Socket, shared: &Shared, part: &mut zmq::Message) -> zmq::Result<()> {
    match socket.recv(part, DONTWAIT) {
        Ok(()) => {
            shared.metrics.pending(Front::Pull, true);
            Ok(())
        }
        Err(zmq::Error::EAGAIN) => {
            shared.metrics.pending(Front::Pull, false);
            socket.recv(part, 0)
        }
        Err(error) => Err(error),
    }
}

/// Takes parts in, one after the other.
struct Intake<'a> {
    shared: &'a Shared,
    /// Whose operations are gathered.
    sender: Sender,
    operations: Vec<Operation>,
    keys: Vec<ChunkHash>,
}

/// Who reports, and about which location. Buffers are reused: no allocation a batch.
struct Sender {
    instance: String,
    worker: WorkerId,
    location: String,
}

impl Sender {
    fn is(&self, instance: &str, worker: WorkerId, location: &str) -> bool {
        self.worker == worker && self.instance == instance && self.location == location
    }

    fn set(&mut self, instance: &str, worker: WorkerId, location: &str) {
        self.worker = worker;
        self.instance.clear();
        self.instance.push_str(instance);
        self.location.clear();
        self.location.push_str(location);
    }
}

impl<'a> Intake<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            sender: Sender {
                instance: String::new(),
                worker: WorkerId(0),
                location: String::new(),
            },
            operations: Vec::new(),
            keys: Vec::new(),
        }
    }

    fn part(&mut self, part: &mut zmq::Message) {
        self.shared.metrics.message_begins(Front::Pull);
        let shared = self.shared;
        if reply::admit_source(shared, Front::Pull, part).is_err() {
            // Counted and logged where it was refused; nobody waits for an answer.
            return shared.metrics.message_ends(Front::Pull);
        }
        let done = contained(shared, Front::Pull, || self.read(part));
        if let Some(Err(refusal)) = done {
            let source = peer_address(part);
            let fault = refusal.reason().into();
            shared.fault(Front::Pull, fault, source.as_deref(), &refusal);
        } else if done.is_none() {
            // What the panic left half done is unknown: start clean.
            self.operations.clear();
        }
        self.shared.metrics.message_ends(Front::Pull);
    }

    fn read(&mut self, part: &[u8]) -> Result<(), kvatlas_protocol::codec::DecodeError> {
        let gathered = self.operations.len();
        self.keys.clear();
        match decode_pull(part, &mut self.operations, &mut self.keys)? {
            PullMessage::Batch {
                instance,
                worker,
                location,
            } => {
                if gathered > 0 && !self.sender.is(&instance, worker, &location) {
                    self.apply(gathered);
                }
                self.sender.set(&instance, worker, &location);
                if self.operations.len() >= MAX_GATHERED {
                    self.apply(self.operations.len());
                }
            }
            PullMessage::FullSyncBatch {
                instance,
                worker,
                location,
                sync,
                batch,
            } => {
                // Operations and keys of one worker keep their order.
                self.apply(gathered);
                self.sync_batch(&instance, worker, &location, &sync, batch);
            }
            PullMessage::Other(message) => {
                self.apply(gathered);
                self.other(*message);
            }
        }
        Ok(())
    }

    /// Applies the first `count` gathered operations: those of the sender.
    fn apply(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let shared = self.shared;
        let Sender {
            instance,
            worker,
            location,
        } = &self.sender;
        let outcome = shared.controller.apply_batch(
            instance,
            *worker,
            location,
            &self.operations[..count],
            shared.clock.now(),
        );
        match outcome {
            Ok(outcome) => shared.metrics.batch(count, outcome),
            Err(refusal) => {
                let fault = match refusal {
                    BatchError::UnknownWorker(_) => Fault::UnknownWorker,
                    BatchError::TooManyLocations { .. }
                    | BatchError::TooManyKeys { .. }
                    | BatchError::Memory { .. }
                    | BatchError::TooManyHolders => Fault::Limit,
                };
                let source = match refusal {
                    // The same for all of them: one line a minute.
                    BatchError::Memory { .. } => "index".to_owned(),
                    _ => format!("{instance}:{worker}"),
                };
                shared.fault(Front::Pull, fault, Some(&source), &refusal);
            }
        }
        self.operations.drain(..count);
    }

    fn end_of_multipart(&mut self) {
        let shared = self.shared;
        if contained(shared, Front::Pull, || self.apply(self.operations.len())).is_none() {
            self.operations.clear();
        }
        if self.operations.capacity() > KEPT_CAPACITY {
            self.operations = Vec::new();
        }
        if self.keys.capacity() > KEPT_CAPACITY {
            self.keys = Vec::new();
        }
    }

    fn sync_batch(
        &self,
        instance: &str,
        worker: WorkerId,
        location: &str,
        sync: &str,
        batch: BatchId,
    ) {
        let shared = self.shared;
        let outcome = shared.controller.handle_sync_batch(
            instance,
            worker,
            location,
            sync,
            batch,
            &self.keys,
            shared.clock.now(),
        );
        if let Err(refusal) = outcome {
            self.sync_refused(&format!("{instance}:{worker}"), &refusal);
        }
    }

    fn other(&self, message: Message) {
        let shared = self.shared;
        match message {
            Message::RegisterMsg(message) => {
                // A refusal is counted and logged where it happens; nobody waits for the answer.
                let _ = reply::take_in(shared, Front::Pull, message);
            }
            Message::HeartbeatMsg(message) => {
                let _ = heartbeat::handle(shared, Front::Pull, message);
            }
            Message::DeRegisterMsg(DeRegisterMsg {
                instance_id,
                worker_id,
                ip: _,
                port: _,
            }) => {
                let worker = WorkerKey::new(instance_id, worker_id);
                let now = shared.clock.now();
                if shared.controller.handle_deregister(&worker, now) {
                    if shared.may_log("deregistered", &worker) {
                        tracing::info!(%worker, "worker deregistered");
                    }
                } else {
                    let source = worker.to_string();
                    let text = "deregistration of a worker that is not registered";
                    shared.fault(Front::Pull, Fault::UnknownWorker, Some(&source), &text);
                }
            }
            Message::FullSyncEndMsg(FullSyncEndMsg {
                instance_id,
                worker_id,
                location,
                sync_id,
                actual_total_keys,
            }) => {
                let worker = WorkerKey::new(instance_id, worker_id);
                let outcome = shared.controller.handle_sync_end(
                    &worker,
                    &location,
                    &sync_id,
                    actual_total_keys,
                    shared.clock.now(),
                );
                match outcome {
                    Ok(complete) => {
                        if shared.may_log("full sync ended", &worker) {
                            tracing::info!(%worker, location, sync_id, complete, "full sync ended");
                        }
                    }
                    Err(refusal) => self.sync_refused(&worker.to_string(), &refusal),
                }
            }
            other => {
                let text = format!("{} is not a message for the pull socket", other.tag());
                shared.fault(Front::Pull, Fault::Unexpected, None, &text);
            }
        }
    }

    fn sync_refused(&self, source: &str, refusal: &SyncError) {
        let fault = match refusal {
            SyncError::UnknownWorker(_) => Fault::UnknownWorker,
            SyncError::TooManyKeys { .. } | SyncError::Memory { .. } => Fault::Limit,
            _ => Fault::Refused,
        };
        self.shared.fault(Front::Pull, fault, Some(source), refusal);
    }
}
