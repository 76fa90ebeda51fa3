//! Limits of keys and memory: what is refused, whom it spares, and how the map becomes whole again.

use std::time::Duration;

use super::journal::Disk;
use super::*;
use crate::controller::Limit;
use crate::snapshot::{Decoder, Encoder};

const LIMIT: usize = 512 << 10;
const BATCH: u64 = 100;

/// A fleet whose index may have [`LIMIT`] bytes more than an empty one.
fn limited(workers: &[(&str, i64)]) -> (Fleet, usize) {
    let empty = Controller::new(Settings::default()).totals().index_bytes;
    let limit = empty + LIMIT;
    let fleet = Fleet::with(Settings {
        max_index_bytes: Some(limit),
        ..Settings::default()
    });
    for (instance, worker) in workers {
        fleet.register(instance, *worker);
    }
    (fleet, limit)
}

fn send(f: &mut Fleet, instance: &str, keys: std::ops::Range<u64>) -> Result<u64, BatchError> {
    let keys: Vec<_> = keys.collect();
    let sent = f.send((instance, 0, CPU), OperationKind::Admit, &keys, at(1));
    sent.map(|outcome| outcome.admitted)
}

/// Admits new keys until they are refused; how many there are then.
fn flood(f: &mut Fleet, instance: &str, from: u64) -> u64 {
    let mut next = from;
    loop {
        match send(f, instance, next..next + BATCH) {
            Ok(admitted) => assert_eq!(admitted, BATCH),
            Err(BatchError::Memory { .. }) => return next - from,
            Err(other) => panic!("{other}"),
        }
        next += BATCH;
        assert!(next - from < 1 << 20, "bounded by nothing");
    }
}

fn evict(f: &mut Fleet, instance: &str, keys: std::ops::Range<u64>) -> u64 {
    let keys: Vec<_> = keys.collect();
    let sent = f.send((instance, 0, CPU), OperationKind::Evict, &keys, at(1));
    sent.unwrap().evicted
}

#[test]
fn one_that_runs_wild_is_stopped_and_the_others_go_on() {
    let (mut f, limit) = limited(&[("wild", 0), ("a", 0), ("b", 0)]);
    send(&mut f, "a", 0..BATCH).unwrap();
    send(&mut f, "b", 0..BATCH).unwrap();
    let wild = flood(&mut f, "wild", 1 << 32);
    assert!(wild > 10_000, "{wild}");
    // It was stopped at seven eighths of the limit: half of what is left goes to the others.
    let rounds = wild / 14 / (2 * BATCH);
    assert!(rounds > 2, "{rounds}");
    for round in 1..=rounds {
        let keys = round * BATCH..(round + 1) * BATCH;
        assert_eq!(send(&mut f, "a", keys.clone()), Ok(BATCH));
        assert_eq!(send(&mut f, "b", keys), Ok(BATCH));
        let more = 1 << 33;
        assert!(send(&mut f, "wild", more..more + BATCH).is_err());
    }
    let totals = f.controller.totals();
    assert!(totals.index_bytes < limit, "{totals:?}");
    assert_eq!(totals.keys, wild + 2 * (rounds + 1) * BATCH);
    assert_eq!(totals.workers_incomplete, 1);
}

#[test]
fn nobody_gets_past_the_limit() {
    let (mut f, limit) = limited(&[("a", 0), ("b", 0), ("c", 0)]);
    // Each is below the mean in turn.
    let mut refused = 0;
    for round in 0..2_000 {
        for (n, instance) in ["a", "b", "c"].into_iter().enumerate() {
            let from = ((n as u64) << 40) + round * BATCH;
            refused += u64::from(send(&mut f, instance, from..from + BATCH).is_err());
        }
    }
    assert!(refused > 1_000, "{refused}");
    let bytes = f.controller.totals().index_bytes;
    assert!(bytes < limit + limit / 4, "{bytes} {limit}");
}

#[test]
fn what_is_evicted_makes_room_for_others() {
    let (mut f, _) = limited(&[("a", 0)]);
    let held = flood(&mut f, "a", 0);
    // The tables keep their size; what is free in them can be used.
    let bytes = f.controller.totals().index_bytes;
    assert_eq!(evict(&mut f, "a", 0..held / 3), held / 3);
    assert_eq!(send(&mut f, "a", 0..BATCH), Ok(BATCH));
    assert!(f.controller.totals().index_bytes <= bytes);
}

