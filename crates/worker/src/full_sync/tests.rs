//! The sender against a controller played by hand, with a clock that only tests move.

use kvatlas_protocol::message::Message;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A sender, its clock, and what it did.
struct Bench {
    sync: FullSync,
    now: Timestamp,
    frozen: bool,
    thaws: usize,
    listings: usize,
    finished: Vec<(String, Result<(), Failure>)>,
    pushed: Vec<Message>,
    asked: Option<Message>,
}

impl Bench {
    fn new() -> Self {
        let settings = Settings {
            batch_size: 10,
            ..Settings::default()
        };
        Self {
            sync: FullSync::new(settings, WorkerKey::new("inst", 3), KeySign::Signed),
            now: Timestamp(0),
            frozen: false,
            thaws: 0,
            listings: 0,
            finished: Vec::new(),
            pushed: Vec::new(),
            asked: None,
        }
    }

    fn request(&mut self, locations: &[&str]) {
        let locations = locations.iter().map(|&name| Location::from(name));
        self.sync.handle_request(locations, SECOND, self.now);
    }

    /// Does what is due now. Every location holds keys 0..25.
    fn settle(&mut self) {
        while let Some(action) = self.sync.poll(self.now) {
            match action {
                Action::Freeze(frozen) => {
                    self.frozen = frozen;
                    self.thaws += usize::from(!frozen);
                }
                Action::List(location) => {
                    assert!(self.frozen, "listed while the cache may change");
                    self.listings += 1;
                    let keys = (0..25).map(ChunkHash).collect();
                    let id = format!("{location}-{}", self.listings);
                    self.sync.handle_listed(Some(keys), id, self.now);
                }
                Action::Ask(message) => self.asked = Some(message),
                Action::Push(message) => self.pushed.push(message),
                Action::Finished(location, result) => {
                    self.finished.push((location.to_string(), result));
                }
            }
        }
    }

    /// Nothing is left to do now.
    fn assert_idle(&mut self) {
        self.settle();
        assert!(!self.sync.is_active() && !self.frozen, "{:?}", self.sync);
    }

    /// Seconds since `since` when the next Start was asked.
    fn next_start(&mut self, since: Timestamp) -> u64 {
        match self.advance() {
            Some(Message::FullSyncStartMsg(_)) => self.now.since(since).as_secs(),
            other => panic!("expected Start, got {other:?}"),
        }
    }

    /// Moves the clock from deadline to deadline until something is asked or nothing is left.
    fn advance(&mut self) -> Option<Message> {
        for _ in 0..1000 {
            self.settle();
            if let Some(asked) = self.asked.take() {
                return Some(asked);
            }
            let deadline = self.sync.deadline()?;
            assert!(
                deadline > self.now,
                "a deadline in the past: {:?}",
                self.sync
            );
            self.now = deadline;
        }
        panic!("no question and no end: {:?}", self.sync);
    }

    fn start(&mut self, accepted: bool) {
        match self.advance() {
            Some(Message::FullSyncStartMsg(start)) => {
                let reply = FullSyncStartRetMsg {
                    sync_id: start.sync_id,
                    accepted,
                    error_msg: (!accepted).then(|| "busy".to_owned()),
                };
                self.sync.handle_start_reply(reply, self.now);
            }
            other => panic!("expected Start, got {other:?}"),
        }
    }

    fn status(&mut self, complete: bool, exit: bool, missing: &[i64]) {
        match self.advance() {
            Some(Message::FullSyncStatusMsg(status)) => {
                let reply = FullSyncStatusRetMsg {
                    sync_id: status.sync_id,
                    is_complete: complete,
                    global_progress: 0.5,
                    can_exit_freeze: exit,
                    missing_batches: missing.to_vec(),
                };
                self.sync.handle_status_reply(reply, self.now);
            }
            other => panic!("expected Status, got {other:?}"),
        }
    }

