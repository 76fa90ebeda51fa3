//! Full sync from both ends of a conversation.

use super::*;

const I: (&str, i64, &str) = ("i", 0, CPU);

fn gap(location: &str) -> Vec<FullSyncRequest> {
    vec![FullSyncRequest {
        reason: SyncReason::SequenceGap,
        location: Some(location.into()),
    }]
}

#[test]
fn an_unknown_worker_is_registered_and_asked_until_it_starts() {
    let f = Fleet::new();
    let first = f.heartbeat("i", 0, at(0));
    assert!(first.registered);
    let asked = FullSyncRequest {
        reason: SyncReason::WorkerReRegistered,
        location: None,
    };
    assert_eq!(first.full_sync, std::slice::from_ref(&asked));
    assert_eq!(f.asked("i", 0, at(10)), [asked]);
    f.start(I, "s", 1, at(11)).unwrap();
    assert!(f.asked("i", 0, at(20)).is_empty());
    // No old keys: batches show as they arrive.
    f.batch(I, "s", 0, &[1, 2]).unwrap();
    assert_eq!(f.lookup(&[1, 2]), ["i@LocalCPUBackend=2"]);
    assert_eq!(f.end(I, "s"), Ok(true));
    assert!(f.asked("i", 0, at(30)).is_empty());
}

#[test]
fn a_registered_worker_is_not_asked() {
    let f = Fleet::of(&[("i", 0)]);
    assert!(f.asked("i", 0, at(1)).is_empty());
}

#[test]
fn old_keys_stay_visible_until_the_new_set_is_complete() {
    let mut f = Fleet::of(&[("i", 0)]);
    f.admit("i", 0, &[1, 2]);
    f.start(I, "s", 2, at(2)).unwrap();
    f.batch(I, "s", 1, &[3]).unwrap();
    assert_eq!(f.lookup(&[1, 2]), ["i@LocalCPUBackend=2"]);
    assert!(f.lookup(&[3]).is_empty());
    assert_eq!(f.end(I, "s"), Ok(false), "a batch is missing");
    let status = f.controller.handle_sync_status(&key("i", 0), "s", at(3));
    assert!(!status.is_complete && !status.can_exit_freeze);
    assert_eq!(status.missing_batches, [BatchId(0)]);
    assert_eq!(f.batch(I, "s", 0, &[1]), Ok(true), "resent: completes");
    let status = f.controller.handle_sync_status(&key("i", 0), "s", at(3));
    assert!(status.is_complete && status.can_exit_freeze);
    assert_eq!(f.lookup(&[1, 2]), ["i@LocalCPUBackend=1"]);
    assert_eq!(f.lookup(&[3]), ["i@LocalCPUBackend=1"]);
    assert_eq!(f.controller.totals().keys, 2);
    assert_eq!(
        f.batch(I, "s", 0, &[9]),
        Ok(false),
        "repeated after completion"
    );
    assert!(f.lookup(&[9]).is_empty());
    f.controller.check_invariants();
}

#[test]
fn operations_during_a_sync_count_and_evicted_keys_stay_evicted() {
    let mut f = Fleet::of(&[("i", 0)]);
    f.admit("i", 0, &[1, 2, 3]);
    f.start(I, "s", 2, at(2)).unwrap();
    f.evict("i", 0, &[1, 2]);
    f.admit("i", 0, &[2, 7]);
    assert!(f.lookup(&[1]).is_empty(), "lookups stay exact meanwhile");
    assert_eq!(f.lookup(&[7]), ["i@LocalCPUBackend=1"]);
    f.batch(I, "s", 0, &[1, 2]).unwrap();
    f.batch(I, "s", 1, &[3]).unwrap();
    f.evict("i", 0, &[3]);
    assert_eq!(f.end(I, "s"), Ok(true));
    assert!(f.lookup(&[1]).is_empty() && f.lookup(&[3]).is_empty());
    assert_eq!(f.lookup(&[2, 7]), ["i@LocalCPUBackend=2"]);
}

#[test]
fn operations_between_the_question_and_start_count() {
    let mut f = Fleet::of(&[("i", 0)]);
    f.admit("i", 0, &[1, 2]);
    f.lose("i", 0, CPU, 1);
    f.admit("i", 0, &[3]);
    assert_eq!(f.asked("i", 0, at(1)), gap(CPU));
    // The worker lists 1, 2, 3 here; then, before its Start:
    f.evict("i", 0, &[1]);
    f.admit("i", 0, &[4]);
    f.start(I, "s", 1, at(2)).unwrap();
    f.batch(I, "s", 0, &[1, 2, 3]).unwrap();
    assert_eq!(f.end(I, "s"), Ok(true));
    assert!(f.lookup(&[1]).is_empty());
    assert_eq!(f.lookup(&[2, 3, 4]), ["i@LocalCPUBackend=3"]);
}

