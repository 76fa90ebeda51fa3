//! Results as they stand in a file: one JSON object a line, one line a sample.
//!
//! A sample is one number of one trial; medians are made by whoever reads them, so that files of
//! several runs can simply follow one another.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::BenchError;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// Where a run took place.
    Run(Run),
    /// What it found.
    Sample(Sample),
}

/// The machine and versions of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Seconds since the Unix epoch.
    pub at: u64,
    /// Processor and number of cores.
    pub machine: String,
    /// Kernel.
    pub system: String,
    /// One-minute load average when it began: others' work on the same cores.
    pub load: String,
    /// What was measured, by name.
    pub versions: Vec<(String, String)>,
}

/// One number of one trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What was done.
    pub case: String,
    /// To what: a controller or an index.
    pub subject: String,
    /// Instances in the fleet; 0 where that has no meaning.
    #[serde(default)]
    pub instances: usize,
    /// Which of the fresh processes.
    pub trial: u32,
    /// The number.
    #[serde(flatten)]
    pub value: Value,
}

/// A number with its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// What was measured.
    pub metric: String,
    /// In what.
    pub unit: String,
    /// Whether more is better.
    pub more_is_better: bool,
    /// How much.
    pub value: f64,
}

impl Value {
    /// A number of which more is better.
    pub fn more(metric: &str, unit: &str, value: f64) -> Self {
        Self::new(metric, unit, true, value)
    }

    /// A number of which less is better.
    pub fn less(metric: &str, unit: &str, value: f64) -> Self {
        Self::new(metric, unit, false, value)
    }

    fn new(metric: &str, unit: &str, more_is_better: bool, value: f64) -> Self {
        Self {
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            more_is_better,
            value,
        }
    }
}

/// Appends to a results file, or keeps samples only in memory.
pub struct Recorder {
    file: Option<(PathBuf, File)>,
    /// Everything recorded so far.
    pub lines: Vec<Line>,
}

impl Recorder {
    /// Appends to `path` if there is one.
    pub fn open(path: Option<&Path>) -> Result<Self, BenchError> {
        let open = |path: &Path| match OpenOptions::new().create(true).append(true).open(path) {
            Ok(file) => Ok((path.to_owned(), file)),
            Err(source) => Err(unusable(path, source)),
        };
        Ok(Self {
            file: path.map(open).transpose()?,
            lines: Vec::new(),
        })
    }

    /// Records a line at once, so that an interrupted run keeps what it found.
    pub fn record(&mut self, line: Line) -> Result<(), BenchError> {
        if let Some((path, file)) = &mut self.file {
            let mut text = serde_json::to_vec(&line).unwrap_or_default();
            text.push(b'\n');
            file.write_all(&text)
                .map_err(|source| unusable(path, source))?;
        }
        self.lines.push(line);
        Ok(())
    }
}

/// Reads results.
pub fn read(path: &Path) -> Result<Vec<Line>, BenchError> {
    let file = File::open(path).map_err(|source| unusable(path, source))?;
    let mut lines = Vec::new();
    for (at, text) in BufReader::new(file).lines().enumerate() {
        let text = text.map_err(|source| unusable(path, source))?;
        if text.trim().is_empty() {
            continue;
        }
        let parsed = serde_json::from_str(&text);
        lines.push(parsed.map_err(|source| BenchError::Results {
            path: path.to_owned(),
            line: at + 1,
            source,
        })?);
    }
    Ok(lines)
}

/// The error of a file.
pub(crate) fn unusable(path: &Path, source: std::io::Error) -> BenchError {
    BenchError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_the_file() {
        let dir = std::env::temp_dir().join(format!("kvatlas-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("results.jsonl");
        let sample = Line::Sample(Sample {
            case: "ingest".to_owned(),
            subject: "kvatlas".to_owned(),
            instances: 4,
            trial: 1,
            value: Value::more("operations", "1/s", 1.5e6),
        });
        let run = Line::Run(Run {
            at: 1,
            machine: "two cores".to_owned(),
            system: "Linux".to_owned(),
            load: "0.1".to_owned(),
            versions: vec![("kvatlas".to_owned(), "0.1.0".to_owned())],
        });
        let mut recorder = Recorder::open(Some(&path)).unwrap();
        recorder.record(run.clone()).unwrap();
        drop(recorder);
        let mut recorder = Recorder::open(Some(&path)).unwrap();
        recorder.record(sample.clone()).unwrap();
        assert_eq!(read(&path).unwrap(), [run, sample]);
        std::fs::write(&path, "\n{\"kind\":\"sample\"}\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
