//! What an agent must be told, and where it can be read: LMCache's own file and environment.
//!
//! [`AgentConfig`] is one worker's; [`LmcacheConfig`] is LMCache's configuration as far as a worker
//! of a controller is concerned, from which one [`AgentConfig`] per rank follows.

mod lmcache;

use std::time::Duration;

use kvatlas_protocol::message::WireKey;
use kvatlas_protocol::{ChunkHash, HashAlgorithm, WorkerKey};

pub use lmcache::LmcacheConfig;

use crate::{full_sync, heartbeat, publisher};

/// One worker: who it is, where its controller is, how patient it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// Instance and rank.
    pub worker: WorkerKey,
    /// Controller's pull socket, `host:port`.
    pub pull_url: String,
    /// Controller's reply socket, `host:port`.
    pub reply_url: String,
    /// Address the command socket binds: `*` for all (upstream), or one interface.
    pub command_host: String,
    /// Port of the command socket; 0 takes a free one, and that is what is registered.
    pub command_port: u16,
    /// Address under which the controller reaches the command socket; `None`: the address of the
    /// interface that leads to the controller.
    pub advertise_ip: Option<String>,
    /// Where peers hand chunks over, `host:port`, with P2P on.
    pub peer_url: Option<String>,
    /// How keys are written.
    pub keys: KeySign,
    /// How long the controller may take to answer (`worker_socket_recv_timeout_ms`, 30 s).
    pub request_timeout: Duration,
    /// How often to beat.
    pub heartbeat: heartbeat::Settings,
    /// How to gather operations.
    pub batching: publisher::Settings,
    /// How to sync.
    pub full_sync: full_sync::Settings,
    /// Wait after an overflow for the controller to ask for a full sync, before the worker begins
    /// one of its own accord: LMCache's controller counts gaps and asks for nothing.
    pub repair_after: Duration,
}

impl AgentConfig {
    /// A worker with upstream's defaults and a free command port.
    pub fn new(
        worker: WorkerKey,
        pull_url: impl Into<String>,
        reply_url: impl Into<String>,
    ) -> Self {
        Self {
            worker,
            pull_url: pull_url.into(),
            reply_url: reply_url.into(),
            command_host: "*".into(),
            command_port: 0,
            advertise_ip: None,
            peer_url: None,
            keys: KeySign::Signed,
            request_timeout: Duration::from_secs(30),
            heartbeat: heartbeat::Settings::default(),
            batching: publisher::Settings::default(),
            full_sync: full_sync::Settings::default(),
            repair_after: Duration::from_secs(30),
        }
    }
}

/// How a chunk hash is written as a Python int: the sign its algorithm gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeySign {
    /// `builtin`: i64.
    Signed,
    /// Every other algorithm: u64.
    Unsigned,
}

impl KeySign {
    /// The sign of that algorithm's hashes.
    pub fn of(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::Builtin => Self::Signed,
            _ => Self::Unsigned,
        }
    }

    /// `hash` as it goes onto the wire.
    pub fn wire(self, hash: ChunkHash) -> WireKey {
        match self {
            Self::Signed => WireKey::from_hash_signed(hash),
            Self::Unsigned => WireKey::from_hash_unsigned(hash),
        }
    }
}
