//! KVIDX-1, in process: throughput, latency, bytes per pair, and whether every answer is right.
//!
//! `cargo bench -p kvatlas-controller --bench index_kvidx [-- filter]`. Each trial is a fresh process,
//! checks its checksum and its distinct pairs, and keeps the generator outside the clock.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a bench measures time and prints"
)]

#[path = "index/kvidx.rs"]
mod kvidx;
#[path = "index/trial.rs"]
#[allow(dead_code)]
mod trial;

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kvatlas_controller::index::{HolderId, HolderMeta, Index, Run};
use kvatlas_protocol::{ChunkHash, Operation, OperationKind, SeqNum};
use kvidx::{CHUNKS, Rng, SESSIONS, SHARED, key, placement, store_order, unknown};
use trial::Row;

const WORKERS: u64 = 64;

fn main() {
    kvidx::check_generator();
    let trials = [
        "check 8",
        "check 64",
        "check 256",
        "apply 128",
        "apply 50",
        "apply 1",
        "hit",
        "prefix32",
        "miss",
        "mixed 128",
        "mixed 1",
        "memory",
        "exactness",
    ];
    trial::main(&trials, 5, |name| {
        let (kind, number) = name.split_once(' ').unwrap_or((name, "0"));
        let number: u64 = number.parse().unwrap();
        match kind {
            "check" => check(number),
            "apply" => apply(number as usize),
            "hit" => lookup(400_000, |s, i| key(0, s, i)),
            "prefix32" => lookup(400_000, |s, i| {
                if i < SHARED {
                    key(0, s, i)
                } else {
                    unknown(s, i)
                }
            }),
            "miss" => lookup(8_000_000, unknown),
            "mixed" => mixed(number as usize),
            "memory" => memory(),
            "exactness" => exactness(),
            other => panic!("no trial {other}"),
        }
    });
}

fn operations(kind: OperationKind, keys: impl Iterator<Item = u64>) -> Vec<Operation> {
    let operation = |key| Operation {
        kind,
        hash: ChunkHash(key),
        seq: SeqNum(0),
    };
    keys.map(operation).collect()
}

struct Fleet {
    index: Index,
    holders: Vec<HolderId>,
    placement: Vec<[u64; 2]>,
}

impl Fleet {
    fn new(workers: u64) -> Self {
        let index = Index::new(0x1234_5678);
        let open = |worker| {
            let meta = HolderMeta {
                worker,
                location: 0,
            };
            index.open_holder(meta, true).unwrap()
        };
        Self {
            holders: (0..workers as u32).map(open).collect(),
            index,
            placement: placement(workers),
        }
    }

    fn holder(&self, (session, replica): (u64, usize)) -> HolderId {
        self.holders[self.placement[session as usize][replica] as usize]
    }

    fn store_all(&self) {
        for pair in store_order() {
            let keys = (0..CHUNKS).map(|i| key(0, pair.0, i));
            let batch = operations(OperationKind::Admit, keys);
            self.index.apply(self.holder(pair), &batch);
        }
    }

    fn pairs(&self) -> u64 {
        self.holders.iter().map(|&h| self.index.count(h)).sum()
    }

    /// Panics unless depths and pairs are those of the workload.
    fn check(&self) {
        let mut runs = Vec::new();
        let mut sum = 0;
        for s in 0..SESSIONS {
            let keys = (0..CHUNKS).map(|i| ChunkHash(key(0, s, i)));
            self.index.view().runs(keys, &mut runs);
            sum += runs.iter().map(|run| u64::from(run.chunks)).sum::<u64>();
        }
        let expected = kvidx::expected(self.holders.len() as u64);
        assert_eq!((sum, self.pairs()), expected);
    }
}

fn check(workers: u64) -> Vec<Row> {
    let fleet = Fleet::new(workers);
    fleet.store_all();
    fleet.check();
    let (sum, pairs) = kvidx::expected(workers);
    vec![("checksum", sum as f64), ("distinct pairs", pairs as f64)]
}

