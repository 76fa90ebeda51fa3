//! What can go wrong at a worker, one enum per thing that can fail.

use kvatlas_protocol::Location;
use thiserror::Error;

/// An agent that could not start.
#[derive(Debug, Error)]
pub enum AgentError {
    /// An address that is not `host:port`.
    #[error("address {given:?} is not host:port")]
    Address {
        /// What was given.
        given: String,
    },
    /// The command port could not be bound.
    #[error("command socket {endpoint}: {source}")]
    Bind {
        /// What was to be bound.
        endpoint: String,
        /// What ZeroMQ said.
        source: zmq::Error,
    },
    /// A socket could not be made.
    #[error("socket: {0}")]
    Socket(#[from] zmq::Error),
    /// The thread or its wake-up pipe could not be made.
    #[error("event loop: {0}")]
    Thread(#[from] std::io::Error),
    /// The event loop already drives as many agents as one ZeroMQ context has sockets for.
    #[error("one event loop drives at most {limit} agents; start another runtime")]
    Full {
        /// Most agents of one loop.
        limit: usize,
    },
    /// The event loop is gone: its runtime was dropped.
    #[error("the event loop has ended")]
    Ended,
}

/// A command the engine could not carry out. Its text travels to the controller and its caller.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The engine has no storage of that name.
    #[error("no location {location}, this engine has {known}")]
    UnknownLocation {
        /// What was asked for.
        location: Location,
        /// What there is, comma-separated.
        known: String,
    },
    /// The engine cannot compress that way.
    #[error("compression method {method:?} is not supported, expected cachegen")]
    UnknownMethod {
        /// What was asked for.
        method: String,
    },
    /// The peer that chunks go to could not take them.
    #[error("peer {url}: {source}")]
    Peer {
        /// Peer URL of the move.
        url: String,
        /// What the transport said.
        source: std::io::Error,
    },
    /// The controller could not be asked, or did not answer in time.
    #[error("the controller did not answer")]
    NoAnswer,
    /// Anything an engine of one's own has to say.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// A configuration that no worker can start from.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// File asked for.
        path: String,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The file is not YAML, or not a mapping.
    #[error("{path}: {reason}")]
    Yaml {
        /// File asked for.
        path: String,
        /// What the parser said.
        reason: String,
    },
    /// A key has a value of the wrong kind.
    #[error("{key} from {origin}: expected {expected}, got {given}")]
    Value {
        /// LMCache's name of the key.
        key: String,
        /// File or environment variable.
        origin: String,
        /// What would be right.
        expected: &'static str,
        /// What was found.
        given: String,
    },
    /// A key that a worker needs is absent.
    #[error("{key} is required{because}")]
    Missing {
        /// LMCache's name of the key.
        key: &'static str,
        /// Why, as a clause; may be empty.
        because: &'static str,
    },
    /// The controller is switched off, so there is nothing to be a worker of.
    #[error("enable_controller is not true")]
    Disabled,
    /// Fewer ports than ranks.
    #[error("{key} has {given} ports, {needed} ranks need one each")]
    TooFewPorts {
        /// LMCache's name of the key.
        key: &'static str,
        /// Ports listed.
        given: usize,
        /// Ranks that need one.
        needed: usize,
    },
}
