//! Logs to standard error, as text or JSON, with levels that can be changed while running.
//!
//! Levels are kept per target (a module path); `root` is everything else. [`Throttle`] keeps a
//! hostile or broken peer from filling the log: one line per source and minute.
//!
//! Whoever logs never waits for whoever reads ([`queue`]).

mod queue;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kvatlas_protocol::Timestamp;
use parking_lot::Mutex;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use self::queue::Lines;
use crate::config::value::LogFormat;

pub use self::queue::Flush;

/// Name of the level that counts where no other does.
pub const ROOT: &str = "root";

/// Most targets with a level of their own.
const MAX_TARGETS: usize = 256;

/// Changes levels while the process runs.
pub struct Levels {
    levels: Mutex<BTreeMap<String, Level>>,
    filter: Option<reload::Handle<Targets, Registry>>,
    lines: Lines,
}

/// Starts logging; the first call in a process wins.
pub fn start(level: Level, format: LogFormat) -> (Levels, Flush) {
    let levels = BTreeMap::from([(ROOT.to_owned(), level)]);
    let (filter, handle) = reload::Layer::new(targets(&levels));
    let (lines, flush) = Lines::start(std::io::stderr());
    let layer = fmt::layer().with_writer(lines.clone());
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    let levels = Levels {
        levels: Mutex::new(levels),
        filter: started.is_ok().then_some(handle),
        lines,
    };
    (levels, flush)
}

impl Levels {
    /// Levels that steer nothing: for a controller inside another process, such as a test.
    pub fn detached(level: Level) -> Self {
        Self {
            levels: Mutex::new(BTreeMap::from([(ROOT.to_owned(), level)])),
            filter: None,
            lines: Lines::default(),
        }
    }

    /// Lines that found no room since the process began, because nobody read the others.
    pub fn dropped_lines(&self) -> u64 {
        self.lines.dropped()
    }

    /// Every target with its level.
    pub fn all(&self) -> Vec<(String, Level)> {
        let levels = self.levels.lock();
        levels
            .iter()
            .map(|(name, level)| (name.clone(), *level))
            .collect()
    }

    /// The level that counts for `target`.
    pub fn of(&self, target: &str) -> Level {
        let levels = self.levels.lock();
        let longest = levels
            .iter()
            .filter(|(name, _)| target.starts_with(name.as_str()))
            .max_by_key(|(name, _)| name.len());
        longest
            .or_else(|| levels.get_key_value(ROOT))
            .map_or(Level::INFO, |(_, level)| *level)
    }

    /// Sets the level of `target`; whether there was room for it.
    pub fn set(&self, target: &str, level: Level) -> bool {
        let mut levels = self.levels.lock();
        if levels.len() >= MAX_TARGETS && !levels.contains_key(target) {
            return false;
        }
        levels.insert(target.to_owned(), level);
        let targets = targets(&levels);
        drop(levels);
        // The subscriber lives as long as the process; were it gone, nothing would be logged.
        self.filter
            .as_ref()
            .is_none_or(|filter| filter.reload(targets).is_ok())
    }
}

fn targets(levels: &BTreeMap<String, Level>) -> Targets {
    let root = levels.get(ROOT).copied().unwrap_or(Level::INFO);
    let own = levels
        .iter()
        .filter(|(name, _)| name.as_str() != ROOT)
        .map(|(name, level)| (name.clone(), *level));
    Targets::new().with_default(root).with_targets(own)
}

/// Lets one log line per source and minute through.
#[derive(Debug, Default)]
pub struct Throttle {
    seen: Mutex<HashMap<String, Timestamp>>,
}

impl Throttle {
    /// Time between two lines about one source.
    const INTERVAL: Duration = Duration::from_secs(60);
    /// Sources remembered; beyond that, all are forgotten and may log once more.
    const MAX_SOURCES: usize = 1024;

    /// Whether `source` may log now.
    pub fn passes(&self, source: &str, now: Timestamp) -> bool {
        let mut seen = self.seen.lock();
        if let Some(last) = seen.get_mut(source) {
            if now.since(*last) < Self::INTERVAL {
                return false;
            }
            *last = now;
            return true;
        }
        if seen.len() >= Self::MAX_SOURCES {
            seen.clear();
        }
        seen.insert(source.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_source_and_minute() {
        let throttle = Throttle::default();
        let start = Timestamp(1_000_000);
        assert!(throttle.passes("a", start));
        assert!(!throttle.passes("a", start + Duration::from_secs(59)));
        assert!(throttle.passes("b", start));
        assert!(throttle.passes("a", start + Duration::from_secs(60)));
    }

    #[test]
    fn remembered_sources_are_bounded() {
        let throttle = Throttle::default();
        for source in 0..10_000 {
            throttle.passes(&source.to_string(), Timestamp(0));
        }
        assert!(throttle.seen.lock().len() <= Throttle::MAX_SOURCES);
    }

    #[test]
    fn the_longest_target_decides() {
        let levels = Levels::detached(Level::INFO);
        assert!(levels.set("kvatlas_server", Level::WARN));
        assert!(levels.set("kvatlas_server::zmq", Level::DEBUG));
        assert_eq!(levels.of("kvatlas_server::zmq::pull"), Level::DEBUG);
        assert_eq!(levels.of("kvatlas_server::http"), Level::WARN);
        assert_eq!(levels.of("hyper"), Level::INFO);
    }

    #[test]
    fn targets_are_bounded() {
        let levels = Levels::detached(Level::INFO);
        let set = (0..1000)
            .filter(|n| levels.set(&n.to_string(), Level::INFO))
            .count();
        assert!(set < MAX_TARGETS);
    }
}
