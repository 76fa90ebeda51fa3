//! What the results were measured on.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::record::Run;

/// Describes this machine, now.
pub(crate) fn describe(versions: Vec<(String, String)>) -> Run {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let at = SystemTime::now().duration_since(UNIX_EPOCH);
    Run {
        at: at.map_or(0, |since| since.as_secs()),
        machine: format!("{model}, {cores} cores"),
        system: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        load: read("/proc/loadavg")
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned(),
        versions,
    }
}
