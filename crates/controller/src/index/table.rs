//! The hash table: a directory of small tables, each rebuilt alone and aside.
//!
//! ```text
//! hash: | top bits: which table | ...         | low 32 bits: home bucket, scaled to the table's size |
//! directory -> segment of 64 -> Arc<[Bucket]>   (an entry may repeat: a table of depth d serves every
//!                                                entry that shares its first d hash bits)
//! ```
//! A table grows by half until [`MAX_BUCKETS`], then splits in two by the next hash bit. Readers
//! keep using the directory they loaded; a rebuilt table reaches them with the next publication, before
//! which nobody else learns of later writes to it. A rebuilt table's predecessor never changes again.
//!
//! Sizes are not powers of two: the home bucket is `low32 * n >> 32`. That keeps hash order, so a
//! rebuild reads and writes memory front to back. Where a key sits whose home is full: [`super::path`].
//!
//! This file knows keys and opaque 32-bit values, not holders. Only the index's writer calls the
//! mutating functions.

use std::hint::select_unpredictable;
use std::sync::Arc;

use prefetch_index::prefetch_index;

use super::bucket::{Bucket, SLOTS};
use super::path::{self, Path, Place, home, place, second, unpass};

/// Buckets of the largest table (64 B each). A rebuild of one is the longest step a writer takes.
const MAX_BUCKETS: usize = if cfg!(test) { 8 } else { 2048 };
/// How full tables get while all of them together are smaller than [`ROOMY`]. Few keys then miss their
/// home bucket, and each that does costs a mispredicted branch.
const SMALL: Load = Load {
    fresh: 104,
    full: 160,
};
/// How full they get beyond, where memory counts for more.
const LARGE: Load = Load {
    fresh: 150,
    full: 224,
};
/// How full tables are made for a number of keys known beforehand.
const RESERVED: usize = 196;
/// Buckets, 8 MB of them.
const ROOMY: usize = 1 << 17;
/// Share of slots in use below which a table shrinks, in 1/256.
const SPARSE: usize = 50;
/// log2 of the entries of a segment: publishing one table copies this many pointers, and as many
/// again as there are segments.
const SEGMENT_BITS: u32 = if cfg!(test) { 2 } else { 6 };
const SEGMENT: usize = 1 << SEGMENT_BITS;

/// Shares of slots in use, in 1/256.
#[derive(Clone, Copy)]
struct Load {
    /// Right after a table was built.
    fresh: usize,
    /// When it is built anew.
    full: usize,
}

/// Keyed multiply: keys come from the network, and nobody out there knows the key.
#[derive(Clone, Copy)]
pub(super) struct Hasher {
    xor: u64,
    multiplier: u64,
}

impl Hasher {
    /// Derives the two secrets from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            xor: mix(seed),
            multiplier: mix(seed ^ 0x5851_f42d_4c95_7f2d) | 1,
        }
    }

    /// Hash of `key`; both its halves are usable.
    #[inline]
    pub(super) fn hash(self, key: u64) -> u64 {
        let product = u128::from(key ^ self.xor) * u128::from(self.multiplier);
        (product >> 64) as u64 ^ product as u64
    }
}

/// SplitMix64's finalizer, for seeds and holder ids.
#[inline]
pub(super) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

type Table = Arc<[Bucket]>;

#[derive(Clone)]
struct Segment {
    tables: [Table; SEGMENT],
}

/// What readers hold: which table serves which part of the hash space.
#[derive(Clone)]
pub(super) struct Directory {
    segments: Vec<Arc<Segment>>,
    shift: u32,
}

/// A directory taken apart, to stay in registers while a chain is routed.
#[derive(Clone, Copy)]
pub(super) struct Route<'d> {
    segments: &'d [Arc<Segment>],
    shift: u32,
    hasher: Hasher,
}

