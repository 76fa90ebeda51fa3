//! `docs/benchmarks.md` and its charts, written from results.

use std::fs;
use std::path::Path;

use crate::error::BenchError;
use crate::record::{Line, Run, unusable};
use crate::summary::sections;
use crate::{chart, table};

/// Cases and metrics that get a chart: (case, metric, title, file).
const CHARTS: &[(&str, &str, &str, &str)] = &[
    (
        "ingest",
        "operations",
        "Operations taken in per second",
        "bench-ingest.svg",
    ),
    (
        "lookup",
        "p50",
        "POST /lookup of 8,192 tokens, median",
        "bench-lookup.svg",
    ),
    (
        "peer lookup",
        "p99",
        "Peer lookup of 100 hashes, 99th percentile",
        "bench-peer.svg",
    ),
    (
        "mixed",
        "p99",
        "Peer lookup while 200,000 operations a second arrive, 99th percentile",
        "bench-mixed.svg",
    ),
    (
        "KVIDX-1: apply, batches of 128",
        "stores",
        "Index: stores in batches of 128",
        "bench-index-apply.svg",
    ),
    (
        "KVIDX-1: lookup",
        "lookups, hit",
        "Index: lookups of 128 chunks with 49 holders",
        "bench-index-lookup.svg",
    ),
    (
        "KVIDX-1: memory",
        "live heap, after 10 turnovers",
        "Index: bytes per pair after ten turnovers",
        "bench-index-memory.svg",
    ),
];

/// What each case does, for a reader of the document.
const NOTES: &str = include_str!("document/notes.md");

/// Writes the document to `path` and the charts beside it.
pub(crate) fn write(path: &Path, lines: &[Line]) -> Result<(), BenchError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(|source| unusable(dir, source))?;
    let mut out = String::from(
        "# Benchmarks\n\n\
         <!-- Written by `make bench`; edit tools/bench/src/document/notes.md instead. -->\n\n",
    );
    for line in lines {
        if let Line::Run(run) = line {
            out.push_str(&run_line(run));
        }
    }
    out.push_str("\n## Results\n\n");
    out.push_str(
        "Medians of fresh processes with the smallest and largest value in brackets; without \
         brackets, a single trial. A ratio says how \
         many times better the first column is. Absolute figures move with the machine and with what \
         else runs on it; ratios of one run are what counts.\n",
    );
    for section in sections(lines) {
        let case = &section.case;
        out.push_str(&format!(
            "\n### {}{}\n\n",
            case[..1].to_uppercase(),
            &case[1..]
        ));
        for (_, metric, title, file) in CHARTS.iter().filter(|(of, ..)| of == case) {
            if let Some(svg) = chart::bars(&section, metric, title) {
                let at = dir.join(file);
                fs::write(&at, svg).map_err(|source| unusable(&at, source))?;
                out.push_str(&format!("![{title}]({file})\n\n"));
            }
        }
        out.push_str(&table::markdown(&section));
    }
    out.push('\n');
    out.push_str(NOTES);
    fs::write(path, out).map_err(|source| unusable(path, source))
}

fn run_line(run: &Run) -> String {
    let versions: Vec<String> = run
        .versions
        .iter()
        .map(|(name, version)| format!("{name}: {version}"))
        .collect();
    format!(
        "- {}, {}, load {} when it began, {}; {}\n",
        run.machine,
        run.system,
        run.load,
        date(run.at),
        versions.join("; ")
    )
}

/// The day, in UTC, of seconds since the Unix epoch.
fn date(seconds: u64) -> String {
    // Days to a civil date: Howard Hinnant's algorithm, for dates after 1970.
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::summary::tests::samples;

    #[test]
    fn days_are_named() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_305_600), "2026-11-22");
    }

    #[test]
    fn the_document_has_tables_and_charts() {
        let dir = std::env::temp_dir().join(format!("kvatlas-document-{}", std::process::id()));
        let path = dir.join("docs/benchmarks.md");
        let lines = [
            samples("ingest", "kvatlas", 4, "operations", &[2e6]),
            samples("ingest", "other", 4, "operations", &[1e5]),
        ]
        .concat();
        write(&path, &lines).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("### Ingest"), "{text}");
        assert!(text.contains("](bench-ingest.svg)"), "{text}");
        assert!(text.contains("20.0×"), "{text}");
        assert!(dir.join("docs/bench-ingest.svg").exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
