//! The controller against workers that know the truth.
//!
//! Model workers hold keys, number their operations, and send them through a pipe that keeps its
//! order (PUSH), while registrations, heartbeats, Start and Status arrive at once (they overtake the
//! pipe). Operations and sync batches get lost or come twice, workers restart, leave, fall silent
//! and expire, the controller restarts from its last snapshot and the journals since, and must then
//! know exactly what it knew. When everything is quiet and every sync
//! that was asked for is done, the controller must hold exactly what the workers hold.
//!
//! Not played, because nobody can notice it: a loss with nothing of that stream heard before it
//! since the base was set, or nothing after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::journal::Disk;
use super::*;

const LOCATIONS: [&str; 2] = [CPU, DISK];
/// Instance and rank of every model worker.
const WORKERS: [(&str, i64); 4] = [("a", 0), ("a", 1), ("b", 0), ("c", 7)];
const N_KEYS: u64 = 12;
const BATCH: usize = 3;

#[derive(Debug, Clone)]
enum Action {
    /// Admits or evicts, in one message; sent twice if `repeated`.
    Operate {
        location: usize,
        changes: Vec<(bool, u64)>,
        repeated: bool,
    },
    /// The same, and the message is lost.
    Lose {
        location: usize,
        changes: Vec<(bool, u64)>,
    },
    Deliver(usize),
    Heartbeat,
    /// Starts what it was asked for; these of its batches get lost, and the End if so.
    Start {
        lost: Vec<usize>,
        end_lost: bool,
    },
    /// Asks for the status and sends again what is missing.
    Poll,
    Restart,
    Leave,
    Wait(u64),
    BeginSnapshot,
    RestartController,
}

#[derive(Debug)]
enum Push {
    Operations(usize, Vec<Operation>),
    Batch(usize, String, i64, Vec<u64>),
    End(usize, String),
}

#[derive(Debug, Default)]
struct Worker {
    held: [BTreeSet<u64>; 2],
    seq: [i64; 2],
    pipe: VecDeque<Push>,
    /// Locations asked for, with the keys listed when the question came.
    asked: VecDeque<(usize, Option<Vec<u64>>)>,
    session: Option<(usize, String, Vec<Vec<u64>>)>,
}

struct World {
    controller: Controller,
    disk: Disk,
    workers: Vec<Worker>,
    now: u64,
    n_syncs: u64,
}

impl Worker {
    fn operate(&mut self, location: usize, changes: &[(bool, u64)]) -> Vec<Operation> {
        let change = |&(admit, key): &(bool, u64)| {
            self.seq[location] += 1;
            let kind = if admit {
                self.held[location].insert(key);
                OperationKind::Admit
            } else {
                self.held[location].remove(&key);
                OperationKind::Evict
            };
            Operation {
                kind,
                hash: ChunkHash(key),
                seq: SeqNum(self.seq[location]),
            }
        };
        changes.iter().map(change).collect()
    }

    fn list(&self, location: usize) -> Vec<u64> {
        self.held[location].iter().copied().collect()
    }
}

impl World {
    fn new() -> Self {
        let controller = Controller::new(settings());
        let world = Self {
            disk: Disk::begin(&controller),
            controller,
            workers: WORKERS.iter().map(|_| Worker::default()).collect(),
            now: 0,
            n_syncs: 0,
        };
        for (instance, rank) in WORKERS {
            let registered = world.controller.handle_register(
                key(instance, rank),
                address("h", None),
                at(world.now),
            );
            registered.unwrap();
        }
        world
    }