impl<'d> Route<'d> {
    /// The bucket where the search for `key` begins, on its way into the cache.
    #[inline]
    pub(super) fn prefetch(self, key: u64) -> &'d Bucket {
        let hash = self.hasher.hash(key);
        let table = self.table(hash);
        let at = home(hash, table.len());
        prefetch_index(table, at);
        &table[at]
    }

    /// Asks for the bucket where a search goes on that found nothing in the first.
    #[inline]
    pub(super) fn prefetch_second(self, key: u64) {
        let hash = self.hasher.hash(key);
        let table = self.table(hash);
        prefetch_index(table, second(hash, table.len()));
    }

    /// Asks for the next two buckets if the search may not end in the first, which should be in the cache
    /// by now.
    #[inline]
    pub(super) fn prefetch_further(self, key: u64) {
        let hash = self.hasher.hash(key);
        let table = self.table(hash);
        let home = home(hash, table.len());
        // Without a branch: nobody can predict which buckets are full.
        let at = select_unpredictable(table[home].looks_full(), second(hash, table.len()), home);
        prefetch_index(table, at);
        prefetch_index(table, at + 1);
    }

    #[inline]
    fn table(self, hash: u64) -> &'d Table {
        let entry = (hash >> self.shift) as usize;
        &self.segments[entry >> SEGMENT_BITS].tables[entry % SEGMENT]
    }
}

impl Directory {
    /// For many keys in a row.
    #[inline]
    pub(super) fn route(&self, hasher: Hasher) -> Route<'_> {
        Route {
            segments: &self.segments,
            shift: self.shift,
            hasher,
        }
    }

    #[inline]
    fn entry(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    #[inline]
    fn table(&self, entry: usize) -> &Table {
        &self.segments[entry >> SEGMENT_BITS].tables[entry % SEGMENT]
    }

    fn entries(&self) -> usize {
        self.segments.len() << SEGMENT_BITS
    }

    /// The value of `key`; see [`path::value`].
    pub(super) fn value(&self, key: u64, hash: u64) -> Option<u32> {
        let table = self.table(self.entry(hash));
        path::value(table, key, hash)
    }

    /// Calls `visit` with each key and value of the table that serves `from`, and returns where the
    /// hash space goes on, or `None` at its end.
    pub(super) fn scan(&self, from: u64, mut visit: impl FnMut(u64, u32)) -> Option<u64> {
        let entry = self.entry(from);
        let table = self.table(entry);
        for bucket in table.iter() {
            let slots = loop {
                match bucket.copy() {
                    Some(slots) => break slots,
                    None => std::hint::spin_loop(),
                }
            };
            for (key, value) in slots {
                if value != 0 {
                    visit(key, value);
                }
            }
        }
        let next = (entry + 1..self.entries()).find(|&e| !Arc::ptr_eq(self.table(e), table))?;
        Some((next as u64) << self.shift)
    }
}

#[derive(Clone, Copy)]
struct Extent {
    /// Keys in the table; kept at the first entry the table serves.
    keys: u32,
    /// Hash bits its keys share; kept at every entry.
    depth: u32,
}

/// The writer's side: the directory under construction and what readers need not know.
pub(super) struct Tables {
    directory: Arc<Directory>,
    extents: Vec<Extent>,
    hasher: Hasher,
    keys: usize,
    buckets: usize,
    dirty: bool,
    /// Keys on their way from one table to the next.
    moving: Vec<(u64, u32)>,
}

impl Tables {
    pub(super) fn new(hasher: Hasher) -> Self {
        let empty = build(1);
        let segment = Segment {
            tables: std::array::from_fn(|_| Arc::clone(&empty)),
        };
        Self {
            directory: Arc::new(Directory {
                segments: vec![Arc::new(segment)],
                shift: 64 - SEGMENT_BITS,
            }),
            extents: vec![Extent { keys: 0, depth: 0 }; SEGMENT],
            hasher,
            keys: 0,
            buckets: 1,
            dirty: false,
            moving: Vec::new(),
        }
    }

