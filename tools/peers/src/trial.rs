//! The cases of KVIDX-1, the same for every subject.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::clock::Moment;
use crate::kvidx::{CHUNKS, Rng, SESSIONS, SHARED, expected, placement, store_order};
use crate::session::Session;
use crate::subject::Subject;

/// Workers in every case but `check`.
const WORKERS: u64 = 64;
const WHOLE: Range<usize> = 0..CHUNKS as usize;
const TAIL: Range<usize> = SHARED as usize..CHUNKS as usize;

/// One number a trial found.
pub struct Sample {
    /// What was measured.
    pub metric: &'static str,
    /// In what.
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    /// How much.
    pub value: f64,
}

fn more(metric: &'static str, unit: &'static str, value: f64) -> Sample {
    Sample {
        metric,
        unit,
        more_is_better: true,
        value,
    }
}

fn less(metric: &'static str, unit: &'static str, value: f64) -> Sample {
    Sample {
        metric,
        unit,
        more_is_better: false,
        value,
    }
}

/// An index and the workload's placement.
struct Fleet<S> {
    subject: S,
    placement: Vec<[u64; 2]>,
    workers: u64,
}

impl<S: Subject> Fleet<S> {
    fn new(workers: u64) -> Self {
        Self {
            subject: S::new(workers),
            placement: placement(workers),
            workers,
        }
    }

    fn worker(&self, (session, replica): (u64, usize)) -> u64 {
        self.placement[session as usize][replica]
    }

    /// The stores of the whole workload, in batches of `size` chunks.
    fn stores(&self, sessions: &[Session], size: usize) -> Vec<S::Batch> {
        let mut batches = Vec::new();
        for pair in store_order() {
            batches.extend(self.store(pair, sessions, WHOLE, size));
        }
        batches
    }

    fn store(
        &self,
        pair: (u64, usize),
        sessions: &[Session],
        chunks: Range<usize>,
        size: usize,
    ) -> impl Iterator<Item = S::Batch> {
        let end = chunks.end;
        chunks.step_by(size).map(move |from| {
            let session = &sessions[pair.0 as usize];
            self.subject
                .store(self.worker(pair), session, from..(from + size).min(end))
        })
    }

    fn remove(&self, pair: (u64, usize), sessions: &[Session], size: usize) -> Vec<S::Batch> {
        let last_first: Vec<usize> = TAIL.rev().collect();
        let session = &sessions[pair.0 as usize];
        let batch = |chunks: &[usize]| self.subject.remove(self.worker(pair), session, chunks);
        last_first.chunks(size).map(batch).collect()
    }

    fn queries(&self, sessions: &[Session]) -> Vec<S::Query> {
        sessions
            .iter()
            .map(|session| self.subject.query(session))
            .collect()
    }

    fn build(sessions: &[Session]) -> Self {
        let fleet = Self::new(WORKERS);
        fleet.subject.write(fleet.stores(sessions, 128));
        fleet.check(sessions);
        fleet
    }

    fn checksum(&self, sessions: &[Session]) -> u64 {
        let depths = |query| self.subject.depths(query);
        let found = self.queries(sessions);
        found.iter().flat_map(depths).map(|(_, depth)| depth).sum()
    }

    /// Panics unless depths and pairs are those of the workload.
    fn check(&self, sessions: &[Session]) {
        let found = (self.checksum(sessions), self.subject.pairs());
        assert_eq!(found, expected(self.workers), "checksum and distinct pairs");
    }
}

/// The workload's own check values, for 8, 64 and 256 workers.
pub fn check<S: Subject>() -> Vec<Sample> {
    let sessions = Session::all(0);
    for workers in [8, 64, 256] {
        let fleet = Fleet::<S>::new(workers);
        fleet.subject.write(fleet.stores(&sessions, 128));
        fleet.check(&sessions);
    }
    vec![more("checksums right", "of 3", 3.0)]
}

/// Stores into an empty index, in batches of `size`.
pub fn apply<S: Subject>(size: usize) -> Vec<Sample> {
    let sessions = Session::all(0);
    let fleet = Fleet::<S>::new(WORKERS);
    let took = fleet.subject.write(fleet.stores(&sessions, size));
    fleet.check(&sessions);
    let applications = (2 * SESSIONS * CHUNKS) as f64;
    vec![more(
        "stores",
        "M pairs/s",
        applications / took.processor.as_secs_f64() / 1e6,
    )]
}

