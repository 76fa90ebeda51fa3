//! Whose prefix is how long: every instance's own unbroken run, and the best peers.
//!
//! One walk over the index; per chunk whose holders differ from the chunk before, the holders are
//! tallied per unit (an instance, or a holder for peers) and the units that lack the chunk drop out
//! with the run they had. An instance has a chunk if all its reporting ranks have it, each in some
//! location. O(chunks + holders of every changed chunk); flat in the number of instances except for
//! one zeroed word each.
//!
//! Takes no lock. **Invariant**: facts and view belong together: the facts are loaded before and
//! after the view, and a holder that facts name is not retired while they are current.
//! Upstream credits one holder per chunk (`KVController.lookup`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arc_swap::Guard;
use kvatlas_protocol::{ChunkHash, InstanceId, Location, WorkerId, WorkerKey};

use crate::controller::Controller;
use crate::index::{HolderId, View};
use crate::registry::fleet::{Fleet, HolderFacts, RankFacts};

/// One instance credited by a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceMatch {
    /// Instance.
    pub instance: InstanceId,
    /// Where its last credited chunk is.
    pub location: Location,
    /// Chunks of the unbroken run from chunk 0.
    pub chunks: usize,
}

/// The best peer for a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerMatch {
    /// Instance that holds the run.
    pub instance: InstanceId,
    /// Where all of the run is.
    pub location: Location,
    /// Chunks of the unbroken run from the first hash.
    pub chunks: usize,
    /// Where to fetch them.
    pub peer_url: String,
}

/// What one rank holds of a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankRun {
    /// Instance and rank.
    pub worker: WorkerKey,
    /// Chunks of its unbroken run from the first hash, over all its locations.
    pub chunks: usize,
}

/// How many walks may meet a change of facts before one goes on regardless: it then credits at
/// worst a holder too few.
const TRIES: usize = 8;

impl Controller {
    /// Every instance's own unbroken run from chunk 0, longest first, ties in registration order.
    /// `hashes` is pulled in growing pieces (4, 16, then 64) as far as somebody holds the prefix.
    pub fn lookup(&self, hashes: impl IntoIterator<Item = ChunkHash>) -> Vec<InstanceMatch> {
        let (fleet, view) = self.picture();
        let tallies = walk(
            &fleet,
            &view,
            hashes,
            fleet.n_instances(),
            |facts| facts.instance,
            |unit| fleet.instance(unit).map(|instance| instance.n_reporting),
        );
        let mut found: Vec<_> = tallies
            .iter()
            .filter_map(|tally| Some((tally, fleet.instance(tally.unit)?)))
            .collect();
        found
            .sort_unstable_by_key(|(tally, instance)| (Reverse(tally.chunks), instance.registered));
        found
            .into_iter()
            .filter_map(|(tally, instance)| {
                Some(InstanceMatch {
                    instance: instance.id.clone(),
                    location: fleet.location(tally.best.id)?.clone(),
                    chunks: tally.chunks as usize,
                })
            })
            .collect()
    }

