//! One thread that drives many workers: waits for sockets, deadlines and orders.
//!
//! It ends when its runtime is dropped; no fault of a socket or an engine ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use kvatlas_protocol::{ChunkHash, Timestamp};

use super::worker::{Ready, Worker};
use super::{Clock, PeerHit, Waker, orders};
use crate::connection;

/// Longest wait with nothing due, in ms; only a bound, the waker ends it sooner.
const IDLE_MS: i64 = 60_000;

/// What others ask of the loop.
pub(super) enum Order {
    /// Drive this worker too.
    Add(Box<Worker>),
    /// End this worker; `done` is dropped when it is over.
    Leave {
        id: u64,
        deregister: bool,
        patience: Duration,
        done: Sender<()>,
    },
    /// A peer lookup.
    Lookup {
        id: u64,
        hashes: Vec<ChunkHash>,
        reply: Sender<Vec<PeerHit>>,
    },
    /// A full sync of all locations.
    Sync { id: u64 },
    /// A command's answer.
    Answer { id: u64, payload: Vec<u8> },
    /// A listing of keys; `None` if the engine panicked.
    Listed {
        id: u64,
        keys: Option<Vec<ChunkHash>>,
    },
    /// End everything.
    Stop,
}

/// The loop's own state.
pub(super) struct EventLoop {
    inbox: Receiver<Order>,
    waker: Arc<Waker>,
    clock: Clock,
    agents: Arc<AtomicU64>,
    workers: Vec<Worker>,
}

impl EventLoop {
    pub(super) fn new(
        inbox: Receiver<Order>,
        waker: Arc<Waker>,
        clock: Clock,
        agents: Arc<AtomicU64>,
    ) -> Self {
        Self {
            inbox,
            waker,
            clock,
            agents,
            workers: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            self.waker.clear();
            if !self.take_orders() {
                return;
            }
            let now = self.clock.now();
            let mut next: Option<Timestamp> = None;
            let mut at = 0;
            self.workers.retain_mut(|worker| {
                let deadline = worker.step(ready.get(at).copied().unwrap_or_default(), now);
                at += 1;
                next = [next, deadline].into_iter().flatten().min();
                let over = worker.is_over(now);
                if over {
                    self.agents.fetch_sub(1, Ordering::Relaxed);
                }
                !over
            });
            self.wait(next, &mut ready);
        }
    }

    /// `false` at the end.
    fn take_orders(&mut self) -> bool {
        let now = self.clock.now();
        for order in orders(&self.inbox) {
            match order {
                Order::Add(worker) => self.workers.push(*worker),
                Order::Leave {
                    id,
                    deregister,
                    patience,
                    done,
                } => {
                    if let Some(worker) = self.workers.iter_mut().find(|w| w.id() == id) {
                        worker.leave(deregister, now + patience, done);
                    }
                }
                Order::Lookup { id, hashes, reply } => {
                    if let Some(worker) = self.workers.iter_mut().find(|w| w.id() == id) {
                        worker.lookup(&hashes, reply);
                    }
                }
                Order::Sync { id } => {
                    if let Some(worker) = self.workers.iter_mut().find(|w| w.id() == id) {
                        worker.sync_all(now);
                    }
                }
                Order::Answer { id, payload } => {
                    if let Some(worker) = self.workers.iter_mut().find(|w| w.id() == id) {
                        worker.handle_answer(&payload);
                    }
                }
                Order::Listed { id, keys } => {
                    if let Some(worker) = self.workers.iter_mut().find(|w| w.id() == id) {
                        worker.handle_listed(keys, now);
                    }
                }
                Order::Stop => return false,
            }
        }
        true
    }

    /// Waits; `ready` says, worker by worker, which sockets have something.
    fn wait(&self, next: Option<Timestamp>, ready: &mut Vec<Ready>) {
        let timeout = next.map_or(IDLE_MS, |next| {
            let left = next.since(self.clock.now());
            i64::try_from(left.as_micros().div_ceil(1000)).map_or(IDLE_MS, |ms| ms.min(IDLE_MS))
        });
        let mut items = vec![connection::pipe_item(self.waker.fd())];
        for worker in &self.workers {
            worker.poll_items(&mut items);
        }
        connection::wait(&mut items, timeout);
        let mut items = items.iter().skip(1);
        ready.clear();
        ready.extend(self.workers.iter().map(|worker| worker.ready(&mut items)));
    }
}
