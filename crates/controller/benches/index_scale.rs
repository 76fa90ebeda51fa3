//! The index at fleet size: 10M keys with 15M pairs, and 100 holders of 1M keys each.
//!
//! `cargo bench -p kvatlas-controller --bench index_scale [-- filter]`; needs 3 GB. Each trial is a fresh
//! process and checks its counts; the generator stays outside the clock.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a bench measures time and prints"
)]

#[path = "index/kvidx.rs"]
#[allow(dead_code)]
mod kvidx;
#[path = "index/trial.rs"]
mod trial;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvatlas_controller::index::{HolderId, HolderMeta, Index};
use kvatlas_protocol::{ChunkHash, Operation, OperationKind, SeqNum};
use kvidx::{Rng, mix64};
use trial::{Row, on_core, quantile, resident};

const CHAIN: u64 = 128;

fn main() {
    let trials = ["10M keys", "10M keys: pauses", "100 holders x 1M keys"];
    trial::main(&trials, 3, |name| match name {
        "10M keys" => ten_million(),
        "10M keys: pauses" => pauses(),
        "100 holders x 1M keys" => hundred_holders(),
        other => panic!("no trial {other}"),
    });
}

fn open(index: &Index, n: u32) -> Vec<HolderId> {
    let meta = |worker| HolderMeta {
        worker,
        location: 0,
    };
    let open = |worker| index.open_holder(meta(worker), true).unwrap();
    (0..n).map(open).collect()
}

/// Chunk `i` of chain `c`.
fn key(c: u64, i: u64) -> ChunkHash {
    ChunkHash(mix64(c << 16 | i))
}

fn chain(c: u64) -> Vec<ChunkHash> {
    (0..CHAIN).map(|i| key(c, i)).collect()
}

fn operation(kind: OperationKind, hash: ChunkHash) -> Operation {
    Operation {
        kind,
        hash,
        seq: SeqNum(0),
    }
}

/// 10M keys in chains of 128; each chain has one holder, every second one has two.
struct Fleet {
    index: Index,
    holders: Vec<HolderId>,
    chains: u64,
}

impl Fleet {
    fn first(&self, c: u64) -> HolderId {
        self.holders[(mix64(c) % 64) as usize]
    }

    fn second(&self, c: u64) -> HolderId {
        self.holders[((mix64(c) % 64 + 1 + mix64(c ^ 1 << 40) % 63) % 64) as usize]
    }

    fn build(keys: u64) -> (Self, f64) {
        let index = Index::new(99);
        let holders = open(&index, 64);
        let fleet = Self {
            index,
            holders,
            chains: keys / CHAIN,
        };
        let mut took = Duration::ZERO;
        for c in 0..fleet.chains {
            let chain = chain(c);
            let start = Instant::now();
            fleet.index.admit(fleet.first(c), &chain);
            if c % 2 == 0 {
                fleet.index.admit(fleet.second(c), &chain);
            }
            took += start.elapsed();
        }
        (fleet, took.as_secs_f64())
    }

    fn pairs(&self) -> u64 {
        self.holders.iter().map(|&h| self.index.count(h)).sum()
    }

    /// Batches of 64: chains leave and come back, single random keys of the second holders in between.
    fn churn(&self, rng: &mut Rng, operations: &mut Vec<Operation>) -> HolderId {
        operations.clear();
        let c = rng.below(self.chains / 2) * 2;
        let holder = self.second(c);
        for i in 0..CHAIN / 4 {
            operations.push(operation(OperationKind::Evict, key(c, i * 4)));
        }
        for i in 0..CHAIN / 4 {
            operations.push(operation(OperationKind::Admit, key(c, i * 4)));
        }
        holder
    }

    fn lookups(&self, n: usize, mut each: impl FnMut(Duration)) {
        let mut rng = Rng(44);
        let mut runs = Vec::new();
        for _ in 0..n {
            let c = rng.below(self.chains);
            let chain = chain(c);
            // A lookup during which another process had the core says nothing about the index.
            let (_, turns) = on_core();
            let start = Instant::now();
            self.index.view().runs(chain.iter().copied(), &mut runs);
            let took = start.elapsed();
            if on_core().1 == turns {
                each(took);
            }
            assert!(runs.iter().any(|run| run.holder == self.first(c)));
            black_box(&runs);
        }
    }
}

fn micros(sorted: &[u64], share: f64) -> f64 {
    quantile(sorted, share) / 1e3
}