fn apply(batch: usize) -> Vec<Row> {
    let fleet = Fleet::new(WORKERS);
    let stream: Vec<_> = store_order()
        .into_iter()
        .map(|pair| {
            let keys = (0..CHUNKS).map(|i| key(0, pair.0, i));
            (fleet.holder(pair), operations(OperationKind::Admit, keys))
        })
        .collect();
    let start = Instant::now();
    for (holder, chunks) in &stream {
        for batch in chunks.chunks(batch) {
            fleet.index.apply(*holder, batch);
        }
    }
    let build = start.elapsed().as_secs_f64();
    fleet.check();
    // Again on an index of full size: what a running controller sees.
    let removals: Vec<_> = stream
        .iter()
        .map(|(holder, chunks)| {
            let keys = chunks.iter().map(|op| op.hash.0);
            (*holder, operations(OperationKind::Evict, keys))
        })
        .collect();
    let start = Instant::now();
    for ((holder, removal), (_, chunks)) in removals.iter().zip(&stream) {
        for batch in removal.chunks(batch) {
            fleet.index.apply(*holder, batch);
        }
        for batch in chunks.chunks(batch) {
            fleet.index.apply(*holder, batch);
        }
    }
    let churn = start.elapsed().as_secs_f64();
    let applications = (stream.len() as u64 * CHUNKS) as f64;
    vec![
        ("build, M pairs/s", applications / build / 1e6),
        (
            "evict and store again, M op/s",
            2.0 * applications / churn / 1e6,
        ),
    ]
}

fn lookup(lookups: usize, chunk: impl Fn(u64, u64) -> u64) -> Vec<Row> {
    let fleet = Fleet::new(WORKERS);
    fleet.store_all();
    fleet.check();
    let session = |s| (0..CHUNKS).map(|i| ChunkHash(chunk(s, i))).collect();
    let chains: Vec<Vec<ChunkHash>> = (0..SESSIONS).map(session).collect();
    let mut runs: Vec<Run> = Vec::new();
    let mut rng = Rng(44);
    let order: Vec<usize> = (0..lookups).map(|_| rng.below(SESSIONS) as usize).collect();
    // In stretches of about a millisecond: the best ones show what the index does while nothing else
    // runs on the machine.
    let mut stretches: Vec<u64> = Vec::new();
    for stretch in order.chunks(lookups / 400) {
        let start = Instant::now();
        for &session in stretch {
            let keys = chains[session].iter().copied();
            fleet.index.view().runs(keys, &mut runs);
            black_box(&runs);
        }
        stretches.push(start.elapsed().as_nanos() as u64);
    }
    let mut measured = stretches.split_off(stretches.len() / 5);
    let whole = measured.iter().sum::<u64>() as f64 / measured.len() as f64;
    measured.sort_unstable();
    let rate = |ns: f64| lookups as f64 / 400.0 / ns * 1e3;
    vec![
        ("M lookups/s", rate(whole)),
        (
            "M lookups/s, best 1 %",
            rate(trial::quantile(&measured, 0.01)),
        ),
    ]
}

fn mixed(batch: usize) -> Vec<Row> {
    let fleet = Fleet::new(WORKERS);
    fleet.store_all();
    let session = |s| -> Vec<_> { (0..CHUNKS).map(|i| ChunkHash(key(0, s, i))).collect() };
    let chains: Vec<Vec<ChunkHash>> = (0..SESSIONS).map(session).collect();
    let stop = AtomicBool::new(false);
    let mut latencies: Vec<u64> = Vec::with_capacity(400_000);
    let mut operations_per_s = 0.0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rng = Rng(46);
            let (mut applied, mut clock) = (0, 0.0);
            while !stop.load(Ordering::Relaxed) {
                let pair = (rng.below(SESSIONS), (rng.next() & 1) as usize);
                let tail = (SHARED..CHUNKS).map(|i| key(0, pair.0, i));
                let removal = operations(OperationKind::Evict, tail.clone().rev());
                let store = operations(OperationKind::Admit, tail);
                let start = Instant::now();
                for batch in removal.chunks(batch).chain(store.chunks(batch)) {
                    fleet.index.apply(fleet.holder(pair), batch);
                    applied += batch.len();
                }
                clock += start.elapsed().as_secs_f64();
            }
            applied as f64 / clock
        });
        let mut rng = Rng(44);
        let mut runs = Vec::new();
        for i in 0..450_000 {
            let chain = &chains[rng.below(SESSIONS) as usize];
            let start = Instant::now();
            fleet.index.view().runs(chain.iter().copied(), &mut runs);
            let took = start.elapsed().as_nanos() as u64;
            assert!(
                runs.iter()
                    .all(|run| (SHARED..=CHUNKS).contains(&run.chunks.into()))
            );
            if i >= 50_000 {
                latencies.push(took);
            }
        }
        stop.store(true, Ordering::Relaxed);
        operations_per_s = writer.join().unwrap();
    });
    fleet.check();
    latencies.sort_unstable();
    vec![
        ("lookup p50, us", trial::quantile(&latencies, 0.5) / 1e3),
        ("lookup p99, us", trial::quantile(&latencies, 0.99) / 1e3),
        ("lookup p99.9, us", trial::quantile(&latencies, 0.999) / 1e3),
        ("writer, M op/s", operations_per_s / 1e6),
    ]
}