#[test]
fn a_refusal_is_mended_by_a_sync_once_there_is_room() {
    let (mut f, _) = limited(&[("i", 0)]);
    let held = flood(&mut f, "i", 0);
    let lost = held..held + BATCH;
    assert!(
        f.asked("i", 0, at(10)).is_empty(),
        "there is no room for it"
    );
    // In parts: a batch that is mostly refused still evicts.
    evict(&mut f, "i", 0..held / 2);
    let asked = f.asked("i", 0, at(20));
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].reason, SyncReason::SequenceGap);
    let i = ("i", 0, CPU);
    f.start(i, "s", 1, at(21)).unwrap();
    let keys: Vec<_> = (held / 2..lost.end).collect();
    f.batch(i, "s", 0, &keys).unwrap();
    f.end(i, "s").unwrap();
    assert_eq!(f.lookup(&[lost.start]), ["i@LocalCPUBackend=1"]);
    let totals = f.controller.totals();
    assert_eq!(
        (totals.keys, totals.workers_incomplete),
        (lost.end - held / 2, 0)
    );
    assert!(f.asked("i", 0, at(100)).is_empty());
}

#[test]
fn a_refusal_by_the_limit_of_keys_is_mended_too() {
    let mut f = Fleet::with(Settings {
        max_keys_per_worker: 16,
        ..Settings::default()
    });
    f.register("i", 0);
    send(&mut f, "i", 0..16).unwrap();
    assert!(send(&mut f, "i", 16..17).is_err());
    evict(&mut f, "i", 0..1);
    assert!(f.asked("i", 0, at(10)).is_empty(), "little room");
    evict(&mut f, "i", 1..4);
    assert_eq!(f.asked("i", 0, at(20)).len(), 1);
}

#[test]
fn what_was_refused_while_a_sync_is_asked_for_is_not_forgotten() {
    let mut f = Fleet::with(Settings {
        max_keys_per_worker: 16,
        gap_sync_interval: Duration::ZERO,
        ..Settings::default()
    });
    f.register("i", 0);
    send(&mut f, "i", 0..16).unwrap();
    assert!(send(&mut f, "i", 16..17).is_err());
    evict(&mut f, "i", 0..8);
    assert_eq!(f.asked("i", 0, at(20)).len(), 1);
    // Its list is made; then it is full again, and is refused once more.
    send(&mut f, "i", 17..25).unwrap();
    assert!(send(&mut f, "i", 25..26).is_err());
    let i = ("i", 0, CPU);
    f.start(i, "s", 1, at(21)).unwrap();
    f.batch(i, "s", 0, &[8, 9, 10]).unwrap();
    f.end(i, "s").unwrap();
    assert_eq!(f.controller.totals().workers_incomplete, 1);
    assert_eq!(f.asked("i", 0, at(40)).len(), 1);
}

#[test]
fn a_full_sync_finds_no_more_room_than_batches_do() {
    let (mut f, _) = limited(&[("i", 0), ("j", 0)]);
    let held = flood(&mut f, "j", 0);
    let i = ("i", 0, CPU);
    let n_batches = i64::try_from(2 * held / BATCH).unwrap();
    f.start(i, "s", n_batches, at(2)).unwrap();
    let keys = |batch: i64| -> Vec<u64> {
        let from = (1 << 40) + u64::try_from(batch).unwrap() * BATCH;
        (from..from + BATCH).collect()
    };
    // It has less than the mean, so it may begin.
    let mut sent = (0..n_batches).map(|batch| f.batch(i, "s", batch, &keys(batch)));
    let first = sent.position(|sent| sent.is_err()).unwrap();
    assert!(first > 10, "{first}");
    drop(sent);
    let first = i64::try_from(first).unwrap();
    let refused = f.batch(i, "s", first, &keys(first));
    assert!(
        matches!(refused, Err(SyncError::Memory { .. })),
        "{refused:?}"
    );
    assert_eq!(f.end(i, "s"), Ok(false));
    // Resent when there is room.
    assert_eq!(evict(&mut f, "j", 0..held), held);
    assert_eq!(f.batch(i, "s", first, &keys(first)), Ok(true));
}

/// The process ends here and another goes on from a snapshot and the journal.
fn restarted(old: Fleet, settings: Settings) -> Fleet {
    let mut disk = Disk::begin(&old.controller);
    snapshot(&mut disk, &old.controller);
    Fleet {
        controller: disk.restart(&old.controller, settings, at(100)),
        seqs: old.seqs,
    }
}

fn snapshot(disk: &mut Disk, controller: &Controller) {
    disk.begin_snapshot(controller);
    while disk.is_pending() {
        disk.proceed(controller);
    }
}

fn two_keys() -> Settings {
    Settings {
        max_keys_per_worker: 2,
        full_sync_jitter: Duration::ZERO,
        ..Settings::default()
    }
}

fn limit_of(f: &Fleet, instance: &str) -> Option<Limit> {
    let info = f.controller.worker(&key(instance, 0)).unwrap();
    info.locations[0].incomplete.map(|known| known.limit)
}

