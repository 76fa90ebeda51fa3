//! A start: the newest snapshot that is whole, then the journals since, as far as they are whole.
//!
//! ```text
//! newest snapshot damaged  -> set aside; the one before, and its journals
//! no snapshot is whole     -> the journals alone, if they go back to the beginning; else nothing
//! a journal's tail torn    -> cut there; journals after it do not continue it and are removed
//! a journal is missing     -> what it had is lost, and journals after it are removed
//! ```
//! What was lost is found by the workers' numbers, and mended by full sync. Nothing here stops a
//! start: each case is a line for people.

use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use kvatlas_controller::Controller;
use kvatlas_controller::controller::Settings;
use kvatlas_controller::journal::Replay;
use kvatlas_controller::snapshot::Decoder;
use kvatlas_protocol::{Timestamp, WorkerKey};

use super::dir::StateDir;
use super::frame::{Blocks, Damage, Groups, kind};

/// Bytes of a snapshot per key, 8 at least: makes room for all of them at once.
const BYTES_PER_KEY: usize = 9;

/// What a start found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Restored {
    /// Workers known again.
    pub workers: usize,
    /// Keys known again.
    pub keys: u64,
    /// Records replayed from journals.
    pub records: u64,
    /// The process before ended in order and nothing happened since.
    pub is_clean: bool,
    /// Time it took.
    pub took: Duration,
    /// What was damaged and what that cost, in words.
    pub damages: Vec<String>,
    /// Workers whose keys were left out, for all together need more than `max_index_bytes`.
    pub left_out: Vec<WorkerKey>,
}

/// A controller as the files know it.
pub(super) struct Loaded {
    pub controller: Controller,
    /// Position at which the journal goes on.
    pub position: u64,
    /// Seed of its index.
    pub seed: u64,
    pub restored: Restored,
}

/// Reads the directory.
pub(super) fn load(dir: &StateDir, settings: &Settings) -> std::io::Result<Loaded> {
    let start = Instant::now();
    let snapshots = dir.snapshots()?;
    let journals = dir.journals()?;
    let mut restored = Restored::default();
    let mut base = None;
    for &position in snapshots.iter().rev() {
        match read_snapshot(dir, position, settings) {
            Ok(read) => {
                base = Some(read);
                break;
            }
            Err(damage) => {
                restored.damages.push(format!(
                    "snapshot {} is set aside: {damage}",
                    dir.snapshot(position).display()
                ));
                if let Err(error) = dir.set_aside(position) {
                    restored
                        .damages
                        .push(format!("cannot set it aside: {error}"));
                }
            }
        }
    }
    let had_files = !snapshots.is_empty() || !journals.is_empty();
    if let Some(base) = &base
        && !base.is_clean
        && journals.last().is_none_or(|&last| last < base.position)
    {
        restored.damages.push(format!(
            "{} is missing: what came after the snapshot is lost",
            dir.journal(base.position).display()
        ));
    }
    let Base {
        controller,
        decoder,
        position: from,
        seed,
        is_clean,
    } = base.unwrap_or_else(|| Base {
        controller: Controller::new(settings.clone()),
        decoder: Decoder::default(),
        position: 0,
        seed: settings.hash_seed,
        is_clean: false,
    });
    if decoder.n_refused() > 0 {
        restored.damages.push(format!(
            "{} workers of the snapshot exceed max_instances or max_workers and are left out",
            decoder.n_refused()
        ));
    }
    restored.left_out = decoder.shed().to_vec();
    let mut replay = Replay::new(&controller, decoder.positions(), from);
    let mut is_whole = true;
    for &first in journals.iter().filter(|&&first| first >= from) {
        if is_whole {
            match replay_file(dir, first, &mut replay) {
                Ok(()) => {}
                Err(lost) => {
                    is_whole = false;
                    restored.damages.push(lost);
                }
            }
        } else {
            let path = dir.journal(first);
            let lost = format!("{} does not continue what is left: removed", path.display());
            restored.damages.push(lost);
            let _ = std::fs::remove_file(path);
        }
    }
    let mut position = replay.finish();
    restored.records = position - from;
    if had_files && position == 0 && !is_whole {
        // Nothing is left, and nothing of it must be mistaken for the beginning of what comes now.
        let last = snapshots.iter().chain(&journals).max();
        position = last.map_or(0, |last| last + 1);
    }
    let totals = controller.totals();
    restored.workers = totals.workers;
    restored.keys = totals.keys;
    restored.is_clean = is_clean && restored.records == 0 && restored.damages.is_empty();
    restored.took = start.elapsed();
    Ok(Loaded {
        controller,
        position,
        seed,
        restored,
    })
}

struct Base {
    controller: Controller,
    decoder: Decoder,
    position: u64,
    seed: u64,
    is_clean: bool,
}

fn read_snapshot(dir: &StateDir, position: u64, settings: &Settings) -> Result<Base, Damage> {
    let content = |reason: &dyn std::fmt::Display| Damage::Content(reason.to_string());
    let file = std::fs::read(dir.snapshot(position)).map_err(|error| content(&error))?;
    let mut blocks = Blocks::open(&file)?;
    let head = blocks.head;
    if head.position != position {
        return Err(content(&"its name names another position"));
    }
    let controller = Controller::new(Settings {
        hash_seed: head.seed,
        ..settings.clone()
    });
    controller.reserve(file.len() / BYTES_PER_KEY);
    let mut decoder = Decoder::new(blocks.version, Timestamp(head.created));
    loop {
        match blocks.block()? {
            (kind::WORKERS, block) => decoder.workers(&controller, block),
            (kind::KEYS, block) => decoder.keys(&controller, block),
            (kind::END, _) => break,
            (other, _) => return Err(content(&format_args!("unknown block {other}"))),
        }
        .map_err(|malformed| content(&malformed))?;
    }
    Ok(Base {
        controller,
        decoder,
        position,
        seed: head.seed,
        is_clean: head.is_clean,
    })
}

/// Replays one file as far as it goes; an error says what was lost, and what was bad is cut off.
fn replay_file(dir: &StateDir, first: u64, replay: &mut Replay<'_>) -> Result<(), String> {
    let path = dir.journal(first);
    let shown = path.display();
    let file = std::fs::read(&path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let remove = |why: &dyn std::fmt::Display| {
        let _ = std::fs::remove_file(&path);
        format!("{shown} is lost with {} bytes: {why}", file.len())
    };
    let mut groups = Groups::open(&file).map_err(|damage| remove(&damage))?;
    let expected = replay.position();
    if groups.position != expected {
        return Err(remove(&format_args!(
            "it begins with record {}, record {expected} is missing",
            groups.position
        )));
    }
    replay.begin_file();
    loop {
        let sound = groups.offset();
        let damage = match groups.group() {
            Ok(None) => return Ok(()),
            Ok(Some((first, records))) if first == replay.position() => {
                match replay.records(records) {
                    Ok(()) => continue,
                    Err(malformed) => Damage::Content(malformed.to_string()),
                }
            }
            Ok(Some((first, _))) => Damage::Content(format!(
                "record {first} follows where {} is expected",
                replay.position()
            )),
            Err(damage) => damage,
        };
        let lost = file.len() - sound;
        let cut = OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|journal| journal.set_len(sound as u64));
        let outcome = match cut {
            Ok(()) => "cut off".to_owned(),
            Err(error) => format!("ignored, as they cannot be cut off: {error}"),
        };
        return Err(format!(
            "the last {lost} bytes of {shown} are {outcome}: {damage}"
        ));
    }
}
