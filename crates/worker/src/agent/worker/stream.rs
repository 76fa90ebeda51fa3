//! What the controller is told unasked: operations as they come, and full syncs.
//!
//! While a full sync runs, operations wait: LMCache's controller discards what arrives meanwhile.
//! Once half the queue is full they go anyway: an engine that does not heed the freeze must not lose
//! operations for it. What goes between a listing and Start is a gap of our making.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kvatlas_protocol::codec::publish::{BatchHeader, encode_batch};
use kvatlas_protocol::message::KVOpEvent;
use kvatlas_protocol::{Location, Timestamp};

use super::{Asked, MAX_OUTBOX, Worker, random};
use crate::agent::event_loop::Order;
use crate::full_sync::Action;

/// Operations of one message; upstream has no bound.
const MAX_OPERATIONS: usize = 2000;

impl Worker {
    /// Begins a sync of our own where a gap of ours was not asked to be repaired.
    pub(super) fn repair(&mut self, now: Timestamp) {
        let fresh = self.shared.publisher.lock().take_gaps();
        for location in fresh {
            tracing::warn!(worker = %self.config.worker, %location, "operations dropped, queue full");
            self.gaps.retain(|(known, _)| *known != location);
            self.gaps.push((location, now));
        }
        if !self.presence.is_registered() {
            return;
        }
        let patience = self.config.repair_after;
        // A session under way may have been listed before; when it ends, it is known.
        let running = self.sync.running();
        let overdue: Vec<Location> = self
            .gaps
            .extract_if(.., |(location, noticed)| {
                *noticed + patience <= now && running != Some(location)
            })
            .map(|(location, _)| location)
            .collect();
        if !overdue.is_empty() {
            self.request_sync(overdue, now);
        }
    }

    pub(super) fn publish(&mut self, now: Timestamp) {
        if !self.may_publish() {
            return;
        }
        let batches = {
            let mut publisher = self.shared.publisher.lock();
            let due = publisher.due().is_some_and(|due| due <= now);
            if !due && self.leaving.is_none() {
                return;
            }
            publisher.drain()
        };
        let mut sent = 0;
        for mut batch in batches {
            let header = BatchHeader {
                instance_id: self.config.worker.instance.as_str(),
                worker_id: self.config.worker.worker.0,
                location: batch.location.as_str(),
            };
            let events: Vec<KVOpEvent> = batch
                .operations
                .drain(..)
                .map(|operation| KVOpEvent {
                    op_type: operation.kind,
                    key: self.config.keys.wire(operation.hash),
                    seq_num: operation.seq.0,
                })
                .collect();
            sent += events.len() as u64;
            if self.sync.unannounced() == Some(&batch.location) {
                self.gaps.retain(|(known, _)| *known != batch.location);
                self.gaps.push((batch.location.clone(), now));
            }
            for events in events.chunks(MAX_OPERATIONS) {
                let mut message = Vec::with_capacity(events.len() * 48 + 128);
                encode_batch(header, events, &mut message);
                self.push.add(message);
            }
        }
        self.shared.status.lock().operations_sent += sent;
    }

    pub(super) fn may_publish(&self) -> bool {
        if !self.presence.is_registered() || self.push.waiting() >= MAX_OUTBOX {
            return false;
        }
        // An engine that does not heed the freeze must not lose operations for it.
        let room = self.config.batching.queue_limit / 2;
        !self.sync.holds_operations() || self.shared.publisher.lock().waiting() > room
    }

    pub(super) fn go_on_syncing(&mut self, now: Timestamp) {
        while self.push.waiting() < MAX_OUTBOX {
            let Some(action) = self.sync.poll(now) else {
                break;
            };
            match action {
                Action::Freeze(frozen) => self.engine.freeze(frozen),
                Action::List(location) => {
                    self.listed_at = now;
                    self.list(location, now);
                }
                Action::Ask(message) => self
                    .questions
                    .push_back((Asked::Sync, message.encode_msgpack())),
                Action::Push(message) => self.push.add(message.encode_msgpack()),
                Action::Finished(location, result) => {
                    let mut status = self.shared.status.lock();
                    match &result {
                        Ok(()) => status.syncs_completed += 1,
                        Err(_) => status.syncs_failed += 1,
                    }
                    drop(status);
                    let worker = &self.config.worker;
                    match result {
                        Ok(()) => {
                            // A gap noticed after the listing is not mended by it.
                            let listed_at = self.listed_at;
                            self.gaps
                                .retain(|(gap, at)| *gap != location || *at > listed_at);
                            tracing::info!(%worker, %location, "full sync complete");
                        }
                        Err(failure) => {
                            tracing::warn!(%worker, %location, %failure, "full sync failed");
                        }
                    }
                }
            }
        }
        self.shared.status.lock().syncing = self.sync.is_active();
    }

    pub(super) fn request_sync(&mut self, locations: Vec<Location>, now: Timestamp) {
        let delay = self.config.full_sync.startup_delay.mul_f64(random());
        self.sync.handle_request(locations, delay, now);
    }

    fn list(&mut self, location: Location, now: Timestamp) {
        let (engine, orders, shared) = (
            self.engine.clone(),
            self.orders.clone(),
            self.shared.clone(),
        );
        let id = self.id;
        let listing = std::thread::Builder::new()
            .name("kvatlas-listing".into())
            .spawn(move || {
                // Unwind safety: the engine's own locks decide what a panic leaves behind.
                let keys = catch_unwind(AssertUnwindSafe(|| engine.keys(&location))).ok();
                if orders.send(Order::Listed { id, keys }).is_ok() {
                    shared.waker.wake();
                }
            });
        if let Err(error) = listing {
            tracing::error!(%error, "no thread to list keys");
            self.handle_listed(None, now);
        }
    }
}