/// Lookups on one thread: whole chains, the shared prefix only, nothing.
pub fn lookup<S: Subject>() -> Vec<Sample> {
    let sessions = Session::all(0);
    let fleet = Fleet::<S>::build(&sessions);
    let rate = |sessions: &[Session]| {
        let queries = fleet.queries(sessions);
        let mut rng = Rng(44);
        let order: Vec<_> = (0..16_384).map(|_| rng.below(SESSIONS) as usize).collect();
        let turn = |budget: f64| {
            let start = Moment::now();
            let (mut done, mut answered) = (0_u64, 0);
            loop {
                for &session in &order[..1024] {
                    answered += fleet.subject.look(&queries[session]);
                }
                done += 1024;
                let seconds = start.elapsed().processor.as_secs_f64();
                if seconds > budget {
                    return (done as f64 / seconds / 1e6, answered);
                }
            }
        };
        turn(0.1);
        turn(0.4)
    };
    let (hit, found) = rate(&sessions);
    assert!(found > 0);
    let (prefix, _) = rate(&Session::prefixes());
    let (miss, found) = rate(&Session::misses());
    assert_eq!(found, 0, "somebody holds an unknown chunk");
    vec![
        more("lookups, hit", "M/s", hit),
        more("lookups, shared prefix only", "M/s", prefix),
        more("lookups, miss", "M/s", miss),
    ]
}

/// One reader beside a writer at full speed that removes and stores tails of sessions.
pub fn mixed<S: Subject>(size: usize) -> Vec<Sample> {
    /// Tails removed and stored: about 0.1 s of our writer, seconds of the slowest.
    const ROUNDS: usize = 4_000;
    /// Lookups before the first that counts.
    const WARM_UP: usize = 5_000;
    let sessions = Session::all(0);
    let fleet = Fleet::<S>::build(&sessions);
    let queries = fleet.queries(&sessions);
    let mut rng = Rng(46);
    let mut batches = Vec::new();
    for _ in 0..ROUNDS {
        let pair = (rng.below(SESSIONS), (rng.next() & 1) as usize);
        batches.extend(fleet.remove(pair, &sessions, size));
        batches.extend(fleet.store(pair, &sessions, TAIL, size));
    }
    let mut rng = Rng(44);
    let order: Vec<_> = (0..65_536).map(|_| rng.below(SESSIONS) as usize).collect();
    let mut turns = order.iter().cycle();
    let mut latencies = Vec::with_capacity(2_000_000);
    for _ in 0..WARM_UP {
        let session = *turns.next().expect("the cycle never ends");
        fleet.subject.look(&queries[session]);
    }
    let stop = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let took = fleet.subject.write(batches);
            stop.store(true, Ordering::Relaxed);
            took
        });
        while !stop.load(Ordering::Relaxed) {
            let session = *turns.next().expect("the cycle never ends");
            let start = Instant::now();
            let answered = fleet.subject.look(&queries[session]);
            latencies.push(start.elapsed());
            assert!(answered > 0, "the shared prefix is never removed");
        }
        writer.join().expect("the writer does not panic")
    });
    latencies.sort_unstable();
    let quantile = |share: f64| {
        let at = (latencies.len() as f64 * share) as usize;
        latencies[at.min(latencies.len() - 1)].as_secs_f64() * 1e6
    };
    let operations = (2 * ROUNDS * TAIL.len()) as f64;
    vec![
        less("lookup p50", "us", quantile(0.5)),
        less("lookup p99", "us", quantile(0.99)),
        more(
            "writer",
            "M ops/s",
            operations / took.wall.as_secs_f64() / 1e6,
        ),
        less("checksum off by", "chunks", {
            fleet.checksum(&sessions).abs_diff(expected(WORKERS).0) as f64
        }),
    ]
}

