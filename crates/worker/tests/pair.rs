//! A worker's stream and sender against the controller's decisions, in memory, under a clock that
//! only the test moves, over a wire that loses, repeats and reorders.
//!
//! Real: `Publisher`, `FullSync`, `Controller`. Played: the wire, the engine (a set of keys), and
//! the two agents' plumbing. At the end of every run what the controller shows is what is held.
//!
//! Operations are lost only where the protocol can notice: the first number after a registration or
//! a full sync is taken as the base (compat.md section 3), so a loss right there shows nowhere.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kvatlas_controller::Controller;
use kvatlas_controller::controller::{Settings, SyncState, WorkerAddress};
use kvatlas_controller::full_sync::SyncStart;
use kvatlas_protocol::message::{FullSyncStartRetMsg, FullSyncStatusRetMsg, Message};
use kvatlas_protocol::{
    BatchId, ChunkHash, Location, Operation, OperationKind, Timestamp, WorkerKey,
};
use kvatlas_worker::config::KeySign;
use kvatlas_worker::full_sync::{self, Action, FullSync};
use kvatlas_worker::publisher::{self, Publisher};

const LOCATIONS: [&str; 2] = ["LocalCPUBackend", "LocalDiskBackend"];
/// Keys of a location are its number times this, and up.
const KEYS: u64 = 200;
const TICK: Duration = Duration::from_millis(5);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// What is under way to the controller.
#[derive(Clone)]
enum Packet {
    Operations(Location, Vec<Operation>),
    Pushed(Message),
    Asked(Message),
}

