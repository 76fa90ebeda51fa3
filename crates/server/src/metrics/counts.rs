//! The counters as one value, for the page's live stream and its history.

use schemars::JsonSchema;
use serde::Serialize;

use super::histogram::BOUNDS;
use super::{Metrics, Outcomes, value};

/// Running totals since the start, or since they were last reset.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Counts {
    /// Admits and evicts applied.
    pub operations: u64,
    /// Lookups over HTTP.
    pub lookups: LookupCounts,
    /// Peer lookups.
    pub peer_lookups: LookupCounts,
    /// Messages of workers that had no effect.
    pub bad_messages: u64,
}

/// Lookups by outcome.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LookupCounts {
    /// Somebody held the first chunk.
    pub hits: u64,
    /// Nobody did.
    pub misses: u64,
    /// Lookups at or below each of [`LATENCY_BOUNDS`], then all of them.
    pub latency: Vec<u64>,
}

/// Bounds of [`LookupCounts::latency`], in seconds.
pub const LATENCY_BOUNDS: [f64; BOUNDS.len()] = BOUNDS;

impl Metrics {
    /// The counters as of now.
    pub fn counts(&self) -> Counts {
        let faults = self.fronts.iter().flat_map(|front| &front.faults);
        Counts {
            operations: value(&self.operations),
            lookups: of(&self.lookups),
            peer_lookups: of(&self.peer_lookups),
            bad_messages: faults.map(value).sum(),
        }
    }
}

fn of(outcomes: &Outcomes) -> LookupCounts {
    LookupCounts {
        hits: value(&outcomes.hits),
        misses: value(&outcomes.misses),
        latency: outcomes.seconds.cumulative().to_vec(),
    }
}
