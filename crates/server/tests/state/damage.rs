//! Files that are torn, flipped, missing or in the way: each starts, serves, and says what it did.

use std::fs;
use std::path::{Path, PathBuf};

use crate::driver::{Fleet, by_stream};
use crate::process::{Process, Scratch, command, eventually};

const CALM: [&str; 3] = [
    "--full-sync-jitter-s=0",
    "--gap-sync-interval-s=0",
    "--journal-sync-ms=1",
];

/// A directory as a killed process left it: two snapshots and the journals since the older one.
fn left_behind(fleet: &mut Fleet) -> Scratch {
    let scratch = Scratch::new();
    let hasty = [&CALM[..], &["--snapshot-interval-s=0.05"]].concat();
    let process = Process::start(&scratch.0, &hasty);
    fleet.connect(&process);
    fleet.register();
    eventually("two snapshots with keys", || {
        fleet.operate();
        let written = process.get("/sync")["persistence"]["last_snapshot"]["keys"].as_u64();
        (written? > 100 && scratch.files(".kvs").len() == 2).then_some(())
    });
    process.kill();
    let process = Process::start(&scratch.0, &CALM);
    fleet.connect(&process);
    eventually("what was replayed is in a snapshot", || {
        let persistence = process.get("/sync")["persistence"].take();
        let is_none_due = persistence["restored"]["records"] == 0;
        (is_none_due || !persistence["last_snapshot"].is_null()).then_some(())
    });
    fleet.settle(&process);
    process.wait_until_saved();
    process.kill();
    scratch
}

