//! Plans and reductions of a small fleet.

use std::time::Duration;

use kvatlas_protocol::Timestamp;
use kvatlas_protocol::message::{ClearWorkerRetMsg, ErrorMsg, HealthWorkerRetMsg, PinWorkerRetMsg};

use super::*;
use crate::events::EventState;

fn worker(instance: &str, rank: i64, peer_url: Option<&str>) -> WorkerInfo {
    WorkerInfo {
        key: WorkerKey::new(instance, rank),
        address: WorkerAddress {
            ip: "10.0.0.1".into(),
            port: 7000 + rank,
            peer_url: peer_url.map(str::to_owned),
        },
        registered_at: Timestamp(1),
        last_heartbeat: Timestamp(1),
        heartbeat_seen: false,
        last_seen: Timestamp(1),
        epoch: 100 + u64::try_from(rank).unwrap_or_default(),
        key_count: 0,
        locations: Vec::new(),
        sync_wanted: None,
    }
}

/// `a` has ranks 1 and 0 (in that order), `b` the same with peer URLs, `c` one rank, `d` rank 0 and
/// 2, `e` two ranks of which one has no peer URL.
fn fleet(instance: &str) -> Vec<WorkerInfo> {
    match instance {
        "a" => vec![worker("a", 1, None), worker("a", 0, None)],
        "b" => vec![worker("b", 1, Some("h:1")), worker("b", 0, Some("h:0"))],
        "c" => vec![worker("c", 0, Some("h:9"))],
        "d" => vec![worker("d", 0, Some("h:5")), worker("d", 2, Some("h:6"))],
        "e" => vec![worker("e", 0, Some("h:7")), worker("e", 1, Some(""))],
        _ => Vec::new(),
    }
}

fn event() -> EventId {
    "Move7".to_owned().into()
}

fn at(instance: &str, location: &str) -> Position {
    Position {
        instance: instance.into(),
        location: location.into(),
    }
}

fn move_to(instance: &str) -> Command {
    Command::Move {
        from: at("a", "LocalCPUBackend"),
        to: at(instance, "LocalDiskBackend"),
        tokens: Some(vec![1, 2]),
        copy: false,
    }
}

fn reduce_clear(instance: &str, replies: Vec<Reply>) -> Outcome {
    let command = Command::Clear {
        at: at(instance, "LocalCPUBackend"),
    };
    let plan = plan(command, &event(), fleet).unwrap();
    reduce(plan.kind, &plan.workers(), replies)
}

fn cleared(num_tokens: i64) -> Reply {
    Ok(ClearWorkerRetMsg { num_tokens }.into())
}

#[test]
fn a_move_pairs_equal_ranks() {
    let plan = plan(move_to("b"), &event(), fleet).unwrap();
    let step = |rank: i64, url: &str| Step {
        worker: WorkerKey::new("a", rank),
        address: WorkerAddress {
            ip: "10.0.0.1".into(),
            port: 7000 + rank,
            peer_url: None,
        },
        epoch: 100 + rank.unsigned_abs(),
        message: MoveWorkerMsg {
            worker_event_id: format!("Worker{rank}Move7"),
            old_position: "LocalCPUBackend".into(),
            new_position: (url.into(), "LocalDiskBackend".into()),
            tokens: Some(vec![1, 2]),
            copy: Some(false),
        }
        .into(),
    };
    assert_eq!(
        plan,
        Plan {
            kind: CommandKind::Move,
            instance: "a".into(),
            target: Some("b".into()),
            steps: vec![step(0, "h:0"), step(1, "h:1")],
        }
    );
}

#[test]
fn refusals_name_what_is_in_the_way() {
    let refusal = |command| plan(command, &event(), fleet).unwrap_err();
    assert_eq!(
        refusal(move_to("nobody")),
        PlanError::UnknownInstance("nobody".into())
    );
    assert_eq!(
        refusal(move_to("c")).to_string(),
        "cannot move from a to c: their ranks differ (a has 2 workers, ranks 0, 1; c has 1 \
         workers, rank 0)"
    );
    assert!(matches!(
        refusal(move_to("d")),
        PlanError::RanksDiffer { .. }
    ));
    assert_eq!(
        refusal(move_to("e")),
        PlanError::PeerTransferOff {
            to: "e".into(),
            without: vec![WorkerId(1)],
        }
    );
    let pin = Command::Pin {
        at: at("z", "LocalCPUBackend"),
        tokens: vec![],
    };
    assert_eq!(
        refusal(pin).to_string(),
        "instance z has no registered worker"
    );
}

