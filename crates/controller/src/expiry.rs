//! Who is gone because nothing was heard, and what waited too long.
//!
//! Any message is a sign of life. A worker that never sent a heartbeat is not expired unless the
//! operator says so: upstream's defaults silently empty the index.

use kvatlas_protocol::{Timestamp, WorkerKey};

use crate::controller::Controller;

impl Controller {
    /// Removes workers silent for longer than the timeout and fails idle syncs; who was removed.
    pub fn expire(&self, now: Timestamp) -> Vec<WorkerKey> {
        self.tick(now);
        let is_silent = |worker: &crate::registry::worker::Worker| {
            now.since(worker.last_seen()) > self.settings.worker_timeout
                && (worker.last_heartbeat().is_some() || self.settings.expire_without_heartbeat)
        };
        let mut silent = Vec::new();
        self.registry.for_each(|worker| {
            if is_silent(worker) {
                silent.push((worker.key.clone(), worker.serial));
            }
        });
        silent
            .into_iter()
            .filter(|(key, serial)| self.remove(key, Some(*serial)))
            .map(|(key, _)| key)
            .collect()
    }

    /// Fails idle syncs and gives up waiting for proof after a restart. Cheap; call it every second
    /// or so, whether or not workers are expired.
    pub fn tick(&self, now: Timestamp) {
        for worker in self.registry.workers() {
            if worker.needs_attention() {
                let mut state = worker.state.lock();
                if !state.gone {
                    self.check_timeouts(&worker, &mut state, now);
                }
            }
        }
    }
}