/// Starts on what is there, mends everything by full sync, and returns what was said.
fn mended(scratch: &Scratch, fleet: &mut Fleet) -> (Vec<String>, u64) {
    let process = Process::start(&scratch.0, &CALM);
    let sync = process.get("/sync");
    let restored = &sync["persistence"]["restored"];
    let damages: Vec<String> = restored["damages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|damage| damage.as_str().unwrap().to_owned())
        .collect();
    for damage in &damages {
        let word = damage.split(' ').next().unwrap();
        process.wait_for_log(word);
    }
    let keys = restored["keys"].as_u64().unwrap();
    fleet.connect(&process);
    fleet.settle(&process);
    fleet.check_every_key(&process);
    (damages, keys)
}

fn fleet() -> Fleet {
    Fleet::new(3, 400, 3)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn last(files: Vec<PathBuf>) -> PathBuf {
    files.into_iter().next_back().unwrap()
}

#[test]
fn a_torn_journal_is_cut_and_the_rest_counts() {
    let mut fleet = fleet();
    let scratch = left_behind(&mut fleet);
    let journal = last(scratch.files(".kvj"));
    let len = fs::metadata(&journal).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
    file.set_len(len - 3).unwrap();
    let (damages, keys) = mended(&scratch, &mut fleet);
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert!(damages[0].contains("cut off: it ends early"), "{damages:?}");
    assert!(keys > 0);
    let (damages, _) = mended(&scratch, &mut fleet);
    assert!(damages.is_empty(), "said once: {damages:?}");
}

#[test]
fn a_flipped_bit_in_a_journal_ends_it_there() {
    let mut fleet = fleet();
    let scratch = left_behind(&mut fleet);
    flip(&last(scratch.files(".kvj")), 60);
    let (damages, keys) = mended(&scratch, &mut fleet);
    assert!(
        damages[0].contains("a checksum does not match"),
        "{damages:?}"
    );
    assert!(keys > 0);
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_one_before_and_its_journals() {
    for damage in [
        (|path: &Path| flip(path, 100)) as fn(&Path),
        |path| flip(path, 3),
        |path| {
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(50)
                .unwrap()
        },
        |path| fs::write(path, b"").unwrap(),
    ] {
        let mut fleet = fleet();
        let scratch = left_behind(&mut fleet);
        damage(&last(scratch.files(".kvs")));
        let process = Process::start(&scratch.0, &CALM);
        let sync = process.get("/sync");
        let damages = &sync["persistence"]["restored"]["damages"];
        assert_eq!(damages.as_array().unwrap().len(), 1, "{damages}");
        assert!(
            damages[0].as_str().unwrap().contains("is set aside"),
            "{damages}"
        );
        // The journals since the older snapshot lead to the same state: nothing is lost.
        fleet.check_every_key(&process);
        fleet.connect(&process);
        fleet.settle(&process);
        assert!(fleet.workers.iter().all(|worker| worker.asked == [0, 0]));
    }
}

#[test]
fn without_any_whole_snapshot_everything_comes_by_full_sync() {
    let mut fleet = fleet();
    let scratch = left_behind(&mut fleet);
    for snapshot in scratch.files(".kvs") {
        flip(&snapshot, 40);
    }
    let (damages, keys) = mended(&scratch, &mut fleet);
    assert_eq!(keys, 0);
    assert!(
        damages
            .iter()
            .filter(|d| d.contains("is set aside"))
            .count()
            == 2,
        "{damages:?}"
    );
    let (damages, keys) = mended(&scratch, &mut fleet);
    assert!(damages.is_empty() && keys > 0, "{damages:?}");
}

/// What is done to the last journal, and what is said about it.
type JournalDamage = (fn(&Path), &'static str);

#[test]
fn whatever_happens_to_the_last_journal_it_starts_says_so_and_mends() {
    let cut = |path: &Path, len| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(len).unwrap();
    };
    let cases: [JournalDamage; 8] = [
        (|path| fs::remove_file(path).unwrap(), "is missing"),
        (|path| fs::write(path, b"").unwrap(), "is lost with 0 bytes"),
        (
            |path| fs::write(path, [0; 4096]).unwrap(),
            "is lost with 4096 bytes",
        ),
        // Its magic, version, checksum, position.
        (|path| flip(path, 2), "does not begin as one"),
        (|path| flip(path, 9), "format version"),
        (|path| flip(path, 13), "a checksum does not match"),
        (|path| flip(path, 17), "a checksum does not match"),
        // The length of its first group.
        (|path| flip(path, 26), "cut off"),
    ];
    for (damage, said) in cases {
        let mut fleet = fleet();
        let scratch = left_behind(&mut fleet);
        damage(&last(scratch.files(".kvj")));
        let (damages, keys) = mended(&scratch, &mut fleet);
        assert_eq!(damages.len(), 1, "{damages:?}");
        assert!(damages[0].contains(said), "{damages:?}");
        assert!(keys > 0, "the snapshot counts");
        let (damages, _) = mended(&scratch, &mut fleet);
        assert!(damages.is_empty(), "said once: {damages:?}");
    }
    let mut fleet = fleet();
    let scratch = left_behind(&mut fleet);
    cut(&last(scratch.files(".kvj")), 24);
    let (damages, keys) = mended(&scratch, &mut fleet);
    assert!(
        damages.is_empty() && keys > 0,
        "the end of a group is no damage: the numbers tell"
    );
}

#[test]
fn a_missing_snapshot_costs_nothing_while_there_is_the_one_before() {
    let mut fleet = fleet();
    let scratch = left_behind(&mut fleet);
    fs::remove_file(last(scratch.files(".kvs"))).unwrap();
    let process = Process::start(&scratch.0, &CALM);
    fleet.check_every_key(&process);
    fleet.connect(&process);
    fleet.settle(&process);
    assert!(fleet.workers.iter().all(|worker| worker.asked == [0, 0]));
}

#[test]
fn without_snapshots_journals_that_begin_later_are_refused_aloud() {
    let mut fleet = fleet();
    let scratch = left_behind(&mut fleet);
    for snapshot in scratch.files(".kvs") {
        fs::remove_file(snapshot).unwrap();
    }
    let (damages, keys) = mended(&scratch, &mut fleet);
    assert_eq!(keys, 0);
    assert!(damages[0].contains("record 0 is missing"), "{damages:?}");
}

#[test]
fn journals_after_a_missing_one_do_not_count() {
    let mut fleet = fleet();
    let scratch = left_behind(&mut fleet);
    let journals = scratch.files(".kvj");
    assert!(journals.len() >= 2);
    // Back to the older snapshot, whose own journal is gone.
    fs::remove_file(last(scratch.files(".kvs"))).unwrap();
    fs::remove_file(&journals[0]).unwrap();
    let (damages, keys) = mended(&scratch, &mut fleet);
    assert!(damages[0].contains("is missing"), "{damages:?}");
    assert!(keys > 0, "the snapshot counts");
}

#[test]
fn a_lost_directory_is_a_first_start() {
    let mut fleet = fleet();
    let scratch = left_behind(&mut fleet);
    fs::remove_dir_all(&scratch.0).unwrap();
    let (damages, keys) = mended(&scratch, &mut fleet);
    assert!(damages.is_empty() && keys == 0, "{damages:?}");
}

#[test]
fn another_version_is_refused_by_name() {
    let mut fleet = fleet();
    let scratch = left_behind(&mut fleet);
    for path in [scratch.files(".kvs"), scratch.files(".kvj")].concat() {
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 9;
        fs::write(path, bytes).unwrap();
    }
    let (damages, keys) = mended(&scratch, &mut fleet);
    assert!(damages[0].contains("format version 9"), "{damages:?}");
    assert_eq!(keys, 0);
}

#[test]
fn two_processes_do_not_share_a_directory() {
    let scratch = Scratch::new();
    let first = Process::start(&scratch.0, &CALM);
    let second = command(&scratch.0).output().unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("is in use by another process"), "{text}");
    assert!(text.contains("--no-state"), "{text}");
    assert_eq!(by_stream(&first.get("/sync")).len(), 0);
}
