//! Commands the controller sends to one worker, and the worker's answers.
//!
//! Fields and their order mirror `lmcache/v1/cache_controller/message.py`.

use crate::codec::wire::fields;

/// The clear command for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearWorkerMsg {
    /// Event id of this step, chosen by the controller.
    pub worker_event_id: String,
    /// Storage backend name.
    pub location: String,
}

fields!(ClearWorkerMsg {
    worker_event_id,
    location
});

/// A worker's answer to `ClearWorkerMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearWorkerRetMsg {
    /// Tokens affected.
    pub num_tokens: i64,
}

fields!(ClearWorkerRetMsg { num_tokens });

/// The pin command for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinWorkerMsg {
    /// Event id of this step, chosen by the controller.
    pub worker_event_id: String,
    /// Storage backend name.
    pub location: String,
    /// Token ids of the prompt.
    pub tokens: Vec<i64>,
}

fields!(PinWorkerMsg {
    worker_event_id,
    location,
    tokens
});

/// A worker's answer to `PinWorkerMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinWorkerRetMsg {
    /// Tokens affected.
    pub num_tokens: i64,
}

fields!(PinWorkerRetMsg { num_tokens });

/// The compress command for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressWorkerMsg {
    /// Event id of this step, chosen by the controller.
    pub worker_event_id: String,
    /// Compression method.
    pub method: String,
    /// Storage backend name.
    pub location: String,
    /// Token ids; null means everything.
    pub tokens: Option<Vec<i64>>,
}

fields!(CompressWorkerMsg { worker_event_id, method, location, tokens = None });

/// A worker's answer to `CompressWorkerMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressWorkerRetMsg {
    /// Tokens affected.
    pub num_tokens: i64,
}

fields!(CompressWorkerRetMsg { num_tokens });

/// The decompress command for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecompressWorkerMsg {
    /// Event id of this step, chosen by the controller.
    pub worker_event_id: String,
    /// Compression method.
    pub method: String,
    /// Storage backend name.
    pub location: String,
    /// Token ids; null means everything.
    pub tokens: Option<Vec<i64>>,
}

fields!(DecompressWorkerMsg { worker_event_id, method, location, tokens = None });

/// A worker's answer to `DecompressWorkerMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecompressWorkerRetMsg {
    /// Tokens affected.
    pub num_tokens: i64,
}

fields!(DecompressWorkerRetMsg { num_tokens });

/// The move command for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveWorkerMsg {
    /// Event id of this step, chosen by the controller.
    pub worker_event_id: String,
    /// Storage backend to move from.
    pub old_position: String,
    /// Peer URL and storage backend to move to.
    pub new_position: (String, String),
    /// Token ids; null means everything.
    pub tokens: Option<Vec<i64>>,
    /// Whether the source keeps its copy.
    pub copy: Option<bool>,
}

fields!(MoveWorkerMsg { worker_event_id, old_position, new_position, tokens = None, copy = Some(true) });

/// A worker's answer to `MoveWorkerMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveWorkerRetMsg {
    /// Tokens affected.
    pub num_tokens: i64,
}

fields!(MoveWorkerRetMsg { num_tokens });

/// The health command for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthWorkerMsg {
    /// Event id of this step, chosen by the controller.
    pub worker_event_id: String,
}

fields!(HealthWorkerMsg { worker_event_id });

/// A worker's answer to `HealthWorkerMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthWorkerRetMsg {
    /// 0 if healthy.
    pub error_code: i64,
}

fields!(HealthWorkerRetMsg { error_code });

/// The check-finish command for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFinishWorkerMsg {
    /// Event id of this step, chosen by the controller.
    pub worker_event_id: String,
}

fields!(CheckFinishWorkerMsg { worker_event_id });

/// A worker's answer to `CheckFinishWorkerMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFinishWorkerRetMsg {
    /// State of the event.
    pub status: String,
}

fields!(CheckFinishWorkerRetMsg { status });
