//! What a reader does: follow a chain of keys without a lock, and tell a stale answer from a good one.
//!
//! A [`View`] fixes which holders exist and are visible; keys are read as they are when the walk
//! reaches them. A walk takes its keys in pieces and loads all home buckets of a piece before it looks
//! at any, so that the cache misses overlap. After each piece, and after each set it has read, it asks
//! whether a set entry may have been reused since it began ([`super::spill`]); if so it takes the
//! newest directory and reads the piece again. Ids given out since the view was taken, for the first
//! time or again, are recognized by their generation and skipped.

use std::ops::ControlFlow;
use std::sync::Arc;

use kvatlas_protocol::ChunkHash;

use super::bucket::Probe;
use super::holders::{HolderId, HolderMeta};
use super::sync::Ordering;
use super::table::Directory;
use super::{Index, Snapshot};

/// Visible holders of one chunk, or of several that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Holders<'a> {
    /// Ascending by id; empty if nobody holds the chunks.
    pub ids: &'a [HolderId],
    /// The same holders as of the chunk before.
    pub unchanged: bool,
    /// How many chunks in a row these are the holders of; at least 1.
    pub chunks: u32,
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
    opened: u64,
}

impl<'i> View<'i> {
    pub(super) fn new(index: &'i Index) -> Self {
        // In this order: what is counted now is not in the snapshot any more.
        let freed = index.arena.freed.enter();
        let opened = index.opened.load(Ordering::Acquire);
        Self {
            index,
            snapshot: index.snapshot.load(),
            freed,
            opened,
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

    /// Calls `visit` with the holders of the keys in turn, until it breaks or the keys end. Keys in a
    /// row with the same holders may be shown at once; every key is shown.
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
        // A miss on an early chunk should not touch many lines, nor hash many chunks: 1, 4, 16, 64, and
        // then 64 more at a time.
        let mut flow = walk.piece::<1>(&mut keys, &mut visit);
        if flow.is_continue() {
            flow = walk.piece::<3>(&mut keys, &mut visit);
        }
        if flow.is_continue() {
            flow = walk.piece::<12>(&mut keys, &mut visit);
        }
        if flow.is_continue() {
            flow = walk.piece::<48>(&mut keys, &mut visit);
        }
        while flow.is_continue() {
            flow = walk.piece::<64>(&mut keys, &mut visit);
        }
    }

    /// Whether a holder, visible or hidden, has a key.
    pub(super) fn holds(&self, holder: HolderId, key: ChunkHash) -> bool {
        let mut walk = Walk::new(self);
        let mut value = [walk.probe_further(key.0)];
        let mut fresh = walk.confirm();
        loop {
            let holds = self.index.arena.ids(value[0]).any(|id| id == holder.0);
            if fresh && self.index.arena.freed.is_fresh(walk.freed) {
                let newest = walk.newest.as_deref();
                let holders = &self.snapshot.holders;
                return holds
                    && holders.is_open(holder.0)
                    && newest.is_none_or(|newest| newest.holders.agrees(holders, holder.0));
            }
            walk.reread(&[key.0], &mut value);
            fresh = true;
        }
    }

    /// The unbroken runs of every holder of the first key, shortest first; `keys` is followed only as
    /// far as somebody holds all of it.
    #[inline]
    pub fn runs(&self, keys: impl IntoIterator<Item = ChunkHash>, runs: &mut Vec<Run>) {
        runs.clear();
        let mut chunks = 0;
        // runs[ended..] are still unbroken, ascending by holder.
        let mut ended = 0;
        self.walk(keys, |holders| {
            if !holders.unchanged {
                if chunks == 0 {
                    let unbroken = |&holder| Run { chunks: 0, holder };
                    runs.extend(holders.ids.iter().map(unbroken));
                } else {
                    ended += end_runs(&mut runs[ended..], holders.ids, chunks);
                }
                if ended == runs.len() {
                    return ControlFlow::Break(());
                }
            }
            chunks += holders.chunks;
            ControlFlow::Continue(())
        });
        for run in &mut runs[ended..] {
            run.chunks = chunks;
        }
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
            let mut fresh = walk.confirm();
            // Sets are read before anything is shown, so that a stale part can be read again.
            let mut parts = Vec::with_capacity(slots.len());
            let mut ids = Vec::new();
            for &(key, value) in &slots {
                if walk.current != Some(value) {
                    fresh &= walk.resolve(value);
                    ids.extend_from_slice(&walk.ids);
                }
                parts.push((key, ids.len() - walk.ids.len()..ids.len()));
            }
            if !fresh {
                walk.reread(&[], &mut []);
                continue;
            }
            for (key, range) in parts {
                visit(ChunkHash(key), &ids[range]);
            }
            return next;
        }
    }
}

