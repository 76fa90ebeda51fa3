//! Kept state at size: what the journal costs, a snapshot written while serving, starts, and a fleet
//! that lists everything anew.
//!
//! ```text
//! two controllers, one without state: the same operations in turn, a slice each
//! SIGKILL -> start, everything is in the journal -> snapshots: lookups meanwhile and between
//! SIGTERM -> start, three times -> every worker syncs
//! ```
//! Every start must lead to exactly the keys there were.

mod serving;
mod storm;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::serving::Serving;
use self::storm::Pace;
use super::Trial;
use crate::args::{Args, Launch};
use crate::error::BenchError;
use crate::http::Http;
use crate::launch;
use crate::record::{Value, unusable};
use crate::sockets::Pushes;
use crate::traffic::{BATCH, KeyOf, MULTIPART, Multipart, Streams, key};

/// Instances of the fleet.
pub(crate) const INSTANCES: usize = 1000;
/// Name of the results about what is kept.
const CASE: &str = "kept state";
/// Name of the results of the syncs.
const SYNC: &str = "sync of a thousand workers";
/// Starts after an end in order.
const STARTS: u32 = 3;
/// Time of lookups while snapshots come and go, in windows of one rate.
const WATCHED: u32 = 12;
/// From one snapshot to the next while they are watched.
const SNAPSHOT_EVERY_S: f64 = 2.5;
/// No snapshot but the last.
const NEVER_S: f64 = 86_400.0;

/// Takes results as they come: case, trial, value.
pub(crate) type Record<'r> = &'r mut dyn FnMut(&str, u32, Value) -> Result<(), BenchError>;

/// Does all of it with `own`.
pub(crate) fn run(args: &Args, own: &Launch, record: Record<'_>) -> Result<(), BenchError> {
    let dir = Scratch::new()?;
    let launch = serving::on(&dir.0, own, NEVER_S);
    let each = (args.state_keys / INSTANCES).max(1);
    let told = ingest(args, own, &dir.0, each, record)?;
    let held = told.held;

    let watched = WATCHED * Duration::from_millis(args.window_ms);
    let mut before = snapshots(own, &dir.0, told, watched, record)?;
    for trial in 0..STARTS {
        let took = before.end()?.as_secs_f64();
        record(
            CASE,
            trial,
            Value::less("SIGTERM to end, with a last snapshot", "s", took),
        )?;
        before = Serving::start(&launch, held)?;
        let ready = before.ready.as_secs_f64();
        record(
            CASE,
            trial,
            Value::less("start to ready, from the snapshot", "s", ready),
        )?;
    }
    for pace in [Pace::Full, Pace::Keys(2_000_000)] {
        for value in storm::run(&mut before, pace, each, held)? {
            record(SYNC, 0, value)?;
        }
    }
    Ok(())
}

/// What the fleet has said.
struct Told {
    held: u64,
    streams: Streams,
}

