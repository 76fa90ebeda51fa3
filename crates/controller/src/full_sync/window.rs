//! What a worker did around the moment it listed its keys: the last thing done to each key.
//!
//! Opens when the worker is asked to sync, because its list is made between the question and Start,
//! and lives until the session ends. A listed key whose last operation here is an evict is gone; an
//! admitted key is held although the list may lack it.
//!
//! **Invariant**: at most [`MAX_REMEMBERED`] keys; beyond it says so instead of growing.

use std::collections::HashMap;

use kvatlas_protocol::{ChunkHash, Operation, OperationKind};

use crate::restore::WindowRecord;

/// Most keys remembered (about 5 MB): more than a frozen worker ever changes during a sync.
pub(crate) const MAX_REMEMBERED: usize = 1 << 18;

/// The last operation on each key since the window opened.
#[derive(Debug, Default)]
pub(crate) struct Window {
    last: HashMap<ChunkHash, OperationKind>,
    doubtful: bool,
}

impl Window {
    /// Remembers what these operations did last to each key.
    pub(crate) fn note(&mut self, operations: &[Operation]) {
        for operation in operations {
            if self.last.len() < MAX_REMEMBERED || self.last.contains_key(&operation.hash) {
                self.last.insert(operation.hash, operation.kind);
            } else {
                self.doubtful = true;
            }
        }
    }

    /// As [`Self::note`], once admits go into the new set directly: only evictions are remembered.
    pub(crate) fn note_evictions(&mut self, operations: &[Operation]) {
        for operation in operations {
            match operation.kind {
                OperationKind::Admit => {
                    self.last.remove(&operation.hash);
                }
                OperationKind::Evict => self.note(std::slice::from_ref(operation)),
            }
        }
    }

    /// Operations were lost meanwhile: what is remembered may not be the last that happened.
    pub(crate) fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// Forgets the admits, which the new set now holds, and returns them.
    pub(crate) fn take_admitted(&mut self) -> Vec<ChunkHash> {
        let mut admitted = Vec::new();
        self.last.retain(|&hash, &mut kind| {
            if kind == OperationKind::Admit {
                admitted.push(hash);
            }
            kind == OperationKind::Evict
        });
        admitted
    }

    /// Whether the last thing done to `hash` was to evict it.
    pub(crate) fn evicted(&self, hash: ChunkHash) -> bool {
        self.last.get(&hash) == Some(&OperationKind::Evict)
    }

    /// The window as a snapshot keeps it.
    pub(crate) fn record(&self) -> WindowRecord {
        WindowRecord {
            doubtful: self.is_doubtful(),
            last: self
                .last
                .iter()
                .map(|(&hash, &kind)| (hash, kind))
                .collect(),
        }
    }

    /// A window as a snapshot kept it.
    pub(crate) fn restored(record: WindowRecord) -> Self {
        let WindowRecord { doubtful, last } = record;
        Self {
            last: last.into_iter().collect(),
            doubtful,
        }
    }

    /// Nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// Some operation was lost, or too much to remember.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful
    }
}

#[cfg(test)]
mod tests {
    use kvatlas_protocol::SeqNum;

    use super::*;

    fn operation(kind: OperationKind, hash: u64) -> Operation {
        Operation {
            kind,
            hash: ChunkHash(hash),
            seq: SeqNum(0),
        }
    }

    #[test]
    fn the_last_operation_on_a_key_counts() {
        let mut w = Window::default();
        w.note(&[
            operation(OperationKind::Evict, 1),
            operation(OperationKind::Admit, 2),
            operation(OperationKind::Evict, 3),
            operation(OperationKind::Admit, 3),
        ]);
        assert!(w.evicted(ChunkHash(1)) && !w.evicted(ChunkHash(3)));
        let mut admitted = w.take_admitted();
        admitted.sort();
        assert_eq!(admitted, [ChunkHash(2), ChunkHash(3)]);
        assert!(w.evicted(ChunkHash(1)));
    }

    #[test]
    fn memory_is_bounded_and_says_so() {
        let mut w = Window::default();
        for hash in 0..=MAX_REMEMBERED as u64 {
            assert!(!w.is_doubtful());
            w.note(&[operation(OperationKind::Evict, hash)]);
        }
        assert!(w.is_doubtful());
        assert_eq!(w.last.len(), MAX_REMEMBERED);
    }
}