#[test]
fn another_sync_id_is_refused_and_the_same_changes_nothing() {
    let f = Fleet::of(&[("i", 0)]);
    f.start(I, "s", 2, at(1)).unwrap();
    f.batch(I, "s", 0, &[1]).unwrap();
    let busy = SyncError::Busy {
        location: CPU.into(),
        running: "s".into(),
    };
    assert_eq!(f.start(I, "t", 1, at(1)), Err(busy));
    f.start(I, "s", 2, at(1)).unwrap();
    f.batch(I, "s", 1, &[2]).unwrap();
    assert_eq!(f.end(I, "s"), Ok(true), "batch 0 was not forgotten");
    assert_eq!(
        f.batch(I, "t", 0, &[2]),
        Err(SyncError::UnknownSession("t".into()))
    );
    assert_eq!(f.end(I, "t"), Err(SyncError::UnknownSession("t".into())));
}

#[test]
fn registering_again_ends_a_session() {
    let mut f = Fleet::of(&[("i", 0)]);
    f.admit("i", 0, &[1]);
    f.start(I, "s", 2, at(1)).unwrap();
    f.batch(I, "s", 0, &[5]).unwrap();
    f.register("i", 0);
    assert_eq!(
        f.batch(I, "s", 1, &[2]),
        Err(SyncError::UnknownSession("s".into()))
    );
    f.start(I, "t", 1, at(2)).unwrap();
    assert_eq!(f.controller.totals().workers_syncing, 1);
    f.controller.handle_deregister(&key("i", 0), at(2));
    assert_eq!(f.controller.totals().workers_syncing, 0);
    assert_eq!(f.end(I, "t"), Err(SyncError::UnknownWorker(key("i", 0))));
    while f.controller.sweep(10_000).remaining > 0 {}
    assert_eq!(
        f.controller.index.totals().holders,
        0,
        "hidden sets are freed too"
    );
}

#[test]
fn an_abandoned_sync_fails_and_is_asked_again() {
    let mut f = Fleet::of(&[("i", 0)]);
    f.admit("i", 0, &[1]);
    f.start(I, "s", 2, at(2)).unwrap();
    f.batch(I, "s", 0, &[5]).unwrap();
    assert_eq!(f.controller.totals().missing_batches, 1);
    f.controller.tick(at(302));
    assert_eq!(f.controller.totals().workers_syncing, 1);
    // Status questions are no activity, and need no other caller to notice the timeout.
    f.controller.handle_sync_status(&key("i", 0), "s", at(303));
    let totals = f.controller.totals();
    assert_eq!((totals.workers_syncing, totals.sync_progress), (0, 0.0));
    assert_eq!(f.lookup(&[1]), ["i@LocalCPUBackend=1"], "old keys stay");
    let asked = f.asked("i", 0, at(320));
    assert_eq!(asked[0].reason, SyncReason::SyncFailedRetry);
    f.start(I, "t", 1, at(321)).unwrap();
    f.batch(I, "t", 0, &[6]).unwrap();
    assert_eq!(f.end(I, "t"), Ok(true));
    assert_eq!(f.lookup(&[6]), ["i@LocalCPUBackend=1"]);
    assert_eq!(f.controller.totals().workers_completed, 1);
}

#[test]
fn a_gap_asks_for_that_location_only_and_not_too_often() {
    let mut f = Fleet::of(&[("i", 0), ("j", 0)]);
    for location in [CPU, DISK] {
        f.send(("i", 0, location), OperationKind::Admit, &[1], at(0))
            .unwrap();
    }
    f.lose("i", 0, DISK, 3);
    let outcome = f.send(("i", 0, DISK), OperationKind::Admit, &[2], at(1));
    assert_eq!(outcome.unwrap().gaps, 1);
    assert_eq!(f.asked("i", 0, at(1)), gap(DISK));
    assert!(f.asked("j", 0, at(1)).is_empty());
    let disk = ("i", 0, DISK);
    f.start(disk, "s", 1, at(2)).unwrap();
    f.batch(disk, "s", 0, &[1, 2]).unwrap();
    assert_eq!(f.end(disk, "s"), Ok(true));
    // The next number is the new base.
    f.lose("i", 0, DISK, 3);
    assert_eq!(
        f.send(disk, OperationKind::Admit, &[3], at(3))
            .unwrap()
            .gaps,
        0
    );
    // A new gap is asked for, but not at once.
    f.lose("i", 0, DISK, 3);
    assert_eq!(
        f.send(disk, OperationKind::Admit, &[4], at(3))
            .unwrap()
            .gaps,
        1
    );
    assert!(f.asked("i", 0, at(4)).is_empty());
    assert_eq!(f.asked("i", 0, at(70)), gap(DISK));
}