#[test]
fn what_a_limit_keeps_out_is_known_after_a_restart_and_asked_for_once_there_is_room() {
    let mut f = Fleet::with(two_keys());
    f.register("i", 0);
    send(&mut f, "i", 0..2).unwrap();
    assert!(send(&mut f, "i", 2..3).is_err());
    let mut f = restarted(f, two_keys());
    assert_eq!(limit_of(&f, "i"), Some(Limit::Keys));
    // Numbers that continue do not prove what was refused; there is no room to ask for it.
    assert_eq!(evict(&mut f, "i", 7..8), 0);
    assert_eq!(f.sync_state("i", 0, CPU), SyncState::Idle);
    assert_eq!(limit_of(&f, "i"), Some(Limit::Keys));
    assert!(f.asked("i", 0, at(1000)).is_empty());
    assert_eq!(evict(&mut f, "i", 0..1), 1);
    assert_eq!(f.asked("i", 0, at(1001)).len(), 1);
    assert_eq!(limit_of(&f, "i"), None);
}

#[test]
fn with_a_higher_limit_a_restart_asks_though_the_worker_is_quiet() {
    let mut f = Fleet::with(two_keys());
    f.register("i", 0);
    send(&mut f, "i", 0..2).unwrap();
    assert!(send(&mut f, "i", 2..3).is_err());
    let f = restarted(f, Settings::default());
    assert_eq!(f.asked("i", 0, at(110)).len(), 1);
}

#[test]
fn a_sync_that_ends_after_a_snapshot_does_not_hide_what_was_refused_before_it() {
    let mut f = Fleet::with(two_keys());
    f.register("i", 0);
    let mut disk = Disk::begin(&f.controller);
    send(&mut f, "i", 0..1).unwrap();
    let i = ("i", 0, CPU);
    f.start(i, "s", 1, at(2)).unwrap();
    send(&mut f, "i", 1..2).unwrap();
    assert!(send(&mut f, "i", 2..3).is_err());
    snapshot(&mut disk, &f.controller);
    f.batch(i, "s", 0, &[0]).unwrap();
    assert_eq!(f.end(i, "s"), Ok(true));
    let f = Fleet {
        controller: disk.restart(&f.controller, two_keys(), at(100)),
        seqs: f.seqs,
    };
    assert_eq!(limit_of(&f, "i"), Some(Limit::Keys));
}

#[test]
fn what_was_asked_for_again_is_not_asked_for_after_a_replay() {
    let mut f = Fleet::with(two_keys());
    let mut disk = Disk::begin(&f.controller);
    f.register("i", 0);
    send(&mut f, "i", 0..2).unwrap();
    assert!(send(&mut f, "i", 2..3).is_err());
    evict(&mut f, "i", 0..1);
    assert_eq!(f.asked("i", 0, at(10)).len(), 1);
    let i = ("i", 0, CPU);
    f.start(i, "s", 1, at(11)).unwrap();
    f.batch(i, "s", 0, &[1, 2]).unwrap();
    assert_eq!(f.end(i, "s"), Ok(true));
    let f = Fleet {
        controller: disk.restart(&f.controller, two_keys(), at(100)),
        seqs: f.seqs,
    };
    assert_eq!(limit_of(&f, "i"), None);
    assert_eq!(f.lookup(&[1, 2]), ["i@LocalCPUBackend=2"]);
}

fn announce(f: &Fleet, instance: &str, total_keys: i64, now: Timestamp) -> Result<(), SyncError> {
    let start = SyncStart {
        worker: key(instance, 0),
        location: CPU.into(),
        sync_id: "announced".into(),
        total_keys,
        batch_count: 1,
    };
    f.controller.handle_sync_start(start, now)
}

#[test]
fn a_worker_with_more_keys_than_it_may_have_is_not_asked_again_and_again() {
    let f = Fleet::with(two_keys());
    // Unknown until its heartbeat: asked for whatever it syncs by default.
    assert_eq!(f.asked("i", 0, at(1)).len(), 1);
    let refused = announce(&f, "i", 3, at(2)).unwrap_err();
    assert!(matches!(refused, SyncError::TooManyKeys { limit: 2, .. }));
    assert_eq!(limit_of(&f, "i"), Some(Limit::Keys));
    assert_eq!(f.controller.totals().workers_incomplete, 1);
    assert!(f.controller.places.holders().is_empty());
    // It has room for what it may have, so it is asked now and then; by then it may have less.
    let asked = (3..300).filter(|&second| {
        let asked = !f.asked("i", 0, at(second)).is_empty();
        asked && announce(&f, "i", 3, at(second)).is_err()
    });
    assert!((1..=6).contains(&asked.count()));
    assert_eq!(f.asked("i", 0, at(500)).len(), 1);
    announce(&f, "i", 2, at(501)).unwrap();
}

