//! SIGKILL at random moments of full-speed ingest, and SIGTERM.

use std::sync::mpsc::{Sender, channel};
use std::thread::{JoinHandle, spawn};

use kvatlas_protocol::message::{HealthWorkerRetMsg, Message, PinWorkerRetMsg};
use serde_json::Value;

use crate::driver::{Fleet, LOCATIONS, by_stream};
use crate::process::{PATIENCE, Process, Scratch, eventually};

/// Snapshots several times a second, no spreading, a short wait for silent workers.
const HASTY: [&str; 10] = [
    "--snapshot-interval-s=0.1",
    "--journal-max-bytes=300000",
    "--journal-sync-ms=5",
    "--full-sync-jitter-s=0",
    "--gap-sync-interval-s=0",
    "--restart-grace-s=600",
    "--full-sync-parallel=3",
    "--log-level=info",
    "--full-sync-timeout-s=600",
    "--lmcache-worker-timeout=600",
];

/// How often the controller is killed: `make chaos` asks for more.
fn rounds() -> u32 {
    let asked = std::env::var("KVATLAS_CHAOS_ROUNDS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(5)
}

#[test]
fn killed_at_full_speed_nothing_is_lost_and_only_the_unproved_are_asked() {
    let scratch = Scratch::new();
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut fleet = Fleet::new(6, 1500, seed);
    let mut controller = Process::start(&scratch.0, &HASTY);
    fleet.connect(&controller);
    fleet.register();
    let (mut n_proved, mut n_asked) = (0, 0);
    for round in 0..rounds() {
        let n_messages = 200 + fleet.dice.below(3000);
        for n in 0..n_messages {
            fleet.operate();
            if n % 500 == 499 {
                fleet.beat();
            }
        }
        // Streams at these numbers when the controller is back have everything on disk.
        let mut saved = vec![[-1; 2]; fleet.workers.len()];
        if round % 2 == 1 {
            // Some streams are caught at rest, others are overtaken by what they send to the dead.
            fleet.settle(&controller);
            controller.wait_until_saved();
            saved = fleet.workers.iter().map(|worker| worker.seq).collect();
            let moment = fleet.dice.below(10);
            (0..moment).for_each(|_| fleet.operate());
        }
        controller.kill();
        let lost = fleet.dice.below(5);
        (0..lost).for_each(|_| fleet.operate());

        controller = Process::start(&scratch.0, &HASTY);
        let sync = controller.get("/sync");
        let restored = by_stream(&sync);
        // Killed in the middle of writing a group, its beginning may stand there.
        let damages = sync["persistence"]["restored"]["damages"].as_array();
        let is_torn_tail = |damage: &Value| {
            let said = damage.as_str().unwrap();
            said.starts_with("the last ") && said.contains("are cut off")
        };
        assert!(damages.unwrap().iter().all(is_torn_tail), "{sync:#}");
        // Nothing but what was delivered, and nothing twice: a number says how much.
        let mut proved = Vec::new();
        for (who, worker) in fleet.workers.iter().enumerate() {
            for (at, location) in LOCATIONS.iter().enumerate() {
                let key = (worker.instance.clone(), (*location).to_owned());
                let is_at_rest = saved[who][at] == worker.seq[at];
                let Some(row) = restored.get(&key) else {
                    assert!(!is_at_rest, "{key:?} is forgotten");
                    continue;
                };
                // A stream that was synced and has sent nothing since has no number.
                let last = row["last_seq"].as_i64().unwrap_or(0);
                assert!(last <= worker.seq[at], "{row}");
                if row["state"] == "unproved" && last == worker.seq[at] {
                    proved.push((who, at));
                }
                assert!(!is_at_rest || proved.contains(&(who, at)), "{row}");
            }
        }
        fleet.connect(&controller);
        fleet.settle(&controller);
        // Whoever was asked could not be proved; whoever could not be proved was asked.
        for (who, worker) in fleet.workers.iter().enumerate() {
            for (at, location) in LOCATIONS.iter().enumerate() {
                let was_proved = proved.contains(&(who, at));
                assert_eq!(
                    worker.asked[at] == 0,
                    was_proved,
                    "{} {location} was asked {} times; proved: {was_proved}",
                    worker.instance,
                    worker.asked[at]
                );
                n_proved += u32::from(was_proved);
                n_asked += u32::from(!was_proved);
            }
        }
        fleet.check_every_key(&controller);
    }
    eprintln!(
        "{} rounds: of {} streams {n_proved} were proved, the other {n_asked} asked to sync",
        rounds(),
        n_proved + n_asked
    );
    assert!(
        n_proved > 0 && n_asked > 0,
        "{n_proved} proved, {n_asked} asked"
    );
}

#[test]
fn stopped_in_order_nobody_is_asked() {
    let scratch = Scratch::new();
    let mut fleet = Fleet::new(4, 500, 1);
    let calm = &HASTY[3..];
    let first = Process::start(&scratch.0, calm);
    fleet.connect(&first);
    fleet.register();
    (0..200).for_each(|_| fleet.operate());
    fleet.settle(&first);
    let workers = first.get("/controller/workers");
    let log = first.terminate();
    assert!(log.contains("final snapshot written"), "{log}");

    let second = Process::start(
        &scratch.0,
        &["--full-sync-jitter-s=0", "--restart-grace-s=0"],
    );
    let sync = second.get("/sync");
    assert_eq!(sync["persistence"]["restored"]["clean"], true, "{sync:#}");
    fleet.check_every_key(&second);
    let strip = |workers: &serde_json::Value| {
        let rows = workers["workers"].as_array().unwrap().iter();
        rows.map(|row| {
            (
                row["instance_id"].clone(),
                row["port"].clone(),
                row["key_count"].clone(),
            )
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(strip(&second.get("/controller/workers")), strip(&workers));
    fleet.connect(&second);
    for _ in 0..3 {
        fleet.beat();
    }
    assert!(fleet.workers.iter().all(|worker| worker.asked == [0, 0]));
    for who in 0..fleet.workers.len() {
        fleet.operate_as(who, 0);
    }
    eventually("proof by the next number", || {
        let rows = by_stream(&second.get("/sync"));
        let cpu = rows
            .iter()
            .filter(|((_, location), _)| location == LOCATIONS[0]);
        cpu.into_iter()
            .all(|(_, row)| row["state"] == "in sync")
            .then_some(())
    });
    fleet.beat();
    assert!(fleet.workers.iter().all(|worker| worker.asked == [0, 0]));
}

/// A worker's command socket, as an engine has one that outlives the controller: closed when the
/// sender is dropped.
fn obey(n_commands: usize) -> (u16, Sender<()>, JoinHandle<()>) {
    let (open, closed) = channel();
    let socket = zmq::Context::new().socket(zmq::REP).unwrap();
    socket.set_linger(1000).unwrap();
    let patience = i32::try_from(PATIENCE.as_millis()).unwrap();
    socket.set_rcvtimeo(patience).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = socket.get_last_endpoint().unwrap().unwrap();
    let port = endpoint.rsplit(':').next().unwrap().parse().unwrap();
    let obeying = spawn(move || {
        for _ in 0..n_commands {
            let command = Message::decode(&socket.recv_bytes(0).unwrap()).unwrap();
            let answer = match command {
                Message::HealthWorkerMsg(_) => {
                    Message::HealthWorkerRetMsg(HealthWorkerRetMsg { error_code: 0 })
                }
                Message::PinWorkerMsg(pin) => Message::PinWorkerRetMsg(PinWorkerRetMsg {
                    num_tokens: pin.tokens.len() as i64,
                }),
                other => panic!("{other:?}"),
            };
            socket.send(answer.encode_msgpack(), 0).unwrap();
        }
        let _ = closed.recv();
    });
    (port, open, obeying)
}

#[test]
fn commands_right_after_a_restart_reach_their_workers() {
    let command_all = |controller: &Process| {
        let post = |path: &str, body: &str| {
            let (status, answer) = controller.request("POST", path, body).unwrap();
            assert_eq!(status, 200, "{path}: {answer}");
            serde_json::from_str::<serde_json::Value>(&answer).unwrap()
        };
        let health = post("/health", r#"{"instance_id": "instance-00"}"#);
        assert_eq!(health["error_codes"], serde_json::json!({"0": 0}));
        let pin =
            r#"{"instance_id": "instance-00", "location": "LocalCPUBackend", "tokens": [1, 2, 3]}"#;
        assert_eq!(post("/pin", pin)["num_tokens"], 3);
    };
    let scratch = Scratch::new();
    let mut fleet = Fleet::new(1, 100, 5);
    let (port, open, obeying) = obey(6);
    fleet.workers[0].port = port;
    let first = Process::start(&scratch.0, &HASTY);
    fleet.connect(&first);
    fleet.register();
    command_all(&first);
    first.wait_until_saved();
    first.kill();
    // Nobody has spoken to it yet: the address is from the disk, the link is opened anew.
    let second = Process::start(&scratch.0, &HASTY);
    command_all(&second);
    second.terminate();
    command_all(&Process::start(&scratch.0, &HASTY));
    drop(open);
    obeying.join().unwrap();
}

#[test]
fn silence_past_the_grace_time_is_asked_about() {
    let scratch = Scratch::new();
    let mut fleet = Fleet::new(2, 100, 2);
    let first = Process::start(&scratch.0, &HASTY);
    fleet.connect(&first);
    fleet.register();
    (0..20).for_each(|_| fleet.operate());
    fleet.settle(&first);
    first.wait_until_saved();
    first.kill();
    let second = Process::start(
        &scratch.0,
        &["--full-sync-jitter-s=0", "--restart-grace-s=0"],
    );
    fleet.connect(&second);
    eventually("everybody is asked", || {
        fleet.beat();
        let asked = |worker: &crate::driver::Worker| worker.asked.iter().all(|n| *n > 0);
        fleet.workers.iter().all(asked).then_some(())
    });
    fleet.settle(&second);
    fleet.check_every_key(&second);
}