#[test]
fn a_gap_inside_the_window_means_one_more_sync() {
    let mut f = Fleet::of(&[("i", 0)]);
    f.admit("i", 0, &[1]);
    f.start(I, "s", 1, at(2)).unwrap();
    f.lose("i", 0, CPU, 1);
    f.admit("i", 0, &[2]);
    f.batch(I, "s", 0, &[1]).unwrap();
    assert_eq!(f.end(I, "s"), Ok(true));
    assert_eq!(f.asked("i", 0, at(3)), gap(CPU));
    let status = f.controller.handle_sync_status(&key("i", 0), "s", at(3));
    assert!(status.is_complete, "that session did complete");
}

/// One full session of `location` with `keys`.
fn sync(f: &Fleet, location: &str, id: &str, keys: &[u64], now: u64) {
    let of = ("i", 0, location);
    f.start(of, id, 1, at(now)).unwrap();
    f.batch(of, id, 0, keys).unwrap();
    assert_eq!(f.end(of, id), Ok(true));
}

#[test]
fn a_stream_joined_in_the_middle_of_the_sync_of_everything_needs_no_second() {
    // What came before its first operation is older than the listing: before the question, between
    // it and Start, and while the session runs.
    for joined_at in 0..3 {
        let mut f = Fleet::new();
        assert!(f.heartbeat("i", 0, at(0)).registered);
        f.lose("i", 0, CPU, 7);
        f.lose("i", 0, DISK, 9);
        let join = |f: &mut Fleet, moment| {
            if moment == joined_at {
                for location in [CPU, DISK] {
                    let of = ("i", 0, location);
                    f.send(of, OperationKind::Admit, &[5], at(1)).unwrap();
                }
            }
        };
        join(&mut f, 0);
        assert!(!f.asked("i", 0, at(2)).is_empty());
        join(&mut f, 1);
        f.start(I, "s", 1, at(3)).unwrap();
        join(&mut f, 2);
        f.batch(I, "s", 0, &[1, 5]).unwrap();
        assert_eq!(f.end(I, "s"), Ok(true));
        sync(&f, DISK, "d", &[5], 4);
        for time in [5, 100, 1000] {
            let asked = f.asked("i", 0, at(time));
            assert!(asked.is_empty(), "joined at {joined_at}: {asked:?}");
        }
        assert_eq!(f.lookup(&[1, 5]), ["i@LocalCPUBackend=2"]);
    }
}

#[test]
fn a_gap_after_a_stream_was_joined_is_a_gap() {
    let mut f = Fleet::new();
    f.heartbeat("i", 0, at(0));
    f.lose("i", 0, CPU, 7);
    f.admit("i", 0, &[5]);
    f.lose("i", 0, CPU, 1);
    f.admit("i", 0, &[6]);
    sync(&f, CPU, "s", &[1, 5, 6], 2);
    assert_eq!(f.asked("i", 0, at(3)), gap(CPU));
}

#[test]
fn a_stream_joined_where_the_sync_does_not_reach_is_asked_for() {
    let mut f = Fleet::new();
    f.heartbeat("i", 0, at(0));
    f.lose("i", 0, DISK, 7);
    let disk = ("i", 0, DISK);
    f.send(disk, OperationKind::Admit, &[5], at(1)).unwrap();
    // Upstream's sender: LocalCPUBackend only.
    sync(&f, CPU, "s", &[1], 2);
    assert_eq!(f.asked("i", 0, at(3)), gap(DISK));
}

#[test]
fn a_sync_begun_for_an_earlier_controller_is_not_trusted() {
    // Nobody asked here, so the keys may have been listed before this controller was there.
    let f = Fleet::with(Settings {
        full_sync_parallel: 1,
        ..Settings::default()
    });
    assert!(!f.heartbeat("j", 0, at(0)).full_sync.is_empty());
    assert!(f.heartbeat("i", 0, at(0)).full_sync.is_empty(), "no place");
    sync(&f, CPU, "s", &[1], 1);
    assert!(matches!(
        f.sync_state("i", 0, CPU),
        SyncState::Wanted { .. }
    ));
}

