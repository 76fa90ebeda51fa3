//! What can end a benchmark.

use std::io;
use std::path::PathBuf;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file could not be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of a results file is not one.
    #[error("{path}, line {line}: {source}")]
    Results {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A program could not be started.
    #[error("cannot run {command}: {source}")]
    Start {
        /// What was run.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended, or failed, where it should not.
    #[error("{command} failed: {output}")]
    Failed {
        /// What was run.
        command: String,
        /// What it said last.
        output: String,
    },
    /// The controller did not do in time what was expected of it.
    #[error("{what} within {seconds} s: expected {expected}, saw {seen}")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
        /// The state waited for.
        expected: String,
        /// The last state seen.
        seen: String,
    },
    /// The controller's answers are not what its traffic implies.
    #[error("wrong answers in {case}: expected {expected}, got {got}")]
    Wrong {
        /// Which case.
        case: &'static str,
        /// By the traffic.
        expected: String,
        /// By the controller.
        got: String,
    },
    /// A ZeroMQ socket failed.
    #[error("zeromq: {0}")]
    Zmq(#[from] zmq::Error),
    /// An HTTP connection failed.
    #[error("http: {0}")]
    Http(#[from] io::Error),
    /// A reply could not be decoded.
    #[error("reply: {0}")]
    Reply(#[from] kvatlas_protocol::codec::DecodeError),
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
}
