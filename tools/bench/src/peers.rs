//! Programs of `tools/peers`: each run of one is one trial of one subject.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::error::BenchError;
use crate::record::Value;

/// What a program offers.
pub(crate) struct Plan {
    program: PathBuf,
    /// Its trials.
    pub(crate) singles: Vec<Single>,
}

/// One case of one subject.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Single {
    /// What is done.
    pub(crate) case: String,
    /// To what.
    pub(crate) subject: String,
}

/// Asks a program what it offers.
pub(crate) fn plan(program: &Path) -> Result<Plan, BenchError> {
    Ok(Plan {
        program: program.to_owned(),
        singles: output(program, &["list"])?,
    })
}

/// Runs one trial in a process of its own.
pub(crate) fn run(plan: &Plan, single: &Single) -> Result<Vec<Value>, BenchError> {
    output(&plan.program, &["trial", &single.subject, &single.case])
}

/// The JSON lines a program prints.
fn output<T: for<'de> Deserialize<'de>>(
    program: &Path,
    args: &[&str],
) -> Result<Vec<T>, BenchError> {
    let command = format!("{} {}", program.display(), args.join(" "));
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|source| BenchError::Start {
        command: command.clone(),
        source,
    })?;
    let failed = |output: String| BenchError::Failed {
        command: command.clone(),
        output,
    };
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // A library may log to standard output: only objects are results.
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let parsed: Result<Vec<T>, _> = lines.map(serde_json::from_str).collect();
    parsed.map_err(|error| failed(error.to_string()))
}
