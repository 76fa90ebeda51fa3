//! Interned holder sets: what a table value means, and where sets of two or more holders live.
//!
//! ```text
//! value 0                      empty slot
//! value 1..=MAX_HOLDERS        one holder, id + 1
//! value 1 | class:6 | index:25 a set: words [n, id, id, ..] sorted, at `index` of arena class `class`
//! ```
//! Each distinct set is stored once and counted by the keys that refer to it, so that "same holders as
//! the chunk before" is one comparison, and a chain shared by many workers costs one transition.
//!
//! Readers reach a set without a lock, so a freed entry must not be reused under them. Freed words are
//! counted in [`Freed`]; an entry freed at count `f` is reused only once the count has reached
//! `f + QUARANTINE`. A reader that saw count `c` before its first look and less than `c + QUARANTINE`
//! after its last one has met no reused entry; otherwise it starts anew. Frees are counted when a
//! batch ends, after the directory without them was published.
//!
//! Arena memory is reused, never returned. The rest (interner, reference counts) belongs to the writer.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashTable;

use super::chunked::Chunked;
use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use super::table::mix;

/// Most holders that can exist at a time, dead ones awaiting their sweep included.
pub(super) const MAX_HOLDERS: u32 = 1 << 20;

const SET: u32 = 1 << 31;
const INDEX_BITS: u32 = 25;
/// Capacities 2, 3, 4, 6, 8, 12 .. 3 << 19, enough for [`MAX_HOLDERS`].
const CLASSES: usize = 40;
/// Words freed before the first of them is reused: 1 MB, far more than any lookup can overtake.
pub(super) const QUARANTINE: u64 = if cfg!(test) { 32 } else { 1 << 18 };
const MEMO: usize = 1024;

/// The value of a key held by `holder` alone.
#[inline]
pub(super) fn single(holder: u32) -> u32 {
    holder + 1
}

/// The holder of a value that is no set and not 0.
#[inline]
pub(super) fn sole_holder(value: u32) -> Option<u32> {
    if value & SET == 0 {
        value.checked_sub(1)
    } else {
        None
    }
}

fn locate(set: u32) -> (usize, usize) {
    let class = (set & !SET) >> INDEX_BITS;
    (class as usize, (set & ((1 << INDEX_BITS) - 1)) as usize)
}

fn capacity(class: usize) -> usize {
    (2 + class % 2) << (class / 2)
}

fn class_for(len: usize) -> usize {
    (0..CLASSES)
        .find(|&class| capacity(class) >= len)
        .expect("sets hold at most MAX_HOLDERS ids and the last class is larger")
}

/// Words freed so far, by which readers know whether what they read may have been reused.
#[derive(Default)]
pub(super) struct Freed(AtomicU64);

impl Freed {
    /// A reader begins: what it must show to [`Self::is_fresh`] later.
    #[inline]
    pub(super) fn enter(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Whether no entry that was in use since `entered` can have been reused up to now.
    #[inline]
    pub(super) fn is_fresh(&self, entered: u64) -> bool {
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) - entered < QUARANTINE
    }

    /// The writer has counted what a batch freed.
    pub(super) fn publish(&self, freed: u64) {
        self.0.store(freed, Ordering::Release);
    }
}

/// Where sets live; shared with readers.
pub(super) struct Arena {
    classes: [Chunked<AtomicU32>; CLASSES],
    /// Each set counts with its capacity.
    pub(super) freed: Freed,
}

impl Arena {
    fn new() -> Self {
        Self {
            classes: std::array::from_fn(|class| {
                let width = capacity(class) + 1;
                Chunked::new((64 / width).max(1).next_power_of_two(), width)
            }),
            freed: Freed::default(),
        }
    }