    /// Batch ids and End (-1) pushed since the last call.
    fn taken(&mut self) -> Vec<i64> {
        self.pushed
            .drain(..)
            .map(|message| match message {
                Message::FullSyncBatchMsg(batch) => batch.batch_id,
                Message::FullSyncEndMsg(_) => -1,
                other => panic!("pushed {other:?}"),
            })
            .collect()
    }
}

#[test]
fn a_run_over_two_locations_under_one_freeze() {
    let mut bench = Bench::new();
    bench.request(&["cpu", "disk"]);
    bench.settle();
    assert!(!bench.frozen, "not before the delay is over");
    bench.start(true);
    assert_eq!(bench.now, Timestamp(1_000_000));
    bench.settle();
    match &bench.pushed[0] {
        Message::FullSyncBatchMsg(batch) => {
            assert_eq!((batch.instance_id.as_str(), batch.worker_id), ("inst", 3));
            assert_eq!(batch.keys.len(), 10);
        }
        other => panic!("{other:?}"),
    }
    bench.status(true, false, &[]);
    assert_eq!(bench.taken(), [0, 1, 2, -1]);
    bench.start(true);
    assert!(bench.frozen, "one freeze for the whole run");
    bench.status(true, false, &[]);
    bench.status(true, false, &[]);
    assert!(bench.frozen, "the fleet is not ready");
    bench.status(true, true, &[]);
    assert_eq!(bench.advance(), None);
    assert!(!bench.frozen && !bench.sync.is_active());
    assert_eq!(
        bench.finished,
        [("cpu".to_owned(), Ok(())), ("disk".to_owned(), Ok(()))]
    );
}

#[test]
fn missing_batches_are_sent_again_but_not_at_once_and_no_other() {
    let mut bench = Bench::new();
    bench.request(&["cpu"]);
    bench.start(true);
    bench.status(false, false, &[1, 2]);
    assert_eq!(bench.taken(), [0, 1, 2, -1], "may still be in flight");
    // Repeats and nonsense in the answer are ignored.
    while bench.pushed.is_empty() {
        bench.status(false, false, &[1, 1, 7, -3, i64::MAX]);
        bench.settle();
    }
    bench.status(true, true, &[]);
    assert_eq!(bench.taken(), [1, -1]);
    assert_eq!(bench.advance(), None);
    assert_eq!(bench.finished, [("cpu".to_owned(), Ok(()))]);
}

#[test]
fn a_lost_end_is_sent_again() {
    let mut bench = Bench::new();
    bench.request(&["cpu"]);
    bench.start(true);
    bench.settle();
    let mut ends = 0;
    for _ in 0..50 {
        ends += bench.taken().iter().filter(|&&id| id == -1).count();
        if ends == 2 {
            break;
        }
        bench.status(false, false, &[]);
        bench.settle();
    }
    assert_eq!(ends, 2);
    bench.status(true, true, &[]);
    assert_eq!(bench.advance(), None);
    assert_eq!(bench.finished, [("cpu".to_owned(), Ok(()))]);
}

/// Statuses that know nothing until the session ends; how long that took.
fn forgotten(bench: &mut Bench) -> Duration {
    let (from, before) = (bench.now, bench.finished.len());
    while bench.finished.len() == before {
        bench.status(false, false, &[]);
        bench.settle();
    }
    let last = bench.finished.last().unwrap();
    assert_eq!(last.1, Err(Failure::Forgotten));
    bench.now.since(from)
}

#[test]
fn a_forgotten_session_is_begun_again_at_once_and_only_the_first_time() {
    let mut bench = Bench::new();
    bench.request(&["cpu"]);
    bench.start(true);
    assert!(forgotten(&mut bench) < 30 * SECOND);
    assert!(bench.frozen, "begun again under the same freeze");
    bench.start(true);
    forgotten(&mut bench);
    // A controller that forgets every session: thawed, and tried ever more rarely.
    let mut pauses = Vec::new();
    loop {
        bench.assert_idle();
        let from = bench.now;
        if bench.sync.deadline().is_none() {
            break;
        }
        bench.start(true);
        pauses.push(bench.now.since(from).as_secs());
        forgotten(&mut bench);
    }
    // `request` delays by one second.
    assert_eq!(pauses, [5, 9, 17, 33, 65, 129, 257]);
    // Asked for, it has its turn, and a success forgets the failures.
    bench.request(&["cpu"]);
    bench.start(true);
    bench.status(true, true, &[]);
    assert_eq!(bench.advance(), None);
    bench.request(&["cpu"]);
    bench.start(true);
    forgotten(&mut bench);
    assert!(bench.frozen);
}

