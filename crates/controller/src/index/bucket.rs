//! One cache line of the table: five keys, their five values and a sequence word.
//!
//! ```text
//! | key 0..5, 8 B each | value 0..5, 4 B each | meta: sequence 24 bits, overflow 8 bits |  = 64 B
//! ```
//! Value 0 is an empty slot, so that every 64-bit key is legal. A key never moves between slots while
//! its table lives, hence only one thing can fool a reader: a slot that changes its key between the
//! reader's look at the key and at the value. Writing a key therefore makes the sequence odd and then
//! even again; readers compare it before and after. Changing the value of a key that stays, or emptying
//! a slot, is one store and needs no sequence.
//!
//! An emptied slot keeps its key, so that a key may stand in several slots. A new key goes to the first
//! empty slot, hence no emptied slot before the full one has the same key: the first match decides.
//!
//! `overflow` counts the keys that passed by this bucket on the way from their home bucket to the one
//! that had room. Zero ends a search; 255 sticks until the table is rebuilt.
//!
//! One writer at a time (the index's lock), any number of readers, no read-modify-write.
//! The sequence wraps after 2^23 insertions into this one bucket: a reader would have to sleep through
//! exactly that many between two loads of one probe.

use std::hint::select_unpredictable;

use super::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Slots in one bucket: as many as fit a 64-byte line.
pub(super) const SLOTS: usize = 5;

const OVERFLOW: u32 = 0xff;
const ODD: u32 = 0x100;

/// See the module's text.
#[repr(C, align(64))]
#[derive(Default)]
#[cfg_attr(not(loom), derive(bytemuck::Zeroable))]
pub(super) struct Bucket {
    keys: [AtomicU64; SLOTS],
    values: [AtomicU32; SLOTS],
    meta: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64);

/// What a reader learned from one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// The key's value; never 0.
    Found(u32),
    /// The key is not in the table.
    Absent,
    /// Not here, but it may have found room further on.
    Further,
    /// The bucket was written meanwhile: look again.
    Torn,
}

impl Bucket {
    /// Looks for `key` in this bucket.
    #[inline]
    pub(super) fn probe(&self, key: u64) -> Probe {
        let entered = self.meta.load(Ordering::Acquire);
        // The first slot with the key wins. Without branches: mispredictions would cost more than five
        // compares.
        let mut value = 0;
        for (stored, held) in self.keys.iter().zip(&self.values).rev() {
            let is_key = stored.load(Ordering::Relaxed) == key;
            value = select_unpredictable(is_key, held.load(Ordering::Acquire), value);
        }
        fence(Ordering::Acquire);
        if entered & ODD != 0 || self.meta.load(Ordering::Relaxed) != entered {
            Probe::Torn
        } else if value != 0 {
            Probe::Found(value)
        } else if entered & OVERFLOW == 0 {
            Probe::Absent
        } else {
            Probe::Further
        }
    }

    /// Every key and value of the bucket at one moment, or `None` if it was written meanwhile.
    pub(super) fn copy(&self) -> Option<[(u64, u32); SLOTS]> {
        let entered = self.meta.load(Ordering::Acquire);
        let mut slots = [(0, 0); SLOTS];
        for (slot, copy) in slots.iter_mut().enumerate() {
            *copy = (
                self.keys[slot].load(Ordering::Relaxed),
                self.values[slot].load(Ordering::Acquire),
            );
        }
        fence(Ordering::Acquire);
        (entered & ODD == 0 && self.meta.load(Ordering::Relaxed) == entered).then_some(slots)
    }

    /// The slot that holds `key`. Writer only.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Option<usize> {
        let first = self.matches(key).trailing_zeros() as usize;
        (first < SLOTS && self.value(first) != 0).then_some(first)
    }

    /// The first empty slot, where a new key must go. Writer only.
    #[inline]
    pub(super) fn vacancy(&self) -> Option<usize> {
        // Without branches, as in `probe`: which slot it is nobody can predict.
        let mut empty = 0;
        for slot in 0..SLOTS {
            empty |= u32::from(self.value(slot) == 0) << slot;
        }
        let first = empty.trailing_zeros() as usize;
        (first < SLOTS).then_some(first)
    }

    /// Puts a key into an empty slot of a bucket that no reader knows of.
    #[inline]
    pub(super) fn fill(&self, slot: usize, key: u64, value: u32) {
        self.keys[slot].store(key, Ordering::Relaxed);
        self.values[slot].store(value, Ordering::Relaxed);
    }

    /// Puts a key into an empty slot. Writer only.
    #[inline]
    pub(super) fn insert(&self, slot: usize, key: u64, value: u32) {
        let meta = self.meta.load(Ordering::Relaxed);
        self.meta.store(meta ^ ODD, Ordering::Relaxed);
        fence(Ordering::Release);
        self.keys[slot].store(key, Ordering::Relaxed);
        self.values[slot].store(value, Ordering::Release);
        self.meta
            .store((meta ^ ODD).wrapping_add(ODD), Ordering::Release);
    }

    /// Replaces the value of a key that stays (or empties the slot with 0). Writer only.
    #[inline]
    pub(super) fn replace(&self, slot: usize, value: u32) {
        self.values[slot].store(value, Ordering::Release);
    }

    /// The value in `slot`. Writer only.
    #[inline]
    pub(super) fn value(&self, slot: usize) -> u32 {
        self.values[slot].load(Ordering::Relaxed)
    }

    /// The key in `slot`, meaningful if its value is not 0. Writer only.
    #[inline]
    pub(super) fn key(&self, slot: usize) -> u64 {
        self.keys[slot].load(Ordering::Relaxed)
    }

    /// Whether some key passed by. Writer only.
    #[inline]
    pub(super) fn overflows(&self) -> bool {
        self.overflow() != 0
    }

    /// Whether a key may have to pass by, or has. A guess: not all slots are looked at. Writer only.
    #[inline]
    pub(super) fn looks_full(&self) -> bool {
        (self.value(SLOTS - 1) != 0) | self.overflows()
    }

    /// Number of keys that passed by; 255 means "255 or more, once". Writer only.
    pub(super) fn overflow(&self) -> u32 {
        self.meta.load(Ordering::Relaxed) & OVERFLOW
    }

    /// A key passes by. Writer only.
    pub(super) fn pass(&self) {
        let meta = self.meta.load(Ordering::Relaxed);
        if meta & OVERFLOW != OVERFLOW {
            self.meta.store(meta + 1, Ordering::Release);
        }
    }

    /// A key that had passed by is gone. Writer only.
    pub(super) fn unpass(&self) {
        let meta = self.meta.load(Ordering::Relaxed);
        if meta & OVERFLOW != OVERFLOW {
            debug_assert_ne!(meta & OVERFLOW, 0, "as many leave as passed");
            self.meta.store(meta - 1, Ordering::Release);
        }
    }

    /// One bit per slot whose key equals `key`, empty slots included.
    #[inline]
    fn matches(&self, key: u64) -> u32 {
        let mut hits = 0;
        for (slot, stored) in self.keys.iter().enumerate() {
            hits |= u32::from(stored.load(Ordering::Relaxed) == key) << slot;
        }
        hits
    }
}