    /// The holders of a value, ascending. A reader asks [`Freed::is_fresh`] before it believes them.
    pub(super) fn ids(&self, value: u32) -> impl Iterator<Item = u32> + '_ {
        let (one, words) = if value & SET == 0 {
            (sole_holder(value), &[][..])
        } else {
            (None, self.words(value))
        };
        one.into_iter()
            .chain(words.iter().map(|word| word.load(Ordering::Relaxed)))
    }

    /// [`Self::ids`] as a plain loop.
    #[inline]
    pub(super) fn for_each_id(&self, value: u32, mut visit: impl FnMut(u32)) {
        if let Some(id) = sole_holder(value) {
            visit(id);
        } else if value != 0 {
            for word in self.words(value) {
                visit(word.load(Ordering::Relaxed));
            }
        }
    }

    /// Appends the ids of a value, each as `make` makes it.
    #[inline]
    pub(super) fn extend<T>(&self, out: &mut Vec<T>, value: u32, make: impl Fn(u32) -> T) {
        if let Some(id) = sole_holder(value) {
            out.push(make(id));
        } else if value != 0 {
            // A plain slice iterator: its known length makes this one allocation and a tight loop.
            let words = self.words(value).iter();
            out.extend(words.map(|word| make(word.load(Ordering::Relaxed))));
        }
    }

    fn words(&self, set: u32) -> &[AtomicU32] {
        let (class, index) = locate(set);
        let entry = self.classes.get(class).and_then(|c| c.read(index));
        let Some((len, words)) = entry.and_then(<[AtomicU32]>::split_first) else {
            return &[];
        };
        let len = len.load(Ordering::Relaxed) as usize;
        &words[..len.min(words.len())]
    }

    fn contains(&self, value: u32, holder: u32) -> bool {
        if value & SET == 0 {
            return value == single(holder);
        }
        let order = |word: &AtomicU32| word.load(Ordering::Relaxed).cmp(&holder);
        self.words(value).binary_search_by(order).is_ok()
    }

    fn bytes(&self) -> usize {
        self.classes.iter().map(Chunked::bytes).sum()
    }
}

#[derive(Clone, Copy, Default)]
struct Info {
    /// Sum of the mixed ids, so that a neighbor's hash is one addition away.
    hash: u64,
    /// Keys that have this value.
    keys: u32,
    /// Rises when the entry is freed: tells memos of different tenants apart.
    generation: u32,
}

#[derive(Clone, Copy, Default)]
struct Memo {
    from: u32,
    /// Holder and, in bit 0, whether it joins.
    change: u32,
    to: u32,
    from_generation: u32,
    to_generation: u32,
}

/// The writer's side: interning, counting, freeing.
pub(super) struct Sets {
    arena: Arc<Arena>,
    infos: [Vec<Info>; CLASSES],
    free: [VecDeque<(u64, u32)>; CLASSES],
    /// Freed in this batch, not yet counted.
    pending: Vec<u32>,
    interned: HashTable<u32>,
    memos: Box<[Memo]>,
    last: Last,
    scratch: Vec<u32>,
    freed: u64,
}

/// The change made last: chunks of a chain mostly make the same one.
#[derive(Clone, Copy, Default)]
struct Last {
    from: u32,
    change: u32,
    to: u32,
    is_known: bool,
}

impl Sets {
    pub(super) fn new() -> Self {
        Self {
            arena: Arc::new(Arena::new()),
            infos: std::array::from_fn(|_| Vec::new()),
            free: std::array::from_fn(|_| VecDeque::new()),
            pending: Vec::new(),
            interned: HashTable::new(),
            memos: vec![Memo::default(); MEMO].into(),
            last: Last::default(),
            scratch: Vec::new(),
            freed: 0,
        }
    }

    pub(super) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// The value after `holder` joins, or `None` if it is in already. Counts are untouched.
    #[inline]
    pub(super) fn with(&mut self, value: u32, holder: u32) -> Option<u32> {
        if value == 0 {
            return Some(single(holder));
        }
        if value == single(holder) {
            return None;
        }
        self.change(value, holder, true)
    }

