//! Who holds each chunk of a prompt, gaps included: the picture people look at.
//!
//! A lookup stops where nobody goes on; this does not. One walk per chunk, no lock; meant for a
//! page, not for schedulers.

use std::ops::ControlFlow;

use kvatlas_protocol::{ChunkHash, Location, WorkerKey};

use crate::controller::Controller;

/// One copy of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHolder {
    /// Who has it.
    pub worker: WorkerKey,
    /// Where.
    pub location: Location,
}

impl Controller {
    /// Every visible copy of `hash`, by instance in registration order, then rank, then the order in
    /// which the rank first reported its locations.
    pub fn chunk_holders(&self, hash: ChunkHash) -> Vec<ChunkHolder> {
        let (fleet, view) = self.picture();
        let mut found = Vec::new();
        view.walk([hash], |holders| {
            for &id in holders.ids {
                let Some(facts) = fleet.holder(id) else {
                    continue;
                };
                if let (Some(instance), Some(location)) =
                    (fleet.instance(facts.instance), fleet.location(id))
                {
                    let worker = WorkerKey {
                        instance: instance.id.clone(),
                        worker: facts.worker,
                    };
                    let location = location.clone();
                    let order = (instance.registered, facts.worker, facts.order);
                    found.push((order, ChunkHolder { worker, location }));
                }
            }
            ControlFlow::Continue(())
        });
        found.sort_unstable_by_key(|(order, _)| *order);
        found.into_iter().map(|(_, holder)| holder).collect()
    }
}
