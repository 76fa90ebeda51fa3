//! What a reader does: follow a chain of keys without a lock, and tell a stale answer from a good one.
//!
//! A [`View`] fixes which holders exist and are visible; keys are read as they are when the walk
//! reaches them. A walk takes its keys in pieces and loads all home buckets of a piece before it looks
//! at any, so that the cache misses overlap. After each piece, and after each set it has read, it asks
//! whether a set entry may have been reused since it began ([`super::spill`]); if so it takes the
//! newest directory and reads the piece again. Ids recycled since the view was taken are recognized by
//! their generation and skipped.

use std::ops::ControlFlow;
use std::sync::Arc;

use kvatlas_protocol::ChunkHash;

use super::bucket::{Bucket, Probe};
use super::holders::{HolderId, HolderMeta};
use super::sync::Ordering;
use super::table::Directory;
use super::{Index, Snapshot};

/// Keys whose buckets are loaded together, at most.
const PIECE: usize = 64;
/// First piece: a miss on the first chunk should not touch many lines.
const FIRST_PIECE: usize = 4;

/// Visible holders of one chunk.
#[derive(Clone, Copy, Debug)]
pub struct Holders<'a> {
    /// Ascending by id; empty if nobody holds the chunk.
    pub ids: &'a [HolderId],
    /// The same holders as of the chunk before.
    pub unchanged: bool,
}

/// How far one holder's unbroken run from the first key reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// Keys in the run; at least 1.
    pub chunks: u32,
    /// Who holds them.
    pub holder: HolderId,
}

/// One lookup's picture of the index.
pub struct View<'i> {
    index: &'i Index,
    snapshot: arc_swap::Guard<Arc<Snapshot>>,
    freed: u64,
    recycled: u64,
}

impl<'i> View<'i> {
    pub(super) fn new(index: &'i Index) -> Self {
        // In this order: what is counted now is not in the snapshot any more.
        let freed = index.arena.enter();
        let recycled = index.recycled.load(Ordering::Acquire);
        Self {
            index,
            snapshot: index.snapshot.load(),
            freed,
            recycled,
        }
    }

    /// What the caller attached to a holder that this view has shown.
    pub fn holder(&self, id: HolderId) -> HolderMeta {
        self.snapshot
            .holders
            .meta(id.0)
            .copied()
            .unwrap_or_default()
    }

    /// Calls `visit` with the holders of each key in turn, until it breaks or the keys end.
    ///
    /// Keys are taken from the iterator in growing pieces, at most 64 ahead of `visit`.
    #[inline]
    pub fn walk(
        &self,
        keys: impl IntoIterator<Item = ChunkHash>,
        mut visit: impl FnMut(Holders<'_>) -> ControlFlow<()>,
    ) {
        let mut keys = keys.into_iter();
        let mut walk = Walk::new(self);
        let mut size = FIRST_PIECE;
        loop {
            let mut len = 0;
            for (slot, key) in walk.keys[..size].iter_mut().zip(keys.by_ref()) {
                *slot = key.0;
                len += 1;
            }
            if len == 0 {
                return;
            }
            walk.gather(len);
            for at in 0..len {
                let unchanged = walk.advance(at, len);
                let holders = Holders {
                    ids: &walk.ids,
                    unchanged,
                };
                if visit(holders).is_break() {
                    return;
                }
            }
            size = (size * 4).min(PIECE);
        }
    }

    /// The unbroken runs of every holder of the first key, shortest first; `keys` is followed only as
    /// far as somebody holds all of it.
    pub fn runs(&self, keys: impl IntoIterator<Item = ChunkHash>, runs: &mut Vec<Run>) {
        runs.clear();
        let mut active: Vec<HolderId> = Vec::new();
        let mut chunks = 0;
        self.walk(keys, |holders| {
            if !holders.unchanged {
                if chunks == 0 {
                    active.extend_from_slice(holders.ids);
                } else {
                    let mut ids = holders.ids.iter().copied().peekable();
                    active.retain(|&holder| {
                        while ids.next_if(|&id| id < holder).is_some() {}
                        let stays = ids.peek() == Some(&holder);
                        if !stays {
                            runs.push(Run { chunks, holder });
                        }
                        stays
                    });
                }
                if active.is_empty() {
                    return ControlFlow::Break(());
                }
            }
            chunks += 1;
            ControlFlow::Continue(())
        });
        runs.extend(active.into_iter().map(|holder| Run { chunks, holder }));
    }

    /// Calls `visit` with every key of one part of the hash space and its visible holders, and returns
    /// where to go on, or `None` at the end. Start from 0; use a fresh view for each part.
    pub fn export(&self, from: u64, mut visit: impl FnMut(ChunkHash, &[HolderId])) -> Option<u64> {
        let mut walk = Walk::new(self);
        loop {
            let mut slots = Vec::new();
            let next = walk
                .directory()
                .scan(from, |key, value| slots.push((key, value)));
            walk.confirm_ids();
            // Sets are read before anything is shown, so that a stale part can be read again.
            let mut parts = Vec::with_capacity(slots.len());
            let mut ids = Vec::new();
            for &(key, value) in &slots {
                if walk.current != Some(value) {
                    walk.resolve(value);
                    ids.extend_from_slice(&walk.ids);
                }
                parts.push((key, ids.len() - walk.ids.len()..ids.len()));
            }
            if !self.index.arena.is_fresh(walk.freed) {
                walk.restart();
                continue;
            }
            for (key, range) in parts {
                visit(ChunkHash(key), &ids[range]);
            }
            return next;
        }
    }
}

/// The state of one walk.
struct Walk<'v> {
    view: &'v View<'v>,
    /// A newer directory than the view's, once that became stale.
    fresh: Option<Arc<Snapshot>>,
    /// Count of freed words when the directory in use was taken.
    freed: u64,
    /// Newest holders, if ids were recycled since the view was taken.
    newest: Option<Arc<Snapshot>>,
    keys: [u64; PIECE],
    values: [u32; PIECE],
    /// The value `ids` was read for.
    current: Option<u32>,
    ids: Vec<HolderId>,
}