    /// The value after `holder` leaves (0 if nobody remains), or `None` if it is not in.
    #[inline]
    pub(super) fn without(&mut self, value: u32, holder: u32) -> Option<u32> {
        if value & SET == 0 {
            return (value == single(holder)).then_some(0);
        }
        self.change(value, holder, false)
    }

    /// The value that remains when every holder that `leaves` has left.
    pub(super) fn strip(&mut self, value: u32, leaves: impl Fn(u32) -> bool) -> u32 {
        let mut ids = std::mem::take(&mut self.scratch);
        ids.clear();
        let before = self.arena.ids(value).count();
        ids.extend(self.arena.ids(value).filter(|&id| !leaves(id)));
        let stripped = if ids.len() == before {
            value
        } else {
            let hash = ids
                .iter()
                .fold(0, |sum: u64, &id| sum.wrapping_add(mix_id(id)));
            self.intern(&ids, hash)
        };
        self.scratch = ids;
        stripped
    }

    /// A key's value changed from `old` to `new`.
    #[inline]
    pub(super) fn moved(&mut self, old: u32, new: u32) {
        if new & SET != 0 {
            self.info(new).keys += 1;
        }
        if old & SET != 0 {
            let info = self.info(old);
            info.keys -= 1;
            if info.keys == 0 {
                self.free(old);
            }
        }
    }

    /// Ends a batch, after its directory was published: from here on, what it freed is counted.
    pub(super) fn settle(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        for set in self.pending.drain(..) {
            let (class, index) = locate(set);
            self.free[class].push_back((self.freed, index as u32));
            self.freed += capacity(class) as u64 + 1;
        }
        self.arena.freed.publish(self.freed);
    }

    /// Number of distinct sets.
    pub(super) fn len(&self) -> usize {
        self.interned.len()
    }

    /// Heap bytes.
    pub(super) fn bytes(&self) -> usize {
        let infos: usize = self.infos.iter().map(Vec::capacity).sum();
        let free: usize = self.free.iter().map(VecDeque::capacity).sum();
        self.arena.bytes()
            + infos * size_of::<Info>()
            + free * size_of::<(u64, u32)>()
            + self.interned.allocation_size()
            + size_of_val::<[Memo]>(&self.memos)
    }

    fn info(&mut self, set: u32) -> &mut Info {
        let (class, index) = locate(set);
        &mut self.infos[class][index]
    }

    fn generation(&mut self, value: u32) -> u32 {
        if value & SET == 0 {
            0
        } else {
            self.info(value).generation
        }
    }

    #[inline]
    fn change(&mut self, value: u32, holder: u32, joins: bool) -> Option<u32> {
        let change = holder << 1 | u32::from(joins);
        let last = self.last;
        if last.is_known && (last.from, last.change) == (value, change) {
            return (last.to != value).then_some(last.to);
        }
        self.look_up(value, holder, joins)
    }

    fn look_up(&mut self, value: u32, holder: u32, joins: bool) -> Option<u32> {
        let change = holder << 1 | u32::from(joins);
        let slot = (value ^ value >> INDEX_BITS).wrapping_mul(0x9e37_79b1)
            ^ change.wrapping_mul(0x85eb_ca6b);
        let slot = (slot >> 16) as usize % MEMO;
        let memo = self.memos[slot];
        if (memo.from, memo.change) == (value, change)
            && memo.from_generation == self.generation(value)
            && memo.to_generation == self.generation(memo.to)
        {
            self.last = Last {
                from: value,
                change,
                to: memo.to,
                is_known: true,
            };
            return (memo.to != value).then_some(memo.to);
        }
        let to = if self.arena.contains(value, holder) == joins {
            value
        } else {
            self.neighbor(value, holder, joins)
        };
        self.memos[slot] = Memo {
            from: value,
            change,
            to,
            from_generation: self.generation(value),
            to_generation: self.generation(to),
        };
        (to != value).then_some(to)
    }