#[test]
fn snapshots_of_the_version_before_are_read() {
    let mut f = Fleet::of(&[("i", 0)]);
    send(&mut f, "i", 0..2).unwrap();
    let mut bytes = Vec::new();
    Encoder::default().workers(&f.controller.export(), &mut bytes);
    assert_eq!(bytes.pop(), Some(0), "nothing is kept out");
    let read = |version, bytes: &[u8]| {
        let new = Controller::new(Settings::default());
        let mut decoder = Decoder::new(version, at(0));
        decoder.workers(&new, bytes).map(|()| new.workers().len())
    };
    assert_eq!(read(1, &bytes), Ok(1));
    assert!(read(2, &bytes).is_err());
    bytes.push(0);
    assert_eq!(read(2, &bytes), Ok(1));
    assert!(read(1, &bytes).is_err());
}

#[test]
fn a_snapshot_that_needs_more_than_the_limit_leaves_out_the_largest_and_keeps_the_others_whole() {
    let mut f = Fleet::of(&[("small", 0), ("huge", 0), ("large", 0), ("shares", 0)]);
    let (small, large, huge) = (0..2_000, 10_000..30_000, 100_000..180_000);
    for (instance, keys) in [
        ("small", &small),
        ("huge", &huge),
        ("large", &large),
        ("shares", &small),
    ] {
        send(&mut f, instance, keys.clone()).unwrap();
    }
    let mut disk = Disk::begin(&f.controller);
    snapshot(&mut disk, &f.controller);
    let lowered = |limit| Settings {
        max_index_bytes: Some(limit),
        full_sync_jitter: Duration::ZERO,
        ..Settings::default()
    };
    let empty = Controller::new(Settings::default()).totals().index_bytes;
    let limit = empty + (1 << 20);
    let (controller, _) = disk.restore(lowered(limit));
    controller.resume(at(100), Duration::from_secs(60));
    controller.check_invariants();
    let mut new = Fleet {
        controller,
        seqs: f.seqs,
    };
    let totals = new.controller.totals();
    assert!(
        totals.index_bytes <= limit + limit / 4,
        "{totals:?} {limit}"
    );
    assert_eq!(totals.workers, 4);
    assert_eq!(totals.workers_incomplete, 1);
    assert_eq!(totals.keys, 2_000 + 20_000 + 2_000);
    assert_eq!(limit_of(&new, "huge"), Some(Limit::IndexBytes));
    for key in [small.start, small.end - 1] {
        let both = ["shares@LocalCPUBackend=1", "small@LocalCPUBackend=1"];
        let mut found = new.lookup(&[key]);
        found.sort();
        assert_eq!(found, both);
    }
    for key in large.clone() {
        assert_eq!(new.lookup(&[key]), ["large@LocalCPUBackend=1"]);
    }
    assert!(huge.clone().all(|key| new.lookup(&[key]).is_empty()));
    // What is left may be enough to ask, but not for all of them: that is said before it lists them.
    evict(&mut new, "large", large);
    assert_eq!(new.asked("huge", 0, at(200)).len(), 1);
    let refused = announce(&new, "huge", 80_000, at(201)).unwrap_err();
    assert!(matches!(refused, SyncError::Memory { .. }), "{refused:?}");
    assert_eq!(limit_of(&new, "huge"), Some(Limit::IndexBytes));
    assert_eq!(new.sync_state("huge", 0, CPU), SyncState::Idle);
    assert!(new.asked("huge", 0, at(202)).is_empty(), "not at once");
    assert_eq!(new.asked("huge", 0, at(400)).len(), 1);
    announce(&new, "huge", 2_000, at(401)).unwrap();

    // As large as it may be: nothing is left out.
    let (roomy, _) = disk.restore(lowered(limit * 8));
    let totals = roomy.totals();
    assert_eq!((totals.keys, totals.workers_incomplete), (104_000, 0));
}

#[test]
fn a_limit_below_everything_leaves_everybody_without_keys_and_serves() {
    let mut f = Fleet::of(&[("i", 0), ("j", 0)]);
    send(&mut f, "i", 0..50_000).unwrap();
    send(&mut f, "j", 0..50_000).unwrap();
    let i = ("i", 0, CPU);
    f.start(i, "s", 2, at(2)).unwrap();
    f.batch(i, "s", 0, &[1, 2]).unwrap();
    let mut disk = Disk::begin(&f.controller);
    snapshot(&mut disk, &f.controller);
    let (new, _) = disk.restore(Settings {
        max_index_bytes: Some(1),
        ..Settings::default()
    });
    new.resume(at(100), Duration::from_secs(60));
    new.check_invariants();
    let totals = new.totals();
    assert_eq!(
        (totals.keys, totals.workers, totals.workers_incomplete),
        (0, 2, 2)
    );
    assert!(new.lookup(hashes(&[1])).is_empty());
}