#[test]
fn a_fleet_waited_for_by_a_controller_that_restarts_means_all_over_again() {
    let mut bench = Bench::new();
    bench.request(&["cpu", "disk"]);
    bench.start(true);
    bench.status(true, false, &[]);
    bench.start(true);
    bench.status(true, false, &[]);
    bench.status(true, false, &[]);
    // What was complete is unknown now.
    bench.status(false, true, &[]);
    for _ in 0..2 {
        bench.start(true);
        assert!(bench.frozen);
        bench.status(true, true, &[]);
    }
    assert_eq!(bench.advance(), None);
    bench.assert_idle();
    let names: Vec<_> = bench
        .finished
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["cpu", "disk", "cpu", "disk"]);
}

#[test]
fn refused_starts_are_retried_then_the_next_location_has_its_turn() {
    let mut bench = Bench::new();
    bench.request(&["cpu", "disk"]);
    for _ in 0..3 {
        bench.start(false);
    }
    bench.start(true);
    bench.status(true, true, &[]);
    bench.assert_idle();
    assert_eq!(
        bench.finished,
        [
            ("cpu".to_owned(), Err(Failure::Refused("busy".to_owned()))),
            ("disk".to_owned(), Ok(()))
        ]
    );
    // Not asked again, the refused one has its turn by itself.
    bench.start(true);
    bench.status(true, true, &[]);
    assert_eq!(bench.advance(), None);
    assert_eq!(bench.finished[2], ("cpu".to_owned(), Ok(())));
}

#[test]
fn a_mute_controller_costs_three_starts_and_no_more() {
    let mut bench = Bench::new();
    bench.request(&["cpu", "disk"]);
    for _ in 0..3 {
        assert!(matches!(
            bench.advance(),
            Some(Message::FullSyncStartMsg(_))
        ));
        bench.sync.handle_no_reply(bench.now);
    }
    bench.assert_idle();
    assert_eq!(
        bench.finished,
        [("cpu".to_owned(), Err(Failure::Unanswered))]
    );
    // Both come again once somebody may be there; asked for meanwhile, at once.
    let from = bench.now;
    assert_eq!(bench.next_start(from), 3);
    bench.sync.abandon();
    bench.request(&["cpu", "disk"]);
    for _ in 0..3 {
        bench.next_start(from);
        bench.sync.handle_no_reply(bench.now);
    }
    bench.assert_idle();
    let from = bench.now;
    bench.request(&["disk"]);
    assert_eq!(bench.next_start(from), 1);
}

#[test]
fn mute_statuses_end_within_the_budget() {
    let mut bench = Bench::new();
    bench.request(&["cpu"]);
    bench.start(true);
    while let Some(Message::FullSyncStatusMsg(_)) = bench.advance() {
        bench.sync.handle_no_reply(bench.now);
    }
    assert_eq!(bench.finished, [("cpu".to_owned(), Err(Failure::TimedOut))]);
    assert_eq!(bench.thaws, 1, "before it is begun again");
    let budget = Settings::default().status_poll_interval * 60;
    assert!(bench.now.since(Timestamp(0)) <= budget + 10 * SECOND);
}