#[test]
fn a_worker_that_syncs_another_location_is_not_asked_for_ever() {
    // Upstream's sender ignores the location and always syncs LocalCPUBackend.
    let mut f = Fleet::of(&[("i", 0)]);
    let disk = ("i", 0, DISK);
    f.send(disk, OperationKind::Admit, &[1], at(0)).unwrap();
    f.lose("i", 0, DISK, 3);
    f.send(disk, OperationKind::Admit, &[2], at(1)).unwrap();
    assert_eq!(f.asked("i", 0, at(1)), gap(DISK));
    f.start(I, "s", 1, at(2)).unwrap();
    f.batch(I, "s", 0, &[]).unwrap();
    f.end(I, "s").unwrap();
    for time in [3, 100, 1000] {
        f.lose("i", 0, DISK, 1);
        f.send(disk, OperationKind::Admit, &[time], at(time))
            .unwrap();
        assert!(f.asked("i", 0, at(time)).is_empty());
    }
    let state = f.sync_state("i", 0, DISK);
    assert!(matches!(state, SyncState::Unrepairable { .. }), "{state:?}");
    assert_eq!(f.lookup(&[1, 2]), ["i@LocalDiskBackend=2"]);
}

#[test]
fn only_so_many_workers_are_asked_at_a_time() {
    let f = Fleet::with(Settings {
        full_sync_parallel: 2,
        ..Settings::default()
    });
    let asked = |now| {
        (0..4)
            .filter(|worker| !f.asked("i", *worker, now).is_empty())
            .collect::<Vec<_>>()
    };
    assert_eq!(asked(at(0)), [0, 1]);
    assert_eq!(asked(at(10)), [0, 1]);
    f.start(("i", 0, CPU), "s", 1, at(11)).unwrap();
    // Worker 1 sleeps: after a while its place is given to whoever comes first.
    assert_eq!(
        (2..4)
            .filter(|w| !f.asked("i", *w, at(40)).is_empty())
            .count(),
        1
    );
    f.batch(("i", 0, CPU), "s", 0, &[]).unwrap();
    f.end(("i", 0, CPU), "s").unwrap();
    assert!(!f.asked("i", 3, at(41)).is_empty());
    assert!(f.asked("i", 1, at(42)).is_empty());
    assert_eq!(f.controller.places.holders().len(), 2);
}

#[test]
fn the_threshold_lifts_the_freeze_for_all() {
    let f = Fleet::of(&[("i", 0), ("i", 1), ("i", 2), ("i", 3), ("i", 4)]);
    for worker in [0, 1] {
        f.start(("i", worker, CPU), "s", 1, at(1)).unwrap();
    }
    let status = |worker| {
        f.controller
            .handle_sync_status(&key("i", worker), "s", at(2))
    };
    assert_eq!(
        (status(0).global_progress, status(0).can_exit_freeze),
        (0.6, false)
    );
    f.batch(("i", 0, CPU), "s", 0, &[]).unwrap();
    f.end(("i", 0, CPU), "s").unwrap();
    assert!(status(0).can_exit_freeze && status(1).can_exit_freeze);
    assert_eq!(status(1).global_progress, 0.8);
    // Its End came and a batch is missing: it must stay to resend it.
    f.end(("i", 1, CPU), "s").unwrap();
    assert!(!status(1).can_exit_freeze && !status(1).is_complete);
    let unknown = f.controller.handle_sync_status(&key("x", 9), "s", at(2));
    assert!(!unknown.is_complete && unknown.can_exit_freeze);
    assert!(unknown.missing_batches.is_empty());
}

#[test]
fn announced_counts_are_checked() {
    let f = Fleet::of(&[("i", 0)]);
    for given in [-1, i64::MAX] {
        let refused = f.start(I, "s", given, at(1)).unwrap_err();
        assert!(matches!(
            refused,
            SyncError::CountOutOfRange {
                what: "batch_count",
                ..
            }
        ));
    }
    f.start(I, "s", 1 << 20, at(1)).unwrap();
    let status = f.controller.handle_sync_status(&key("i", 0), "s", at(1));
    assert_eq!(status.missing_batches.len(), 4096);
    assert!(f.batch(I, "s", 1 << 20, &[1]).is_err());
    assert_eq!(f.lookup(&[1]).len(), 0);
}

#[test]
fn an_empty_listing_empties_the_location() {
    let mut f = Fleet::of(&[("i", 0)]);
    f.admit("i", 0, &[1]);
    f.start(I, "s", 1, at(1)).unwrap();
    f.batch(I, "s", 0, &[]).unwrap();
    assert_eq!(f.end(I, "s"), Ok(true));
    assert!(f.lookup(&[1]).is_empty());
    f.admit("i", 0, &[2]);
    assert_eq!(f.lookup(&[2]), ["i@LocalCPUBackend=1"]);
}