/// Bytes per distinct pair, after build and after ten turnovers of every session's own chunks.
pub fn memory<S: Subject>(live_heap: fn() -> usize) -> Vec<Sample> {
    // Both generations are there before memory is measured: it is the index's growth that counts.
    let [mut old, mut new] = [0, 1].map(Session::all);
    let (heap, resident) = (live_heap() as f64, resident());
    let fleet = Fleet::<S>::new(WORKERS);
    // One event at a time, so that no queue of them counts as memory of the index.
    let write = |batch| {
        fleet.subject.write(vec![batch]);
    };
    for pair in store_order() {
        fleet.store(pair, &old, WHOLE, 128).for_each(write);
    }
    let pairs = expected(WORKERS).1 as f64;
    let sizes =
        || [live_heap() as f64 - heap, self::resident() - resident].map(|bytes| bytes / pairs);
    let built = sizes();
    fleet.check(&old);
    for generation in 1..=10 {
        Session::renew(&mut new, generation);
        for pair in store_order() {
            fleet.remove(pair, &old, 128).into_iter().for_each(write);
            fleet.store(pair, &new, TAIL, 128).for_each(write);
        }
        fleet.subject.tidy();
        std::mem::swap(&mut old, &mut new);
    }
    let turned = sizes();
    fleet.check(&old);
    vec![
        less("live heap, built", "B/pair", built[0]),
        less("RSS, built", "B/pair", built[1]),
        less("live heap, after 10 turnovers", "B/pair", turned[0]),
        less("RSS, after 10 turnovers", "B/pair", turned[1]),
    ]
}

/// Depths against a plain model after random evictions of single chunks, and after their readmission.
pub fn exactness<S: Subject>() -> Vec<Sample> {
    const CHANGES: usize = 10_000;
    let sessions = Session::all(0);
    let fleet = Fleet::<S>::build(&sessions);
    let queries = fleet.queries(&sessions);
    let mut model: HashMap<u64, HashSet<u64>> = HashMap::new();
    let mut held = Vec::new();
    for pair in store_order() {
        for chunk in WHOLE {
            let key = sessions[pair.0 as usize].keys[chunk];
            model.entry(key).or_default().insert(fleet.worker(pair));
            held.push((pair, chunk));
        }
    }
    let mut rng = Rng(47);
    let mut evicted = Vec::new();
    for _ in 0..CHANGES {
        let (pair, chunk) = held[rng.below(held.len() as u64) as usize];
        let (worker, session) = (fleet.worker(pair), &sessions[pair.0 as usize]);
        let holders = model.entry(session.keys[chunk]).or_default();
        // A worker reports an eviction once; two pairs may mean the same chunk of a shared prefix.
        if holders.remove(&worker) {
            fleet
                .subject
                .write(vec![fleet.subject.remove(worker, session, &[chunk])]);
            evicted.push((pair, chunk));
        }
    }
    let mut wrong = |model: &HashMap<u64, HashSet<u64>>| {
        let wrong = (0..4_000).filter(|_| {
            let session = rng.below(SESSIONS) as usize;
            let worker = rng.below(2);
            let worker = fleet.placement[session][worker as usize];
            let holds = |key: &&u64| model.get(key).is_some_and(|held| held.contains(&worker));
            let right = sessions[session].keys.iter().take_while(holds).count() as u64;
            let found = fleet.subject.depths(&queries[session]);
            let found = found.iter().find(|(found, _)| *found == worker);
            found.map_or(0, |&(_, depth)| depth) != right
        });
        wrong.count() as f64
    };
    let after_evictions = wrong(&model);
    let mut order = Rng(48);
    for i in (1..evicted.len()).rev() {
        evicted.swap(i, order.below(i as u64 + 1) as usize);
    }
    let mut readmit = |evicted: &[((u64, usize), usize)]| {
        for &(pair, chunk) in evicted {
            let (worker, session) = (fleet.worker(pair), &sessions[pair.0 as usize]);
            let batch = fleet.subject.store(worker, session, chunk..chunk + 1);
            fleet.subject.write(vec![batch]);
            model.entry(session.keys[chunk]).or_default().insert(worker);
        }
        wrong(&model)
    };
    let (first, second) = evicted.split_at(evicted.len() / 2);
    let half = readmit(first);
    let all = readmit(second);
    vec![
        less("wrong after evictions", "of 4000", after_evictions),
        less("wrong when half of them are back", "of 4000", half),
        less("wrong when all are back", "of 4000", all),
    ]
}

/// Resident bytes of this process.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    pages.map_or(f64::NAN, |pages: f64| pages * 4096.0)
}
