//! What a trial asks of an index, ours or another's.

use crate::clock::Took;
use crate::session::Session;

/// An index under test. Batches and queries are made outside the clock.
pub trait Subject: Sync {
    /// Its name in results.
    const NAME: &'static str;
    /// A report of one worker, in the form its writer takes.
    type Batch: Send;
    /// A chain of keys, in the form its lookup takes.
    type Query: Sync;

    /// An empty index for this many workers.
    fn new(workers: u64) -> Self;

    /// The worker stored these chunks, which stand one after another.
    fn store(&self, worker: u64, session: &Session, chunks: std::ops::Range<usize>) -> Self::Batch;

    /// The worker dropped these chunks.
    fn remove(&self, worker: u64, session: &Session, chunks: &[usize]) -> Self::Batch;

    /// Applies the batches in order and returns when a lookup sees the last; the time this took.
    fn write(&self, batches: Vec<Self::Batch>) -> Took;

    /// Housekeeping the index would do by itself every few minutes.
    fn tidy(&self);

    /// A lookup of the session's whole chain.
    fn query(&self, session: &Session) -> Self::Query;

    /// Performs a lookup, leaving the answer in the form the index gives it; how many workers are in it.
    fn look(&self, query: &Self::Query) -> usize;

    /// Matched depth of every worker with one, as (worker, chunks).
    fn depths(&self, query: &Self::Query) -> Vec<(u64, u64)>;

    /// Distinct pairs the index says it holds.
    fn pairs(&self) -> u64;
}
