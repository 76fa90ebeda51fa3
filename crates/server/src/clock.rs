//! The process's only clock.
//!
//! **Invariant**: timestamps never run backwards: the wall clock is read once, at start, and from
//! then on only the monotonic clock counts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kvatlas_protocol::Timestamp;

/// Makes timestamps.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    start: Instant,
}

impl Clock {
    /// A clock that reads the wall once, now.
    pub fn new() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self {
            wall: Timestamp::default() + wall,
            start: Instant::now(),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.wall + self.start.elapsed()
    }

    /// When the clock was made: the start of the process.
    pub fn started(&self) -> Timestamp {
        self.wall
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
