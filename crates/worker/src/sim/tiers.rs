//! One worker's storages: who is kept, who goes. Deterministic; says what changed, reports nothing.
//!
//! Each storage has room for so many chunks and drops the least recently used unless it is pinned.
//! A request's chunks are touched last to first, so that the end of a prompt goes before its
//! beginning. New chunks go to every storage; one found only in a slower storage is copied to the
//! first. `LocalCPUBackend` and `LocalDiskBackend` of LMCache behave so.
//!
//! Costs: O(log n) a chunk.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kvatlas_protocol::{ChunkHash, Location, OperationKind, Timestamp};

/// How long a pin holds, as LMCache's `pin_timeout_sec`.
pub const PIN_TIMEOUT: Duration = Duration::from_secs(300);

/// Chunks that each storage has room for; 0 leaves the storage out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// In `LocalCPUBackend`.
    pub cpu: usize,
    /// In `LocalDiskBackend`.
    pub disk: usize,
}

/// Name of the storage in main memory.
pub const CPU: &str = "LocalCPUBackend";
/// Name of the storage on disk.
pub const DISK: &str = "LocalDiskBackend";

/// A chunk and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Its hash.
    pub hash: ChunkHash,
    /// Its tokens; an int32 in every engine.
    pub tokens: u32,
}

/// A chunk came to or left a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which storage.
    pub location: Location,
    /// Came or left.
    pub kind: OperationKind,
    /// Which chunk.
    pub hash: ChunkHash,
}

/// The storages of one worker, fastest first.
#[derive(Debug)]
pub struct Tiers {
    tiers: Vec<Tier>,
    /// Rises with every touch.
    stamp: u64,
}

#[derive(Debug)]
struct Tier {
    location: Location,
    capacity: usize,
    entries: HashMap<ChunkHash, Entry>,
    /// Least recently used first.
    order: BTreeMap<u64, ChunkHash>,
}

#[derive(Debug)]
struct Entry {
    stamp: u64,
    tokens: u32,
    pinned_until: Option<Timestamp>,
    compressed: bool,
}

impl Tiers {
    /// Empty storages.
    pub fn new(capacity: Capacity) -> Self {
        let tiers = [(CPU, capacity.cpu), (DISK, capacity.disk)]
            .into_iter()
            .filter(|(_, capacity)| *capacity > 0)
            .map(|(location, capacity)| Tier {
                location: location.into(),
                capacity,
                entries: HashMap::new(),
                order: BTreeMap::new(),
            })
            .collect();
        Self { tiers, stamp: 0 }
    }

    /// The storages' names, fastest first.
    pub fn locations(&self) -> Vec<Location> {
        self.tiers
            .iter()
            .map(|tier| tier.location.clone())
            .collect()
    }

    /// Chunks held in `location`, least recently used first; `None` for no such storage.
    pub fn chunks(&self, location: &Location) -> Option<Vec<Chunk>> {
        let tier = self.tier(location)?;
        Some(
            tier.order
                .values()
                .filter_map(|&hash| tier.chunk(hash))
                .collect(),
        )
    }

    /// The prefix of `chain` held in `location`; `None` for no such storage.
    pub fn prefix(&self, location: &Location, chain: &[Chunk]) -> Option<Vec<Chunk>> {
        let tier = self.tier(location)?;
        Some(
            chain
                .iter()
                .map_while(|chunk| tier.chunk(chunk.hash))
                .collect(),
        )
    }

    /// How many chunks of `chain`, from its beginning, are held in any storage.
    pub fn hits(&self, chain: &[Chunk]) -> usize {
        chain
            .iter()
            .take_while(|chunk| self.tiers.iter().any(|tier| tier.holds(chunk.hash)))
            .count()
    }

    /// Those of `chunks` held in `location`; `None` for no such storage.
    pub fn held(&self, location: &Location, chunks: &[Chunk]) -> Option<Vec<Chunk>> {
        let tier = self.tier(location)?;
        let held = chunks.iter().filter(|chunk| tier.holds(chunk.hash));
        Some(held.copied().collect())
    }

