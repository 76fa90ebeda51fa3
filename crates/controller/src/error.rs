//! Why an operation of the controller was refused, one enum per operation.

use kvatlas_protocol::{Location, SyncId, WorkerKey};
use thiserror::Error;

/// A registration that was refused; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// The fleet already has the configured number of instances.
    #[error("the limit of {limit} instances is reached; raise max_instances")]
    TooManyInstances {
        /// Configured limit.
        limit: usize,
    },
    /// The fleet already has the configured number of workers.
    #[error("the limit of {limit} workers is reached; raise max_workers")]
    TooManyWorkers {
        /// Configured limit.
        limit: usize,
    },
}

/// A batch of operations that was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The worker is not registered, so it can hold nothing.
    #[error("worker {0} is not registered")]
    UnknownWorker(WorkerKey),
    /// The worker names more locations than a worker may have.
    #[error("worker {worker} names more than {limit} locations")]
    TooManyLocations {
        /// Worker that sent the batch.
        worker: WorkerKey,
        /// Configured limit.
        limit: usize,
    },
    /// The worker reached its configured number of keys; admits were refused, evicts applied.
    #[error("worker {worker} holds its limit of {limit} keys; raise max_keys_per_worker")]
    TooManyKeys {
        /// Worker that sent the batch.
        worker: WorkerKey,
        /// Configured limit.
        limit: u64,
    },
    /// The index reached its configured size; admits were refused, evicts applied.
    #[error(
        "the index is at its limit of {limit} bytes and {worker} gets no more of it; raise max_index_bytes"
    )]
    Memory {
        /// Worker that sent the batch.
        worker: WorkerKey,
        /// Configured limit.
        limit: usize,
    },
    /// The index has no number left for another worker and location.
    #[error("the index is out of holder ids until departed workers are swept")]
    TooManyHolders,
}

/// A full-sync message that was refused; the session (if any) is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SyncError {
    /// The worker is not registered.
    #[error("worker {0} is not registered")]
    UnknownWorker(WorkerKey),
    /// Another session of this worker and location is running.
    #[error("location {location} is already syncing under {running}")]
    Busy {
        /// Location that is syncing.
        location: Location,
        /// Identifier of the running session.
        running: SyncId,
    },
    /// No session with that identifier is running.
    #[error("no full sync {0} is running for this worker and location")]
    UnknownSession(SyncId),
    /// Batch number outside what Start announced, or an announced number beyond the limit.
    #[error("batch {given} is outside the announced {announced}")]
    BatchOutOfRange {
        /// Number given.
        given: i64,
        /// Batches announced by Start.
        announced: i64,
    },
    /// Start announced a count that is negative or beyond the limit.
    #[error("{what} {given} is outside 0..={limit}")]
    CountOutOfRange {
        /// Which count.
        what: &'static str,
        /// Number given.
        given: i64,
        /// Largest number accepted.
        limit: i64,
    },
    /// The worker names more locations than a worker may have.
    #[error("worker {worker} names more than {limit} locations")]
    TooManyLocations {
        /// Worker that sent the message.
        worker: WorkerKey,
        /// Configured limit.
        limit: usize,
    },
    /// The batch would take the worker over its configured number of keys; it was not applied.
    #[error("worker {worker} lists more than its limit of {limit} keys; raise max_keys_per_worker")]
    TooManyKeys {
        /// Worker that sent the batch.
        worker: WorkerKey,
        /// Configured limit.
        limit: u64,
    },
    /// The index reached its configured size; the batch was not applied.
    #[error(
        "the index is at its limit of {limit} bytes and {worker} gets no more of it; raise max_index_bytes"
    )]
    Memory {
        /// Worker that sent the batch.
        worker: WorkerKey,
        /// Configured limit.
        limit: usize,
    },
    /// The index has no number left for another worker and location.
    #[error("the index is out of holder ids until departed workers are swept")]
    TooManyHolders,
}

/// A worker of a snapshot that could not be restored; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The limits have become smaller.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The index has no number left for another worker and location.
    #[error(transparent)]
    Holders(#[from] crate::index::HoldersExhausted),
}