    /// Gives empty tables room for `keys` keys at once, instead of step by step as they come.
    pub(super) fn reserve(&mut self, keys: usize) {
        if self.keys > 0 {
            return;
        }
        let per_table = MAX_BUCKETS * SLOTS * RESERVED / 256;
        while keys / self.directory.entries() > per_table {
            self.double();
        }
        // Tables do not get equally many.
        let mean = keys / self.directory.entries();
        let size = buckets_for(mean + mean / 32, RESERVED).min(MAX_BUCKETS);
        let depth = 64 - self.directory.shift;
        self.buckets = 0;
        for entry in 0..self.directory.entries() {
            self.install(entry, 1, &build(size), Extent { keys: 0, depth });
        }
        self.dirty = true;
    }

    /// Whether tables were rebuilt since the last [`Self::publish`].
    pub(super) fn is_changed(&self) -> bool {
        self.dirty
    }

    /// The directory as of now, for readers.
    pub(super) fn publish(&mut self) -> &Arc<Directory> {
        self.dirty = false;
        &self.directory
    }

    /// The directory as of now.
    pub(super) fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Keys in all tables.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// Heap bytes of tables, directory and bookkeeping.
    pub(super) fn bytes(&self) -> usize {
        self.buckets * size_of::<Bucket>()
            + self.directory.segments.len() * (size_of::<Segment>() + 8)
            + self.extents.capacity() * size_of::<Extent>()
            + self.moving.capacity() * size_of::<(u64, u32)>()
    }

    /// Heap bytes if all tables had just been built: what the keys need at most, while
    /// [`Self::bytes`] goes up by a fifth where many tables are built anew, and down late.
    pub(super) fn needed_bytes(&self) -> usize {
        let needed = (self.keys * 256).div_ceil(SLOTS * self.load().fresh);
        self.bytes() - self.buckets * size_of::<Bucket>() + needed * size_of::<Bucket>()
    }

    /// Where `key` sits.
    #[inline]
    pub(super) fn find(&self, key: u64, hash: u64) -> Option<Place> {
        let table = self.directory.table(self.directory.entry(hash));
        path::find(table, key, hash)
    }

    /// Replaces the value of the key found at `place`, which must not be 0.
    #[inline]
    pub(super) fn replace(&self, hash: u64, place: Place, value: u32) {
        let table = self.directory.table(self.directory.entry(hash));
        table[place.bucket].replace(place.slot, value);
    }

    /// Adds a key that is in no table.
    pub(super) fn insert(&mut self, key: u64, hash: u64, value: u32) {
        let entry = self.directory.entry(hash);
        let first = self.first_entry(entry);
        let keys = self.extents[first].keys as usize + 1;
        let size = self.directory.table(entry).len();
        if keys * 256 > size * SLOTS * self.load().full {
            self.rebuild(first, keys);
            // The table may have been split, and (very unlikely) a half may be full again.
            return self.insert(key, hash, value);
        }
        self.extents[first].keys += 1;
        self.keys += 1;
        place(self.directory.table(entry), key, hash, value);
    }

    /// Takes away the key found at `place`.
    pub(super) fn remove(&mut self, hash: u64, place: Place) {
        let entry = self.directory.entry(hash);
        let table = self.directory.table(entry);
        table[place.bucket].replace(place.slot, 0);
        unpass(table, hash, place.bucket);
        let size = table.len();
        let first = self.first_entry(entry);
        self.extents[first].keys -= 1;
        self.keys -= 1;
        let keys = self.extents[first].keys as usize;
        if is_sparse(keys, size) {
            self.rebuild(first, keys);
        }
    }

    /// Offers every value of the table that serves `from` to `rewrite`, which returns the new one (0
    /// removes the key). Returns the slots looked at, and where the hash space goes on.
    pub(super) fn rewrite(
        &mut self,
        from: u64,
        mut rewrite: impl FnMut(u32) -> u32,
    ) -> (usize, Option<u64>) {
        let entry = self.directory.entry(from);
        let first = self.first_entry(entry);
        let table = self.directory.table(entry);
        let size = table.len();
        let mut removed = 0;
        for (at, bucket) in table.iter().enumerate() {
            for slot in 0..SLOTS {
                let old = bucket.value(slot);
                if old == 0 {
                    continue;
                }
                let new = rewrite(old);
                if new != old {
                    bucket.replace(slot, new);
                }
                if new == 0 {
                    unpass(table, self.hasher.hash(bucket.key(slot)), at);
                    removed += 1;
                }
            }
        }
        self.extents[first].keys -= removed;
        self.keys -= removed as usize;
        let next = first + self.span(first);
        let next = (next < self.directory.entries()).then(|| (next as u64) << self.directory.shift);
        let keys = self.extents[first].keys as usize;
        if is_sparse(keys, size) {
            self.rebuild(first, keys);
        }
        (size * SLOTS, next)
    }

