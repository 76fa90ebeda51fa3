//! Snapshots and journals: whatever moment they were taken at, what comes back is what was.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::index::HolderId;
use crate::journal::{Malformed, Replay};
use crate::restore::{SyncRecord, WorkerRecord};
use crate::snapshot::{Decoder, Encoder};

/// What a store would have on disk: a snapshot, and the journals since it was begun.
#[derive(Default)]
pub(super) struct Disk {
    snapshot: Snapshot,
    journals: Vec<Vec<u8>>,
    /// A snapshot in the making: its encoder, what it has, and where it goes on.
    pending: Option<(Encoder, Snapshot, u64)>,
}

#[derive(Clone, Default)]
struct Snapshot {
    position: u64,
    workers: Vec<u8>,
    keys: Vec<Vec<u8>>,
    /// The journals it needs are those from this one on.
    first_journal: usize,
}

impl Disk {
    /// A new process's disk: empty, and its journal begins.
    pub(super) fn begin(controller: &Controller) -> Self {
        controller.journal().start(0, 1 << 20);
        Self {
            journals: vec![Vec::new()],
            ..Self::default()
        }
    }

    /// Writes down what the journal has.
    pub(super) fn sync(&mut self, controller: &Controller) {
        let taken = controller.journal().take(Vec::new());
        assert!(!taken.is_broken);
        self.journals.last_mut().unwrap().extend(taken.bytes);
    }

    /// Begins a snapshot; the keys follow with [`Self::proceed`].
    pub(super) fn begin_snapshot(&mut self, controller: &Controller) {
        let taken = controller.journal().rotate(Vec::new());
        self.journals.last_mut().unwrap().extend(taken.bytes);
        self.journals.push(Vec::new());
        let mut snapshot = Snapshot {
            position: taken.next,
            first_journal: self.journals.len() - 1,
            ..Snapshot::default()
        };
        let mut encoder = Encoder::default();
        let records = controller.export();
        let mut done = 0;
        while done < records.len() {
            done += encoder.workers(&records[done..], &mut snapshot.workers);
        }
        self.pending = Some((encoder, snapshot, 0));
    }

    /// A snapshot was begun and is not complete.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Writes the next part of a snapshot that was begun.
    pub(super) fn proceed(&mut self, controller: &Controller) {
        if let Some((mut encoder, mut snapshot, from)) = self.pending.take() {
            let mut block = Vec::new();
            let next = encoder.keys(controller, from, &mut block);
            snapshot.keys.push(block);
            match next {
                Some(next) => self.pending = Some((encoder, snapshot, next)),
                None => self.snapshot = snapshot,
            }
        }
    }

    /// What a new process knows before it goes on.
    pub(super) fn restore(&self, settings: Settings) -> (Controller, u64) {
        let new = Controller::new(settings);
        let mut decoder = Decoder::default();
        decoder.workers(&new, &self.snapshot.workers).unwrap();
        for block in &self.snapshot.keys {
            decoder.keys(&new, block).unwrap();
        }
        let mut replay = Replay::new(&new, decoder.positions(), self.snapshot.position);
        for journal in &self.journals[self.snapshot.first_journal..] {
            replay.begin_file();
            replay.records(journal).unwrap();
        }
        let position = replay.finish();
        new.check_invariants();
        (new, position)
    }

    /// The process ends and another goes on from what is on disk.
    pub(super) fn restart(
        &mut self,
        old: &Controller,
        settings: Settings,
        now: Timestamp,
    ) -> Controller {
        self.sync(old);
        let (new, position) = self.restore(settings);
        assert_eq!(position, old.journal().position());
        assert_eq!(facts(&new), facts(old));
        self.pending = None;
        self.journals.push(Vec::new());
        new.journal().start(position, 1 << 20);
        new.resume(now, super::restore::GRACE);
        new.check_invariants();
        new
    }
}

/// Everything that must survive, in a form that can be compared.
#[derive(Debug, PartialEq)]
pub(super) struct Facts {
    workers: Vec<WorkerRecord>,
    /// Keys by worker, location and whether the set is a running session's.
    keys: BTreeMap<(WorkerKey, String, bool), Vec<u64>>,
}

pub(super) fn facts(controller: &Controller) -> Facts {
    let mut workers = controller.export();
    let mut sets: BTreeMap<HolderId, (WorkerKey, String, bool)> = BTreeMap::new();
    for worker in &mut workers {
        worker.position = 0;
        worker.last_heartbeat = None;
        for known in &mut worker.locations {
            let mut name = |set: &mut Option<HolderId>, hidden| {
                if let Some(set) = set {
                    let location = known.location.as_str().to_owned();
                    sets.insert(*set, (worker.key.clone(), location, hidden));
                    *set = HolderId::from_ordinal(0);
                }
            };
            name(&mut known.holder, false);
            let window = known.window.as_mut();
            window
                .into_iter()
                .for_each(|window| window.last.sort_by_key(|(key, _)| *key));
            if let SyncRecord::Running(session) = &mut known.sync {
                name(&mut session.hidden, true);
                session.window.last.sort_by_key(|(key, _)| *key);
            }
        }
    }
    let mut keys: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    let mut next = Some(0);
    while let Some(from) = next {
        next = controller.export_keys(from, |hash, holders| {
            for set in holders.iter().filter_map(|holder| sets.get(holder)) {
                keys.entry(set.clone()).or_default().push(hash.0);
            }
        });
    }
    keys.values_mut().for_each(|keys| keys.sort_unstable());
    Facts { workers, keys }
}

