//! Limits of keys and memory: what is refused, whom it spares, and how the map becomes whole again.

use std::time::Duration;

use super::*;

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

#[test]
fn what_a_limit_keeps_out_is_asked_for_after_a_restart() {
    let mut f = Fleet::with(Settings {
        max_keys_per_worker: 2,
        ..Settings::default()
    });
    f.register("i", 0);
    send(&mut f, "i", 0..2).unwrap();
    assert!(send(&mut f, "i", 2..3).is_err());
    let record = f.controller.export().remove(0);
    assert!(matches!(
        record.locations[0].sync,
        crate::restore::SyncRecord::Wanted { .. }
    ));
}