    fn first_entry(&self, entry: usize) -> usize {
        entry & !(self.span(entry) - 1)
    }

    /// Entries served by the table at `entry`.
    fn span(&self, entry: usize) -> usize {
        1 << (64 - self.directory.shift - self.extents[entry].depth)
    }

    /// Builds the table at `first` anew with room for `keys` keys, as two tables if one would be too
    /// large.
    fn rebuild(&mut self, first: usize, keys: usize) {
        let old = Arc::clone(self.directory.table(first));
        let Extent { depth, keys: held } = self.extents[first];
        self.dirty = true;
        self.buckets -= old.len();
        let size = buckets_for(keys, self.load().fresh);
        if size <= MAX_BUCKETS || depth >= 48 {
            let mut new = Growing::new(size);
            for &(key, value) in gather(&old, &mut self.moving) {
                new.place(key, self.hasher.hash(key), value);
            }
            let extent = Extent { keys: held, depth };
            self.install(first, self.span(first), &new.table, extent);
            return;
        }
        if depth == 64 - self.directory.shift {
            self.double();
            self.buckets += old.len();
            return self.rebuild(first * 2, keys);
        }
        let bit = 63 - depth;
        let span = self.span(first) / 2;
        let loads = [first, first + span].map(|entry| self.staggered(entry));
        let hasher = self.hasher;
        let is_upper = |key| (hasher.hash(key) >> bit & 1) as usize;
        let moving = gather(&old, &mut self.moving);
        let upper: usize = moving.iter().map(|&(key, _)| is_upper(key)).sum();
        let lower = moving.len() - upper;
        let mut halves = [
            Growing::new(buckets_for(lower + 1, loads[0])),
            Growing::new(buckets_for(upper + 1, loads[1])),
        ];
        for &(key, value) in moving {
            halves[is_upper(key)].place(key, hasher.hash(key), value);
        }
        for (half, (new, keys)) in halves.into_iter().zip([lower, upper]).enumerate() {
            let extent = Extent {
                keys: keys as u32,
                depth: depth + 1,
            };
            self.install(first + half * span, span, &new.table, extent);
        }
    }

    fn load(&self) -> Load {
        if self.is_crowded() { LARGE } else { SMALL }
    }

    /// Whether tables get so full that many keys miss their home bucket.
    #[inline]
    pub(super) fn is_crowded(&self) -> bool {
        self.buckets >= ROOMY
    }

    /// How full the half of a table that begins at `entry` is made. All tables get keys at the same
    /// rate: built equally full they would all grow at the same moment, and be large together.
    fn staggered(&self, entry: usize) -> usize {
        let Load { fresh, full } = self.load();
        let position = (entry as u64) << self.directory.shift;
        let random = (self.hasher.hash(position) >> 48) as usize;
        fresh + (((full - fresh) * random) >> 16)
    }

    fn install(&mut self, first: usize, span: usize, table: &Table, extent: Extent) {
        self.buckets += table.len();
        let directory = Arc::make_mut(&mut self.directory);
        for entry in first..first + span {
            let segment = Arc::make_mut(&mut directory.segments[entry >> SEGMENT_BITS]);
            segment.tables[entry % SEGMENT] = Arc::clone(table);
            self.extents[entry] = extent;
        }
    }

    /// Doubles the directory: every entry becomes two.
    fn double(&mut self) {
        let old = &self.directory;
        let segments = (0..old.segments.len() * 2)
            .map(|segment| {
                let first = segment << SEGMENT_BITS;
                Arc::new(Segment {
                    tables: std::array::from_fn(|i| Arc::clone(old.table((first + i) / 2))),
                })
            })
            .collect();
        self.directory = Arc::new(Directory {
            segments,
            shift: old.shift - 1,
        });
        self.extents = (0..self.extents.len() * 2)
            .map(|entry| self.extents[entry / 2])
            .collect();
    }

