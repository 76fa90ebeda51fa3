//! State that needs more memory than the index may have.

use crate::driver::Fleet;
use crate::process::{Process, Scratch, eventually};

const CALM: [&str; 3] = [
    "--full-sync-jitter-s=0",
    "--gap-sync-interval-s=0",
    "--journal-sync-ms=1",
];

#[test]
fn what_exceeds_the_limit_is_left_out_aloud_and_comes_back_once_it_is_raised() {
    let mut fleet = Fleet::new(3, 400, 5);
    let scratch = Scratch::new();
    let process = Process::start(&scratch.0, &CALM);
    fleet.connect(&process);
    fleet.register();
    for _ in 0..40 {
        fleet.operate();
    }
    fleet.settle(&process);
    process.terminate();

    // No key fits: it starts, serves, keeps its workers, and says what is missing and why.
    let more = ["--max-index-bytes=1", "--snapshot-interval-s=0.05"];
    let tight = [&CALM[..], &more].concat();
    let process = Process::start(&scratch.0, &tight);
    process.wait_for_log("what was kept needs more than max_index_bytes");
    let sync = process.get("/sync");
    let restored = &sync["persistence"]["restored"];
    assert_eq!(restored["workers_left_out"], 3);
    assert_eq!(restored["workers"], 3);
    assert_eq!(restored["keys"], 0);
    assert_eq!(restored["damages"], serde_json::json!([]));
    assert_eq!(sync["workers_incomplete"], 3);
    let first = &sync["workers"][0]["locations"][0]["incomplete"];
    assert_eq!(first["limit"], "max_index_bytes");
    assert!(process.metrics().contains("\nkvatlas_workers_incomplete 3"));
    assert!((0..400).all(|key| process.holders(key).is_empty()));
    // Further admits are refused; nobody is asked for what has no room.
    fleet.connect(&process);
    for who in 0..3 {
        fleet.operate_as(who, 0);
    }
    let refused = r#"kvatlas_bad_frames_total{front="pull",reason="limit"} 3"#;
    eventually("all are refused", || {
        process.metrics().contains(refused).then_some(())
    });
    fleet.beat();
    assert!(fleet.workers.iter().all(|worker| worker.asked == [0, 0]));
    eventually("a snapshot without them", || {
        let written = process.get("/sync")["persistence"]["last_snapshot"].take();
        (written["keys"] == 0).then_some(())
    });
    process.kill();

    // Even after a crash it is known who is incomplete: numbers that continue do not prove it. Now
    // there is room for all.
    let process = Process::start(&scratch.0, &CALM);
    let known = process.get("/sync")["persistence"]["restored"]["keys"].as_u64();
    let held =
        |worker: &crate::driver::Worker| worker.held.iter().map(|set| set.len()).sum::<usize>();
    let held: usize = fleet.workers.iter().map(held).sum();
    // What the journal has of the last messages.
    assert!(known.unwrap() < held as u64 / 2, "{known:?} of {held}");
    fleet.connect(&process);
    fleet.settle(&process);
    fleet.check_every_key(&process);
    assert_eq!(process.get("/sync")["workers_incomplete"], 0);
}
