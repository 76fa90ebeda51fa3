//! The command line: `list`, or `trial <subject> <case>`.

use std::process::ExitCode;

use crate::dynamo::{Dynamo, LowerTier, Positional, RadixTree};
use crate::kvidx;
use crate::ours::Ours;
use crate::subject::Subject;
use crate::trial::{self, Sample};

/// Cases of `kvidx`.
const TIMED: &[&str] = &[
    "KVIDX-1: check",
    "KVIDX-1: apply, batches of 128",
    "KVIDX-1: apply, one by one",
    "KVIDX-1: lookup",
    "KVIDX-1: mixed, batches of 128",
    "KVIDX-1: mixed, one by one",
    "KVIDX-1: exactness",
];
/// Cases of `kvidx-memory`.
const COUNTED: &[&str] = &["KVIDX-1: memory"];

/// Runs the program; `live_heap` if its allocator counts.
pub fn main(live_heap: Option<fn() -> usize>) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["list"] => {
            let cases = if live_heap.is_some() { COUNTED } else { TIMED };
            for case in cases {
                for name in [
                    Ours::NAME,
                    Dynamo::<RadixTree>::NAME,
                    Dynamo::<Positional>::NAME,
                    Dynamo::<LowerTier>::NAME,
                ] {
                    println!("{}", serde_json::json!({ "case": case, "subject": name }));
                }
            }
            ExitCode::SUCCESS
        }
        ["trial", name, case] => {
            kvidx::check_generator();
            let samples = match name {
                name if name == Ours::NAME => run::<Ours>(case, live_heap),
                name if name == Dynamo::<RadixTree>::NAME => {
                    run::<Dynamo<RadixTree>>(case, live_heap)
                }
                name if name == Dynamo::<Positional>::NAME => {
                    run::<Dynamo<Positional>>(case, live_heap)
                }
                name if name == Dynamo::<LowerTier>::NAME => {
                    run::<Dynamo<LowerTier>>(case, live_heap)
                }
                _ => None,
            };
            let Some(samples) = samples else {
                eprintln!("no trial {case:?} of {name:?} here");
                return ExitCode::FAILURE;
            };
            for Sample {
                metric,
                unit,
                more_is_better,
                value,
            } in samples
            {
                let line = serde_json::json!({
                    "metric": metric, "unit": unit, "more_is_better": more_is_better, "value": value,
                });
                println!("{line}");
            }
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: kvidx list | kvidx trial <subject> <case>");
            ExitCode::FAILURE
        }
    }
}

fn run<S: Subject>(case: &str, live_heap: Option<fn() -> usize>) -> Option<Vec<Sample>> {
    Some(match (case, live_heap) {
        ("KVIDX-1: check", None) => trial::check::<S>(),
        ("KVIDX-1: apply, batches of 128", None) => trial::apply::<S>(128),
        ("KVIDX-1: apply, one by one", None) => trial::apply::<S>(1),
        ("KVIDX-1: lookup", None) => trial::lookup::<S>(),
        ("KVIDX-1: mixed, batches of 128", None) => trial::mixed::<S>(128),
        ("KVIDX-1: mixed, one by one", None) => trial::mixed::<S>(1),
        ("KVIDX-1: exactness", None) => trial::exactness::<S>(),
        ("KVIDX-1: memory", Some(live_heap)) => trial::memory::<S>(live_heap),
        _ => return None,
    })
}
