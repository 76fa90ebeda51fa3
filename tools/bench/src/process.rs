//! A child process and what the kernel says it uses.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A process that ends with this value.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Asks it to end (SIGTERM) and waits until it has, well, within `patience`.
    pub(crate) fn terminate(mut self, patience: Duration) -> std::io::Result<Duration> {
        let began = Instant::now();
        let id = self.0.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        loop {
            match self.0.try_wait()? {
                Some(status) if status.success() => return Ok(began.elapsed()),
                Some(status) => return Err(std::io::Error::other(status.to_string())),
                None if began.elapsed() > patience => {
                    return Err(std::io::ErrorKind::TimedOut.into());
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// What it uses now.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.0.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Memory and CPU of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Resident bytes.
    pub(crate) resident: f64,
    /// CPU time of its living threads.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// Of this process.
    pub(crate) fn own() -> Self {
        Self::of(std::process::id())
    }

    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        let nanos = tasks.into_iter().flatten().flatten().filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Self {
            resident: resident.map_or(f64::NAN, |kib| kib * 1024.0),
            cpu: Duration::from_nanos(nanos.sum()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_cpu() {
        let usage = Usage::of(std::process::id());
        assert!(usage.resident > 1e5, "{usage:?}");
        assert!(usage.cpu > Duration::ZERO, "{usage:?}");
    }
}
