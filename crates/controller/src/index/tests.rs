//! Tests of the index through its public face, each step followed by `check_invariants`.
//!
//! Tables of at most 8 buckets and segments of 4 entries (see `cfg!(test)` in [`super::table`]) and a
//! short quarantine make splits, doublings, reuse of sets and of ids happen in small cases.

#![allow(clippy::unwrap_used)]

mod concurrent;
mod model;

use std::ops::ControlFlow;

use kvatlas_protocol::{ChunkHash, Operation, OperationKind, SeqNum};

use super::{Applied, HolderId, HolderMeta, Index, Run};

fn admit(key: u64) -> Operation {
    Operation {
        kind: OperationKind::Admit,
        hash: ChunkHash(key),
        seq: SeqNum(0),
    }
}

fn evict(key: u64) -> Operation {
    Operation {
        kind: OperationKind::Evict,
        hash: ChunkHash(key),
        seq: SeqNum(0),
    }
}

fn open(index: &Index) -> HolderId {
    index.open_holder(HolderMeta::default(), true).unwrap()
}

fn holders(index: &Index, key: u64) -> Vec<HolderId> {
    let mut found = Vec::new();
    index.view().walk([ChunkHash(key)], |holders| {
        found.extend_from_slice(holders.ids);
        ControlFlow::Continue(())
    });
    found
}

fn sweep(index: &Index) {
    while index.sweep_step(64).remaining > 0 {
        index.check_invariants();
    }
}

#[test]
fn room_made_in_advance_changes_nothing_else() {
    for keys in [0, 1, 500, 5000] {
        let index = Index::new(3);
        index.reserve(keys);
        let holder = index.open_holder(HolderMeta::default(), true).unwrap();
        let hashes: Vec<_> = (0..1000).map(ChunkHash).collect();
        assert_eq!(index.admit(holder, &hashes).added, 1000);
        index.check_invariants();
        index.reserve(100_000);
        assert_eq!(index.count(holder), 1000);
        index.check_invariants();
    }
}

#[test]
fn every_64_bit_key_is_legal() {
    let index = Index::new(7);
    let holder = open(&index);
    for key in [0, 1, u64::MAX, 1 << 63] {
        assert_eq!(holders(&index, key), []);
        let admitted = index.apply(holder, &[admit(key), admit(key)]);
        assert_eq!(
            admitted,
            Applied {
                added: 1,
                removed: 0
            }
        );
        assert_eq!(holders(&index, key), [holder]);
        assert!(index.contains(holder, ChunkHash(key)));
    }
    assert_eq!(index.count(holder), 4);
    let removed = index.apply(holder, &[evict(0), evict(0), evict(5)]);
    assert_eq!(
        removed,
        Applied {
            added: 0,
            removed: 1
        }
    );
    assert_eq!(holders(&index, 0), []);
    index.check_invariants();
}

#[test]
fn operations_of_a_batch_apply_in_order() {
    let index = Index::new(7);
    let holder = open(&index);
    index.apply(holder, &[admit(1), evict(1), evict(2), admit(2)]);
    assert_eq!(holders(&index, 1), []);
    assert_eq!(holders(&index, 2), [holder]);
}

#[test]
fn a_set_grows_to_thousands_and_shrinks_back() {
    let index = Index::new(7);
    let all: Vec<HolderId> = (0..3000).map(|_| open(&index)).collect();
    for &holder in &all {
        index.apply(holder, &(0..8).map(admit).collect::<Vec<_>>());
    }
    assert_eq!(holders(&index, 3), all);
    assert_eq!(index.totals().sets, 1);
    index.check_invariants();
    for &holder in &all[1..] {
        index.apply(holder, &(0..8).map(evict).collect::<Vec<_>>());
    }
    assert_eq!(holders(&index, 3), all[..1]);
    assert_eq!(index.totals().sets, 0);
    index.check_invariants();
}

#[test]
fn a_change_is_not_taken_from_memory_once_its_set_is_another() {
    let index = Index::new(7);
    let (first, second) = (open(&index), open(&index));
    index.apply(first, &[admit(0), admit(1)]);
    index.apply(second, &[admit(0), admit(1)]);
    // The set of both is freed by changes that were never made before and are not made again.
    index.apply(second, &[evict(0)]);
    index.apply(first, &[evict(1)]);
    // Others come and go until its place is given out again.
    for key in 10..100 {
        let other = open(&index);
        index.apply(second, &[admit(key)]);
        index.apply(other, &[admit(key)]);
        if key < 50 {
            index.apply(other, &[evict(key)]);
        }
    }
    index.apply(second, &[admit(0)]);
    assert_eq!(holders(&index, 0), [first, second]);
    index.check_invariants();
}

