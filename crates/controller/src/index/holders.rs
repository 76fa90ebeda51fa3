//! Who may hold chunks: ids, what the caller attaches to them, and whether lookups see them.
//!
//! ```text
//! open --> Hidden --swap--> Live --retire / swap--> Dead --swept everywhere--> free, reused by open
//!      \-> Live                      (Hidden --retire--> Dead)
//! ```
//! One generation of one (worker, location) is one id. Dead ids stay in the table until the sweep has
//! taken their last key; then the id is free. Readers see the states of one publication, so that a
//! changeover from one generation to the next is one step. An entry's generation rises each time its
//! id is given out, the first time included, by which a reader notices that it slept through that.
//!
//! Entries are copied in segments of 64 when one changes: retiring is a copy of 1 KB plus a pointer per
//! segment.

use std::sync::Arc;

use super::spill::MAX_HOLDERS;

/// One generation of a holder (worker and location), as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderId(pub(super) u32);

impl HolderId {
    /// A set as a file numbers it: no holder of any index.
    pub(crate) fn from_ordinal(ordinal: u32) -> Self {
        Self(ordinal)
    }

    /// Position in arrays kept per holder. Ids are dense and reused.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the caller wants to find again when a lookup meets a holder. The index does not look inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HolderMeta {
    /// Which worker, in the caller's numbering.
    pub worker: u32,
    /// Which location, in the caller's numbering.
    pub location: u32,
}

/// Too many holders are open, or dead and not yet swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_HOLDERS} holders are open or await their sweep")]
pub struct HoldersExhausted;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Free,
    Hidden,
    Live,
    Dead,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    meta: HolderMeta,
    generation: u32,
    state: State,
}

const SEGMENT: usize = 64;

/// The states of all holders at one moment.
#[derive(Clone, Default)]
pub(super) struct HolderTable {
    segments: Vec<Arc<[Entry; SEGMENT]>>,
    /// Hidden and dead ids: with none, every id that a reader meets is live, unless it was given out
    /// later than this table.
    unseen: usize,
}

impl HolderTable {
    #[inline]
    fn entry(&self, id: u32) -> Option<&Entry> {
        let id = id as usize;
        Some(&self.segments.get(id / SEGMENT)?[id % SEGMENT])
    }

    #[inline]
    pub(super) fn state(&self, id: u32) -> State {
        self.entry(id).map_or(State::Free, |entry| entry.state)
    }

    #[inline]
    pub(super) fn is_live(&self, id: u32) -> bool {
        self.state(id) == State::Live
    }

    #[inline]
    pub(super) fn is_open(&self, id: u32) -> bool {
        matches!(self.state(id), State::Hidden | State::Live)
    }

    /// Whether every id given out before this table that a key can have is live.
    #[inline]
    pub(super) fn all_live(&self) -> bool {
        self.unseen == 0
    }

    /// Whether `id` means the same holder here and in `other`, if it means one.
    pub(super) fn agrees(&self, other: &Self, id: u32) -> bool {
        let generation = |table: &Self| table.entry(id).map(|entry| entry.generation);
        generation(self) == generation(other)
    }

    pub(super) fn meta(&self, id: u32) -> Option<&HolderMeta> {
        self.entry(id).map(|entry| &entry.meta)
    }
}

/// The writer's side: hands out ids and knows what is still stored for each.
#[derive(Default)]
pub(super) struct HolderBook {
    table: Arc<HolderTable>,
    /// Pairs in the tables, per id.
    stored: Vec<u64>,
    free: Vec<u32>,
    /// Dead ids with pairs left.
    dead: usize,
    dead_pairs: u64,
    /// Pairs of all ids.
    pairs: u64,
    open: usize,
}

impl HolderBook {
    pub(super) fn table(&self) -> &Arc<HolderTable> {
        &self.table
    }

