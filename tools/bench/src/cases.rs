//! The cases of one trial, in the order in which they run against one controller process.

mod connections;
mod full_sync;
mod ingest;
mod lookup;
mod mixed;
mod peer;
pub(crate) mod state;
pub(crate) mod transport;
mod trial;

use clap::ValueEnum;
use hdrhistogram::Histogram;

use crate::error::BenchError;
use crate::record::Value;

pub(crate) use trial::Trial;

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Time to the first answer, memory before any traffic.
    Start,
    /// Operations taken in per second, memory and CPU for them.
    Ingest,
    /// POST /lookup of 8,192 tokens: latency on one connection, rate on several.
    Lookup,
    /// Peer lookups of 100 hashes: latency of one at a time, rate with 64 outstanding.
    Peer,
    /// Peer lookups while 200,000 operations a second arrive.
    Mixed,
    /// A thousand connections at once.
    Connections,
    /// A full sync of every worker at once.
    FullSync,
}

impl Case {
    /// All of them, in the order that makes sense: the last one replaces every key.
    pub const ALL: [Self; 7] = [
        Self::Start,
        Self::Ingest,
        Self::Lookup,
        Self::Peer,
        Self::Mixed,
        Self::Connections,
        Self::FullSync,
    ];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Ingest => "ingest",
            Self::Lookup => "lookup",
            Self::Peer => "peer lookup",
            Self::Mixed => "mixed",
            Self::Connections => "connections",
            Self::FullSync => "full-sync storm",
        }
    }

    /// Runs it.
    pub(crate) fn run(self, trial: &mut Trial<'_>) -> Result<Vec<Value>, BenchError> {
        match self {
            Self::Start => Ok(trial.started()),
            Self::Ingest => ingest::run(trial),
            Self::Lookup => lookup::run(trial),
            Self::Peer => peer::run(trial),
            Self::Mixed => mixed::run(trial),
            Self::Connections => connections::run(trial),
            Self::FullSync => full_sync::run(trial),
        }
    }
}

/// Latencies in nanoseconds, to three digits.
struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Self {
        const MINUTE: u64 = 60_000_000_000;
        Self(Histogram::new_with_bounds(1, MINUTE, 3).expect("bounds that the crate documents"))
    }

    fn record(&mut self, took: std::time::Duration) {
        self.0
            .saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    /// Median, 99th percentile and worst, in milliseconds.
    fn values(&self) -> Vec<Value> {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        vec![
            Value::less("p50", "ms", ms(self.0.value_at_quantile(0.5))),
            Value::less("p99", "ms", ms(self.0.value_at_quantile(0.99))),
            Value::less("worst", "ms", ms(self.0.max())),
        ]
    }
}
