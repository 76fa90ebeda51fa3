//! Who exists: instances, their workers, and the published facts that lookups read.
//!
//! **Invariants**: every visible holder belongs to a registered worker; an instance has at least
//! one worker; when `remove` or `register` returns, no lookup that starts later sees the old keys
//! (the facts without them are published first, then the index marks their holders dead).
//!
//! Locks: this registry, then one worker, then the index. The registry's lock is read for
//! nanoseconds per message and written when somebody comes, goes, or reports a first key; lookups
//! do not take it.

pub(crate) mod fleet;
pub(crate) mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use kvatlas_protocol::{InstanceId, Timestamp, WorkerId, WorkerKey};
use parking_lot::{RwLock, RwLockWriteGuard};

use crate::error::RegisterError;
use crate::index::{HolderId, HolderMeta, HoldersExhausted, Index};
use crate::journal::Journal;
use fleet::{Fleet, HolderFacts};
use worker::{Worker, WorkerAddress, WorkerState};

/// Instances and workers.
#[derive(Debug)]
pub(crate) struct Registry {
    members: RwLock<Members>,
    fleet: ArcSwap<Fleet>,
    journal: Journal,
    max_instances: usize,
    max_workers: usize,
}

#[derive(Debug, Default)]
struct Members {
    instances: HashMap<InstanceId, Instance>,
    n_workers: usize,
    last_serial: u64,
    instance_ordinals: Ordinals,
    rank_ordinals: Ordinals,
}

#[derive(Debug)]
struct Instance {
    ordinal: u32,
    /// Serial of its first worker: registration order.
    registered: u64,
    workers: BTreeMap<WorkerId, Arc<Worker>>,
}

/// Small numbers, the free ones used again.
#[derive(Debug, Default)]
struct Ordinals {
    free: Vec<u32>,
    next: u32,
}

/// Result of a registration.
pub(crate) struct Entry {
    pub worker: Arc<Worker>,
    /// The registration before, now gone.
    pub replaced: Option<Arc<Worker>>,
    /// Whether this call made the registration.
    pub is_new: bool,
}

/// What to do about a worker that is registered already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfKnown {
    /// It restarted: start anew.
    Replace,
    /// Leave it as it is.
    Keep,
}

impl Registry {
    pub(crate) fn new(max_instances: usize, max_workers: usize) -> Self {
        Self {
            members: RwLock::default(),
            fleet: ArcSwap::default(),
            journal: Journal::default(),
            max_instances,
            max_workers,
        }
    }

    /// Where everything that happens to workers is written down.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What lookups read; no lock.
    pub(crate) fn fleet(&self) -> arc_swap::Guard<Arc<Fleet>> {
        self.fleet.load()
    }

    /// A registered worker.
    pub(crate) fn find(&self, instance: &str, worker: WorkerId) -> Option<Arc<Worker>> {
        let members = self.members.read();
        members
            .instances
            .get(instance)?
            .workers
            .get(&worker)
            .cloned()
    }

