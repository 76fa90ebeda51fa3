//! How long something took: on the wall, and on the processor.
//!
//! On a machine that others use too, a core is taken away for milliseconds at a time. What one thread
//! does alone is therefore measured in processor time, which on an idle machine is the same.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A moment.
#[derive(Clone, Copy)]
pub struct Moment {
    wall: Instant,
    processor: Duration,
}

/// Time between two moments.
#[derive(Clone, Copy)]
pub struct Took {
    /// As a clock on the wall says.
    pub wall: Duration,
    /// That this process ran, over all its threads.
    pub processor: Duration,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        let spec = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(spec.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(spec.tv_nsec).unwrap_or_default();
        Self {
            wall: Instant::now(),
            processor: Duration::new(seconds, nanos),
        }
    }

    /// From here until now.
    pub fn elapsed(self) -> Took {
        let now = Self::now();
        Took {
            wall: now.wall - self.wall,
            processor: now.processor.saturating_sub(self.processor),
        }
    }
}