    /// Gives out an id, of the free ones if there are any.
    pub(super) fn open(&mut self, meta: HolderMeta, state: State) -> Result<u32, HoldersExhausted> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = u32::try_from(self.stored.len()).map_err(|_| HoldersExhausted)?;
                if id >= MAX_HOLDERS {
                    return Err(HoldersExhausted);
                }
                self.stored.push(0);
                id
            }
        };
        let table = Arc::make_mut(&mut self.table);
        if id as usize / SEGMENT == table.segments.len() {
            table.segments.push(Arc::new([Entry::default(); SEGMENT]));
        }
        self.enter(id, state);
        let entry = self.entry_mut(id);
        entry.meta = meta;
        entry.generation = entry.generation.wrapping_add(1);
        self.open += 1;
        Ok(id)
    }

    #[inline]
    pub(super) fn is_open(&self, id: u32) -> bool {
        self.table.is_open(id)
    }

    pub(super) fn set_live(&mut self, id: u32) {
        self.enter(id, State::Live);
    }

    /// Marks an open id dead; false if it was not open.
    pub(super) fn retire(&mut self, id: u32) -> bool {
        if !self.is_open(id) {
            return false;
        }
        self.open -= 1;
        self.enter(id, State::Dead);
        let stored = self.stored[id as usize];
        self.dead += 1;
        self.dead_pairs += stored;
        if stored == 0 {
            self.release(id);
        }
        true
    }

    pub(super) fn grew(&mut self, id: u32, pairs: u64) {
        self.stored[id as usize] += pairs;
        self.pairs += pairs;
    }

    pub(super) fn shrank(&mut self, id: u32, pairs: u64) {
        self.stored[id as usize] -= pairs;
        self.pairs -= pairs;
    }

    /// The sweep took one pair of a dead id; frees the id with the last one.
    pub(super) fn swept(&mut self, id: u32) {
        self.dead_pairs -= 1;
        self.pairs -= 1;
        self.stored[id as usize] -= 1;
        if self.stored[id as usize] == 0 {
            self.release(id);
        }
    }

    /// Ids that are hidden or live.
    pub(super) fn open_holders(&self) -> usize {
        self.open
    }

    /// Dead ids with pairs left.
    pub(super) fn dead_holders(&self) -> usize {
        self.dead
    }

    /// Pairs of dead ids left in the tables.
    pub(super) fn dead_pairs(&self) -> u64 {
        self.dead_pairs
    }

    /// Pairs of all ids, dead ones included.
    pub(super) fn pairs(&self) -> u64 {
        self.pairs
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.segments.len() * size_of::<[Entry; SEGMENT]>() + self.stored.capacity() * 8
    }

    fn release(&mut self, id: u32) {
        self.enter(id, State::Free);
        self.dead -= 1;
        self.free.push(id);
    }

    fn enter(&mut self, id: u32, state: State) {
        let unseen = |state| usize::from(matches!(state, State::Hidden | State::Dead));
        let old = std::mem::replace(&mut self.entry_mut(id).state, state);
        let table = Arc::make_mut(&mut self.table);
        table.unseen = table.unseen + unseen(state) - unseen(old);
    }

    fn entry_mut(&mut self, id: u32) -> &mut Entry {
        let id = id as usize;
        let segment = &mut Arc::make_mut(&mut self.table).segments[id / SEGMENT];
        &mut Arc::make_mut(segment)[id % SEGMENT]
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn check(&self, pairs: &std::collections::HashMap<u32, u64>) {
        let (mut dead, mut hidden) = ((0, 0), 0);
        for (id, &stored) in self.stored.iter().enumerate() {
            let id = id as u32;
            assert_eq!(pairs.get(&id).copied().unwrap_or(0), stored);
            match self.table.state(id) {
                State::Free => assert!(stored == 0 && self.free.contains(&id)),
                State::Dead => {
                    assert_ne!(stored, 0, "free at once");
                    dead = (dead.0 + 1, dead.1 + stored);
                }
                State::Hidden => hidden += 1,
                State::Live => assert!(!self.free.contains(&id)),
            }
        }
        assert_eq!(dead, (self.dead, self.dead_pairs));
        assert_eq!(self.pairs, self.stored.iter().sum());
        assert_eq!(self.table.unseen, self.dead + hidden);
    }
}