/// Tells two controllers the same, one of which keeps it, and kills both.
fn ingest(
    args: &Args,
    own: &Launch,
    dir: &Path,
    each: usize,
    record: Record<'_>,
) -> Result<Told, BenchError> {
    let begin = |launch: &Launch| {
        let started = launch::start(launch, "/readyz")?;
        let ports = started.ports;
        Trial::begin(args, ports, Some(started), INSTANCES)
    };
    let mut kept = begin(&serving::on(dir, own, NEVER_S))?;
    let mut plain = begin(own)?;
    let (mut with, mut without) = (Spent::default(), Spent::default());
    let slice = BATCH * MULTIPART / 2;
    for (n, first) in (0..each).step_by(slice).enumerate() {
        let last = (first + slice).min(each);
        let multiparts: Vec<Multipart> = (0..INSTANCES)
            .flat_map(|instance| {
                let keys: Vec<_> = (first..last)
                    .map(|at| key(KeyOf::Instance, instance, at))
                    .collect();
                kept.streams.admits(instance, &keys)
            })
            .collect();
        let keys = ((last - first) * INSTANCES) as u64;
        // Who comes first changes, so that neither always has the warmer machine.
        if n % 2 == 0 {
            with.add(&mut kept, &multiparts, keys)?;
            without.add(&mut plain, &multiparts, keys)?;
        } else {
            without.add(&mut plain, &multiparts, keys)?;
            with.add(&mut kept, &multiparts, keys)?;
        }
    }
    drop(plain);
    let began = Instant::now();
    let mut http = Http::connect(kept.ports.http)?;
    while serving::sync(&mut http)?["persistence"]["records_unsaved"] != 0 {
        if began.elapsed() > Duration::from_secs(20) {
            return Err(BenchError::Late {
                what: "the journal was not written",
                seconds: 20,
                expected: "0 records unsaved".to_owned(),
                seen: "more".to_owned(),
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let bytes = size(dir).map_err(|source| unusable(dir, source))?;
    let held = kept.held;
    record(CASE, 0, Value::more("keys", "M", held as f64 / 1e6))?;
    record(
        CASE,
        0,
        Value::more("operations with a journal", "1/s", with.rate()),
    )?;
    record(
        CASE,
        0,
        Value::more("operations without", "1/s", without.rate()),
    )?;
    let lost = (1.0 - with.rate() / without.rate()) * 100.0;
    record(CASE, 0, Value::less("rate lost to the journal", "%", lost))?;
    record(
        CASE,
        0,
        Value::less("CPU per operation with a journal", "us", with.cpu()),
    )?;
    record(
        CASE,
        0,
        Value::less("CPU per operation without", "us", without.cpu()),
    )?;
    let per_operation = bytes as f64 / held as f64;
    record(
        CASE,
        0,
        Value::less("journal on disk, per operation", "B", per_operation),
    )?;
    let streams = std::mem::replace(&mut kept.streams, Streams::new(0));
    Ok(Told { held, streams })
}

/// Starts on what a killed process left and lets it write snapshots, while lookups go on and an
/// operation comes now and then.
fn snapshots(
    own: &Launch,
    dir: &Path,
    told: Told,
    watched: Duration,
    record: Record<'_>,
) -> Result<Serving, BenchError> {
    let Told { held, mut streams } = told;
    let mut serving = Serving::start(&serving::on(dir, own, SNAPSHOT_EVERY_S), held)?;
    let ready = serving.ready.as_secs_f64();
    let name = "start to ready, all in the journal";
    record(CASE, 0, Value::less(name, "s", ready))?;
    let pushes = Pushes::connect(1, serving.ports.pull)?;
    let unfinished = dir.join("snapshot.tmp");
    let mut written: Vec<serde_json::Value> = Vec::new();
    let began = Instant::now();
    let [busy, quiet] = serving.lookups(
        || unfinished.exists(),
        |serving| {
            // What is there already: something happened, and nothing is another.
            for multipart in streams.admits(0, &[key(KeyOf::Instance, 0, 0)]) {
                pushes.send(&multipart)?;
            }
            let last = serving.sync()?["persistence"]["last_snapshot"].take();
            if !last.is_null() && written.last() != Some(&last) {
                written.push(last);
            }
            Ok(began.elapsed() >= watched && !written.is_empty())
        },
    )?;
    for (trial, written) in (0..).zip(&written) {
        let number = |key: &str| written[key].as_f64().unwrap_or(f64::NAN);
        let took = Value::less("snapshot while serving", "s", number("took_s"));
        record(CASE, trial, took)?;
        let per_key = number("bytes") / number("keys");
        let name = "snapshot on disk, per key";
        record(CASE, trial, Value::less(name, "B", per_key))?;
    }
    for (lookups, when) in [(busy, "a snapshot being written"), (quiet, "between")] {
        for value in lookups.values(when) {
            record(CASE, 0, value)?;
        }
    }
    Ok(serving)
}

/// What operations took so far.
#[derive(Default)]
struct Spent {
    operations: u64,
    time: Duration,
    cpu: Duration,
}

impl Spent {
    fn add(
        &mut self,
        trial: &mut Trial<'_>,
        multiparts: &[Multipart],
        keys: u64,
    ) -> Result<(), BenchError> {
        let before = trial.usage();
        let began = Instant::now();
        for multipart in multiparts {
            trial.pushes.send(multipart)?;
        }
        trial.held += keys;
        trial.drain()?;
        self.time += began.elapsed();
        self.operations += keys;
        if let (Some(before), Some(after)) = (before, trial.usage()) {
            self.cpu += after.cpu.saturating_sub(before.cpu);
        }
        Ok(())
    }

    fn rate(&self) -> f64 {
        self.operations as f64 / self.time.as_secs_f64()
    }

    /// Microseconds of processor time per operation.
    fn cpu(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations as f64
    }
}

/// Bytes of the files in a directory.
fn size(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// A directory that goes with the run.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, BenchError> {
        let path = std::env::temp_dir().join(format!("kvatlas-bench-state-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|source| unusable(&path, source))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
