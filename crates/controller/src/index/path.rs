//! The way of a key through one table: home bucket, second bucket, and the ones that follow.
//!
//! A key sits in the first bucket of its way that had room. Those before count it (`overflow`), so that a
//! search ends at the first bucket that nobody passed. A key whose home is full goes to a second bucket
//! that other hash bits choose: next to a full bucket it would make full stretches longer, and every key
//! that comes to one of those has to pass all of it.
//!
//! Knows neither directory nor growth; takes no lock. Readers call [`value`], the writer the others.

use super::bucket::{Bucket, Probe};

/// Home bucket in a table of `n`.
#[inline]
pub(super) fn home(hash: u64, n: usize) -> usize {
    ((hash & 0xffff_ffff) as usize * n) >> 32
}

/// Where a key goes that finds its home bucket full: far from it, or full neighborhoods would grow
/// together. Low hash bits, which `home` has least use for.
#[inline]
pub(super) fn second(hash: u64, n: usize) -> usize {
    ((hash as u32).rotate_left(16) as usize * n) >> 32
}

/// The buckets of a table of `n` in the order in which a key is looked for: home, second, and from there
/// one after the other.
#[derive(Clone, Copy)]
pub(super) struct Path {
    pub(super) at: usize,
    is_home: bool,
}

impl Path {
    #[inline]
    pub(super) fn new(hash: u64, n: usize) -> Self {
        Self {
            at: home(hash, n),
            is_home: true,
        }
    }

    #[inline]
    pub(super) fn next(&mut self, hash: u64, n: usize) {
        self.at = if self.is_home {
            second(hash, n)
        } else if self.at + 1 == n {
            0
        } else {
            self.at + 1
        };
        self.is_home = false;
    }
}

/// Where a key sits, for the writer.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) bucket: usize,
    pub(super) slot: usize,
    /// Its value.
    pub(super) value: u32,
}

/// The value of `key`, probing as far as needed. Lock-free: retries only while the very bucket it looks at
/// is being written.
pub(super) fn value(table: &[Bucket], key: u64, hash: u64) -> Option<u32> {
    let mut path = Path::new(hash, table.len());
    let mut seen = 0;
    while seen <= table.len() {
        match table[path.at].probe(key) {
            Probe::Found(value) => return Some(value),
            Probe::Absent => return None,
            Probe::Further => {
                path.next(hash, table.len());
                seen += 1;
            }
            Probe::Torn => std::hint::spin_loop(),
        }
    }
    None
}

/// Where `key` sits. Writer only.
#[inline]
pub(super) fn find(table: &[Bucket], key: u64, hash: u64) -> Option<Place> {
    let home = home(hash, table.len());
    match table[home].find(key) {
        Some(slot) => Some(place_at(table, home, slot)),
        None if table[home].overflows() => find_further(table, key, hash),
        None => None,
    }
}

#[inline]
fn place_at(table: &[Bucket], bucket: usize, slot: usize) -> Place {
    Place {
        bucket,
        slot,
        value: table[bucket].value(slot),
    }
}

/// Where a key sits that is not in its home bucket.
#[inline(never)]
fn find_further(table: &[Bucket], key: u64, hash: u64) -> Option<Place> {
    let mut path = Path::new(hash, table.len());
    for _ in 0..table.len() {
        path.next(hash, table.len());
        let bucket = &table[path.at];
        if let Some(slot) = bucket.find(key) {
            return Some(place_at(table, path.at, slot));
        }
        if !bucket.overflows() {
            return None;
        }
    }
    None
}

/// Puts a key into the first bucket with room. The load limit guarantees one.
#[inline]
pub(super) fn place(table: &[Bucket], key: u64, hash: u64, value: u32) {
    let home = &table[home(hash, table.len())];
    match home.vacancy() {
        Some(slot) => home.insert(slot, key, value),
        None => place_further(table, key, hash, value),
    }
}

#[inline(never)]
fn place_further(table: &[Bucket], key: u64, hash: u64, value: u32) {
    let mut path = Path::new(hash, table.len());
    loop {
        table[path.at].pass();
        path.next(hash, table.len());
        let bucket = &table[path.at];
        if let Some(slot) = bucket.vacancy() {
            return bucket.insert(slot, key, value);
        }
    }
}

/// Forgets that a key with this hash, now gone from bucket `last`, had passed the buckets before.
#[inline]
pub(super) fn unpass(table: &[Bucket], hash: u64, last: usize) {
    let mut path = Path::new(hash, table.len());
    while path.at != last {
        table[path.at].unpass();
        path.next(hash, table.len());
    }
}
