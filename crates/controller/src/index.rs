//! The index: which holders have which chunk, exact under any order of admits and evictions.
//!
//! ```text
//!   apply, retire, sweep ..  --writer lock-->  Writer { tables, sets, holders }
//!                                                  | publish (only when a table was rebuilt
//!                                                  v          or a holder changed state)
//!   view, walk, runs ..  --no lock-->  Snapshot { directory, holder states }  + bucket words + sets
//! ```
//! Files: [`bucket`] one cache line and its sequence lock, [`table`] directory and growth, [`path`] where
//! in a table a key sits, [`spill`] interned holder sets, [`holders`] ids and visibility, [`sweep`]
//! removal of dead holders, [`view`] readers, [`chunked`] storage that grows without moving.
//!
//! **Invariants.** Readers take no lock and never wait for the writer. A key's value changes in one
//! store. When [`Index::retire`] or [`Index::swap`] returns, no view taken later shows the dead holder.
//! Counts are exact when the call that changed them returns. An id is reused only after its last pair
//! is gone. Nothing here reads a clock or randomness, or knows workers.
//!
//! One lock, taken once per batch and offered to waiters every [`TURN`] operations; nothing else is
//! locked under it.

mod bucket;
mod chunked;
mod holders;
mod path;
mod spill;
mod sweep;
mod sync;
mod table;
mod view;

#[cfg(all(test, loom))]
mod loom_models;
#[cfg(all(test, not(loom)))]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use kvatlas_protocol::{ChunkHash, Operation, OperationKind};
use parking_lot::{Mutex, MutexGuard};

pub use holders::{HolderId, HolderMeta, HoldersExhausted};
pub use sweep::SweepProgress;
pub use view::{Holders, Run, View};

use chunked::Chunked;
use holders::{HolderBook, HolderTable, State};
use spill::{Arena, Sets, single};
use sync::{AtomicU64, Ordering};
use table::{Directory, Hasher, Tables};

/// How many operations ahead a bucket is asked for: their cache misses overlap.
const AHEAD: usize = 16;
/// How many operations ahead it is looked at whether the bucket is full.
const SOON: usize = 6;
/// Operations after which a waiting caller gets the lock: about 10 microseconds.
const TURN: usize = 256;

/// What a batch changed; operations that changed nothing are in neither count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Pairs added.
    pub added: u64,
    /// Pairs removed.
    pub removed: u64,
}

/// Sizes of the index at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Distinct keys, including those only dead holders have.
    pub keys: usize,
    /// Distinct sets of two or more holders.
    pub sets: usize,
    /// Holders that are open.
    pub holders: usize,
    /// Dead holders not yet swept.
    pub dead_holders: usize,
    /// Their pairs.
    pub dead_pairs: u64,
    /// Heap bytes, without those only old views keep.
    pub bytes: usize,
}

/// How full the index is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Heap bytes; see [`Totals::bytes`].
    pub bytes: usize,
    /// What the same pairs take at most in tables that never were fuller.
    pub used: usize,
    /// Pairs of key and holder, those of dead holders included.
    pub pairs: u64,
    /// Holders that are open.
    pub holders: usize,
}

/// See the module's text.
pub struct Index {
    writer: Mutex<Writer>,
    snapshot: ArcSwap<Snapshot>,
    arena: Arc<Arena>,
    /// Times an id was given out, by which a view notices ids that mean nothing to it or another holder.
    opened: AtomicU64,
    /// Keys per holder.
    counts: Chunked<AtomicU64>,
    hasher: Hasher,
}

/// What readers load once per lookup.
struct Snapshot {
    directory: Arc<Directory>,
    holders: Arc<HolderTable>,
}

struct Writer {
    tables: Tables,
    sets: Sets,
    holders: HolderBook,
    /// Where in hash space the sweep goes on.
    cursor: u64,
}

