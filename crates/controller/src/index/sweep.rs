//! Taking dead holders out of the tables, a table at a time.
//!
//! A step holds the writer's lock for as many tables as its budget of slots covers, at least one: 10,240
//! slots at most, some tens of microseconds while they are in the cache and about 200 in an index of
//! fleet size. The cursor is a position in hash space, so that tables may split or shrink between steps.
//! The sweep goes round until no dead pair is left; an id is free with its last pair.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::spill::sole_holder;
use super::table::mix;
use super::{Index, Writer};

/// What a step did and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepProgress {
    /// Slots looked at in this step.
    pub slots: usize,
    /// Pairs of dead holders taken out in this step.
    pub removed: u64,
    /// Pairs of dead holders still in the tables; 0 means there is nothing to sweep.
    pub remaining: u64,
    /// Dead holders those pairs belong to.
    pub holders: usize,
}

impl Index {
    /// Looks at about `budget` slots and takes dead holders out of them.
    pub fn sweep_step(&self, budget: usize) -> SweepProgress {
        let mut writer = self.writer.lock();
        let mut progress = SweepProgress::default();
        let before = writer.holders.dead_pairs();
        let mut stripped = HashTable::new();
        while writer.holders.dead_pairs() > 0 && progress.slots < budget.max(1) {
            progress.slots += writer.sweep_table(&mut stripped);
        }
        progress.remaining = writer.holders.dead_pairs();
        progress.removed = before - progress.remaining;
        progress.holders = writer.holders.dead_holders();
        self.finish(&mut writer);
        progress
    }
}

/// A set without its dead holders, worked out once per step.
struct Stripped {
    set: u32,
    rest: u32,
    gone: Vec<u32>,
}

impl Writer {
    /// Sweeps the table under the cursor and moves on; returns its slots.
    ///
    /// `stripped` may be kept for as long as the lock is: no freed set is reused before it is counted,
    /// and no id that is dead comes to life.
    fn sweep_table(&mut self, stripped: &mut HashTable<Stripped>) -> usize {
        let (sets, holders) = (&mut self.sets, &mut self.holders);
        let (slots, next) = self.tables.rewrite(self.cursor, |value| {
            if let Some(id) = sole_holder(value) {
                if holders.is_open(id) {
                    return value;
                }
                holders.swept(id);
                return 0;
            }
            let hash = |set: u32| mix(u64::from(set));
            let entry = stripped.entry(hash(value), |s| s.set == value, |s| hash(s.set));
            let entry = match entry {
                Entry::Occupied(entry) => entry,
                Entry::Vacant(entry) => {
                    let ids = sets.arena().ids(value);
                    let gone = ids.filter(|&id| !holders.is_open(id)).collect();
                    entry.insert(Stripped {
                        set: value,
                        rest: sets.strip(value, |id| !holders.is_open(id)),
                        gone,
                    })
                }
            };
            let Stripped { rest, gone, .. } = entry.get();
            if *rest != value {
                sets.moved(value, *rest);
                for &id in gone {
                    holders.swept(id);
                }
            }
            *rest
        });
        self.cursor = next.unwrap_or(0);
        slots
    }
}
