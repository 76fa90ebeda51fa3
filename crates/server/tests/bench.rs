//! `kvatlas bench` against `kvatlas`, both as they are shipped: the benchmark checks every answer, so a
//! run that ends well is also a test of the fronts under load.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

fn bench(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kvatlas"))
        .arg("bench")
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
fn every_case_runs_and_is_reported() {
    let dir = std::env::temp_dir().join(format!("kvatlas-bench-test-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let small = [
        "--instances",
        "2,3",
        "--operations",
        "20000",
        "--trials",
        "1",
        "--window-ms",
        "100",
        "--connections",
        "2",
    ];
    for file in ["before.jsonl", "after.jsonl"] {
        let output = bench(&dir, &[&small[..], &["--out", file]].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        assert!(errors.contains("[2/2] kvatlas, 3 instances"), "{errors}");
    }
    let text = std::fs::read_to_string(dir.join("after.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (runs, samples): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["kind"] == "run");
    assert_eq!(runs.len(), 1);
    let cases: BTreeSet<_> = samples
        .iter()
        .map(|sample| {
            (
                sample["case"].as_str().unwrap(),
                sample["instances"].as_u64().unwrap(),
            )
        })
        .collect();
    // Seven of the controller, and the transport without one.
    assert_eq!(cases.len(), (7 + 1) * 2, "{cases:?}");
    let alone = |sample: &&&serde_json::Value| sample["subject"] == "libzmq alone";
    let alone: BTreeSet<_> = samples
        .iter()
        .filter(alone)
        .map(|sample| sample["case"].as_str().unwrap())
        .collect();
    assert_eq!(alone, BTreeSet::from(["transport"]));
    let rate = |sample: &&&serde_json::Value| sample["unit"] == "1/s";
    assert!(
        samples
            .iter()
            .filter(rate)
            .all(|sample| sample["value"].as_f64() > Some(0.0))
    );

    let compared = bench(&dir, &["--compare", "before.jsonl", "after.jsonl"]);
    let compared = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(compared.contains("operations, 1/s"), "{compared}");

    let written = bench(
        &dir,
        &["--report", "after.jsonl", "--markdown", "benchmarks.md"],
    );
    assert!(written.status.success());
    let document = std::fs::read_to_string(dir.join("benchmarks.md")).unwrap();
    assert!(document.contains("| operations, 1/s | 2 |"), "{document}");
    assert!(dir.join("bench-ingest.svg").exists());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn kept_state_survives_its_benchmark() {
    let dir = std::env::temp_dir().join(format!("kvatlas-bench-kept-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let small = [
        "--only-peers",
        "--state-keys",
        "20000",
        "--window-ms",
        "100",
    ];
    let output = bench(&dir, &small);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for row in [
        "operations with a journal, 1/s",
        "snapshot while serving, s",
        "snapshot on disk, per key, B",
        "start to ready, from the snapshot, s",
        "until all are complete, paced, s",
    ] {
        assert!(text.contains(row), "{row}: {text}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn nonsense_is_refused() {
    let here = std::env::temp_dir();
    for (args, reason) in [
        (&["--instances", "1"][..], "at least 2 instances"),
        (&["--controller", "nameless"], "NAME=COMMAND"),
        (&["--report", "/nonexistent.jsonl"], "/nonexistent.jsonl"),
        (
            &["--controller", "x=/nonexistent/program"],
            "/nonexistent/program",
        ),
    ] {
        let output = bench(&here, args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && errors.contains(reason),
            "{errors}"
        );
    }
}
