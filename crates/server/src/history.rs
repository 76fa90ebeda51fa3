//! The last hour in samples, so that a page that opens now has something to draw.
//!
//! One sample every [`INTERVAL`], the oldest leaves first: about 360 KB when full. Nothing here is a
//! fact anybody decides by.

use std::collections::VecDeque;
use std::time::Duration;

use kvatlas_protocol::Timestamp;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;

use crate::app::Shared;
use crate::metrics::counts::Counts;

/// Time between two samples that are kept.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Samples kept: one hour.
const KEPT: usize = 720;

/// The fleet and the counters at one moment.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Sample {
    /// Seconds since the Unix epoch.
    pub at: f64,
    /// Registered instances.
    pub instances: usize,
    /// Registered workers.
    pub workers: usize,
    /// Visible (chunk, holder) pairs.
    pub keys: u64,
    /// Bytes of the index.
    pub index_bytes: usize,
    /// Sequence gaps since the start.
    pub gaps: u64,
    /// Workers with a full sync running.
    pub workers_syncing: usize,
    /// Share of workers that are ready.
    pub sync_progress: f64,
    /// Commands under way.
    pub commands_running: usize,
    /// Running totals.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The samples kept.
#[derive(Debug, Default)]
pub struct History {
    samples: Mutex<VecDeque<Sample>>,
}

impl Sample {
    /// The sample of this moment. Counts workers: linear in their number.
    pub fn take(shared: &Shared, now: Timestamp) -> Self {
        let totals = shared.controller.totals();
        Self {
            at: now.as_secs_f64(),
            instances: totals.instances,
            workers: totals.workers,
            keys: totals.keys,
            index_bytes: totals.index_bytes,
            gaps: totals.gaps,
            workers_syncing: totals.workers_syncing,
            sync_progress: totals.sync_progress,
            commands_running: shared.dispatch.n_running(),
            counts: shared.metrics.counts(),
        }
    }
}

impl History {
    /// Keeps a sample.
    pub fn keep(&self, sample: Sample) {
        let mut samples = self.samples.lock();
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The samples, oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn the_oldest_sample_leaves_first() {
        let history = History::default();
        for at in 0..KEPT + 3 {
            history.keep(Sample {
                at: at as f64,
                instances: 0,
                workers: 0,
                keys: 0,
                index_bytes: 0,
                gaps: 0,
                workers_syncing: 0,
                sync_progress: 0.0,
                commands_running: 0,
                counts: Metrics::default().counts(),
            });
        }
        let samples = history.samples();
        assert_eq!(samples.len(), KEPT);
        assert_eq!(samples[0].at, 3.0);
    }
}
