//! The process's own vital signs, under the names every Prometheus client library uses.
//!
//! Read from `/proc` when the page is asked for; where there is none, the metrics are absent.

use std::fs;

use super::text::Page;

/// Ticks a second in `/proc/self/stat`; the kernel's interface fixes it at 100 on Linux.
const TICKS: f64 = 100.0;

pub(super) fn render(page: &mut Page) {
    if let Some(bytes) = resident_bytes() {
        page.single(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            "gauge",
            bytes,
        );
    }
    if let Some(seconds) = cpu_seconds() {
        page.single(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            "counter",
            seconds,
        );
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        page.single(
            "process_open_fds",
            "Number of open file descriptors.",
            "gauge",
            entries.count() as f64,
        );
    }
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold spaces; user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let user: f64 = fields.get(11)?.parse().ok()?;
    let system: f64 = fields.get(12)?.parse().ok()?;
    Some((user + system) / TICKS)
}