    /// A request with these chunks is served; how many were held before, and what changed.
    pub fn serve(&mut self, chain: &[Chunk], now: Timestamp) -> (usize, Vec<Change>) {
        let hits = self.hits(chain);
        let (held, new) = chain.split_at(hits);
        let mut changes = Vec::new();
        self.touch(held);
        for &chunk in held {
            self.put(0, chunk, now, &mut changes);
        }
        for &chunk in new {
            for tier in 0..self.tiers.len() {
                self.put(tier, chunk, now, &mut changes);
            }
        }
        self.touch(chain);
        (hits, changes)
    }

    /// Chunks come from a peer; those taken, and what changed. `None` for no such storage.
    pub fn accept(
        &mut self,
        location: &Location,
        chunks: &[Chunk],
        now: Timestamp,
    ) -> Option<(Vec<Chunk>, Vec<Change>)> {
        let tier = self.position(location)?;
        let mut changes = Vec::new();
        for &chunk in chunks {
            self.put(tier, chunk, now, &mut changes);
        }
        let taken = chunks
            .iter()
            .filter(|chunk| self.tiers[tier].holds(chunk.hash))
            .copied()
            .collect();
        Some((taken, changes))
    }

    /// Drops what is not pinned; what was dropped, and what changed. `None` for no such storage.
    pub fn clear(
        &mut self,
        location: &Location,
        now: Timestamp,
    ) -> Option<(Vec<Chunk>, Vec<Change>)> {
        let chunks = self.chunks(location)?;
        self.remove(location, &chunks, now)
    }

    /// Drops those of `chunks` that are held and not pinned. `None` for no such storage.
    pub fn remove(
        &mut self,
        location: &Location,
        chunks: &[Chunk],
        now: Timestamp,
    ) -> Option<(Vec<Chunk>, Vec<Change>)> {
        let tier = self.position(location)?;
        let tier = &mut self.tiers[tier];
        let mut removed = Vec::new();
        let mut changes = Vec::new();
        for &chunk in chunks {
            if tier.is_pinned(chunk.hash, now) {
                continue;
            }
            if let Some(entry) = tier.entries.remove(&chunk.hash) {
                tier.order.remove(&entry.stamp);
                removed.push(Chunk {
                    hash: chunk.hash,
                    tokens: entry.tokens,
                });
                changes.push(tier.change(OperationKind::Evict, chunk.hash));
            }
        }
        Some((removed, changes))
    }

    /// Keeps these until [`PIN_TIMEOUT`] has passed; those that are not held are passed over.
    pub fn pin(&mut self, location: &Location, chunks: &[Chunk], now: Timestamp) {
        self.each(location, chunks, |entry| {
            entry.pinned_until = Some(now + PIN_TIMEOUT);
        });
    }

    /// Marks these as compressed or not; how many tokens changed their state.
    pub fn compress(&mut self, location: &Location, chunks: &[Chunk], compressed: bool) -> u64 {
        let mut tokens = 0;
        self.each(location, chunks, |entry| {
            if entry.compressed != compressed {
                entry.compressed = compressed;
                tokens += u64::from(entry.tokens);
            }
        });
        tokens
    }

    fn each(&mut self, location: &Location, chunks: &[Chunk], mut act: impl FnMut(&mut Entry)) {
        if let Some(tier) = self.position(location) {
            for chunk in chunks {
                if let Some(entry) = self.tiers[tier].entries.get_mut(&chunk.hash) {
                    act(entry);
                }
            }
        }
    }

    /// Last to first, so that the first chunk is the most recently used.
    fn touch(&mut self, chain: &[Chunk]) {
        for chunk in chain.iter().rev() {
            self.stamp += 1;
            for tier in &mut self.tiers {
                tier.touch(chunk.hash, self.stamp);
            }
        }
    }

