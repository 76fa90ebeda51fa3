//! How many bytes the index may take: a number, all, or a share of what this process may have.
//!
//! What it may have is the least of the machine's memory and the limits of its control groups, as
//! Linux tells. Read once, at start.

use std::path::Path;

use super::value::{KnobValue, Refusal};

/// Share of the process's memory that `auto` gives the index, in eighths: the rest is for
/// connections, requests, snapshots and the worker's names.
const EIGHTHS: usize = 6;

/// A limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Three quarters of what the process may have.
    Auto,
    /// No limit.
    None,
    /// So many bytes.
    Bytes(usize),
}

impl MemoryLimit {
    /// In bytes; `None` for no limit.
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::Auto => available().map(|bytes| bytes / 8 * EIGHTHS),
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

impl KnobValue for MemoryLimit {
    fn read(text: &str) -> Result<Self, Refusal> {
        let refusal = || Refusal {
            expected: "a number of bytes above 0, auto or none".into(),
        };
        match text.to_ascii_lowercase().as_str() {
            "auto" | "" => Ok(Self::Auto),
            "none" | "null" | "~" => Ok(Self::None),
            text => match text.parse() {
                Ok(0) | Err(_) => Err(refusal()),
                Ok(bytes) => Ok(Self::Bytes(bytes)),
            },
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::None => "none".into(),
            Self::Bytes(bytes) => bytes.to_string(),
        }
    }
}

/// Memory that the system lets this process have.
fn available() -> Option<usize> {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total(&text));
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let groups = directories(&group).flat_map(|(controller, path)| {
        let base = root.join(controller);
        // Every group above it limits it too. In a container the path may be one of the host's.
        let inside: Vec<_> = path
            .ancestors()
            .map(|path| base.join(path.strip_prefix("/").unwrap_or(path)))
            .collect();
        inside
    });
    let limits = groups.flat_map(|directory| {
        ["memory.max", "memory.limit_in_bytes"].map(|name| directory.join(name))
    });
    let limits = limits.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.chain(machine).min()
}

/// Controller's directory (empty in the second version) and path of the groups that count memory.
fn directories(group: &str) -> impl Iterator<Item = (&str, &Path)> {
    group.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let directory = match controllers {
            "" => "",
            names if names.split(',').any(|name| name == "memory") => "memory",
            _ => return None,
        };
        Some((directory, Path::new(path)))
    })
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn total(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes: usize = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_shown() {
        for (text, limit) in [
            ("auto", MemoryLimit::Auto),
            ("none", MemoryLimit::None),
            ("1073741824", MemoryLimit::Bytes(1 << 30)),
        ] {
            assert_eq!(MemoryLimit::read(text), Ok(limit));
            assert_eq!(limit.show(), text);
        }
        for text in ["0", "-1", "1G", "1.5"] {
            assert!(MemoryLimit::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_system_says_is_understood() {
        let text = "MemTotal:       24581112 kB\nMemFree:        19000000 kB\n";
        assert_eq!(total(text), Some(24_581_112 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        let path = Path::new;
        let first = "12:cpu,memory:/docker/x\n3:pids:/y\n";
        assert_eq!(
            directories(first).collect::<Vec<_>>(),
            [("memory", path("/docker/x"))]
        );
        let second = "0::/system.slice/kvatlas.service\n";
        assert_eq!(
            directories(second).collect::<Vec<_>>(),
            [("", path("/system.slice/kvatlas.service"))]
        );
    }

    #[test]
    fn this_machine_has_memory() {
        let bytes = MemoryLimit::Auto.bytes().unwrap();
        assert!(bytes > 64 << 20, "{bytes}");
    }
}
