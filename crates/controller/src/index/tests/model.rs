//! The index against a naive map, under random batches, retirements, changeovers and sweeps.

use std::collections::{BTreeMap, BTreeSet};

use kvatlas_protocol::{ChunkHash, Operation, OperationKind, SeqNum};
use proptest::prelude::*;

use super::super::{HolderId, HolderMeta, Index, Run};
use super::{holders, open, sweep};

#[derive(Clone, Debug)]
enum Step {
    Apply(usize, Vec<(bool, u64)>),
    Open(bool),
    Retire(usize),
    Swap(usize),
    Sweep(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let batch = prop::collection::vec((prop::bool::weighted(0.65), 0..400_u64), 1..120);
    let run = (0..400_u64, 1..120_u64, any::<bool>())
        .prop_map(|(from, len, admits)| (from..from + len).map(|key| (admits, key)).collect());
    prop_oneof![
        6 => (0..12_usize, prop_oneof![batch, run]).prop_map(|(at, batch)| Step::Apply(at, batch)),
        1 => any::<bool>().prop_map(Step::Open),
        1 => (0..12_usize).prop_map(Step::Retire),
        1 => (0..12_usize).prop_map(Step::Swap),
        2 => (1..400_usize).prop_map(Step::Sweep),
    ]
}

/// What the index should say: keys and visibility of each open holder.
type Model = BTreeMap<HolderId, (bool, BTreeSet<u64>)>;

fn pick(model: &Model, at: usize) -> Option<HolderId> {
    model.keys().nth(at % model.len().max(1)).copied()
}

fn run(index: &Index, model: &mut Model, step: Step) {
    match step {
        Step::Apply(at, batch) => {
            let Some(holder) = pick(model, at) else {
                return;
            };
            let keys = &mut model.get_mut(&holder).unwrap().1;
            let (mut added, mut removed) = (0, 0);
            let operations: Vec<Operation> = batch
                .into_iter()
                .map(|(admits, key)| {
                    let kind = if admits {
                        added += u64::from(keys.insert(key));
                        OperationKind::Admit
                    } else {
                        removed += u64::from(keys.remove(&key));
                        OperationKind::Evict
                    };
                    let hash = ChunkHash(key);
                    let seq = SeqNum(0);
                    Operation { kind, hash, seq }
                })
                .collect();
            let applied = index.apply(holder, &operations);
            assert_eq!((applied.added, applied.removed), (added, removed));
        }
        Step::Open(visible) => {
            let id = index.open_holder(HolderMeta::default(), visible).unwrap();
            assert!(model.insert(id, (visible, BTreeSet::new())).is_none());
        }
        Step::Retire(at) => {
            if let Some(holder) = pick(model, at) {
                assert!(index.retire(holder));
                model.remove(&holder);
            }
        }
        Step::Swap(at) => {
            let Some(old) = pick(model, at) else { return };
            let new = index.open_holder(HolderMeta::default(), false).unwrap();
            let keys: BTreeSet<u64> = (0..50).map(|key| key * at as u64).collect();
            let admit = |&key| super::admit(key);
            index.apply(new, &keys.iter().map(admit).collect::<Vec<_>>());
            assert!(index.swap(old, new));
            model.remove(&old);
            model.insert(new, (true, keys));
        }
        Step::Sweep(budget) => {
            index.sweep_step(budget);
        }
    }
}

fn check(index: &Index, model: &Model) {
    index.check_invariants();
    for (&holder, (_, keys)) in model {
        assert_eq!(index.count(holder), keys.len() as u64);
    }
    for key in 0..520 {
        let held = |keys: &BTreeSet<u64>| keys.contains(&key);
        let visible = model
            .iter()
            .filter(|(_, (visible, keys))| *visible && held(keys));
        let expected: Vec<HolderId> = visible.map(|(&holder, _)| holder).collect();
        assert_eq!(holders(index, key), expected, "key {key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_naive_map(steps in prop::collection::vec(step(), 1..60), seed: u64) {
        let index = Index::new(seed);
        let mut model = Model::new();
        for _ in 0..6 {
            model.insert(open(&index), (true, BTreeSet::new()));
        }
        for step in steps {
            run(&index, &mut model, step);
            check(&index, &model);
        }
        sweep(&index);
        check(&index, &model);
        prop_assert_eq!(index.totals().dead_holders, 0);
    }

    #[test]
    fn runs_agree_with_a_naive_walk(
        sets in prop::collection::vec(prop::collection::btree_set(0..150_u64, 0..150), 1..8),
    ) {
        let index = Index::new(3);
        let mut expected = Vec::new();
        for keys in &sets {
            let holder = open(&index);
            let admits: Vec<Operation> = keys.iter().map(|&key| super::admit(key)).collect();
            index.apply(holder, &admits);
            let chunks = (0..).take_while(|key| keys.contains(key)).count() as u32;
            if chunks > 0 {
                expected.push(Run { chunks, holder });
            }
        }
        let mut runs = Vec::new();
        index.view().runs((0..150).map(ChunkHash), &mut runs);
        prop_assert!(runs.is_sorted_by_key(|run| run.chunks));
        runs.sort();
        expected.sort();
        prop_assert_eq!(runs, expected);
    }
}