fn ten_million() -> Vec<Row> {
    let before = resident();
    let (fleet, built) = Fleet::build(10_000_000);
    let pairs = fleet.pairs() as f64;
    assert_eq!(fleet.index.totals().keys as u64, fleet.chains * CHAIN);
    let mut rows = vec![
        ("build, M pairs/s", pairs / built / 1e6),
        ("heap, B/pair", fleet.index.memory_bytes() as f64 / pairs),
        ("RSS, B/pair", (resident() - before) / pairs),
    ];

    let mut times = Vec::new();
    fleet.lookups(60_000, |took| times.push(took.as_nanos() as u64));
    times.sort_unstable();
    rows.push(("128-key lookup p50, ns/key", quantile(&times, 0.5) / 128.0));
    rows.push(("128-key lookup p99, us", micros(&times, 0.99)));

    let mut rng = Rng(46);
    let mut operations = Vec::new();
    let (mut applied, mut clock) = (0, Duration::ZERO);
    let mut singles = Duration::ZERO;
    for _ in 0..40_000 {
        let holder = fleet.churn(&mut rng, &mut operations);
        let start = Instant::now();
        fleet.index.apply(holder, &operations);
        clock += start.elapsed();
        applied += operations.len();
    }
    for _ in 0..20_000 {
        // Random keys of one holder: new ones, and away again.
        let holder = fleet.holders[rng.below(64) as usize];
        let keys: Vec<u64> = (0..64).map(|_| rng.next()).collect();
        let batch = |kind| -> Vec<_> {
            let operation = |&key| operation(kind, ChunkHash(key));
            keys.iter().map(operation).collect()
        };
        let (admits, evicts) = (batch(OperationKind::Admit), batch(OperationKind::Evict));
        let start = Instant::now();
        fleet.index.apply(holder, &admits);
        fleet.index.apply(holder, &evicts);
        singles += start.elapsed();
    }
    let rate = |n: f64, took: Duration| n / took.as_secs_f64() / 1e6;
    rows.push(("churn of held keys, M op/s", rate(applied as f64, clock)));
    rows.push(("churn of new keys, M op/s", rate(20_000.0 * 128.0, singles)));
    rows
}

fn pauses() -> Vec<Row> {
    let (fleet, _) = Fleet::build(10_000_000);
    let mut rows = Vec::new();
    let stop = AtomicBool::new(false);
    let beside = |writer: &(dyn Fn() + Sync), lookups: usize| -> Vec<u64> {
        stop.store(false, Ordering::Relaxed);
        let mut times = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(writer);
            fleet.lookups(lookups, |took| times.push(took.as_nanos() as u64));
            stop.store(true, Ordering::Relaxed);
        });
        times.sort_unstable();
        times
    };
    let idle = beside(&|| (), 60_000);
    rows.push(("idle: p50, us", micros(&idle, 0.5)));
    rows.push(("idle: p99, us", micros(&idle, 0.99)));
    rows.push(("idle: p99.9, us", micros(&idle, 0.999)));
    rows.push(("idle: longest, us", micros(&idle, 1.0)));
    let churn = || {
        let (mut rng, mut operations) = (Rng(46), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let holder = fleet.churn(&mut rng, &mut operations);
            fleet.index.apply(holder, &operations);
        }
    };
    let busy = beside(&churn, 60_000);
    rows.push(("beside churn: p50, us", micros(&busy, 0.5)));
    rows.push(("beside churn: p99, us", micros(&busy, 0.99)));
    rows.push(("beside churn: p99.9, us", micros(&busy, 0.999)));
    rows.push(("beside churn: longest, us", micros(&busy, 1.0)));
    // A writer that only grows rebuilds a table every few hundred operations.
    let grow = || {
        let mut rng = Rng(47);
        for _ in 0..50_000 {
            let keys: Vec<_> = (0..CHAIN).map(|_| ChunkHash(rng.next())).collect();
            fleet.index.admit(fleet.holders[0], &keys);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    };
    let growing = beside(&grow, 60_000);
    rows.push(("beside growth: p99, us", micros(&growing, 0.99)));
    rows.push(("beside growth: p99.9, us", micros(&growing, 0.999)));
    rows.push(("beside growth: longest, us", micros(&growing, 1.0)));

    // Retiring a holder: what the caller pays, and what lookups feel of the sweep.
    let mut retired = Vec::new();
    for (worker, &old) in fleet.holders[32..].iter().enumerate() {
        let meta = HolderMeta {
            worker: worker as u32,
            location: 0,
        };
        let new = fleet.index.open_holder(meta, false).unwrap();
        let start = Instant::now();
        fleet.index.retire(old);
        retired.push(start.elapsed().as_nanos() as u64);
        fleet.index.retire(new);
    }
    retired.sort_unstable();
    rows.push(("retire, on the caller: median, us", micros(&retired, 0.5)));
    let mut steps = Vec::new();
    let remaining = fleet.index.sweep_step(1).remaining;
    let stepping = std::sync::Mutex::new(&mut steps);
    let sweep = || {
        let mut steps = stepping.lock().unwrap();
        loop {
            let (_, turns) = on_core();
            let start = Instant::now();
            let step = fleet.index.sweep_step(16_384);
            let took = start.elapsed().as_nanos() as u64;
            if on_core().1 == turns {
                steps.push(took);
            }
            if step.remaining == 0 {
                break;
            }
        }
    };
    let mut times = Vec::new();
    let mut rng = Rng(45);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(sweep);
        let mut runs = Vec::new();
        while !sweeper.is_finished() {
            let chain = chain(rng.below(fleet.chains));
            let (_, turns) = on_core();
            let start = Instant::now();
            fleet.index.view().runs(chain.iter().copied(), &mut runs);
            let took = start.elapsed().as_nanos() as u64;
            if on_core().1 == turns {
                times.push(took);
            }
        }
    });
    let swept = start.elapsed().as_secs_f64();
    times.sort_unstable();
    steps.sort_unstable();
    rows.push(("beside sweep: p50, us", micros(&times, 0.5)));
    rows.push(("beside sweep: p99, us", micros(&times, 0.99)));
    rows.push(("beside sweep: p99.9, us", micros(&times, 0.999)));
    rows.push(("beside sweep: longest, us", micros(&times, 1.0)));
    rows.push(("sweep step: median, us", micros(&steps, 0.5)));
    rows.push(("sweep step: p99, us", micros(&steps, 0.99)));
    rows.push(("sweep, M dead pairs/s", remaining as f64 / swept / 1e6));
    rows
}