    /// The best peers of `asker` for `hashes`, best first, one per instance.
    ///
    /// Runs are counted per holder: ranks of one instance hold different parts of a chunk, and a peer
    /// serves a request from one location (upstream's from LocalCPUBackend alone), so a run that went
    /// on in another one would promise what it cannot send. The rank equal to the asker's stands for
    /// its instance if it holds anything of the prefix; else the rank with the longest run, lowest
    /// first. Ranks without a peer URL and the asker's own instance do not count. Equal runs: the
    /// asker's rank first, then registration order.
    pub fn peer_lookup(&self, hashes: &[ChunkHash], asker: &WorkerKey) -> Vec<PeerMatch> {
        let (fleet, view) = self.picture();
        let rank_of = |unit: u32| fleet.rank(fleet.holder_in(unit)?.rank);
        let mut tallies = walk(
            &fleet,
            &view,
            hashes.iter().copied(),
            fleet.n_holder_slots(),
            |facts| facts.id.index() as u32,
            |unit| {
                let rank = rank_of(unit)?;
                rank.peer_url.as_ref()?;
                (fleet.instance(rank.instance)?.id != asker.instance).then_some(1)
            },
        );
        let foreign = |tally: &Tally| tally.best.worker != asker.worker;
        tallies.sort_unstable_by_key(|tally| {
            let Best { worker, order, .. } = tally.best;
            (foreign(tally), Reverse(tally.chunks), worker, order)
        });
        let mut chosen: Vec<(&Tally, &RankFacts)> = Vec::new();
        for tally in &tallies {
            let Some(rank) = rank_of(tally.unit) else {
                continue;
            };
            if chosen
                .iter()
                .all(|(_, other)| other.instance != rank.instance)
            {
                chosen.push((tally, rank));
            }
        }
        let mut found: Vec<_> = chosen
            .into_iter()
            .filter_map(|(tally, rank)| Some((tally, rank, fleet.instance(rank.instance)?)))
            .collect();
        found.sort_unstable_by_key(|(tally, _, instance)| {
            (Reverse(tally.chunks), foreign(tally), instance.registered)
        });
        found
            .into_iter()
            .filter_map(|(tally, rank, instance)| {
                Some(PeerMatch {
                    instance: instance.id.clone(),
                    location: fleet.location(tally.best.id)?.clone(),
                    chunks: tally.chunks as usize,
                    peer_url: rank.peer_url.as_deref()?.to_owned(),
                })
            })
            .collect()
    }

    /// The instances of which some rank holds `hash`, in registration order.
    pub fn instances_holding(&self, hash: ChunkHash) -> Vec<InstanceId> {
        let (fleet, view) = self.picture();
        let tallies = walk(
            &fleet,
            &view,
            [hash],
            fleet.n_instances(),
            |facts| facts.instance,
            |_| Some(1),
        );
        let mut found: Vec<_> = tallies
            .iter()
            .filter_map(|tally| fleet.instance(tally.unit))
            .collect();
        found.sort_unstable_by_key(|instance| instance.registered);
        found
            .into_iter()
            .map(|instance| instance.id.clone())
            .collect()
    }

    /// The run of every reporting rank, for the instances of which some rank holds the first of
    /// `hashes`: why an instance is credited with less than a rank of it holds. By registration
    /// order of the instances, then by rank. Visits every holder once.
    pub fn rank_runs(&self, hashes: impl IntoIterator<Item = ChunkHash>) -> Vec<RankRun> {
        let (fleet, view) = self.picture();
        let tallies = walk(
            &fleet,
            &view,
            hashes,
            fleet.n_ranks(),
            |facts| facts.rank,
            |_| Some(1),
        );
        let chunks_of: HashMap<u32, usize> = tallies
            .iter()
            .map(|tally| (tally.unit, tally.chunks as usize))
            .collect();
        let concerned: HashSet<u32> = tallies
            .iter()
            .filter_map(|tally| Some(fleet.rank(tally.unit)?.instance))
            .collect();
        let mut runs = BTreeMap::new();
        for facts in fleet.holders() {
            if concerned.contains(&facts.instance)
                && let Some(instance) = fleet.instance(facts.instance)
            {
                let chunks = chunks_of.get(&facts.rank).copied().unwrap_or(0);
                runs.entry((instance.registered, facts.worker))
                    .or_insert_with(|| RankRun {
                        worker: WorkerKey {
                            instance: instance.id.clone(),
                            worker: facts.worker,
                        },
                        chunks,
                    });
            }
        }
        runs.into_values().collect()
    }

    /// Whether any visible holder has `hash`.
    pub(crate) fn is_held(&self, hash: ChunkHash) -> bool {
        let (fleet, view) = self.picture();
        let mut is_held = false;
        view.walk([hash], |holders| {
            is_held = holders.ids.iter().any(|id| fleet.holder(*id).is_some());
            ControlFlow::Break(())
        });
        is_held
    }