struct Pair {
    random: u64,
    now: Timestamp,
    worker: WorkerKey,
    controller: Controller,
    publisher: Publisher,
    sync: FullSync,
    held: BTreeMap<&'static str, BTreeSet<u64>>,
    frozen: bool,
    wire: Vec<(Timestamp, Packet)>,
    answers: Vec<(Timestamp, Message)>,
    asked_until: Option<Timestamp>,
    sessions: u64,
    /// The wire is hostile.
    hostile: bool,
    /// The command to sync never arrives: LMCache's controller gives it once.
    command_lost: bool,
    lost_operations: usize,
    lost_messages: usize,
    completed: usize,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let worker = WorkerKey::new("inst", 0);
        let controller = Controller::new(Settings {
            full_sync_jitter: Duration::ZERO,
            gap_sync_interval: Duration::from_secs(1),
            full_sync_timeout: Duration::from_secs(20),
            ..Settings::default()
        });
        let settings = full_sync::Settings {
            batch_size: 7,
            startup_delay: Duration::ZERO,
            status_poll_interval: Duration::from_secs(1),
            retry_delay: Duration::from_millis(100),
            max_poll_attempts: 15,
            ..full_sync::Settings::default()
        };
        let mut pair = Self {
            random: seed,
            now: Timestamp(1_000_000),
            controller,
            publisher: Publisher::new(publisher::Settings::default()),
            sync: FullSync::new(settings, worker.clone(), KeySign::Signed),
            worker,
            held: LOCATIONS.map(|name| (name, BTreeSet::new())).into(),
            frozen: false,
            wire: Vec::new(),
            answers: Vec::new(),
            asked_until: None,
            sessions: 0,
            hostile: false,
            command_lost: false,
            lost_operations: 0,
            lost_messages: 0,
            completed: 0,
        };
        pair.controller
            .handle_register(pair.worker.clone(), address(), pair.now)
            .unwrap();
        // The base of both streams.
        for _ in 0..40 {
            pair.change();
        }
        pair.run(Duration::from_millis(50), false);
        pair
    }

    /// In 0..`bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    /// The engine admits or evicts a key.
    fn change(&mut self) {
        let number = self.below(2) as usize;
        let key = number as u64 * 1000 + self.below(KEYS);
        let keys = self.held.get_mut(LOCATIONS[number]).unwrap();
        let kind = if keys.remove(&key) {
            OperationKind::Evict
        } else {
            keys.insert(key);
            OperationKind::Admit
        };
        let location = Location::from(LOCATIONS[number]);
        self.publisher
            .push(&location, kind, ChunkHash(key), self.now);
    }

    fn run(&mut self, time: Duration, changes: bool) {
        let end = self.now + time;
        let mut next_beat = self.now;
        while self.now < end {
            self.now = self.now + TICK;
            if changes && !self.frozen && self.below(3) == 0 {
                self.change();
            }
            if self.publisher.due().is_some_and(|due| due <= self.now) {
                for batch in self.publisher.drain() {
                    let operations = batch.operations.into();
                    self.send_operations(batch.location, operations);
                }
            }
            if next_beat <= self.now {
                next_beat = self.now + Duration::from_secs(1);
                self.beat();
            }
            self.go_on();
            self.deliver();
        }
    }

    fn beat(&mut self) {
        let reply = self
            .controller
            .handle_heartbeat(self.worker.clone(), address(), self.now)
            .unwrap();
        self.controller.tick(self.now);
        if self.hostile && self.below(4) == 0 {
            self.lost_messages += 1;
            return;
        }
        if self.command_lost {
            return;
        }
        for request in reply.full_sync {
            let locations: Vec<Location> = match request.location {
                Some(location) => vec![location],
                None => LOCATIONS.map(Location::from).into(),
            };
            self.sync
                .handle_request(locations, Duration::ZERO, self.now);
        }
    }

    /// The sender's actions, answers and timeouts.
    fn go_on(&mut self) {
        if self
            .asked_until
            .take_if(|until| *until <= self.now)
            .is_some()
        {
            self.sync.handle_no_reply(self.now);
        }
        while let Some(action) = self.sync.poll(self.now) {
            match action {
                Action::Freeze(frozen) => self.frozen = frozen,
                Action::List(location) => {
                    let keys = &self.held[location.as_str()];
                    let keys = keys.iter().copied().map(ChunkHash).collect();
                    self.sessions += 1;
                    let id = format!("session-{}", self.sessions);
                    self.sync.handle_listed(Some(keys), id, self.now);
                }
                Action::Ask(message) => {
                    self.asked_until = Some(self.now + ANSWER_TIMEOUT);
                    self.send(Packet::Asked(message));
                }
                Action::Push(message) => self.send(Packet::Pushed(message)),
                Action::Finished(_, result) => self.completed += usize::from(result.is_ok()),
            }
        }
    }

    /// Whether a lost operation would be noticed: numbers are being compared.
    fn watched(&self, location: &Location) -> bool {
        let Some(info) = self.controller.worker(&self.worker) else {
            return true;
        };
        info.locations
            .iter()
            .find(|known| known.location == *location)
            .is_some_and(|known| matches!(known.sync, SyncState::Idle | SyncState::Wanted { .. }))
    }

    /// In order, as one connection delivers; lost or repeated if the wire is hostile.
    fn send_operations(&mut self, location: Location, operations: Vec<Operation>) {
        let packet = Packet::Operations(location.clone(), operations);
        if self.hostile && self.below(12) == 0 && self.watched(&location) {
            self.lost_operations += 1;
            return;
        }
        self.wire.push((self.now, packet.clone()));
        if self.hostile && self.below(12) == 0 {
            self.wire.push((self.now, packet));
        }
    }

    fn send(&mut self, packet: Packet) {
        if !self.hostile {
            self.wire.push((self.now, packet));
            return;
        }
        for _ in 0..[0, 1, 1, 1, 1, 1, 2][self.below(7) as usize] {
            let late = Duration::from_millis(self.below(120));
            self.wire.push((self.now + late, packet.clone()));
        }
        self.lost_messages += 1;
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.wire)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.wire = later;
        for (_, packet) in due {
            match packet {
                Packet::Operations(location, operations) => {
                    let (instance, rank) = (self.worker.instance.as_str(), self.worker.worker);
                    let location = location.as_str();
                    let applied =
                        self.controller
                            .apply_batch(instance, rank, location, &operations, now);
                    // One that has just restarted does not know the worker yet.
                    assert!(
                        applied.is_ok() || self.controller.worker(&self.worker).is_none(),
                        "{applied:?}"
                    );
                }
                Packet::Pushed(message) => self.handle_pushed(message),
                Packet::Asked(message) => {
                    let answer = self.handle_asked(message);
                    if !(self.hostile && self.below(6) == 0) {
                        self.answers.push((now, answer));
                    }
                }
            }
        }
        for (_, answer) in std::mem::take(&mut self.answers) {
            let taken = match answer {
                Message::FullSyncStartRetMsg(reply) => self.sync.handle_start_reply(reply, now),
                Message::FullSyncStatusRetMsg(reply) => self.sync.handle_status_reply(reply, now),
                other => panic!("answered {other:?}"),
            };
            if taken {
                self.asked_until = None;
            }
        }
    }

    fn handle_pushed(&mut self, message: Message) {
        let (instance, rank) = (self.worker.instance.as_str(), self.worker.worker);
        // A refusal (a session that is over) is the wire's doing.
        match message {
            Message::FullSyncBatchMsg(batch) => {
                let keys: Vec<ChunkHash> = batch.keys.iter().map(|key| key.hash()).collect();
                let _ = self.controller.handle_sync_batch(
                    instance,
                    rank,
                    &batch.location,
                    &batch.sync_id,
                    BatchId(batch.batch_id),
                    &keys,
                    self.now,
                );
            }
            Message::FullSyncEndMsg(end) => {
                let _ = self.controller.handle_sync_end(
                    &self.worker,
                    &end.location,
                    &end.sync_id,
                    end.actual_total_keys,
                    self.now,
                );
            }
            other => panic!("pushed {other:?}"),
        }
    }

    fn handle_asked(&mut self, message: Message) -> Message {
        match message {
            Message::FullSyncStartMsg(start) => {
                let outcome = self.controller.handle_sync_start(
                    SyncStart {
                        worker: self.worker.clone(),
                        location: start.location.into(),
                        sync_id: start.sync_id.as_str().into(),
                        total_keys: start.total_keys,
                        batch_count: start.batch_count,
                    },
                    self.now,
                );
                FullSyncStartRetMsg {
                    sync_id: start.sync_id,
                    accepted: outcome.is_ok(),
                    error_msg: outcome.err().map(|refusal| refusal.to_string()),
                }
                .into()
            }
            Message::FullSyncStatusMsg(status) => {
                let answer =
                    self.controller
                        .handle_sync_status(&self.worker, &status.sync_id, self.now);
                FullSyncStatusRetMsg {
                    sync_id: status.sync_id,
                    is_complete: answer.is_complete,
                    global_progress: answer.global_progress,
                    can_exit_freeze: answer.can_exit_freeze,
                    missing_batches: answer.missing_batches.iter().map(|id| id.0).collect(),
                }
                .into()
            }
            other => panic!("asked {other:?}"),
        }
    }

    /// A clean wire until nothing is left to do.
    fn calm(&mut self) {
        self.hostile = false;
        // One more operation each, by which the last loss shows.
        self.frozen = false;
        for location in LOCATIONS {
            let key = if location == LOCATIONS[0] { 900 } else { 1900 };
            self.held.get_mut(location).unwrap().insert(key);
            self.publisher.push(
                &location.into(),
                OperationKind::Admit,
                ChunkHash(key),
                self.now,
            );
        }
        for _ in 0..60 {
            self.run(Duration::from_secs(5), false);
            let info = self.controller.worker(&self.worker).unwrap();
            let settled = info.locations.iter().all(|location| {
                matches!(location.sync, SyncState::Idle | SyncState::Completed { .. })
            });
            if settled && !self.sync.is_active() {
                return;
            }
        }
        panic!(
            "never settled: {:?} {:?} {:?} {:?}",
            self.controller.worker(&self.worker),
            self.sync,
            self.asked_until,
            self.now
        );
    }

    /// What the controller shows.
    fn shown(&self) -> BTreeSet<u64> {
        (0..2000)
            .filter(|&key| !self.controller.instances_holding(ChunkHash(key)).is_empty())
            .collect()
    }

    fn assert_equal(&self, what: &str) {
        let held: BTreeSet<u64> = self.held.values().flatten().copied().collect();
        let shown = self.shown();
        assert_eq!(
            shown,
            held,
            "{what}: shown too much {:?}, too little {:?}",
            shown.difference(&held).collect::<Vec<_>>(),
            held.difference(&shown).collect::<Vec<_>>()
        );
        assert!(!self.frozen, "{what}: left frozen");
    }
}