fn hundred_holders() -> Vec<Row> {
    const KEYS: u64 = 1_000_000;
    let before = resident();
    let index = Index::new(99);
    let holders = open(&index, 100);
    let keys = |holder: u64, batch: u64| -> Vec<ChunkHash> {
        let key = |i| ChunkHash(mix64((holder + 1) << 32 | (batch * 1000 + i)));
        (0..1000).map(key).collect()
    };
    // Interleaved, as a fleet reports.
    let mut took = Duration::ZERO;
    for batch in 0..KEYS / 1000 {
        for (holder, &id) in holders.iter().enumerate() {
            let keys = keys(holder as u64, batch);
            let start = Instant::now();
            index.admit(id, &keys);
            took += start.elapsed();
        }
    }
    let pairs = (KEYS * 100) as f64;
    assert!(holders.iter().all(|&id| index.count(id) == KEYS));
    let mut rows = vec![
        ("build, M pairs/s", pairs / took.as_secs_f64() / 1e6),
        ("heap, GB", index.memory_bytes() as f64 / 1e9),
        ("RSS, GB", (resident() - before) / 1e9),
    ];
    let lookups = |n: u64| -> Vec<u64> {
        let mut rng = Rng(44);
        let mut runs = Vec::new();
        let mut times = Vec::new();
        for _ in 0..n {
            let from = rng.below(KEYS / 1000);
            let chain: Vec<_> = keys(1 + rng.below(99), from)[..128].to_vec();
            let (_, turns) = on_core();
            let start = Instant::now();
            index.view().runs(chain, &mut runs);
            let took = start.elapsed().as_nanos() as u64;
            if on_core().1 == turns {
                times.push(took);
            }
            assert_eq!(runs[0].chunks, 128);
        }
        times.sort_unstable();
        times
    };
    let idle = lookups(30_000);
    rows.push(("lookup p50, us a chunk", micros(&idle, 0.5) / 128.0));
    rows.push(("lookup p99, us a chunk", micros(&idle, 0.99) / 128.0));
    // A full report of one worker, into a new generation, then the changeover.
    let listed: Vec<_> = (0..KEYS / 1000).map(|batch| keys(0, batch)).collect();
    let new = index.open_holder(HolderMeta::default(), false).unwrap();
    let (before, _) = on_core();
    let start = Instant::now();
    for batch in &listed {
        index.admit(new, batch);
    }
    let took = (on_core().0 - before) as f64 / 1e6;
    rows.push(("full report of 1M keys, ms on the core", took));
    rows.push((
        "full report of 1M keys, ms",
        start.elapsed().as_secs_f64() * 1e3,
    ));
    let start = Instant::now();
    assert!(index.swap(holders[0], new));
    rows.push(("changeover, us", start.elapsed().as_secs_f64() * 1e6));
    let start = Instant::now();
    assert!(index.retire(new));
    rows.push(("deregister, us", start.elapsed().as_secs_f64() * 1e6));
    let mut during = Vec::new();
    let swept = std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let start = Instant::now();
            while index.sweep_step(16_384).remaining > 0 {}
            start.elapsed().as_secs_f64()
        });
        while !sweeper.is_finished() {
            during.extend(lookups(500));
        }
        sweeper.join().unwrap()
    });
    during.sort_unstable();
    rows.push((
        "lookup p50 during sweep, us a chunk",
        micros(&during, 0.5) / 128.0,
    ));
    rows.push(("lookup p99 during sweep, us", micros(&during, 0.99)));
    rows.push(("longest lookup during sweep, us", micros(&during, 1.0)));
    rows.push(("sweep of both, s", swept));
    rows
}