/// A short history with a bit of everything, one record a step; after each step, the bytes so far and
/// the facts.
fn history() -> (Vec<u8>, Vec<(usize, Facts)>) {
    // One place, so that the heartbeat below only registers.
    let mut f = Fleet::with(Settings {
        full_sync_parallel: 1,
        ..Settings::default()
    });
    let mut disk = Disk::begin(&f.controller);
    let mut steps = Vec::new();
    let mut step = |f: &Fleet| {
        disk.sync(&f.controller);
        steps.push((disk.journals[0].len(), facts(&f.controller)));
        disk.journals[0].clone()
    };
    f.register("i", 0);
    step(&f);
    f.register("i", -3);
    step(&f);
    f.admit("i", 0, &[1, 2, 3, u64::MAX]);
    step(&f);
    let disk_tier = ("i", -3, DISK);
    f.send(disk_tier, OperationKind::Admit, &[2, 4], at(2))
        .unwrap();
    step(&f);
    f.send(disk_tier, OperationKind::Evict, &[2], at(3))
        .unwrap();
    step(&f);
    f.lose("i", 0, CPU, 5);
    let cpu = ("i", 0, CPU);
    f.send(cpu, OperationKind::Admit, &[9], at(4)).unwrap();
    step(&f);
    f.asked("i", 0, at(9));
    step(&f);
    f.start(cpu, "s", 2, at(10)).unwrap();
    step(&f);
    f.batch(cpu, "s", 1, &[1, 70]).unwrap();
    step(&f);
    f.send(cpu, OperationKind::Evict, &[1], at(11)).unwrap();
    step(&f);
    f.heartbeat("new", 1, at(12));
    step(&f);
    f.controller.handle_deregister(&key("i", -3), at(13));
    let bytes = step(&f);
    (bytes, steps)
}

fn replayed(bytes: &[u8]) -> (Facts, Result<(), Malformed>) {
    let new = Controller::new(Settings::default());
    let mut replay = Replay::new(&new, Default::default(), 0);
    let outcome = replay.records(bytes);
    replay.finish();
    new.check_invariants();
    (facts(&new), outcome)
}

#[test]
fn every_prefix_of_a_journal_is_a_state_that_was() {
    let (bytes, steps) = history();
    assert_eq!(steps.last().unwrap().0, bytes.len());
    for (len, expected) in &steps {
        let (found, outcome) = replayed(&bytes[..*len]);
        assert_eq!((&found, outcome), (expected, Ok(())));
    }
    let mut states: Vec<_> = steps.iter().map(|(_, facts)| facts).collect();
    let empty = facts(&Controller::new(Settings::default()));
    states.insert(0, &empty);
    for len in 0..bytes.len() {
        let (found, _) = replayed(&bytes[..len]);
        assert!(states.contains(&&found), "cut at {len}: {found:#?}");
    }
}

#[test]
fn what_exceeds_the_buffer_is_said_and_a_restart_leaves_a_hole() {
    let mut f = Fleet::new();
    let journal = f.controller.journal();
    journal.start(7, 100);
    f.register("i", 0);
    let many: Vec<u64> = (0..100).collect();
    f.admit("i", 0, &many);
    f.admit("i", 0, &[1]);
    let journal = f.controller.journal();
    let taken = journal.take(Vec::new());
    assert!(taken.is_broken && taken.bytes.len() > 100);
    assert_eq!((taken.first, taken.next), (7, 10));
    assert!(journal.take(Vec::new()).bytes.is_empty());
    assert_eq!(journal.restart(), 11);
    f.admit("i", 0, &[2]);
    let taken = f.controller.journal().take(Vec::new());
    assert!(!taken.is_broken && !taken.bytes.is_empty());
    assert_eq!((taken.first, taken.next), (11, 12));
}

proptest! {
    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_panic(
        at in any::<prop::sample::Index>(), flip in 1..=255u8, blocks: Vec<u8>,
    ) {
        let (mut bytes, _) = history();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = replayed(&bytes);
        let new = Controller::new(Settings::default());
        let mut decoder = Decoder::default();
        let _ = decoder.workers(&new, &blocks);
        let _ = decoder.keys(&new, &blocks);
    }
}