#[test]
fn every_command_becomes_its_own_message() {
    let message = |command| {
        let plan = plan(command, &event(), fleet).unwrap();
        plan.steps[0].message.clone()
    };
    let location = "LocalCPUBackend";
    let (worker_event_id, method) = ("Worker0Move7".to_owned(), "cachegen".to_owned());
    assert_eq!(
        message(Command::Pin {
            at: at("a", location),
            tokens: vec![5]
        }),
        PinWorkerMsg {
            worker_event_id: worker_event_id.clone(),
            location: location.into(),
            tokens: vec![5],
        }
        .into()
    );
    assert_eq!(
        message(Command::Compress {
            at: at("a", location),
            method: method.clone(),
            tokens: None
        }),
        CompressWorkerMsg {
            worker_event_id: worker_event_id.clone(),
            method: method.clone(),
            location: location.into(),
            tokens: None,
        }
        .into()
    );
    assert_eq!(
        message(Command::Decompress {
            at: at("a", location),
            method: method.clone(),
            tokens: Some(vec![])
        }),
        DecompressWorkerMsg {
            worker_event_id: worker_event_id.clone(),
            method,
            location: location.into(),
            tokens: Some(vec![]),
        }
        .into()
    );
    assert_eq!(
        message(Command::Health {
            instance: "a".into()
        }),
        HealthWorkerMsg { worker_event_id }.into()
    );
}

#[test]
fn ranks_that_agree_are_one_number() {
    let outcome = reduce_clear("a", vec![cleared(512), cleared(512)]);
    assert_eq!(outcome, Outcome::Tokens(512));
    assert_eq!(outcome.state(), EventState::Finished);
    assert_eq!(outcome.error(), None);
}

#[test]
fn ranks_that_disagree_are_each_named() {
    let outcome = reduce_clear("a", vec![cleared(512), cleared(256)]);
    assert_eq!(
        outcome.error().unwrap(),
        "the workers disagree on the number of tokens: a:0 says 512; a:1 says 256"
    );
    assert_eq!(outcome.state(), EventState::Partial);
    assert!(!outcome.is_silence());
}

#[test]
fn an_error_is_passed_on_and_the_others_are_told() {
    let error = "Worker error: no such backend".to_owned();
    let outcome = reduce_clear("a", vec![Ok(ErrorMsg { error }.into()), cleared(3)]);
    assert_eq!(
        outcome.error().unwrap(),
        "worker a:0 answered with an error: Worker error: no such backend (done by a:1: 3)"
    );
    assert_eq!(outcome.state(), EventState::Partial);
    assert!(!outcome.is_silence());
}

#[test]
fn silence_is_told_from_wrong_answers() {
    let waited = Duration::from_secs(30);
    let silent = reduce_clear("a", vec![Err(StepError::NoAnswer { waited }), cleared(3)]);
    assert!(silent.is_silence());
    assert!(
        silent
            .error()
            .unwrap()
            .contains("worker a:0 did not answer within 30s")
    );
    let wrong = reduce_clear(
        "a",
        vec![Ok(PinWorkerRetMsg { num_tokens: 3 }.into()), cleared(3)],
    );
    assert!(!wrong.is_silence());
    assert!(
        wrong
            .error()
            .unwrap()
            .contains("answered with PinWorkerRetMsg instead of ClearWorkerRetMsg")
    );
    let missing = reduce_clear("a", Vec::new());
    assert_eq!(missing.state(), EventState::Failed);
}

#[test]
fn workers_that_fail_alike_share_a_sentence() {
    let waited = Duration::from_secs(5);
    let silent = || Err(StepError::NoAnswer { waited });
    let outcome = reduce_clear("a", vec![silent(), silent()]);
    assert_eq!(
        outcome.error().unwrap(),
        "workers a:0, a:1 did not answer within 5s; the command may still be carried out"
    );
}

#[test]
fn a_long_error_is_cut_at_a_character() {
    let error = "ü".repeat(100_000);
    let outcome = reduce_clear("c", vec![Ok(ErrorMsg { error }.into())]);
    let text = outcome.error().unwrap();
    assert!(text.len() < 1_000 && text.ends_with("ü..."));
}

#[test]
fn health_has_a_code_for_every_answer() {
    let health = |instance: &str| {
        let command = Command::Health {
            instance: instance.into(),
        };
        plan(command, &event(), fleet).unwrap()
    };
    let code = |error_code| Ok(HealthWorkerRetMsg { error_code }.into());
    let error = ErrorMsg {
        error: "boom".into(),
    };
    let two = health("a");
    assert_eq!(
        reduce(two.kind, &two.workers(), vec![code(0), Ok(error.into())]),
        Outcome::Health([(WorkerId(0), 0), (WorkerId(1), -1001)].into())
    );
    assert_eq!(
        reduce(
            two.kind,
            &two.workers(),
            vec![cleared(1), Err(StepError::undecodable("no map"))]
        ),
        Outcome::Health([(WorkerId(0), -1002), (WorkerId(1), -1003)].into())
    );
    let silent = reduce(
        two.kind,
        &two.workers(),
        vec![code(0), Err(StepError::Disconnected)],
    );
    assert!(silent.is_silence());
    assert_eq!(silent.state(), EventState::Partial);
}