    /// Panics if counters, depths or probe paths do not agree with what the tables hold.
    #[cfg(all(test, not(loom)))]
    pub(super) fn check(&self, mut visit: impl FnMut(u64, u32)) {
        let (mut keys, mut buckets, mut entry) = (0, 0, 0);
        while entry < self.directory.entries() {
            let (extent, span) = (self.extents[entry], self.span(entry));
            assert_eq!(self.first_entry(entry), entry);
            let table = self.directory.table(entry);
            for e in entry..entry + span {
                assert_eq!(self.extents[e].depth, extent.depth);
                assert!(Arc::ptr_eq(self.directory.table(e), table));
            }
            let mut overflow = vec![0; table.len()];
            let mut held = 0;
            for (at, bucket) in table.iter().enumerate() {
                for slot in 0..SLOTS {
                    if bucket.value(slot) == 0 {
                        continue;
                    }
                    held += 1;
                    assert_eq!(bucket.find(bucket.key(slot)), Some(slot), "first match");
                    let hash = self.hasher.hash(bucket.key(slot));
                    assert_eq!(self.first_entry(self.directory.entry(hash)), entry);
                    let mut path = Path::new(hash, table.len());
                    while path.at != at {
                        overflow[path.at] += 1;
                        path.next(hash, table.len());
                    }
                    visit(bucket.key(slot), bucket.value(slot));
                }
            }
            assert_eq!(held, extent.keys);
            for (bucket, passed) in table.iter().zip(overflow) {
                assert_eq!(bucket.overflow(), passed);
            }
            keys += held as usize;
            buckets += table.len();
            entry += span;
        }
        assert_eq!((keys, buckets), (self.keys, self.buckets));
    }
}

fn build(size: usize) -> Table {
    // As an iterator's items, buckets would be copied one by one by way of the stack: five times slower.
    #[cfg(not(loom))]
    return bytemuck::allocation::zeroed_arc_slice(size);
    #[cfg(loom)]
    (0..size).map(|_| Bucket::default()).collect()
}

/// Buckets of a table of `keys` keys that is made this full, in 1/256.
fn buckets_for(keys: usize, load: usize) -> usize {
    (keys * 256).div_ceil(SLOTS * load).max(1)
}

/// A table that no reader knows of yet, and keys are only added to.
struct Growing {
    table: Table,
    /// Slots in use of each bucket.
    used: Vec<u8>,
}

impl Growing {
    fn new(size: usize) -> Self {
        Self {
            table: build(size),
            used: vec![0; size],
        }
    }

    /// [`place`], without a look at what the buckets hold.
    #[inline]
    fn place(&mut self, key: u64, hash: u64, value: u32) {
        let mut path = Path::new(hash, self.used.len());
        while usize::from(self.used[path.at]) == SLOTS {
            self.table[path.at].pass();
            path.next(hash, self.used.len());
        }
        self.table[path.at].fill(self.used[path.at].into(), key, value);
        self.used[path.at] += 1;
    }
}

fn is_sparse(keys: usize, size: usize) -> bool {
    size > 1 && keys * 256 < size * SLOTS * SPARSE
}

/// Keys and values of a table, in the order of their buckets.
fn gather<'m>(table: &[Bucket], moving: &'m mut Vec<(u64, u32)>) -> &'m [(u64, u32)] {
    let room = table.len() * SLOTS + 1;
    if moving.len() < room {
        moving.resize(room, (0, 0));
    }
    let mut keys = 0;
    for bucket in table {
        for slot in 0..SLOTS {
            let value = bucket.value(slot);
            // Written in any case and overwritten if the slot is empty: nobody can predict which are.
            moving[keys] = (bucket.key(slot), value);
            keys += usize::from(value != 0);
        }
    }
    &moving[..keys]
}