    /// Registers a worker with `state`, dropping the keys of the registration before.
    pub(crate) fn register(
        &self,
        key: WorkerKey,
        address: WorkerAddress,
        state: WorkerState,
        if_known: IfKnown,
        index: &Index,
        now: Timestamp,
    ) -> Result<Entry, RegisterError> {
        let mut members = self.members.write();
        let known = members
            .instances
            .get(key.instance.as_str())
            .map(|instance| instance.workers.get(&key.worker).cloned());
        if if_known == IfKnown::Keep
            && let Some(Some(worker)) = known
        {
            return Ok(Entry {
                worker,
                replaced: None,
                is_new: false,
            });
        }
        let replaced = known.clone().flatten();
        if known.is_none() && members.instances.len() >= self.max_instances {
            return Err(RegisterError::TooManyInstances {
                limit: self.max_instances,
            });
        }
        if replaced.is_none() && members.n_workers >= self.max_workers {
            return Err(RegisterError::TooManyWorkers {
                limit: self.max_workers,
            });
        }
        self.journal
            .registered(&key, &address, if_known == IfKnown::Keep, now);
        members.last_serial += 1;
        let serial = members.last_serial;
        let mut fleet = Fleet::clone(&self.fleet.load());
        let instance = match members.instances.get(key.instance.as_str()) {
            Some(instance) => instance.ordinal,
            None => {
                let ordinal = members.instance_ordinals.take();
                let instance = Instance {
                    ordinal,
                    registered: serial,
                    workers: BTreeMap::new(),
                };
                members.instances.insert(key.instance.clone(), instance);
                fleet.add_instance(ordinal, key.instance.clone(), serial);
                ordinal
            }
        };
        let dead = replaced.as_ref().map(|old| retire(old, &mut fleet));
        let rank = match &replaced {
            Some(old) => old.rank,
            None => {
                members.n_workers += 1;
                members.rank_ordinals.take()
            }
        };
        fleet.add_rank(rank, instance, address.peer_url.as_deref());
        let worker = Arc::new(Worker::new(
            key.clone(),
            (serial, instance, rank),
            address,
            state,
            now,
        ));
        for holder in worker.state.lock().locations.iter().enumerate() {
            if let (order, Some(id)) = (holder.0, holder.1.holder) {
                fleet.add_holder(facts(&worker, id, order), holder.1.name.clone());
            }
        }
        if let Some(entry) = members.instances.get_mut(key.instance.as_str()) {
            entry.workers.insert(key.worker, worker.clone());
        }
        self.publish(&members, fleet);
        for id in dead.into_iter().flatten() {
            index.retire(id);
        }
        Ok(Entry {
            worker,
            replaced,
            is_new: true,
        })
    }

    /// Removes a worker, and its instance if that was the last one. With `serial`, only that
    /// registration.
    pub(crate) fn remove(
        &self,
        key: &WorkerKey,
        serial: Option<u64>,
        index: &Index,
    ) -> Option<Arc<Worker>> {
        let mut members = self.members.write();
        let instance = members.instances.get_mut(key.instance.as_str())?;
        let known = instance.workers.get(&key.worker)?;
        if serial.is_some_and(|serial| serial != known.serial) {
            return None;
        }
        let worker = instance.workers.remove(&key.worker)?;
        let is_empty = instance.workers.is_empty();
        self.journal.removed(key);
        members.n_workers -= 1;
        let mut fleet = Fleet::clone(&self.fleet.load());
        let dead = retire(&worker, &mut fleet);
        fleet.remove_rank(worker.rank);
        members.rank_ordinals.give_back(worker.rank);
        if is_empty {
            members.instances.remove(key.instance.as_str());
            fleet.remove_instance(worker.instance);
            members.instance_ordinals.give_back(worker.instance);
        }
        self.publish(&members, fleet);
        for id in dead {
            index.retire(id);
        }
        Some(worker)
    }

    /// Adopts another address of a known worker; whether it differed.
    pub(crate) fn readdress(&self, worker: &Worker, address: WorkerAddress) -> bool {
        if worker.address.lock().0 == address {
            return false;
        }
        let mut members = self.members.write();
        members.last_serial += 1;
        let mut fleet = Fleet::clone(&self.fleet.load());
        if !worker.state.lock().gone {
            fleet.set_peer_url(worker.rank, address.peer_url.as_deref());
        }
        *worker.address.lock() = (address.clone(), members.last_serial);
        // After the change: an export as of this record contains it.
        self.journal.readdressed(&worker.key, &address);
        self.publish(&members, fleet);
        true
    }

    /// Makes sure that location `at` of a worker has a visible set; the caller holds no lock.
    pub(crate) fn open_location(
        &self,
        worker: &Worker,
        at: usize,
        index: &Index,
    ) -> Result<(), HoldersExhausted> {
        let members = self.members.write();
        let mut state = worker.state.lock();
        if state.gone {
            return Ok(());
        }
        let Some(location) = state.locations.get_mut(at) else {
            return Ok(());
        };
        if location.holder.is_none() {
            let id = index.open_holder(HolderMeta::default(), true)?;
            location.holder = Some(id);
            let mut fleet = Fleet::clone(&self.fleet.load());
            fleet.add_holder(facts(worker, id, at), location.name.clone());
            self.publish(&members, fleet);
        }
        Ok(())
    }