    fn put(&mut self, tier: usize, chunk: Chunk, now: Timestamp, changes: &mut Vec<Change>) {
        let Some(tier) = self.tiers.get_mut(tier) else {
            return;
        };
        if tier.holds(chunk.hash) {
            return;
        }
        while tier.entries.len() >= tier.capacity {
            match tier.evict(&mut self.stamp, now) {
                Some(hash) => changes.push(tier.change(OperationKind::Evict, hash)),
                // Everything is pinned: the chunk is not kept.
                None => return,
            }
        }
        self.stamp += 1;
        tier.order.insert(self.stamp, chunk.hash);
        tier.entries.insert(
            chunk.hash,
            Entry {
                stamp: self.stamp,
                tokens: chunk.tokens,
                pinned_until: None,
                compressed: false,
            },
        );
        changes.push(tier.change(OperationKind::Admit, chunk.hash));
    }

    fn tier(&self, location: &Location) -> Option<&Tier> {
        self.tiers.iter().find(|tier| tier.location == *location)
    }

    fn position(&self, location: &Location) -> Option<usize> {
        self.tiers
            .iter()
            .position(|tier| tier.location == *location)
    }
}

impl Tier {
    fn holds(&self, hash: ChunkHash) -> bool {
        self.entries.contains_key(&hash)
    }

    fn chunk(&self, hash: ChunkHash) -> Option<Chunk> {
        self.entries.get(&hash).map(|entry| Chunk {
            hash,
            tokens: entry.tokens,
        })
    }

    fn is_pinned(&self, hash: ChunkHash, now: Timestamp) -> bool {
        self.entries
            .get(&hash)
            .and_then(|entry| entry.pinned_until)
            .is_some_and(|until| until > now)
    }

    fn touch(&mut self, hash: ChunkHash, stamp: u64) {
        if let Some(entry) = self.entries.get_mut(&hash) {
            self.order.remove(&entry.stamp);
            entry.stamp = stamp;
            self.order.insert(stamp, hash);
        }
    }

    /// Drops the least recently used that is not pinned. A pinned one that is met counts as used,
    /// so that it is not met again with every eviction.
    fn evict(&mut self, stamp: &mut u64, now: Timestamp) -> Option<ChunkHash> {
        for _ in 0..self.entries.len() {
            let (_, &hash) = self.order.first_key_value()?;
            if self.is_pinned(hash, now) {
                *stamp += 1;
                self.touch(hash, *stamp);
                continue;
            }
            self.order.pop_first();
            self.entries.remove(&hash);
            return Some(hash);
        }
        None
    }

