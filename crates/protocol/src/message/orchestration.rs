//! Requests of an orchestrator and their answers; upstream uses them behind its HTTP endpoints.
//!
//! Fields and their order mirror `lmcache/v1/cache_controller/message.py`.

use indexmap::IndexMap;

use crate::codec::wire::fields;

/// An orchestrator's query-instance request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryInstMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Address to look for.
    pub ip: String,
}

fields!(QueryInstMsg { event_id, ip });

/// Answer to `QueryInstMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryInstRetMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Instance at that address; null if unknown.
    pub instance_id: Option<String>,
}

fields!(QueryInstRetMsg {
    event_id,
    instance_id
});

/// An orchestrator's lookup request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Token ids of the prompt.
    pub tokens: Vec<i64>,
}

fields!(LookupMsg { event_id, tokens });

/// Answer to `LookupMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupRetMsg {
    /// Event id of the request.
    pub event_id: String,
    /// By instance: location of its last chunk, tokens held from the first on.
    pub layout_info: IndexMap<String, (String, i64)>,
}

fields!(LookupRetMsg {
    event_id,
    layout_info
});

/// An orchestrator's clear request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Instance the message is about.
    pub instance_id: String,
    /// Storage backend name.
    pub location: String,
}

fields!(ClearMsg {
    event_id,
    instance_id,
    location
});

/// Answer to `ClearMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearRetMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Tokens affected.
    pub num_tokens: i64,
}

fields!(ClearRetMsg {
    event_id,
    num_tokens
});

/// An orchestrator's pin request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Instance the message is about.
    pub instance_id: String,
    /// Storage backend name.
    pub location: String,
    /// Token ids of the prompt.
    pub tokens: Vec<i64>,
}

fields!(PinMsg {
    event_id,
    instance_id,
    location,
    tokens
});

/// Answer to `PinMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRetMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Tokens affected.
    pub num_tokens: i64,
}

fields!(PinRetMsg {
    event_id,
    num_tokens
});

/// An orchestrator's compress request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Instance the message is about.
    pub instance_id: String,
    /// Compression method.
    pub method: String,
    /// Storage backend name.
    pub location: String,
    /// Token ids; null means everything.
    pub tokens: Option<Vec<i64>>,
}

fields!(CompressMsg { event_id, instance_id, method, location, tokens = None });

/// Answer to `CompressMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressRetMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Tokens affected.
    pub num_tokens: i64,
}

fields!(CompressRetMsg {
    event_id,
    num_tokens
});

/// An orchestrator's decompress request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecompressMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Instance the message is about.
    pub instance_id: String,
    /// Compression method.
    pub method: String,
    /// Storage backend name.
    pub location: String,
    /// Token ids; null means everything.
    pub tokens: Option<Vec<i64>>,
}

fields!(DecompressMsg { event_id, instance_id, method, location, tokens = None });

/// Answer to `DecompressMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecompressRetMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Tokens affected.
    pub num_tokens: i64,
}

fields!(DecompressRetMsg {
    event_id,
    num_tokens
});

/// An orchestrator's move request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Instance and storage backend to move from.
    pub old_position: (String, String),
    /// Instance and storage backend to move to.
    pub new_position: (String, String),
    /// Token ids; null means everything.
    pub tokens: Option<Vec<i64>>,
    /// Whether the source keeps its copy.
    pub copy: Option<bool>,
}

fields!(MoveMsg { event_id, old_position, new_position, tokens = None, copy = Some(false) });

/// Answer to `MoveMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveRetMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Tokens affected.
    pub num_tokens: i64,
}

fields!(MoveRetMsg {
    event_id,
    num_tokens
});

/// An orchestrator's health request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Instance the message is about.
    pub instance_id: String,
}

fields!(HealthMsg {
    event_id,
    instance_id
});

/// Answer to `HealthMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthRetMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Error code by rank.
    pub error_codes: IndexMap<i64, i64>,
}

fields!(HealthRetMsg {
    event_id,
    error_codes
});

/// An orchestrator's check-finish request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFinishMsg {
    /// Event id of the request.
    pub event_id: String,
}

fields!(CheckFinishMsg { event_id });

/// Answer to `CheckFinishMsg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFinishRetMsg {
    /// State of the event.
    pub status: String,
}

fields!(CheckFinishRetMsg { status });

/// An orchestrator's query-worker-info request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryWorkerInfoMsg {
    /// Event id of the request.
    pub event_id: String,
    /// Instance the message is about.
    pub instance_id: String,
    /// Ranks asked for; null means all.
    pub worker_ids: Option<Vec<i64>>,
}

fields!(QueryWorkerInfoMsg {
    event_id,
    instance_id,
    worker_ids
});

/// Answer to `QueryWorkerInfoMsg`.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryWorkerInfoRetMsg {
    /// Event id of the request.
    pub event_id: String,
    /// One entry per worker.
    pub worker_infos: Vec<WorkerInfo>,
}

fields!(QueryWorkerInfoRetMsg {
    event_id,
    worker_infos
});

/// A worker as outside callers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerInfo {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Address the worker listens on.
    pub ip: String,
    /// Port the worker takes commands on.
    pub port: i64,
    /// Where peers fetch KV from this worker, `host:port`; null without P2P.
    pub peer_init_url: Option<String>,
    /// Seconds since the Unix epoch.
    pub registration_time: f64,
    /// Seconds since the Unix epoch.
    pub last_heartbeat_time: f64,
}

fields!(WorkerInfo {
    instance_id,
    worker_id,
    ip,
    port,
    peer_init_url,
    registration_time,
    last_heartbeat_time
});