/// Moves the runs whose holder is not in `ids` to the front, ended at `chunks`; returns how many. The
/// others stay in order.
fn end_runs(runs: &mut [Run], ids: &[HolderId], chunks: u32) -> usize {
    let mut ids = ids.iter().rev().peekable();
    let mut unbroken = runs.len();
    for at in (0..runs.len()).rev() {
        while ids.next_if(|&&id| id > runs[at].holder).is_some() {}
        if ids.peek() == Some(&&runs[at].holder) {
            unbroken -= 1;
            runs.swap(at, unbroken);
        }
    }
    for run in &mut runs[..unbroken] {
        run.chunks = chunks;
    }
    unbroken
}

/// The state of one walk.
struct Walk<'v> {
    view: &'v View<'v>,
    /// A newer directory than the view's, once that became stale.
    fresh: Option<Arc<Snapshot>>,
    /// Count of freed words when the directory in use was taken.
    freed: u64,
    /// Newest holders, if ids were given out since the view was taken.
    newest: Option<Arc<Snapshot>>,
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
            current: None,
            ids: Vec::new(),
        }
    }

    /// Walks the next `N` keys; breaks also when there are no more.
    #[inline]
    fn piece<const N: usize>(
        &mut self,
        source: &mut impl Iterator<Item = ChunkHash>,
        visit: &mut impl FnMut(Holders<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(ChunkHash(first)) = source.next() else {
            return ControlFlow::Break(());
        };
        // All lines are asked for before any is looked at.
        let hasher = self.view.index.hasher;
        let route = self.directory().route(hasher);
        let mut keys = [first; N];
        let mut homes = [route.prefetch(first); N];
        let mut len = 1;
        for ((slot, home), ChunkHash(key)) in keys[1..].iter_mut().zip(&mut homes[1..]).zip(source)
        {
            *slot = key;
            *home = route.prefetch(key);
            len += 1;
        }
        let mut values = [0; N];
        // Bit by key: not found at home. Their second lines, too, are asked for before any is looked at.
        let mut further = 0_u64;
        for (at, (key, home)) in keys[..len].iter().zip(&homes).enumerate() {
            match home.probe(*key) {
                Probe::Found(value) => values[at] = value,
                Probe::Absent => {}
                Probe::Further | Probe::Torn => {
                    route.prefetch_second(*key);
                    further |= 1 << at;
                }
            }
        }
        while further != 0 {
            let at = further.trailing_zeros() as usize;
            values[at] = self.probe_further(keys[at]);
            further &= further - 1;
        }
        if !self.confirm() {
            self.reread(&keys[..len], &mut values);
        }
        let mut at = 0;
        while at < len {
            let unchanged = self.current == Some(values[at]);
            if !unchanged {
                while !self.resolve(values[at]) {
                    // The whole piece is read again; keys before `at` were answered already.
                    self.reread(&keys[..len], &mut values);
                }
            }
            let same = |value: &&u32| **value == values[at];
            let chunks = values[at..len].iter().take_while(same).count();
            visit(Holders {
                ids: &self.ids,
                unchanged,
                chunks: chunks as u32,
            })?;
            at += chunks;
        }
        ControlFlow::Continue(())
    }

    #[inline]
    fn directory(&self) -> &Directory {
        &self.fresh.as_ref().unwrap_or(&self.view.snapshot).directory
    }

    #[inline(never)]
    fn probe_further(&self, key: u64) -> u32 {
        let hash = self.view.index.hasher.hash(key);
        self.directory().value(key, hash).unwrap_or(0)
    }

    /// Reads a piece again with the newest directory.
    #[cold]
    fn reread(&mut self, keys: &[u64], values: &mut [u32]) {
        loop {
            self.freed = self.view.index.arena.freed.enter();
            self.fresh = Some(self.view.index.snapshot.load_full());
            self.current = None;
            for (value, &key) in values.iter_mut().zip(keys) {
                *value = self.probe_further(key);
            }
            if self.confirm() {
                return;
            }
        }
    }

    /// Makes `ids` the visible holders of a value; false if its set may have been reused.
    fn resolve(&mut self, value: u32) -> bool {
        let index = self.view.index;
        let holders = &self.view.snapshot.holders;
        let newest = self.newest.as_deref();
        self.ids.clear();
        if holders.all_live() && newest.is_none() {
            index.arena.extend(&mut self.ids, value, HolderId);
        } else {
            let is_shown = |id| {
                holders.is_live(id)
                    && newest.is_none_or(|newest| newest.holders.agrees(holders, id))
            };
            index.arena.for_each_id(value, |id| {
                if is_shown(id) {
                    self.ids.push(HolderId(id));
                }
            });
        }
        // A reused id may mean another holder in the next piece.
        self.current = self.newest.is_none().then_some(value);
        index.arena.freed.is_fresh(self.freed)
    }

    /// After values were read: false if one may name a set entry that was reused meanwhile. Also
    /// notices that ids were given out since the view was taken.
    #[inline]
    fn confirm(&mut self) -> bool {
        if self.view.index.opened.load(Ordering::Acquire) != self.view.opened {
            self.notice_opened();
        }
        self.view.index.arena.freed.is_fresh(self.freed)
    }

    #[cold]
    fn notice_opened(&mut self) {
        self.newest = Some(self.view.index.snapshot.load_full());
        self.current = None;
    }
}