    fn act(&mut self, who: usize, action: &Action) {
        let (instance, rank) = WORKERS[who];
        self.now += 1;
        let now = at(self.now);
        let worker = &mut self.workers[who];
        match action {
            Action::Operate {
                location,
                changes,
                repeated,
            } => {
                let operations = worker.operate(*location, changes);
                if *repeated {
                    let again = Push::Operations(*location, operations.clone());
                    worker.pipe.push_back(again);
                }
                worker
                    .pipe
                    .push_back(Push::Operations(*location, operations));
            }
            Action::Lose { location, changes } => {
                if worker.session.is_some() {
                    return;
                }
                let before = worker.operate(*location, &[(true, 0)]);
                worker.pipe.push_back(Push::Operations(*location, before));
                worker.operate(*location, changes);
                let after = worker.operate(*location, &[(true, 1)]);
                worker.pipe.push_back(Push::Operations(*location, after));
            }
            Action::Deliver(n) => {
                for _ in 0..*n {
                    self.deliver(who);
                }
            }
            Action::Heartbeat => {
                let reply = self
                    .controller
                    .handle_heartbeat(key(instance, rank), address("h", None), now)
                    .unwrap();
                for request in reply.full_sync {
                    match request.location {
                        Some(location) => {
                            let at = usize::from(location.as_str() == DISK);
                            worker.asked.retain(|(asked, _)| *asked != at);
                            worker.asked.push_front((at, Some(worker.list(at))));
                        }
                        None => {
                            worker.asked.clear();
                            worker.asked.push_back((0, Some(worker.list(0))));
                            worker.asked.push_back((1, None));
                        }
                    }
                }
            }
            Action::Start { lost, end_lost } => self.start(who, lost, *end_lost),
            Action::Poll => self.poll(who),
            Action::Restart => {
                *worker = Worker::default();
                let known = self.controller.worker(&key(instance, rank)).is_some();
                let registered = self
                    .controller
                    .handle_register(key(instance, rank), address("h", None), now)
                    .unwrap();
                assert_eq!(registered.replaced, known);
            }
            Action::Leave => {
                self.controller.handle_deregister(&key(instance, rank), now);
            }
            Action::Wait(seconds) => {
                self.now += seconds;
                self.controller.expire(at(self.now));
            }
            Action::RestartController => {
                self.controller = self.disk.restart(&self.controller, settings(), now);
            }
            Action::BeginSnapshot => self.disk.begin_snapshot(&self.controller),
        }
        // Batches go on while a snapshot is written.
        self.disk.proceed(&self.controller);
        self.controller.check_invariants();
    }

    fn deliver(&mut self, who: usize) {
        let (instance, rank) = WORKERS[who];
        let now = at(self.now);
        let Some(push) = self.workers[who].pipe.pop_front() else {
            return;
        };
        let rank_id = WorkerId(rank);
        // Refusals are part of the game: of workers that left, of sessions that ended.
        match push {
            Push::Operations(location, operations) => {
                let location = LOCATIONS[location];
                let _ = self
                    .controller
                    .apply_batch(instance, rank_id, location, &operations, now);
            }
            Push::Batch(location, id, batch, keys) => {
                let _ = self.controller.handle_sync_batch(
                    instance,
                    rank_id,
                    LOCATIONS[location],
                    &id,
                    BatchId(batch),
                    &hashes(&keys),
                    now,
                );
            }
            Push::End(location, id) => {
                let worker = key(instance, rank);
                let location = LOCATIONS[location];
                let _ = self
                    .controller
                    .handle_sync_end(&worker, location, &id, 0, now);
            }
        }
    }

    fn start(&mut self, who: usize, lost: &[usize], end_lost: bool) {
        let (instance, rank) = WORKERS[who];
        let worker = &mut self.workers[who];
        if worker.session.is_some() {
            return;
        }
        let Some((location, listed)) = worker.asked.pop_front() else {
            return;
        };
        let keys = listed.unwrap_or_else(|| worker.list(location));
        // One sync at a time: the others list their keys when their turn comes.
        worker
            .asked
            .iter_mut()
            .for_each(|(_, listed)| *listed = None);
        let mut batches: Vec<Vec<u64>> = keys.chunks(BATCH).map(<[u64]>::to_vec).collect();
        if batches.is_empty() {
            batches.push(Vec::new());
        }
        self.n_syncs += 1;
        let id = format!("{instance}_{rank}_{}", self.n_syncs);
        let start = SyncStart {
            worker: key(instance, rank),
            location: LOCATIONS[location].into(),
            sync_id: id.as_str().into(),
            total_keys: keys.len() as i64,
            batch_count: batches.len() as i64,
        };
        if self
            .controller
            .handle_sync_start(start, at(self.now))
            .is_err()
        {
            return;
        }
        for (n, keys) in batches.iter().enumerate() {
            if !lost.contains(&n) {
                let batch = Push::Batch(location, id.clone(), n as i64, keys.clone());
                worker.pipe.push_back(batch);
            }
        }
        if !end_lost {
            worker.pipe.push_back(Push::End(location, id.clone()));
        }
        worker.session = Some((location, id, batches));
    }

    fn poll(&mut self, who: usize) {
        let (instance, rank) = WORKERS[who];
        let worker = &mut self.workers[who];
        let Some((location, id, batches)) = &worker.session else {
            return;
        };
        let worker_key = key(instance, rank);
        let status = self
            .controller
            .handle_sync_status(&worker_key, id, at(self.now));
        for batch in &status.missing_batches {
            let keys = batches[batch.0 as usize].clone();
            let batch = Push::Batch(*location, id.clone(), batch.0, keys);
            worker.pipe.push_back(batch);
        }
        let is_running = self.controller.worker(&worker_key).is_some_and(|info| {
            info.locations.iter().any(|known| {
                matches!(&known.sync, SyncState::Running { sync_id, .. } if sync_id.as_str() == id)
            })
        });
        if is_running {
            worker.pipe.push_back(Push::End(*location, id.clone()));
        } else {
            worker.session = None;
        }
    }