    /// Interns `value` with or without `holder`.
    fn neighbor(&mut self, value: u32, holder: u32, joins: bool) -> u32 {
        let mut ids = std::mem::take(&mut self.scratch);
        ids.clear();
        ids.extend(self.arena.ids(value));
        let hash = if value & SET == 0 {
            mix_id(value - 1)
        } else {
            self.info(value).hash
        };
        let at = ids.partition_point(|&id| id < holder);
        let hash = if joins {
            ids.insert(at, holder);
            hash.wrapping_add(mix_id(holder))
        } else {
            ids.remove(at);
            hash.wrapping_sub(mix_id(holder))
        };
        let neighbor = self.intern(&ids, hash);
        self.scratch = ids;
        neighbor
    }

    /// The value for these ids. A set that is new here has no keys yet.
    fn intern(&mut self, ids: &[u32], hash: u64) -> u32 {
        match ids {
            [] => return 0,
            [id] => return single(*id),
            _ => {}
        }
        let arena = &self.arena;
        let equal = |&set: &u32| arena.ids(set).eq(ids.iter().copied());
        if let Some(&set) = self.interned.find(hash, equal) {
            return set;
        }
        let set = self.allocate(ids.len());
        let (class, index) = locate(set);
        let entry = self.arena.classes[class].read(index);
        let words = entry.expect("allocate reached this index");
        // Orders the count of frees that allowed the reuse before the words that show it.
        fence(Ordering::Release);
        words[0].store(ids.len() as u32, Ordering::Relaxed);
        for (word, &id) in words[1..].iter().zip(ids) {
            word.store(id, Ordering::Relaxed);
        }
        let info = self.info(set);
        info.hash = hash;
        info.keys = 0;
        let infos = &self.infos;
        self.interned.insert_unique(hash, set, |&set| {
            let (class, index) = locate(set);
            infos[class][index].hash
        });
        set
    }

    fn allocate(&mut self, len: usize) -> u32 {
        let mut class = class_for(len);
        loop {
            let ready = self.free[class].front();
            let ready = ready.filter(|(freed_at, _)| freed_at + QUARANTINE <= self.freed);
            let index = match ready.copied() {
                Some((_, index)) => {
                    self.free[class].pop_front();
                    index as usize
                }
                // 2^25 sets of one size: use the next larger one.
                None if self.infos[class].len() == 1 << INDEX_BITS => {
                    class += 1;
                    continue;
                }
                None => {
                    self.infos[class].push(Info::default());
                    self.infos[class].len() - 1
                }
            };
            self.arena.classes[class].reach(index);
            return SET | (class as u32) << INDEX_BITS | index as u32;
        }
    }

    fn free(&mut self, set: u32) {
        self.last.is_known = false;
        let info = self.info(set);
        info.generation = info.generation.wrapping_add(1);
        let hash = info.hash;
        let entry = self.interned.find_entry(hash, |&other| other == set);
        entry
            .expect("a set in use is interned under its hash")
            .remove();
        self.pending.push(set);
    }

    /// Panics if sets are stored twice, unsorted, or counted differently than `keys` says.
    #[cfg(all(test, not(loom)))]
    pub(super) fn check(&self, keys: &std::collections::HashMap<u32, u32>) {
        let mut seen = std::collections::HashSet::new();
        for &set in &self.interned {
            let ids: Vec<u32> = self.arena.ids(set).collect();
            assert!(ids.len() > 1 && ids.is_sorted_by(|a, b| a < b));
            let (class, index) = locate(set);
            let info = self.infos[class][index];
            assert_eq!(keys.get(&set), Some(&info.keys), "{ids:?}");
            let hash = ids
                .iter()
                .fold(0, |sum: u64, &id| sum.wrapping_add(mix_id(id)));
            assert_eq!(info.hash, hash);
            assert!(seen.insert(ids));
        }
        let sets = keys.keys().filter(|&value| value & SET != 0);
        assert_eq!(sets.count(), self.interned.len());
        assert!(self.pending.is_empty());
    }
}

fn mix_id(id: u32) -> u64 {
    mix(u64::from(id))
}
