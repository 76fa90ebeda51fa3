//! Counts the instructions of decode, hash, apply and lookup, and compares them with a baseline.
//!
//! Times on a shared machine vary by half; instruction counts by a thousandth. Each case runs twice
//! under valgrind, for a small and a large number of rounds: the difference, divided, is the cost of a
//! round without start-up and preparation.
//!
//! `kvatlas-guard` compares and fails on a rise, `--accept` stores what it counted, `--samples` prints
//! the counts as lines for `kvatlas bench --report`; `run <case> <rounds>` is what valgrind runs.

mod cases;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use cases::Case;

/// Counts as of the last `--accept`.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json");
/// Rise that is an error, in percent: inlining and layout move a few.
const TOLERANCE: f64 = 5.0;
/// Rounds of the two runs.
const ROUNDS: [u32; 2] = [20, 120];

type Counts = BTreeMap<String, f64>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["run", name, rounds] => run(name, rounds),
        [] => count().and_then(|counts| compare(&counts)),
        ["--accept"] => count().and_then(|counts| accept(&counts)),
        ["--samples"] => count().map(|counts| samples(&counts)),
        _ => Err("usage: kvatlas-guard [--accept | --samples]".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("kvatlas-guard: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, rounds: &str) -> Result<(), String> {
    let case = Case::ALL.iter().find(|case| case.name == name);
    let case = case.ok_or_else(|| format!("no case {name:?}"))?;
    let rounds = rounds.parse().map_err(|_| "rounds is not a number")?;
    (case.run)(rounds);
    Ok(())
}

/// Instructions of every case, per unit of work.
fn count() -> Result<Counts, String> {
    let mut counts = Counts::new();
    for case in Case::ALL {
        let [small, large] = ROUNDS.map(|rounds| instructions(case.name, rounds));
        let rounds = f64::from(ROUNDS[1] - ROUNDS[0]);
        let per_unit = (large? - small?) / rounds / f64::from(case.units);
        counts.insert(format!("{}, per {}", case.name, case.unit), per_unit);
    }
    Ok(counts)
}

/// Instructions of a whole run.
fn instructions(case: &str, rounds: u32) -> Result<f64, String> {
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let out = OutFile::new(case, rounds);
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--quiet"])
        .arg(format!("--cachegrind-out-file={}", out.0.display()))
        .arg(me)
        .args(["run", case, &rounds.to_string()])
        .output();
    let output = output.map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = std::fs::read_to_string(&out.0).map_err(|error| error.to_string())?;
    text.lines()
        .find_map(|line| line.strip_prefix("summary:")?.trim().parse().ok())
        .ok_or_else(|| "valgrind wrote no summary".to_owned())
}

/// Valgrind's output, removed when it was read.
struct OutFile(PathBuf);

impl OutFile {
    fn new(case: &str, rounds: u32) -> Self {
        let name = format!("kvatlas-guard-{}-{case}-{rounds}", std::process::id());
        Self(std::env::temp_dir().join(name.replace(' ', "-")))
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn compare(counts: &Counts) -> Result<(), String> {
    let text = std::fs::read_to_string(BASELINE).map_err(|error| format!("{BASELINE}: {error}"))?;
    let baseline: Counts = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    println!(
        "{:<40} {:>10} {:>10} {:>9}",
        "instructions", "baseline", "now", "change"
    );
    let mut risen = Vec::new();
    for (name, now) in counts {
        let Some(before) = baseline.get(name) else {
            risen.push(format!("{name} has no baseline"));
            continue;
        };
        let change = (now / before - 1.0) * 100.0;
        println!("{name:<40} {before:>10.1} {now:>10.1} {change:>+8.1}%");
        if change > TOLERANCE {
            risen.push(format!("{name} rose by {change:.1} %"));
        }
    }
    if risen.is_empty() {
        return Ok(());
    }
    let advice =
        "make it cheaper, or accept it with `make bench-guard GUARD_ARGS=--accept` and say why";
    Err(format!("{}; {advice}", risen.join(", ")))
}

fn accept(counts: &Counts) -> Result<(), String> {
    let rounded: Counts = counts
        .iter()
        .map(|(name, count)| (name.clone(), (count * 1000.0).round() / 1000.0))
        .collect();
    let text = serde_json::to_string_pretty(&rounded).map_err(|error| error.to_string())?;
    std::fs::write(Path::new(BASELINE), text + "\n").map_err(|error| error.to_string())
}

fn samples(counts: &Counts) {
    for (name, count) in counts {
        let line = serde_json::json!({
            "kind": "sample", "case": "instructions", "subject": "kvatlas", "trial": 0,
            "metric": name, "unit": "instructions", "more_is_better": false, "value": count,
        });
        println!("{line}");
    }
}