#[test]
fn a_fleet_that_never_gets_ready_is_not_waited_for_for_ever() {
    let mut bench = Bench::new();
    bench.request(&["cpu"]);
    bench.start(true);
    bench.status(true, false, &[]);
    while bench.sync.is_active() {
        let Some(Message::FullSyncStatusMsg(status)) = bench.advance() else {
            break;
        };
        let reply = FullSyncStatusRetMsg {
            sync_id: status.sync_id,
            is_complete: true,
            global_progress: 0.1,
            can_exit_freeze: false,
            missing_batches: Vec::new(),
        };
        bench.sync.handle_status_reply(reply, bench.now);
    }
    assert!(!bench.frozen);
    assert_eq!(bench.finished, [("cpu".to_owned(), Ok(()))]);
}

#[test]
fn the_command_repeated_changes_nothing_and_another_location_queues() {
    let mut bench = Bench::new();
    bench.request(&["cpu"]);
    bench.request(&["cpu"]);
    bench.start(true);
    bench.request(&["cpu"]);
    bench.request(&["disk"]);
    bench.status(true, false, &[]);
    bench.start(true);
    bench.status(true, true, &[]);
    assert_eq!(bench.advance(), None);
    assert_eq!(bench.finished.len(), 2);
    // After it is done the same location may be asked for again.
    bench.request(&["cpu"]);
    bench.start(true);
    bench.status(true, true, &[]);
    bench.advance();
    assert_eq!(bench.finished.len(), 3);
}

#[test]
fn a_session_lost_with_its_controller_is_begun_again_when_the_next_one_asks() {
    let mut bench = Bench::new();
    bench.request(&["cpu"]);
    bench.start(true);
    bench.status(false, false, &[]);
    // The controller restarts; its successor asks and knows no session.
    bench.request(&["cpu", "disk"]);
    let from = bench.now;
    assert!(matches!(
        bench.advance(),
        Some(Message::FullSyncStatusMsg(_))
    ));
    assert_eq!(bench.now, from, "looked at at once");
    bench.sync.handle_no_reply(bench.now);
    assert!(forgotten(&mut bench) < 5 * SECOND);
    for _ in 0..2 {
        bench.start(true);
        bench.status(true, true, &[]);
    }
    assert_eq!(bench.advance(), None);
    assert_eq!(
        bench.finished,
        [
            ("cpu".to_owned(), Err(Failure::Forgotten)),
            ("disk".to_owned(), Ok(())),
            ("cpu".to_owned(), Ok(())),
        ]
    );
}

#[test]
fn answers_to_other_sessions_and_late_ones_are_ignored() {
    let mut bench = Bench::new();
    bench.request(&["cpu"]);
    assert!(bench.advance().is_some());
    let stranger = FullSyncStartRetMsg {
        sync_id: "other".into(),
        accepted: true,
        error_msg: None,
    };
    bench.sync.handle_start_reply(stranger, bench.now);
    bench.settle();
    assert!(bench.pushed.is_empty());
    let mine = FullSyncStartRetMsg {
        sync_id: "cpu-1".into(),
        accepted: true,
        error_msg: None,
    };
    bench.sync.handle_start_reply(mine.clone(), bench.now);
    bench.settle();
    bench.sync.handle_start_reply(mine, bench.now);
    bench.status(true, true, &[]);
    assert_eq!(bench.taken(), [0, 1, 2, -1]);
}

#[test]
fn an_engine_that_cannot_list_and_an_agent_that_closes_leave_no_freeze() {
    let mut bench = Bench::new();
    bench.request(&["cpu"]);
    bench.now = Timestamp(1_000_000);
    assert_eq!(bench.sync.poll(bench.now), Some(Action::Freeze(true)));
    assert_eq!(bench.sync.poll(bench.now), Some(Action::List("cpu".into())));
    assert_eq!(bench.sync.poll(bench.now), None, "listed once");
    bench.sync.handle_listed(None, "id".into(), bench.now);
    bench.settle();
    assert_eq!(
        bench.finished,
        [("cpu".to_owned(), Err(Failure::NotListed))]
    );
    assert!(!bench.frozen);

    bench.request(&["cpu"]);
    bench.start(true);
    bench.settle();
    assert!(bench.frozen);
    bench.sync.abandon();
    bench.settle();
    assert!(!bench.frozen);
}
