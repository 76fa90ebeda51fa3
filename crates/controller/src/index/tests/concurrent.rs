//! Readers beside a writer: whatever they see must have been true at some moment.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use kvatlas_protocol::{ChunkHash, Operation, OperationKind, SeqNum};

use super::super::{HolderId, HolderMeta, Index};

const CHAIN: u64 = 40;

fn chain(kind: OperationKind, keys: impl IntoIterator<Item = u64>) -> Vec<Operation> {
    let op = |key| Operation {
        kind,
        hash: ChunkHash(key),
        seq: SeqNum(0),
    };
    keys.into_iter().map(op).collect()
}

/// Worker `w` holds only keys of residue `w` modulo 8 and the shared chain, of which worker 0 holds
/// everything at all times. Everything else comes and goes: pairs, sets, generations, table sizes.
#[test]
fn no_answer_is_impossible() {
    let index = Index::new(11);
    let meta = |worker| HolderMeta {
        worker,
        location: worker ^ 0xff,
    };
    let constant = index.open_holder(meta(0), true).unwrap();
    index.apply(constant, &chain(OperationKind::Admit, 0..CHAIN));
    let stop = AtomicBool::new(false);
    let lookups = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut lookups = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        read(&index, constant);
                        lookups += 1;
                    }
                    lookups
                })
            })
            .collect();
        write(&index, meta);
        // On one busy core a reader may not have had its turn yet.
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|r| r.join().unwrap()).sum::<u64>()
    });
    index.check_invariants();
    assert!(lookups > 0);
}

fn write(index: &Index, meta: impl Fn(u32) -> HolderMeta) {
    let mut open: Vec<HolderId> = (1..8)
        .map(|worker| index.open_holder(meta(worker), true).unwrap())
        .collect();
    for round in 0..300_u64 {
        for worker in 1..8_u64 {
            let own = (1..60)
                .map(|i| (round * 60 + i) * 8 + worker)
                .map(|key| key + 800);
            let old = (1..60).map(|i| ((round.max(3) - 3) * 60 + i) * 8 + worker + 800);
            let holder = open[worker as usize - 1];
            index.apply(holder, &chain(OperationKind::Admit, 0..CHAIN));
            index.apply(holder, &chain(OperationKind::Admit, own));
            index.apply(holder, &chain(OperationKind::Evict, old));
            if round % 3 != worker % 3 {
                index.apply(holder, &chain(OperationKind::Evict, worker..CHAIN));
            } else if round % 5 == 0 {
                let new = index.open_holder(meta(worker as u32), false).unwrap();
                index.apply(new, &chain(OperationKind::Admit, 0..CHAIN));
                assert!(index.swap(holder, new));
                open[worker as usize - 1] = new;
            }
        }
        index.sweep_step(40);
    }
}

fn read(index: &Index, constant: HolderId) {
    let view = index.view();
    let mut at = 0;
    view.walk((0..CHAIN).map(ChunkHash), |holders| {
        assert!(holders.ids.contains(&constant), "chunk {at} lost");
        assert!(holders.ids.is_sorted());
        for &id in holders.ids {
            let meta = view.holder(id);
            assert_eq!(meta.location, meta.worker ^ 0xff);
        }
        let mut workers: Vec<u32> = holders
            .ids
            .iter()
            .map(|&id| view.holder(id).worker)
            .collect();
        workers.sort_unstable();
        workers.dedup();
        assert_eq!(
            workers.len(),
            holders.ids.len(),
            "two generations of a worker"
        );
        at += u64::from(holders.chunks);
        ControlFlow::Continue(())
    });
    assert_eq!(at, CHAIN);
    let mut key = 800;
    view.walk((800..3000).map(ChunkHash), |holders| {
        for &id in holders.ids {
            assert_eq!(u64::from(view.holder(id).worker), key % 8);
            assert_eq!(holders.chunks, 1, "neighbors have different holders");
        }
        key += u64::from(holders.chunks);
        ControlFlow::Continue(())
    });
}
