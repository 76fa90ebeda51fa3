//! State that cannot be kept: a full disk, a read-only one, missing rights, a file in the way. Each
//! time it starts, serves, says what is wrong and what can be done, and goes on once that is done.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use serde_json::Value;

use crate::disk::Disk;
use crate::driver::Fleet;
use crate::process::{Process, Scratch, command, eventually};

const CALM: [&str; 3] = [
    "--full-sync-jitter-s=0",
    "--gap-sync-interval-s=0",
    "--journal-sync-ms=1",
];

fn fleet() -> Fleet {
    Fleet::new(3, 400, 4)
}

/// Everything that says so, says so: `/sync`, log, metric, `/diagnose`, `kvatlas sync`; and it is ready all the same.
fn says_why(process: &Process, reason: &str, remedy: &str) {
    let kept = process.get("/sync")["persistence"].take();
    let says = |text: &Value, part: &str| text.as_str().is_some_and(|text| text.contains(part));
    assert_eq!(kept["state"], "failing", "{kept:#}");
    assert!(says(&kept["reason"], reason), "{kept:#}");
    assert!(says(&kept["remedy"], remedy), "{kept:#}");
    for part in ["state is not kept", reason, remedy] {
        process.wait_for_log(part);
    }
    assert!(process.metrics().contains("kvatlas_state_working 0"));
    let reasons = process.get("/diagnose")["reasons"].to_string();
    assert!(
        reasons.contains("state is not kept") && reasons.contains(remedy),
        "{reasons}"
    );
    let shown = Command::new(env!("CARGO_BIN_EXE_kvatlas"))
        .args(["sync", "--url", &format!("http://{}", process.http)])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("NOT KEPT") && shown.contains(remedy),
        "{shown}"
    );
    assert_eq!(process.request("GET", "/readyz", "").unwrap().0, 200);
}

/// Takes operations in, answers lookups, commands full syncs.
fn serves(process: &Process, fleet: &mut Fleet) {
    fleet.settle(process);
    fleet.check_every_key(process);
}

/// Killed and started again, it knows everything and asks nobody.
fn forgets_nothing(process: Process, state: &std::path::Path, fleet: &mut Fleet) {
    fleet.settle(&process);
    process.wait_until_saved();
    process.kill();
    let process = Process::start(state, &CALM);
    let restored = process.get("/sync")["persistence"]["restored"].take();
    assert_eq!(
        restored["damages"].as_array().unwrap().len(),
        0,
        "{restored:#}"
    );
    fleet.check_every_key(&process);
    fleet.connect(&process);
    serves(&process, fleet);
    assert!(fleet.workers.iter().all(|worker| worker.asked == [0, 0]));
}

#[test]
fn a_full_disk_stops_the_journal_loudly_and_serving_goes_on() {
    let Some(disk) = Disk::mount("1m") else {
        return;
    };
    let mut fleet = fleet();
    let process = Process::start(disk.path(), &CALM);
    fleet.connect(&process);
    fleet.register();
    serves(&process, &mut fleet);
    process.wait_until_saved();

    let ballast = disk.fill();
    eventually("the journal finds no room", || {
        fleet.operate();
        let kept = process.get("/sync")["persistence"].take();
        (kept["state"] == "failing").then_some(())
    });
    says_why(&process, "No space left on device", "make room");
    process.wait_for_log("cannot write the journal");
    serves(&process, &mut fleet);

    fs::remove_file(ballast).unwrap();
    process.wait_until("working");
    process.wait_for_log("state is kept again");
    assert!(process.metrics().contains("kvatlas_state_working 1"));
    forgets_nothing(process, disk.path(), &mut fleet);
}

/// Killed before there is room again: what is on disk is from before, and the workers' numbers say so.
#[test]
fn killed_on_a_full_disk_what_was_written_counts_and_the_rest_is_synced() {
    let Some(disk) = Disk::mount("1m") else {
        return;
    };
    let mut fleet = fleet();
    let process = Process::start(disk.path(), &CALM);
    fleet.connect(&process);
    fleet.register();
    serves(&process, &mut fleet);
    process.wait_until_saved();
    let ballast = disk.fill();
    eventually("the journal finds no room", || {
        fleet.operate();
        let kept = process.get("/sync")["persistence"].take();
        (kept["state"] == "failing").then_some(())
    });
    // Every stream moves on, and nothing of it is kept.
    serves(&process, &mut fleet);
    process.kill();
    fs::remove_file(ballast).unwrap();

    let process = Process::start(disk.path(), &CALM);
    let restored = process.get("/sync")["persistence"]["restored"].take();
    assert!(restored["keys"].as_u64().unwrap() > 0, "{restored:#}");
    fleet.connect(&process);
    serves(&process, &mut fleet);
    let n_asked: u32 = fleet.workers.iter().flat_map(|worker| worker.asked).sum();
    assert!(n_asked >= 6, "{n_asked} of 6 streams asked");
}