    /// No more losses: everything is delivered, and every sync that is asked for is done.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..60 {
            let mut quiet = true;
            for who in 0..WORKERS.len() {
                for _ in 0..4 {
                    self.act(who, &Action::Heartbeat);
                    let worker = &self.workers[who];
                    quiet &= worker.session.is_none() && worker.asked.is_empty();
                    let no_loss = Action::Start {
                        lost: Vec::new(),
                        end_lost: false,
                    };
                    self.act(who, &no_loss);
                    while !self.workers[who].pipe.is_empty() {
                        self.deliver(who);
                    }
                    self.act(who, &Action::Poll);
                }
            }
            self.now += 50;
            if quiet && self.controller.workers().iter().all(is_settled) {
                return Ok(());
            }
        }
        Err(TestCaseError::fail(format!(
            "no end: {:#?}",
            self.controller.workers()
        )))
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let mut sets: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.controller.export_keys(from, |hash, holders| {
                for holder in holders {
                    sets.entry(*holder).or_default().insert(hash.0);
                }
            });
        }
        let mut reporting: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for record in self.controller.export() {
            let who = WORKERS
                .iter()
                .position(|w| key(w.0, w.1) == record.key)
                .unwrap();
            if record.locations.iter().any(|known| known.holder.is_some()) {
                reporting.entry(WORKERS[who].0).or_default().push(who);
            }
            for (location, name) in LOCATIONS.iter().enumerate() {
                let known = record
                    .locations
                    .iter()
                    .find(|k| k.location.as_str() == *name);
                let set = known.and_then(|known| sets.get(&known.holder?)).cloned();
                let held = &self.workers[who].held[location];
                prop_assert_eq!(&set.unwrap_or_default(), held, "{}:{}", record.key, name);
            }
        }
        for first in 0..N_KEYS {
            let chain: Vec<u64> = (first..N_KEYS).collect();
            let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
            for (instance, ranks) in &reporting {
                let holds = |who: &usize, key: &u64| {
                    self.workers[*who].held.iter().any(|set| set.contains(key))
                };
                let run = chain
                    .iter()
                    .take_while(|key| ranks.iter().all(|who| holds(who, key)))
                    .count();
                if run > 0 {
                    expected.insert(instance, run);
                }
            }
            let found = self.controller.lookup(hashes(&chain));
            prop_assert!(found.is_sorted_by_key(|m| std::cmp::Reverse(m.chunks)));
            let found: BTreeMap<_, _> = found
                .iter()
                .map(|m| (m.instance.as_str(), m.chunks))
                .collect();
            prop_assert_eq!(found, expected);
        }
        Ok(())
    }
}

fn settings() -> Settings {
    Settings {
        full_sync_timeout: Duration::from_secs(100),
        full_sync_parallel: 2,
        ..Settings::default()
    }
}

fn is_settled(info: &crate::controller::WorkerInfo) -> bool {
    let done = |known: &crate::controller::LocationInfo| {
        matches!(known.sync, SyncState::Idle | SyncState::Completed { .. })
    };
    info.sync_wanted.is_none() && info.locations.iter().all(done)
}

fn actions() -> impl Strategy<Value = Vec<(usize, Action)>> {
    let changes = || prop::collection::vec((prop::bool::weighted(0.6), 0..N_KEYS), 1..6);
    let action = prop_oneof![
        8 => (0..2usize, changes(), prop::bool::weighted(0.1)).prop_map(
            |(location, changes, repeated)| Action::Operate { location, changes, repeated }
        ),
        2 => (0..2usize, changes())
            .prop_map(|(location, changes)| Action::Lose { location, changes }),
        8 => (1..4usize).prop_map(Action::Deliver),
        4 => Just(Action::Heartbeat),
        4 => (prop::collection::vec(0..4usize, 0..2), prop::bool::weighted(0.1))
            .prop_map(|(lost, end_lost)| Action::Start { lost, end_lost }),
        3 => Just(Action::Poll),
        1 => Just(Action::Restart),
        1 => Just(Action::Leave),
        2 => (1..200u64).prop_map(Action::Wait),
        1 => Just(Action::BeginSnapshot),
        1 => Just(Action::RestartController),
    ];
    prop::collection::vec((0..WORKERS.len(), action), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn when_all_is_quiet_the_controller_holds_what_the_workers_hold(actions in actions()) {
        let mut world = World::new();
        for (who, action) in &actions {
            world.act(*who, action);
        }
        world.settle()?;
        world.check()?;
    }
}