    fn change(&self, kind: OperationKind, hash: ChunkHash) -> Change {
        Change {
            location: self.location.clone(),
            kind,
            hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const T0: Timestamp = Timestamp(0);

    fn chain(hashes: impl IntoIterator<Item = u64>) -> Vec<Chunk> {
        hashes
            .into_iter()
            .map(|hash| Chunk {
                hash: ChunkHash(hash),
                tokens: 256,
            })
            .collect()
    }

    fn held(tiers: &Tiers, location: &str) -> Vec<u64> {
        tiers
            .chunks(&location.into())
            .unwrap()
            .iter()
            .map(|chunk| chunk.hash.0)
            .collect()
    }

    fn tiers(cpu: usize, disk: usize) -> Tiers {
        Tiers::new(Capacity { cpu, disk })
    }

    #[test]
    fn the_end_of_the_oldest_prompt_goes_first() {
        let mut tiers = tiers(5, 0);
        assert_eq!(tiers.serve(&chain([1, 2, 3]), T0).0, 0);
        tiers.serve(&chain([10, 11]), T0);
        let (hits, changes) = tiers.serve(&chain([20]), T0);
        assert_eq!(hits, 0);
        assert_eq!(
            changes
                .iter()
                .map(|change| (change.kind, change.hash.0))
                .collect::<Vec<_>>(),
            [(OperationKind::Evict, 3), (OperationKind::Admit, 20)]
        );
        assert_eq!(tiers.serve(&chain([1, 2, 3]), T0).0, 2);
    }

    #[test]
    fn what_only_the_disk_holds_comes_back_to_memory() {
        let mut tiers = tiers(2, 10);
        tiers.serve(&chain([1, 2]), T0);
        tiers.serve(&chain([3, 4]), T0);
        assert_eq!(held(&tiers, CPU), [4, 3]);
        let (hits, changes) = tiers.serve(&chain([1, 2]), T0);
        assert_eq!(hits, 2);
        assert!(changes.iter().all(|change| change.location.as_str() == CPU));
        assert_eq!(held(&tiers, CPU), [2, 1]);
        assert_eq!(held(&tiers, DISK).len(), 4);
    }

    #[test]
    fn pins_outlast_eviction_and_clear_until_they_run_out() {
        let mut tiers = tiers(3, 0);
        tiers.serve(&chain([1, 2]), T0);
        let cpu = Location::from(CPU);
        tiers.pin(&cpu, &chain([1, 2]), T0);
        for n in 10..20 {
            tiers.serve(&chain([n]), T0);
        }
        let prefix = tiers.prefix(&cpu, &chain([1, 2, 3])).unwrap();
        assert_eq!(prefix, chain([1, 2]));
        let (dropped, changes) = tiers.clear(&cpu, T0).unwrap();
        assert_eq!((dropped, changes.len()), (chain([19]), 1));
        tiers.pin(&cpu, &chain([1]), T0);
        let later = T0 + PIN_TIMEOUT;
        assert_eq!(tiers.clear(&cpu, later).unwrap().0.len(), 2);
    }

    #[test]
    fn nothing_is_kept_where_everything_is_pinned() {
        let mut tiers = tiers(2, 0);
        tiers.serve(&chain([1, 2]), T0);
        tiers.pin(&CPU.into(), &chain([1, 2]), T0);
        let (_, changes) = tiers.serve(&chain([3]), T0);
        assert!(changes.is_empty());
        let (taken, _) = tiers.accept(&CPU.into(), &chain([2, 4]), T0).unwrap();
        assert_eq!(taken, chain([2]), "held already counts as taken");
    }

    #[test]
    fn compression_counts_each_chunk_once() {
        let mut tiers = tiers(5, 0);
        let cpu = Location::from(CPU);
        tiers.serve(&chain([1, 2]), T0);
        assert_eq!(tiers.compress(&cpu, &chain([1, 2, 3]), true), 512);
        assert_eq!(tiers.compress(&cpu, &chain([1, 2, 3]), true), 0);
        assert_eq!(tiers.compress(&cpu, &chain([1]), false), 256);
        assert!(tiers.chunks(&"tape".into()).is_none());
    }

    proptest! {
        /// What the changes say is what is held, and no storage outgrows its room.
        #[test]
        fn changes_add_up_to_what_is_held(
            requests in proptest::collection::vec((0_u64..6, 1_u64..12, 0_u8..4), 1..60),
            cpu in 1_usize..8,
            disk in 0_usize..20,
        ) {
            let mut tiers = tiers(cpu, disk);
            let mut told: HashSet<(String, u64)> = HashSet::new();
            for (family, length, what) in requests {
                let request = chain((0..length).map(|n| family * 100 + n));
                let cpu_location = Location::from(CPU);
                let changes = match what {
                    0 => tiers.clear(&cpu_location, T0).unwrap().1,
                    1 => {
                        tiers.pin(&cpu_location, &request[..1], T0);
                        Vec::new()
                    }
                    _ => tiers.serve(&request, T0).1,
                };
                for change in changes {
                    let key = (change.location.to_string(), change.hash.0);
                    let new = match change.kind {
                        OperationKind::Admit => told.insert(key),
                        OperationKind::Evict => told.remove(&key),
                    };
                    prop_assert!(new, "told twice");
                }
                let mut all = HashSet::new();
                for location in tiers.locations() {
                    let keys = held(&tiers, location.as_str());
                    let room = if location.as_str() == CPU { cpu } else { disk };
                    prop_assert!(keys.len() <= room);
                    all.extend(keys.into_iter().map(|key| (location.to_string(), key)));
                }
                prop_assert_eq!(&all, &told);
            }
        }
    }
}