    /// Facts and a view of the index that belong together.
    pub(crate) fn picture(&self) -> (Guard<Arc<Fleet>>, View<'_>) {
        let mut fleet = self.registry.fleet();
        for _ in 0..TRIES {
            let view = self.index.view();
            let after = self.registry.fleet();
            if Arc::ptr_eq(&fleet, &after) {
                return (fleet, view);
            }
            fleet = after;
        }
        (fleet, self.index.view())
    }
}

/// What is known of one unit during a walk.
#[derive(Debug)]
struct Tally {
    unit: u32,
    /// Ranks that must hold a chunk.
    needed: u32,
    /// Chunk change in which it was last met.
    met: u32,
    /// Ranks met in that change.
    n_ranks: u32,
    /// First of the holders met: lowest rank, then the location reported first.
    first: Best,
    /// The same at the last credited chunk.
    best: Best,
    /// Length of the run.
    chunks: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Best {
    worker: WorkerId,
    order: u32,
    id: HolderId,
}

/// Follows `hashes` as long as some unit has them all; the units with a run, in no order.
fn walk(
    fleet: &Fleet,
    view: &View<'_>,
    hashes: impl IntoIterator<Item = ChunkHash>,
    n_units: usize,
    unit_of: impl Fn(&HolderFacts) -> u32,
    needed: impl Fn(u32) -> Option<u32>,
) -> Vec<Tally> {
    let mut tallies: Vec<Tally> = Vec::new();
    // Positions in `tallies` of the units that hold everything so far.
    let mut active: Vec<u32> = Vec::new();
    // By unit: position in `tallies` plus one, 0 for units that lack the first chunk.
    let mut places: Vec<u32> = Vec::new();
    // By rank: change in which it was met; only for units of several ranks.
    let mut ranks: Vec<u32> = Vec::new();
    let (mut change, mut chunks) = (0_u32, 0_u32);
    view.walk(hashes, |holders| {
        if chunks > 0 && holders.unchanged {
            chunks = chunks.saturating_add(holders.chunks);
            return ControlFlow::Continue(());
        }
        if chunks == 0 {
            if holders.ids.is_empty() {
                return ControlFlow::Break(());
            }
            places.resize(n_units, 0);
        }
        change += 1;
        for &id in holders.ids {
            let Some(facts) = fleet.holder(id) else {
                continue;
            };
            let unit = unit_of(facts);
            let Some(place) = places.get_mut(unit as usize) else {
                continue;
            };
            let met = Best {
                worker: facts.worker,
                order: facts.order,
                id,
            };
            if *place == 0 {
                let Some(needed) = needed(unit).filter(|_| chunks == 0) else {
                    continue;
                };
                active.push(tallies.len() as u32);
                tallies.push(Tally {
                    unit,
                    needed,
                    met: 0,
                    n_ranks: 0,
                    first: met,
                    best: met,
                    chunks: 0,
                });
                *place = tallies.len() as u32;
            }
            let tally = &mut tallies[*place as usize - 1];
            if tally.met != change {
                tally.met = change;
                tally.n_ranks = 0;
                tally.first = met;
            } else if met < tally.first {
                tally.first = met;
            }
            if tally.needed <= 1 {
                tally.n_ranks = tally.needed;
            } else {
                if ranks.is_empty() {
                    ranks.resize(fleet.n_ranks(), 0);
                }
                if let Some(rank) = ranks.get_mut(facts.rank as usize)
                    && *rank != change
                {
                    *rank = change;
                    tally.n_ranks += 1;
                }
            }
        }
        active.retain(|&at| {
            let tally = &mut tallies[at as usize];
            let stays = tally.met == change && tally.n_ranks == tally.needed;
            if stays {
                tally.best = tally.first;
            } else {
                tally.chunks = chunks;
            }
            stays
        });
        if active.is_empty() {
            return ControlFlow::Break(());
        }
        chunks = chunks.saturating_add(holders.chunks);
        ControlFlow::Continue(())
    });
    for at in active {
        tallies[at as usize].chunks = chunks;
    }
    tallies.retain(|tally| tally.chunks > 0);
    tallies
}
