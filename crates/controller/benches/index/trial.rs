//! Fresh process per trial: the bench runs itself again, reads numbers back, prints medians.
//!
//! `list` and `trial kvatlas <name>` speak to `kvatlas bench --peers` instead: JSON lines.

use std::process::Command;

/// A measured number and its name.
pub type Row = (&'static str, f64);

/// Runs `trial` if this process is one (`--trial <name>`), else every named trial `times` times in
/// processes of their own, and prints JSON lines and a table of medians.
pub fn main(trials: &[&str], times: usize, trial: impl Fn(&str) -> Vec<Row>) {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words[..] {
        ["list"] => {
            for name in trials {
                println!(r#"{{"case":"Index of {name}","subject":"kvatlas"}}"#);
            }
            return;
        }
        ["trial", "kvatlas", case] => {
            let name = case.strip_prefix("Index of ").unwrap_or(case);
            return trial(name).into_iter().for_each(print_sample);
        }
        _ => {}
    }
    if let Some(at) = args.iter().position(|arg| arg == "--trial") {
        for (name, value) in trial(&args[at + 1]) {
            println!("{name} {value}");
        }
        return;
    }
    let wanted = |name: &&&str| match args.iter().skip(1).find(|arg| !arg.starts_with('-')) {
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    };
    println!("{:<44} {:>12} {:>12} {:>12}", "", "median", "min", "max");
    for name in trials.iter().filter(wanted) {
        let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
        for _ in 0..times {
            for (row, value) in run(name) {
                match rows.iter_mut().find(|(known, _)| *known == row) {
                    Some((_, values)) => values.push(value),
                    None => rows.push((row, vec![value])),
                }
            }
        }
        for (row, mut values) in rows {
            values.sort_by(f64::total_cmp);
            let (min, max) = (values[0], values[values.len() - 1]);
            let median = values[values.len() / 2];
            let label = format!("{name}: {row}");
            println!("{label:<44} {median:>12.3} {min:>12.3} {max:>12.3}");
            println!(
                r#"{{"trial":"{name}","row":"{row}","median":{median},"min":{min},"max":{max},"n":{}}}"#,
                values.len()
            );
        }
    }
}

/// A row's name ends in its unit; only rates are better when they are more.
fn print_sample((name, value): Row) {
    let (metric, unit) = name.rsplit_once(", ").unwrap_or((name, ""));
    let more = unit.ends_with("/s");
    println!(r#"{{"metric":"{metric}","unit":"{unit}","more_is_better":{more},"value":{value}}}"#);
}

fn run(name: &str) -> Vec<(String, f64)> {
    let me = std::env::current_exe().expect("a running program has a path");
    let output = Command::new(me).args(["--trial", name]).output();
    let output = output.expect("this program can run itself");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let row = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

/// Resident bytes of this process.
pub fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1);
    4096.0
        * pages
            .and_then(|n| n.parse::<f64>().ok())
            .unwrap_or(f64::NAN)
}

/// What the kernel counts for this thread: nanoseconds on a core (by the timer tick, about 4 ms), and
/// how many times it got one.
pub fn on_core() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut fields = text.split_whitespace().map(|n| n.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.nth(1).unwrap_or(0))
}

/// The value below which a share of `sorted` lies.
pub fn quantile(sorted: &[u64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len() - 1);
    sorted[at] as f64
}