#[test]
fn a_full_disk_costs_the_older_snapshot_before_it_costs_persistence() {
    let Some(disk) = Disk::mount("1m") else {
        return;
    };
    let mut fleet = fleet();
    let often = [&CALM[..], &["--journal-max-bytes=100000"]].concat();
    let process = Process::start(disk.path(), &often);
    fleet.connect(&process);
    fleet.register();
    let n_snapshots = || {
        let names = fs::read_dir(disk.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name());
        let is_snapshot = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".kvs");
        names.filter(is_snapshot).count()
    };
    eventually("two snapshots and the journals since", || {
        (0..20).for_each(|_| fleet.operate());
        (n_snapshots() == 2).then_some(())
    });
    let _ballast = disk.fill();
    eventually("the journal finds no room", || {
        fleet.operate();
        let kept = process.get("/sync")["persistence"].take();
        (kept["state"] == "failing").then_some(())
    });
    assert_eq!(n_snapshots(), 1);
    process.wait_until("working");
    forgets_nothing(process, disk.path(), &mut fleet);
}

#[test]
fn a_read_only_disk_costs_persistence_until_it_is_writable() {
    let Some(mut disk) = Disk::mount("8m") else {
        return;
    };
    let state = disk.path().join("state");
    disk.remount("ro");
    let mut fleet = fleet();
    let process = Process::start(&state, &CALM);
    fleet.connect(&process);
    fleet.register();
    serves(&process, &mut fleet);
    says_why(&process, "Read-only file system", "mount it writable");
    disk.remount("rw");
    process.wait_until("working");
    forgets_nothing(process, &state, &mut fleet);
}

#[test]
fn a_directory_without_rights_costs_persistence_until_they_are_given() {
    let scratch = Scratch::new();
    let state = scratch.0.join("state");
    fs::create_dir(&state).unwrap();
    let mode = |mode| fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    // Root may write anywhere, unless it gives that up.
    let mut unprivileged: Vec<&str> = Vec::new();
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        unprivileged = vec!["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    }
    let run = |program: &std::ffi::OsStr| match unprivileged.as_slice() {
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        [] => Command::new(program),
    };
    let may_write = run("test".as_ref()).arg("-w").arg(&state).status();
    if may_write.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this user may write anywhere and cannot give that up");
        return;
    }
    let plain = command(&state);
    let mut start = run(plain.get_program());
    start.args(plain.get_args()).args(CALM);
    for (name, value) in plain.get_envs() {
        assert!(value.is_none(), "{name:?}");
        start.env_remove(name);
    }
    let mut fleet = fleet();
    let process = Process::spawn(start);
    fleet.connect(&process);
    fleet.register();
    serves(&process, &mut fleet);
    says_why(
        &process,
        "Permission denied",
        "let the user that kvatlas runs as write there",
    );
    mode(0o700);
    process.wait_until("working");
    forgets_nothing(process, &state, &mut fleet);
}

#[test]
fn a_file_where_the_directory_should_be_costs_persistence_until_it_is_gone() {
    let scratch = Scratch::new();
    let path = scratch.0.join("state");
    fs::write(&path, b"in the way").unwrap();
    let mut fleet = fleet();
    let process = Process::start(&path, &CALM);
    fleet.connect(&process);
    fleet.register();
    fleet.settle(&process);
    fleet.check_every_key(&process);
    assert_eq!(process.get("/sync")["persistence"]["state"], "failing");
    assert!(process.metrics().contains("kvatlas_state_working 0"));
    process.wait_for_log("state is not kept");
    let reasons = process.get("/diagnose")["reasons"].to_string();
    assert!(reasons.contains("state is not kept"), "{reasons}");

    fs::remove_file(&path).unwrap();
    process.wait_until("working");
    process.terminate();
    let process = Process::start(&path, &CALM);
    fleet.check_every_key(&process);
}

/// `/dev/full` behind the name of the file: every write ends with "no space left on device".
#[test]
fn a_snapshot_that_finds_no_room_stops_persistence_until_there_is_some() {
    let scratch = Scratch::new();
    let mut fleet = fleet();
    std::os::unix::fs::symlink("/dev/full", scratch.0.join("snapshot.tmp")).unwrap();
    let hasty = [&CALM[..], &["--snapshot-interval-s=0.05"]].concat();
    let process = Process::start(&scratch.0, &hasty);
    fleet.connect(&process);
    fleet.register();
    (0..50).for_each(|_| fleet.operate());
    eventually("the disk is full", || {
        fleet.operate();
        let persistence = &process.get("/sync")["persistence"];
        (persistence["state"] == "failing").then_some(())
    });
    process.wait_for_log("No space left on device");
    fleet.settle(&process);
    fleet.check_every_key(&process);
    assert_eq!(process.request("GET", "/readyz", "").unwrap().0, 200);
    // What could not be written was removed, so there is room again.
    process.wait_until("working");
    process.kill();
    let process = Process::start(&scratch.0, &CALM);
    fleet.check_every_key(&process);
}