fn address() -> WorkerAddress {
    WorkerAddress {
        ip: "127.0.0.1".into(),
        port: 1,
        peer_url: None,
    }
}

#[test]
fn a_hostile_wire_leaves_nothing_wrong_for_good() {
    let (mut lost_operations, mut lost_messages, mut completed) = (0, 0, 0);
    for seed in 0..40 {
        let mut pair = Pair::new(seed);
        pair.hostile = true;
        pair.run(Duration::from_secs(30), true);
        pair.calm();
        pair.assert_equal(&format!("seed {seed}"));
        lost_operations += pair.lost_operations;
        lost_messages += pair.lost_messages;
        completed += pair.completed;
    }
    assert!(lost_operations > 100, "{lost_operations}");
    assert!(lost_messages > 1000, "{lost_messages}");
    assert!(completed > 40, "{completed}");
}

#[test]
fn a_clean_wire_needs_no_sync() {
    let mut pair = Pair::new(7);
    pair.run(Duration::from_secs(20), true);
    pair.assert_equal("clean");
    assert_eq!((pair.sessions, pair.completed), (0, 0));
}

impl Pair {
    /// A new controller that knows nothing; what was on its way to the old one is lost with it.
    fn restart_controller(&mut self) {
        self.controller = Controller::new(Settings {
            full_sync_jitter: Duration::ZERO,
            ..Settings::default()
        });
        self.wire.clear();
        self.answers.clear();
    }
}

