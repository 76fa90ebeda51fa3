//! A restart that remembers.

use std::time::Duration;

use super::journal::Disk;
use super::*;
use crate::restore::{SyncRecord, WorkerRecord};

pub(super) const GRACE: Duration = Duration::from_secs(60);

/// A new controller with everything the old one knows.
fn reborn(old: &Controller, settings: Settings, now: Timestamp) -> Controller {
    let mut disk = Disk::begin(old);
    disk.begin_snapshot(old);
    while disk.is_pending() {
        disk.proceed(old);
    }
    disk.restart(old, settings, now)
}

fn restarted(old: Fleet, now: Timestamp) -> Fleet {
    Fleet {
        controller: reborn(&old.controller, Settings::default(), now),
        seqs: old.seqs,
    }
}

fn two_workers() -> Fleet {
    let mut f = Fleet::of(&[("i", 0), ("j", 0)]);
    f.admit("i", 0, &[1, 2, 3]);
    f.admit("j", 0, &[1]);
    f.send(("j", 0, DISK), OperationKind::Admit, &[2], at(1))
        .unwrap();
    f
}

#[test]
fn lookups_answer_at_once_and_nothing_else_is_forgotten() {
    let old = two_workers();
    let (before, found) = (old.controller.export(), old.lookup(&[1, 2, 3]));
    let new = restarted(old, at(100));
    assert_eq!(new.lookup(&[1, 2, 3]), found);
    let strip = |records: Vec<WorkerRecord>| -> Vec<_> {
        let location = |l: crate::restore::LocationRecord| (l.location, l.sequence);
        records
            .into_iter()
            .map(|r| {
                let locations: Vec<_> = r.locations.into_iter().map(location).collect();
                (r.key, r.address, r.registered_at, locations)
            })
            .collect()
    };
    assert_eq!(strip(new.controller.export()), strip(before));
    assert!(new.controller.expire(at(101)).is_empty());
}

#[test]
fn numbers_that_continue_prove_a_worker_and_it_is_never_asked() {
    let mut f = restarted(two_workers(), at(100));
    f.send(I, OperationKind::Admit, &[4], at(101)).unwrap();
    assert_eq!(f.sync_state("i", 0, CPU), SyncState::Idle);
    let proved = f.controller.worker(&key("i", 0)).unwrap().locations[0].proved_at;
    assert_eq!(proved, Some(at(101)));
    assert!(f.asked("i", 0, at(1000)).is_empty());
}

const I: (&str, i64, &str) = ("i", 0, CPU);

#[test]
fn a_gap_over_the_restart_asks_for_that_location() {
    let mut f = restarted(two_workers(), at(100));
    f.lose("j", 0, DISK, 1);
    let disk = ("j", 0, DISK);
    f.send(disk, OperationKind::Admit, &[3], at(101)).unwrap();
    let asked = f.asked("j", 0, at(110));
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].reason, SyncReason::ControllerRestart);
    assert_eq!(asked[0].location.as_ref().unwrap().as_str(), DISK);
    assert_eq!(f.lookup(&[1])[1], "j@LocalCPUBackend=1", "old keys answer");
}

#[test]
fn silence_past_the_grace_time_asks() {
    let f = restarted(two_workers(), at(100));
    assert!(f.asked("i", 0, at(150)).is_empty());
    f.controller.tick(at(170));
    // Spread over the jitter twice: for the grace time, and for the question.
    assert_eq!(f.asked("i", 0, at(180)).len(), 1);
}

#[test]
fn a_running_session_is_wanted_again_and_an_unnumbered_worker_proves_nothing() {
    let old = two_workers();
    old.start(I, "s", 2, at(2)).unwrap();
    old.batch(I, "s", 0, &[77]).unwrap();
    let sync = old.controller.export()[0].locations[0].sync.clone();
    assert!(matches!(sync, SyncRecord::Running(_)));
    let f = restarted(old, at(100));
    assert_eq!(f.lookup(&[1, 2, 3])[0], "i@LocalCPUBackend=3");
    assert!(f.lookup(&[77]).is_empty(), "the hidden set is not shown");
    assert_eq!(f.asked("i", 0, at(110)).len(), 1);

    let mut old = Fleet::of(&[("i", 0)]);
    let zero = Operation {
        kind: OperationKind::Admit,
        hash: ChunkHash(1),
        seq: SeqNum(0),
    };
    old.controller
        .apply_batch("i", WorkerId(0), CPU, &[zero], at(1))
        .unwrap();
    old = restarted(old, at(100));
    old.controller
        .apply_batch("i", WorkerId(0), CPU, &[zero], at(101))
        .unwrap();
    assert_eq!(old.asked("i", 0, at(110)).len(), 1);
}