    /// Under the locks of registry and worker, `change` may decide that another set becomes the
    /// visible one of location `at`: it returns that set. One publication shows the new set and
    /// hides the old one, which is then marked dead.
    pub(crate) fn change_over(
        &self,
        worker: &Worker,
        at: usize,
        index: &Index,
        change: impl FnOnce(&mut WorkerState) -> Option<HolderId>,
    ) {
        let members = self.members.write();
        let mut state = worker.state.lock();
        if state.gone {
            return;
        }
        let new = change(&mut state);
        worker.summarize(&state);
        let (Some(new), Some(location)) = (new, state.locations.get_mut(at)) else {
            return;
        };
        let old = location.holder.replace(new);
        let mut fleet = Fleet::clone(&self.fleet.load());
        // First in, then out: a rank that reports must not seem silent in between.
        fleet.add_holder(facts(worker, new, at), location.name.clone());
        if let Some(old) = old {
            fleet.remove_holder(old);
        }
        self.publish(&members, fleet);
        if let Some(old) = old {
            index.retire(old);
        }
    }

    /// All workers, in registration order.
    pub(crate) fn workers(&self) -> Vec<Arc<Worker>> {
        let members = self.members.read();
        let mut workers: Vec<_> = members
            .instances
            .values()
            .flat_map(|instance| instance.workers.values().cloned())
            .collect();
        drop(members);
        workers.sort_by_key(|worker| worker.serial);
        workers
    }

    /// Calls `visit` for every worker, in no order, under the registry's read lock.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Worker)) {
        let members = self.members.read();
        for instance in members.instances.values() {
            instance.workers.values().for_each(|worker| visit(worker));
        }
    }

    /// Whether an instance has a worker.
    pub(crate) fn has_instance(&self, instance: &str) -> bool {
        self.members.read().instances.contains_key(instance)
    }

    /// The workers of one instance, by rank.
    pub(crate) fn workers_of(&self, instance: &str) -> Vec<Arc<Worker>> {
        let members = self.members.read();
        members
            .instances
            .get(instance)
            .map(|instance| instance.workers.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Instances in registration order, with their workers by rank.
    pub(crate) fn instances(&self) -> Vec<(InstanceId, Vec<Arc<Worker>>)> {
        let members = self.members.read();
        let mut instances: Vec<_> = members
            .instances
            .iter()
            .map(|(id, instance)| {
                let workers = instance.workers.values().cloned().collect();
                (instance.registered, id.clone(), workers)
            })
            .collect();
        drop(members);
        instances.sort_by_key(|(registered, ..)| *registered);
        instances
            .into_iter()
            .map(|(_, id, workers)| (id, workers))
            .collect()
    }

    /// Numbers of instances and workers.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let members = self.members.read();
        (members.instances.len(), members.n_workers)
    }

    /// Only with the write lock, so that no publication is lost.
    fn publish(&self, _members: &RwLockWriteGuard<'_, Members>, fleet: Fleet) {
        self.fleet.store(Arc::new(fleet));
    }
}

/// Marks a worker gone and takes its sets out of the facts; the caller publishes them and then
/// marks the sets dead.
fn retire(worker: &Worker, fleet: &mut Fleet) -> Vec<HolderId> {
    let mut state = worker.state.lock();
    state.gone = true;
    let holders = state.holders();
    for &holder in &holders {
        fleet.remove_holder(holder);
    }
    holders
}

fn facts(worker: &Worker, id: HolderId, order: usize) -> HolderFacts {
    HolderFacts {
        id,
        instance: worker.instance,
        rank: worker.rank,
        order: u32::try_from(order).unwrap_or(u32::MAX),
        worker: worker.key.worker,
    }
}

impl Ordinals {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn give_back(&mut self, ordinal: u32) {
        self.free.push(ordinal);
    }
}