impl<'v> Walk<'v> {
    #[inline]
    fn new(view: &'v View<'v>) -> Self {
        Self {
            view,
            fresh: None,
            freed: view.freed,
            newest: None,
            keys: [0; PIECE],
            values: [0; PIECE],
            current: None,
            ids: Vec::new(),
        }
    }

    fn directory(&self) -> &Directory {
        &self.fresh.as_ref().unwrap_or(&self.view.snapshot).directory
    }

    /// Reads the values of the first `len` keys, at moments between which no set entry was reused.
    #[inline]
    fn gather(&mut self, len: usize) {
        loop {
            let hasher = self.view.index.hasher;
            let directory = &self.fresh.as_ref().unwrap_or(&self.view.snapshot).directory;
            let mut buckets: [Option<(&Bucket, u32)>; PIECE] = [None; PIECE];
            for (slot, &key) in buckets.iter_mut().zip(&self.keys[..len]) {
                let bucket = directory.home(hasher.hash(key));
                *slot = Some((bucket, bucket.enter()));
            }
            for ((value, &key), bucket) in self.values.iter_mut().zip(&self.keys).zip(buckets) {
                let Some((bucket, entered)) = bucket else {
                    break;
                };
                *value = match bucket.probe(key, entered) {
                    Probe::Found(value) => value,
                    Probe::Absent => 0,
                    Probe::Further | Probe::Torn => {
                        directory.value(key, hasher.hash(key)).unwrap_or(0)
                    }
                };
            }
            self.confirm_ids();
            if self.view.index.arena.is_fresh(self.freed) {
                return;
            }
            self.restart();
        }
    }

    /// Makes `ids` the visible holders of key `at` of `len`; true if they are those of the key before.
    #[inline]
    fn advance(&mut self, at: usize, len: usize) -> bool {
        if self.current == Some(self.values[at]) {
            return true;
        }
        loop {
            self.resolve(self.values[at]);
            if self.view.index.arena.is_fresh(self.freed) {
                return false;
            }
            // The whole piece is read again; keys before `at` were answered already.
            self.restart();
            self.gather(len);
        }
    }

    fn resolve(&mut self, value: u32) {
        let holders = &self.view.snapshot.holders;
        let newest = self.newest.as_deref();
        self.ids.clear();
        self.ids.extend(
            self.view
                .index
                .arena
                .ids(value)
                .filter(|&id| holders.is_live(id))
                .filter(|&id| newest.is_none_or(|newest| newest.holders.agrees(holders, id)))
                .map(HolderId),
        );
        // A recycled id may mean another holder in the next piece.
        self.current = self.newest.is_none().then_some(value);
    }

    /// After values were read: were ids recycled since the view was taken?
    #[inline]
    fn confirm_ids(&mut self) {
        if self.view.index.recycled.load(Ordering::Acquire) != self.view.recycled {
            self.newest = Some(self.view.index.snapshot.load_full());
            self.current = None;
        }
    }

    #[cold]
    fn restart(&mut self) {
        self.freed = self.view.index.arena.enter();
        self.fresh = Some(self.view.index.snapshot.load_full());
        self.current = None;
    }
}