impl Index {
    /// An empty index. `seed` keys the hash and should be unknown to those who choose chunk hashes.
    pub fn new(seed: u64) -> Self {
        let hasher = Hasher::new(seed);
        let writer = Writer {
            tables: Tables::new(hasher),
            sets: Sets::new(),
            holders: HolderBook::default(),
            cursor: 0,
        };
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot {
                directory: Arc::clone(writer.tables.directory()),
                holders: Arc::clone(writer.holders.table()),
            }),
            arena: Arc::clone(writer.sets.arena()),
            writer: Mutex::new(writer),
            opened: AtomicU64::new(0),
            counts: Chunked::new(64, 1),
            hasher,
        }
    }

    /// Makes room for `keys` keys, if there are none yet: a restored snapshot need not grow.
    pub fn reserve(&self, keys: usize) {
        let mut writer = self.writer.lock();
        writer.tables.reserve(keys);
        self.finish(&mut writer);
    }

    /// Gives out an id for a new, empty holder; lookups see it at once if `visible`, else after
    /// [`Self::swap`].
    pub fn open_holder(
        &self,
        meta: HolderMeta,
        visible: bool,
    ) -> Result<HolderId, HoldersExhausted> {
        let mut writer = self.writer.lock();
        let state = if visible { State::Live } else { State::Hidden };
        let id = writer.holders.open(meta, state)?;
        self.counts.reach(id as usize);
        self.publish(&mut writer);
        // After the new generation is published, before a key can refer to it.
        self.opened.fetch_add(1, Ordering::Release);
        Ok(HolderId(id))
    }

    /// Applies operations of one holder in order. Those of a retired holder change nothing.
    pub fn apply(&self, holder: HolderId, operations: &[Operation]) -> Applied {
        self.apply_each(holder, operations, |op| (op.kind, op.hash))
    }

    /// Admits chunks of one holder, as a full sync or a restored snapshot lists them.
    pub fn admit(&self, holder: HolderId, hashes: &[ChunkHash]) -> Applied {
        self.apply_each(holder, hashes, |&hash| (OperationKind::Admit, hash))
    }

    fn apply_each<T>(
        &self,
        holder: HolderId,
        operations: &[T],
        read: impl Fn(&T) -> (OperationKind, ChunkHash) + Copy,
    ) -> Applied {
        let mut total = Applied::default();
        let mut writer = self.writer.lock();
        let mut rest = operations;
        while !rest.is_empty() {
            if !writer.holders.is_open(holder.0) {
                break;
            }
            let turn = TURN.min(rest.len());
            let applied = writer.apply_turn(holder.0, self.hasher, rest, turn, read);
            rest = &rest[turn..];
            writer.holders.grew(holder.0, applied.added);
            writer.holders.shrank(holder.0, applied.removed);
            if let Some([count]) = self.counts.read(holder.index()) {
                // Only the holder of the writer lock writes this.
                let keys = count.load(Ordering::Relaxed) + applied.added - applied.removed;
                count.store(keys, Ordering::Relaxed);
            }
            total.added += applied.added;
            total.removed += applied.removed;
            self.finish(&mut writer);
            if !rest.is_empty() {
                MutexGuard::bump(&mut writer);
            }
        }
        total
    }

    /// Marks a holder dead: views taken from now on do not show it. Its pairs leave with the sweep.
    /// False if it was not open.
    pub fn retire(&self, holder: HolderId) -> bool {
        let mut writer = self.writer.lock();
        let retired = writer.holders.retire(holder.0);
        if retired {
            self.forget_count(holder);
            self.publish(&mut writer);
        }
        retired
    }

    /// Makes `new` visible and `old` dead in one step. False, and nothing changes, unless both are open.
    pub fn swap(&self, old: HolderId, new: HolderId) -> bool {
        let mut writer = self.writer.lock();
        let both = writer.holders.is_open(old.0) && writer.holders.is_open(new.0) && old != new;
        if both {
            writer.holders.set_live(new.0);
            writer.holders.retire(old.0);
            self.forget_count(old);
            self.publish(&mut writer);
        }
        both
    }

    /// Makes a hidden holder visible. False if it is not open.
    pub fn show(&self, holder: HolderId) -> bool {
        let mut writer = self.writer.lock();
        let open = writer.holders.is_open(holder.0);
        if open {
            writer.holders.set_live(holder.0);
            self.publish(&mut writer);
        }
        open
    }

    /// Keys of a holder; 0 once it is retired.
    pub fn count(&self, holder: HolderId) -> u64 {
        match self.counts.read(holder.index()) {
            Some([count]) => count.load(Ordering::Relaxed),
            _ => 0,
        }
    }

    /// Whether a holder, visible or hidden, has a chunk.
    pub fn contains(&self, holder: HolderId, hash: ChunkHash) -> bool {
        self.view().holds(holder, hash)
    }

    /// A picture of the index for one lookup. Do not keep it: it keeps tables that were replaced.
    #[inline]
    pub fn view(&self) -> View<'_> {
        View::new(self)
    }

    /// Every key of a visible holder, in no order. Reads the whole index.
    pub fn keys_of(&self, holder: HolderId) -> Vec<ChunkHash> {
        let mut keys = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.view().export(from, |key, ids| {
                if ids.binary_search(&holder).is_ok() {
                    keys.push(key);
                }
            });
        }
        keys
    }

    /// Sizes. Takes the writer's lock for a moment.
    pub fn totals(&self) -> Totals {
        let writer = self.writer.lock();
        Totals {
            keys: writer.tables.keys(),
            sets: writer.sets.len(),
            holders: writer.holders.open_holders(),
            dead_holders: writer.holders.dead_holders(),
            dead_pairs: writer.holders.dead_pairs(),
            bytes: writer.tables.bytes()
                + writer.sets.bytes()
                + writer.holders.bytes()
                + self.counts.bytes(),
        }
    }

    /// Heap bytes; see [`Totals::bytes`].
    pub fn memory_bytes(&self) -> usize {
        self.totals().bytes
    }

    /// How full it is. Takes the writer's lock for a moment.
    pub fn fill(&self) -> Fill {
        let writer = self.writer.lock();
        let others = writer.sets.bytes() + writer.holders.bytes() + self.counts.bytes();
        Fill {
            bytes: writer.tables.bytes() + others,
            used: writer.tables.needed_bytes() + others,
            pairs: writer.holders.pairs(),
            holders: writer.holders.open_holders(),
        }
    }

    fn forget_count(&self, holder: HolderId) {
        if let Some([count]) = self.counts.read(holder.index()) {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Ends a stretch of writes: rebuilt tables become visible, then what was freed is counted.
    fn finish(&self, writer: &mut Writer) {
        if writer.tables.is_changed() {
            self.publish(writer);
        }
        writer.sets.settle();
    }

    fn publish(&self, writer: &mut Writer) {
        self.snapshot.store(Arc::new(Snapshot {
            directory: Arc::clone(writer.tables.publish()),
            holders: Arc::clone(writer.holders.table()),
        }));
    }

    /// Panics if any two parts of the index disagree.
    #[cfg(all(test, not(loom)))]
    fn check_invariants(&self) {
        use std::collections::HashMap;

        let writer = self.writer.lock();
        let mut values = HashMap::new();
        let mut pairs = HashMap::new();
        writer.tables.check(|_, value| {
            *values.entry(value).or_insert(0) += 1;
            for id in self.arena.ids(value) {
                *pairs.entry(id).or_insert(0) += 1;
            }
        });
        writer.sets.check(&values);
        writer.holders.check(&pairs);
        for (id, pairs) in pairs {
            if writer.holders.is_open(id) {
                assert_eq!(self.count(HolderId(id)), pairs);
            }
        }
    }
}

impl Writer {
    /// Applies the first `turn` operations; the buckets of the next ones are asked for.
    #[inline]
    fn apply_turn<T>(
        &mut self,
        holder: u32,
        hasher: Hasher,
        operations: &[T],
        turn: usize,
        read: impl Fn(&T) -> (OperationKind, ChunkHash),
    ) -> Applied {
        let mut applied = Applied::default();
        let ask = |tables: &Tables, op: &T| {
            // To hash again later is cheaper than to keep the hash.
            tables.directory().route(hasher).prefetch(read(op).1.0);
        };
        if operations.len() > 1 {
            for op in &operations[..AHEAD.min(operations.len())] {
                ask(&self.tables, op);
            }
        }
        let mut ahead = operations[AHEAD.min(operations.len())..].iter();
        let soon = if self.tables.is_crowded() {
            SOON
        } else {
            operations.len()
        };
        let mut soon = operations[soon.min(operations.len())..].iter();
        for op in &operations[..turn] {
            if let Some(next) = ahead.next() {
                ask(&self.tables, next);
            }
            if let Some(next) = soon.next() {
                let route = self.tables.directory().route(hasher);
                route.prefetch_further(read(next).1.0);
            }
            let (kind, ChunkHash(key)) = read(op);
            let hash = hasher.hash(key);
            match kind {
                OperationKind::Admit => applied.added += u64::from(self.admit(holder, key, hash)),
                OperationKind::Evict => applied.removed += u64::from(self.evict(holder, key, hash)),
            }
        }
        applied
    }

    #[inline]
    fn admit(&mut self, holder: u32, key: u64, hash: u64) -> bool {
        let Some(place) = self.tables.find(key, hash) else {
            self.tables.insert(key, hash, single(holder));
            return true;
        };
        let Some(value) = self.sets.with(place.value, holder) else {
            return false;
        };
        self.tables.replace(hash, place, value);
        self.sets.moved(place.value, value);
        true
    }

    #[inline]
    fn evict(&mut self, holder: u32, key: u64, hash: u64) -> bool {
        let Some(place) = self.tables.find(key, hash) else {
            return false;
        };
        let Some(value) = self.sets.without(place.value, holder) else {
            return false;
        };
        if value == 0 {
            self.tables.remove(hash, place);
        } else {
            self.tables.replace(hash, place, value);
        }
        self.sets.moved(place.value, value);
        true
    }
}
