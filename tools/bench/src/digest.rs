//! The main results as one short table, in place of the one that stands between two marks in a file.
//!
//! Only results with two subjects or more, and only of the largest fleet that both were measured with.

use std::fs;
use std::path::Path;

use crate::error::BenchError;
use crate::record::{Line, unusable};
use crate::summary::{Row, Section, sections};
use crate::table::{number, ratio};

const BEGIN: &str = "<!-- benchmarks: written by `make bench` -->\n";
const END: &str = "<!-- /benchmarks -->\n";

/// What is shown: (case, metric, what it is).
const SHOWN: &[(&str, &str, &str)] = &[
    ("ingest", "operations", "operations taken in"),
    (
        "ingest",
        "CPU per operation",
        "processor time per operation",
    ),
    (
        "ingest",
        "memory per key",
        "memory per key, a first million",
    ),
    (
        "ingest",
        "memory per further key",
        "memory per key, a second million",
    ),
    ("lookup", "p50", "`POST /lookup` of 8,192 tokens, median"),
    ("lookup", "p99", "the same, 99th percentile"),
    (
        "peer lookup",
        "lookups, 64 outstanding",
        "peer lookups of 100 hashes",
    ),
    (
        "mixed",
        "p99",
        "peer lookup beside 200,000 operations/s, 99th percentile",
    ),
    ("start", "start to first answer", "start to first answer"),
    ("start", "resident when idle", "memory when idle"),
    ("KVIDX-1: apply, batches of 128", "stores", "index: stores"),
    (
        "KVIDX-1: lookup",
        "lookups, hit",
        "index: lookups of 128 chunks with 49 holders",
    ),
    (
        "KVIDX-1: memory",
        "live heap, after 10 turnovers",
        "index: heap after 10 turnovers",
    ),
    (
        "KVIDX-1: exactness",
        "wrong when all are back",
        "index: wrong answers of 4,000 once evicted chunks are back",
    ),
];

/// Replaces what stands between the marks in the file at `path`.
pub(crate) fn write(path: &Path, lines: &[Line]) -> Result<(), BenchError> {
    let text = fs::read_to_string(path).map_err(|source| unusable(path, source))?;
    let unmarked = || BenchError::Usage(format!("{}: no {BEGIN} and {END}", path.display()));
    let (before, rest) = text.split_once(BEGIN).ok_or_else(unmarked)?;
    let (_, after) = rest.split_once(END).ok_or_else(unmarked)?;
    let text = format!("{before}{BEGIN}{}{END}{after}", digest(&sections(lines)));
    fs::write(path, text).map_err(|source| unusable(path, source))
}

fn digest(sections: &[Section]) -> String {
    let mut out = String::from("| | kvatlas | best other | ratio |\n|---|---:|---:|---:|\n");
    for (case, metric, shown) in SHOWN {
        let section = sections.iter().find(|section| section.case == *case);
        if let Some(line) = section.and_then(|section| line(section, metric, shown)) {
            out.push_str(&line);
        }
    }
    out
}

/// The first subject's number and the best of the others, of the largest fleet.
fn line(section: &Section, metric: &str, shown: &str) -> Option<String> {
    let is_whole =
        |row: &&Row| row.metric.starts_with(metric) && row.cells.iter().flatten().count() > 1;
    let row = section
        .rows
        .iter()
        .filter(is_whole)
        .max_by_key(|row| row.instances)?;
    let (first, others) = row.cells.split_first()?;
    let first = first.as_ref()?;
    let better = |a: f64, b: f64| {
        if row.more_is_better {
            b.total_cmp(&a)
        } else {
            a.total_cmp(&b)
        }
    };
    let (at, best) = others
        .iter()
        .enumerate()
        .filter_map(|(at, cell)| Some((at + 1, cell.as_ref()?)))
        .min_by(|a, b| better(a.1.median(), b.1.median()))?;
    let fleet = match row.instances {
        0 => String::new(),
        instances => format!(", {instances} instances"),
    };
    Some(format!(
        "| {shown}{fleet} | {} {unit} | {} {unit} ({}) | {} |\n",
        number(first.median()),
        number(best.median()),
        section.subjects[at],
        ratio(row, Some(first), Some(best)),
        unit = row.unit,
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::summary::tests::samples;

    #[test]
    fn the_table_between_the_marks_is_replaced_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("kvatlas-digest-{}.md", std::process::id()));
        fs::write(&path, format!("before\n{BEGIN}old\n{END}after\n")).unwrap();
        let lines = [
            samples("ingest", "kvatlas", 4, "operations", &[2e6]),
            samples("ingest", "other", 4, "operations", &[1e5]),
            samples("ingest", "kvatlas", 400, "operations", &[4e6]),
            samples("ingest", "other", 400, "operations", &[1e5]),
            samples("ingest", "kvatlas", 1000, "operations", &[9e6]),
        ]
        .concat();
        write(&path, &lines).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("before\n") && text.ends_with("after\n"),
            "{text}"
        );
        assert!(!text.contains("old"), "{text}");
        let shown: Vec<_> = text
            .lines()
            .filter(|line| line.contains("taken in"))
            .collect();
        assert_eq!(shown.len(), 1, "{text}");
        assert!(
            shown[0].contains("400 instances") && shown[0].contains("40.0×"),
            "{text}"
        );
        fs::write(&path, "no marks").unwrap();
        assert!(write(&path, &lines).is_err());
        fs::remove_file(path).unwrap();
    }
}
