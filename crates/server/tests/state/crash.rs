//! SIGKILL at random moments of full-speed ingest, and SIGTERM.

use crate::driver::{Fleet, LOCATIONS, by_stream};
use crate::process::{Process, Scratch, eventually};

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
        if round % 2 == 1 {
            // Some streams are caught at rest, others are overtaken by what they send to the dead.
            fleet.settle(&controller);
            let moment = fleet.dice.below(20);
            (0..moment).for_each(|_| fleet.operate());
        }
        controller.kill();
        let lost = fleet.dice.below(8);
        (0..lost).for_each(|_| fleet.operate());

        controller = Process::start(&scratch.0, &HASTY);
        let sync = controller.get("/sync");
        let restored = by_stream(&sync);
        assert_eq!(
            sync["persistence"]["restored"]["damages"]
                .as_array()
                .map(Vec::len),
            Some(0),
            "{sync:#}"
        );
        // Nothing but what was delivered, and nothing twice: a number says how much.
        let mut proved = Vec::new();
        for (who, worker) in fleet.workers.iter().enumerate() {
            for (at, location) in LOCATIONS.iter().enumerate() {
                let key = (worker.instance.clone(), (*location).to_owned());
                let Some(row) = restored.get(&key) else {
                    continue;
                };
                let last = row["last_seq"].as_i64().unwrap_or(0);
                assert!(last <= worker.seq[at], "{row}");
                if row["state"] == "unproved" && last == worker.seq[at] {
                    proved.push((who, at));
                }
            }
        }
        fleet.connect(&controller);
        fleet.settle(&controller);
        for (who, worker) in fleet.workers.iter().enumerate() {
            for (at, location) in LOCATIONS.iter().enumerate() {
                let was_proved = proved.contains(&(who, at));
                assert!(
                    !(was_proved && worker.asked[at] > 0),
                    "{} {location} was exact and was asked to sync",
                    worker.instance
                );
                n_proved += u32::from(was_proved);
                n_asked += worker.asked[at];
            }
        }
        fleet.check_every_key(&controller);
    }
    eprintln!(
        "{} rounds: {n_proved} streams proved, {n_asked} syncs",
        rounds()
    );
    assert!(
        n_proved > 0 && n_asked > 0,
        "{n_proved} proved, {n_asked} asked"
    );
}

#[test]
fn stopped_in_order_nobody_is_asked_and_commands_find_their_workers() {
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

#[test]
fn silence_past_the_grace_time_is_asked_about() {
    let scratch = Scratch::new();
    let mut fleet = Fleet::new(2, 100, 2);
    let first = Process::start(&scratch.0, &HASTY);
    fleet.connect(&first);
    fleet.register();
    (0..20).for_each(|_| fleet.operate());
    fleet.settle(&first);
    eventually("what is settled is on disk", || {
        let persistence = &first.get("/sync")["persistence"];
        (persistence["records_unsaved"] == 0).then_some(())
    });
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