fn memory() -> Vec<Row> {
    let before = trial::resident();
    let fleet = Fleet::new(WORKERS);
    fleet.store_all();
    let rows = |built: bool| -> [Row; 2] {
        let pairs = fleet.pairs() as f64;
        let (heap, rss) = if built {
            ("heap B/pair, built", "RSS B/pair, built")
        } else {
            ("heap B/pair, 10 turnovers", "RSS B/pair, 10 turnovers")
        };
        [
            (heap, fleet.index.memory_bytes() as f64 / pairs),
            (rss, (trial::resident() - before) / pairs),
        ]
    };
    let built = rows(true);
    for t in 1..=10 {
        for pair in store_order() {
            let old = (SHARED..CHUNKS).map(|i| key(t - 1, pair.0, i));
            let new = (SHARED..CHUNKS).map(|i| key(t, pair.0, i));
            let holder = fleet.holder(pair);
            fleet
                .index
                .apply(holder, &operations(OperationKind::Evict, old));
            fleet
                .index
                .apply(holder, &operations(OperationKind::Admit, new));
        }
    }
    assert_eq!(fleet.pairs(), kvidx::expected(WORKERS).1);
    [built, rows(false)].concat()
}

fn exactness() -> Vec<Row> {
    let fleet = Fleet::new(WORKERS);
    fleet.store_all();
    let mut model: HashMap<u64, BTreeSet<HolderId>> = HashMap::new();
    let mut pairs = Vec::new();
    for pair in store_order() {
        for i in 0..CHUNKS {
            let key = key(0, pair.0, i);
            model.entry(key).or_default().insert(fleet.holder(pair));
            pairs.push((key, fleet.holder(pair)));
        }
    }
    let mut rng = Rng(47);
    let mut apply = |kind: OperationKind, (key, holder): (u64, HolderId)| {
        fleet
            .index
            .apply(holder, &operations(kind, std::iter::once(key)));
        let holders = model.entry(key).or_default();
        match kind {
            OperationKind::Admit => holders.insert(holder),
            OperationKind::Evict => holders.remove(&holder),
        };
    };
    let mut evicted = Vec::new();
    for _ in 0..10_000 {
        let pair = pairs[rng.below(pairs.len() as u64) as usize];
        apply(OperationKind::Evict, pair);
        evicted.push(pair);
    }
    let mut wrong = [0_u32; 2];
    let mut count = |model: &HashMap<u64, BTreeSet<HolderId>>, wrong: &mut u32| {
        for _ in 0..4_000 {
            let session = rng.below(SESSIONS);
            let holder = fleet.holders[rng.below(WORKERS) as usize];
            let chain = || (0..CHUNKS).map(|i| key(0, session, i));
            let held = |key: &u64| model.get(key).is_some_and(|held| held.contains(&holder));
            let mut runs = Vec::new();
            fleet.index.view().runs(chain().map(ChunkHash), &mut runs);
            let run = runs.iter().find(|run| run.holder == holder);
            let depth = run.map_or(0, |run| run.chunks as usize);
            *wrong += u32::from(depth != chain().take_while(held).count());
        }
    };
    count(&model, &mut wrong[0]);
    let mut order = Rng(48);
    for i in (1..evicted.len()).rev() {
        evicted.swap(i, order.below(i as u64 + 1) as usize);
    }
    for pair in evicted {
        fleet.index.apply(
            pair.1,
            &operations(OperationKind::Admit, std::iter::once(pair.0)),
        );
        model.entry(pair.0).or_default().insert(pair.1);
    }
    count(&model, &mut wrong[1]);
    fleet.check();
    vec![
        ("wrong of 4,000 after evictions", wrong[0].into()),
        ("wrong of 4,000 after readmission", wrong[1].into()),
    ]
}
