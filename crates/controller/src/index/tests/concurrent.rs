//! Readers beside a writer: whatever they see must have been true at some moment.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvatlas_protocol::{ChunkHash, Operation, OperationKind, SeqNum};

use super::super::{HolderId, HolderMeta, Index, Run};

/// Keys of the shared chain.
const CHAIN: u64 = 40;
/// From here on, a key belongs to the worker of its residue.
const FIRST_OWN: u64 = 800;

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
    stress(11, 2);
}

/// `make stress`: the same for KVATLAS_STRESS_SECONDS (60), another index and more readers each time.
#[test]
#[ignore = "runs for a minute or as long as it is told"]
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "told from outside how long to run, and by the clock"
)]
fn no_answer_is_impossible_for_long() {
    let seconds = std::env::var("KVATLAS_STRESS_SECONDS");
    let seconds = seconds.map_or(60, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut indexes, mut lookups) = (0, 0);
    while Instant::now() < end {
        lookups += stress(indexes, 1 + indexes as usize % 4);
        indexes += 1;
    }
    println!("{lookups} lookups, {indexes} indexes, no impossible answer");
}

fn stress(seed: u64, n_readers: usize) -> u64 {
    let index = Index::new(seed);
    let meta = |worker| HolderMeta {
        worker,
        location: worker ^ 0xff,
    };
    let constant = index.open_holder(meta(0), true).unwrap();
    index.apply(constant, &chain(OperationKind::Admit, 0..CHAIN));
    let stop = AtomicBool::new(false);
    let lookups = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..n_readers)
            .map(|_| {
                scope.spawn(|| {
                    let mut lookups = 0_u64;
                    // At least once, as on a busy core the writer may be done before a reader begins.
                    loop {
                        read(&index, constant);
                        read_runs(&index, constant);
                        export(&index, constant);
                        lookups += 1;
                        if stop.load(Ordering::Relaxed) {
                            return lookups;
                        }
                    }
                })
            })
            .collect();
        write(&index, meta, seed);
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|r| r.join().unwrap()).sum::<u64>()
    });
    index.check_invariants();
    lookups
}

fn write(index: &Index, meta: impl Fn(u32) -> HolderMeta, seed: u64) {
    let mut open: Vec<HolderId> = (1..8)
        .map(|worker| index.open_holder(meta(worker), true).unwrap())
        .collect();
    for round in 0..300_u64 {
        for worker in 1..8_u64 {
            let own = (1..60)
                .map(|i| (round * 60 + i) * 8 + worker)
                .map(|key| key + FIRST_OWN);
            let old = (1..60).map(|i| ((round.max(3) - 3) * 60 + i) * 8 + worker + FIRST_OWN);
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
        // Now and then nothing is hidden or dead.
        while (round + seed).is_multiple_of(3) && index.sweep_step(1000).remaining > 0 {}
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
    let mut key = FIRST_OWN;
    view.walk((FIRST_OWN..3000).map(ChunkHash), |holders| {
        for &id in holders.ids {
            assert_eq!(u64::from(view.holder(id).worker), key % 8);
            assert_eq!(holders.chunks, 1, "neighbors have different holders");
        }
        key += u64::from(holders.chunks);
        ControlFlow::Continue(())
    });
}

fn read_runs(index: &Index, constant: HolderId) {
    let view = index.view();
    let mut runs = Vec::new();
    view.runs((0..CHAIN).map(ChunkHash), &mut runs);
    let whole = Run {
        chunks: CHAIN as u32,
        holder: constant,
    };
    assert!(runs.contains(&whole), "{runs:?}");
    let mut workers: Vec<u32> = runs
        .iter()
        .map(|run| {
            let meta = view.holder(run.holder);
            assert_eq!(meta.location, meta.worker ^ 0xff);
            meta.worker
        })
        .collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers.len(), runs.len(), "two generations of a worker");
}

fn export(index: &Index, constant: HolderId) {
    let mut shared = 0;
    let mut next = Some(0);
    while let Some(from) = next {
        let view = index.view();
        next = view.export(from, |key, ids| {
            if key.0 < CHAIN {
                assert!(ids.contains(&constant), "chunk {key:?} lost");
                shared += 1;
            }
            for &id in ids {
                let worker = view.holder(id).worker;
                assert!(key.0 < CHAIN || u64::from(worker) == key.0 % 8);
            }
        });
    }
    assert!(shared >= CHAIN, "only {shared} of the shared chunks");
}