#[test]
fn a_retired_holder_is_gone_at_once_and_its_id_returns_after_the_sweep() {
    let index = Index::new(7);
    let (kept, gone) = (open(&index), open(&index));
    let keys: Vec<Operation> = (0..500).map(admit).collect();
    index.apply(kept, &keys[..100]);
    index.apply(gone, &keys);
    assert!(index.retire(gone));
    assert!(!index.retire(gone));
    assert_eq!((index.count(gone), index.count(kept)), (0, 100));
    assert_eq!(holders(&index, 50), [kept]);
    assert_eq!(holders(&index, 200), []);
    assert_eq!(index.apply(gone, &keys), Applied::default());
    assert_ne!(open(&index), gone, "not while its pairs are there");
    sweep(&index);
    assert_eq!(index.totals().keys, 100);
    let again = open(&index);
    assert_eq!(again, gone, "its id is free");
    assert_eq!(holders(&index, 50), [kept]);
    index.check_invariants();
}

#[test]
fn a_changeover_shows_the_new_generation_and_only_it() {
    let index = Index::new(7);
    let old = open(&index);
    index.apply(old, &[admit(1), admit(2)]);
    let new = index.open_holder(HolderMeta::default(), false).unwrap();
    index.apply(new, &[admit(2), admit(3)]);
    assert_eq!(holders(&index, 2), [old]);
    assert_eq!(holders(&index, 3), []);
    assert!(index.contains(new, ChunkHash(3)), "hidden, but asked for");
    let before = index.view();
    assert!(index.swap(old, new));
    assert!(!index.swap(old, new));
    assert_eq!(holders(&index, 1), []);
    assert_eq!(holders(&index, 2), [new]);
    assert_eq!(holders(&index, 3), [new]);
    let mut seen = Vec::new();
    before.runs([ChunkHash(1), ChunkHash(2)], &mut seen);
    assert_eq!(
        seen,
        [Run {
            chunks: 2,
            holder: old
        }],
        "an older view stays whole"
    );
}

/// A view without hidden or dead holders took every id it met for live, those included that were first
/// given out after it.
#[test]
fn a_view_does_not_show_holders_opened_after_it() {
    let index = Index::new(7);
    let known = open(&index);
    index.apply(known, &[admit(1)]);
    for visible in [true, false] {
        let before = index.view();
        let later = index.open_holder(HolderMeta::default(), visible).unwrap();
        index.apply(later, &[admit(1), admit(2)]);
        let mut seen = Vec::new();
        before.walk([1, 2].map(ChunkHash), |holders| {
            seen.push((holders.ids.to_vec(), holders.chunks));
            ControlFlow::Continue(())
        });
        assert_eq!(seen, [(vec![known], 1), (vec![], 1)]);
        let mut exported = Vec::new();
        before.export(0, |key, ids| exported.push((key, ids.to_vec())));
        assert!(exported.iter().all(|(_, ids)| !ids.contains(&later)));
        assert!(index.retire(later));
        sweep(&index);
    }
}

#[test]
fn runs_end_where_each_holder_misses_a_chunk() {
    let index = Index::new(7);
    let (a, b, c) = (open(&index), open(&index), open(&index));
    index.apply(a, &[admit(0), admit(2)]);
    index.apply(b, &[admit(0), admit(1)]);
    index.apply(c, &[admit(1), admit(2)]);
    let mut runs = Vec::new();
    index.view().runs((0..9).map(ChunkHash), &mut runs);
    let run = |chunks, holder| Run { chunks, holder };
    assert_eq!(runs, [run(1, a), run(2, b)]);
}

#[test]
fn keys_are_pulled_no_further_than_needed() {
    let index = Index::new(7);
    let mut pulled = 0;
    let keys = (0..1000).map(|key| {
        pulled += 1;
        ChunkHash(key)
    });
    index.view().runs(keys, &mut Vec::new());
    assert_eq!(pulled, 1);
}

#[test]
fn an_emptied_index_gives_its_tables_back() {
    let index = Index::new(7);
    let holder = open(&index);
    let empty = index.memory_bytes();
    let keys: Vec<u64> = (0..20_000).collect();
    index.apply(holder, &keys.iter().copied().map(admit).collect::<Vec<_>>());
    let full = index.memory_bytes();
    assert_eq!(index.keys_of(holder).len(), keys.len());
    index.apply(holder, &keys.iter().copied().map(evict).collect::<Vec<_>>());
    let (after, bound) = (index.memory_bytes(), empty + full / 2);
    assert!(after < bound, "{empty} {full} {after}");
    index.check_invariants();
}