#[test]
fn a_sync_lost_with_its_controller_is_begun_again_though_nobody_asks() {
    let mut restarted_at = BTreeSet::new();
    // Steps of the run (a question, a batch, End) after which the controller dies.
    for steps in 0..200 {
        let mut pair = Pair::new(steps);
        pair.run(Duration::from_secs(2), true);
        pair.sync
            .handle_request(LOCATIONS.map(Location::from), Duration::ZERO, pair.now);
        for _ in 0..steps {
            pair.run(TICK, false);
        }
        if !pair.sync.is_active() {
            assert!(steps > 5, "over before it could be interrupted");
            assert!(restarted_at.len() >= 4, "{restarted_at:?}");
            return;
        }
        restarted_at.insert(pair.sessions);
        restarted_at.insert(100 + pair.completed as u64);
        pair.restart_controller();
        pair.command_lost = true;
        pair.run(Duration::from_secs(30), false);
        pair.assert_equal(&format!("after {steps} steps"));
        assert!(!pair.sync.is_active());
    }
    panic!("the run never ended");
}

#[test]
fn a_controller_that_lost_everything_is_told_again_and_once() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed);
        pair.run(Duration::from_secs(5), true);
        for restarts in 1..=2 {
            pair.restart_controller();
            pair.run(Duration::from_secs(20), true);
            pair.run(Duration::from_secs(1), false);
            pair.assert_equal(&format!("seed {seed}, restart {restarts}"));
            // Each location once.
            assert_eq!(pair.completed, 2 * restarts, "seed {seed}");
        }
    }
}

#[test]
fn restarts_in_the_middle_of_anything_lose_nothing() {
    let mut interrupted = 0;
    for seed in 0..40 {
        let mut pair = Pair::new(seed);
        pair.hostile = true;
        for _ in 0..6 {
            let time = Duration::from_millis(pair.below(6_000));
            pair.run(time, true);
            interrupted += usize::from(pair.sync.is_active());
            pair.restart_controller();
        }
        pair.run(Duration::from_secs(10), true);
        pair.calm();
        pair.assert_equal(&format!("seed {seed}"));
    }
    assert!(interrupted > 40, "{interrupted}");
}
