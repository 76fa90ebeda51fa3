//! What lookups need to know about holders, published as one immutable value.
//!
//! Lookups load it without a lock. A holder that is not in here is invisible: that is how a full
//! sync's new set stays hidden, and how a departure takes effect at once. Changed by copying, at
//! registrations, first admits, sync change-overs and departures, never per operation.
//!
//! Instances and ranks have dense ordinals, so that a lookup counts in flat arrays.

use std::sync::Arc;

use kvatlas_protocol::{InstanceId, Location, WorkerId};

use crate::index::HolderId;

/// Everything a lookup reads besides the index.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fleet {
    /// By the holder's slot in the index.
    holders: Vec<Option<HolderFacts>>,
    /// Names beside `holders`: only the few holders of an answer need theirs.
    locations: Vec<Option<Location>>,
    /// By instance ordinal.
    instances: Vec<Option<InstanceFacts>>,
    /// By rank ordinal.
    ranks: Vec<Option<RankFacts>>,
}

/// Where a holder belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HolderFacts {
    pub id: HolderId,
    /// Ordinal of its instance.
    pub instance: u32,
    /// Ordinal of its rank over the whole fleet.
    pub rank: u32,
    /// Which of its worker's locations came first.
    pub order: u32,
    /// Its rank inside the instance, as the worker reported it.
    pub worker: WorkerId,
}

/// One instance.
#[derive(Debug, Clone)]
pub(crate) struct InstanceFacts {
    pub id: InstanceId,
    /// Position in registration order.
    pub registered: u64,
    /// Ranks that ever admitted a key since they registered.
    pub n_reporting: u32,
}

/// One rank of an instance.
#[derive(Debug, Clone)]
pub(crate) struct RankFacts {
    pub instance: u32,
    pub peer_url: Option<Arc<str>>,
    n_holders: u32,
}

impl Fleet {
    /// Facts about a holder, unless it is hidden or gone.
    pub(crate) fn holder(&self, id: HolderId) -> Option<&HolderFacts> {
        self.holders
            .get(id.index())?
            .as_ref()
            .filter(|facts| facts.id == id)
    }

    /// Facts about the visible holder in a slot of the index.
    pub(crate) fn holder_in(&self, slot: u32) -> Option<&HolderFacts> {
        self.holders.get(slot as usize)?.as_ref()
    }

    /// One more than the largest slot of a holder.
    pub(crate) fn n_holder_slots(&self) -> usize {
        self.holders.len()
    }

    /// Name of the location of a visible holder.
    pub(crate) fn location(&self, id: HolderId) -> Option<&Location> {
        self.locations.get(id.index())?.as_ref()
    }

    /// All visible holders.
    pub(crate) fn holders(&self) -> impl Iterator<Item = &HolderFacts> {
        self.holders.iter().flatten()
    }

    /// Facts about an instance.
    pub(crate) fn instance(&self, ordinal: u32) -> Option<&InstanceFacts> {
        self.instances.get(ordinal as usize)?.as_ref()
    }

    /// Facts about a rank.
    pub(crate) fn rank(&self, ordinal: u32) -> Option<&RankFacts> {
        self.ranks.get(ordinal as usize)?.as_ref()
    }

    /// Instances with a rank that ever admitted a key.
    pub(crate) fn n_reporting_instances(&self) -> usize {
        let instances = self.instances.iter().flatten();
        instances
            .filter(|instance| instance.n_reporting > 0)
            .count()
    }

    /// One more than the largest instance ordinal.
    pub(crate) fn n_instances(&self) -> usize {
        self.instances.len()
    }

    /// One more than the largest rank ordinal.
    pub(crate) fn n_ranks(&self) -> usize {
        self.ranks.len()
    }

    pub(super) fn add_instance(&mut self, ordinal: u32, id: InstanceId, registered: u64) {
        *entry(&mut self.instances, ordinal as usize) = Some(InstanceFacts {
            id,
            registered,
            n_reporting: 0,
        });
    }

    pub(super) fn remove_instance(&mut self, ordinal: u32) {
        *entry(&mut self.instances, ordinal as usize) = None;
    }

    pub(super) fn add_rank(&mut self, ordinal: u32, instance: u32, peer_url: Option<&str>) {
        *entry(&mut self.ranks, ordinal as usize) = Some(RankFacts {
            instance,
            peer_url: peer_url.map(Arc::from),
            n_holders: 0,
        });
    }

    pub(super) fn set_peer_url(&mut self, ordinal: u32, peer_url: Option<&str>) {
        if let Some(rank) = entry(&mut self.ranks, ordinal as usize) {
            rank.peer_url = peer_url.map(Arc::from);
        }
    }

    pub(super) fn remove_rank(&mut self, ordinal: u32) {
        *entry(&mut self.ranks, ordinal as usize) = None;
    }

    pub(super) fn add_holder(&mut self, facts: HolderFacts, location: Location) {
        let slot = facts.id.index();
        *entry(&mut self.holders, slot) = Some(facts);
        *entry(&mut self.locations, slot) = Some(location);
        self.count_holder(facts, true);
    }

    pub(super) fn remove_holder(&mut self, id: HolderId) {
        if let Some(&facts) = self.holder(id) {
            self.holders[id.index()] = None;
            self.locations[id.index()] = None;
            self.count_holder(facts, false);
        }
    }

    fn count_holder(&mut self, facts: HolderFacts, added: bool) {
        let Some(rank) = entry(&mut self.ranks, facts.rank as usize) else {
            return;
        };
        let reported = rank.n_holders > 0;
        if added {
            rank.n_holders += 1;
        } else {
            rank.n_holders -= 1;
        }
        let reports = rank.n_holders > 0;
        if let Some(instance) = entry(&mut self.instances, facts.instance as usize) {
            match (reported, reports) {
                (false, true) => instance.n_reporting += 1,
                (true, false) => instance.n_reporting -= 1,
                _ => {}
            }
        }
    }

    /// Panics unless the counts follow from the holders.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        let mut per_rank = vec![0; self.ranks.len()];
        for (slot, facts) in self.holders.iter().enumerate() {
            let Some(facts) = facts else { continue };
            assert_eq!(facts.id.index(), slot);
            assert!(self.locations[slot].is_some());
            let rank = self.rank(facts.rank).expect("a holder's rank is known");
            assert_eq!(rank.instance, facts.instance);
            per_rank[facts.rank as usize] += 1;
        }
        let mut reporting = vec![0; self.instances.len()];
        for (ordinal, rank) in self.ranks.iter().enumerate() {
            let Some(rank) = rank else {
                assert_eq!(per_rank[ordinal], 0);
                continue;
            };
            assert_eq!(rank.n_holders, per_rank[ordinal]);
            reporting[rank.instance as usize] += u32::from(rank.n_holders > 0);
        }
        for (ordinal, instance) in self.instances.iter().enumerate() {
            let expected = instance.as_ref().map_or(0, |i| i.n_reporting);
            assert_eq!(expected, reporting[ordinal]);
        }
    }
}

fn entry<T>(list: &mut Vec<Option<T>>, at: usize) -> &mut Option<T> {
    if list.len() <= at {
        list.resize_with(at + 1, || None);
    }
    &mut list[at]
}
