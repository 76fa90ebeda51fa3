//! GET /fleet: the workers a page of the table shows, filtered, sorted and cut here, so that the
//! page stays quick with thousands of them.
//!
//! `?q=` part of `instance:rank` or address, `&sort=worker|keys|seen|gaps`, `&desc=true`,
//! `&offset=`, `&limit=` (at most 500).

use std::cmp::Reverse;

use axum::Json;
use axum::extract::{RawQuery, State};
use kvatlas_controller::controller::{self, Limit, LocationInfo, SyncState, WorkerInfo};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::api::Api;
use super::api::operation::{Operation, Parameter};
use super::error::ApiError;
use super::query::Query;
use crate::app::AppState;

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;

#[derive(Clone, Copy)]
enum Sort {
    Worker,
    Keys,
    Seen,
    Gaps,
}

const SORTS: [(&str, Sort); 4] = [
    ("worker", Sort::Worker),
    ("keys", Sort::Keys),
    ("seen", Sort::Seen),
    ("gaps", Sort::Gaps),
];

/// Routes of this file.
pub fn routes() -> Api {
    let operation = Operation::new("fleet", "Workers with their state, filtered, sorted and in pages")
        .parameter(Parameter::text("q", "Part of `instance:rank` or of the address.").example("demo"))
        .parameter(Parameter::choice("sort", SORTS.map(|(name, _)| name), "By what; `worker` if absent."))
        .parameter(Parameter::flag("desc", false, "The other way round."))
        .parameter(Parameter::int("offset", "Workers to leave out at the beginning; 0 if absent or below.").example(0))
        .parameter(Parameter::count("limit", MAX_LIMIT, DEFAULT_LIMIT, "Most workers listed."))
        .gives::<Fleet>("a page of workers", json!({
            "total_count": 8,
            "matching_count": 1,
            "offset": 0,
            "workers": [{
                "instance_id": "demo-1",
                "worker_id": 0,
                "ip": "127.0.0.1",
                "port": 34627,
                "peer_init_url": "127.0.0.1:41841",
                "registration_time": 1_795_374_884.613_718,
                "heartbeat_seen": true,
                "silent_s": 0.4,
                "key_count": 478,
                "gaps": 0,
                "sync_wanted": false,
                "locations": [{ "location": "LocalCPUBackend", "key_count": 478, "gaps": 0, "sync": "in sync" }],
            }],
        }));
    Api::new("Fleet").get("/fleet", fleet, operation)
}

#[derive(Serialize, JsonSchema)]
struct Fleet {
    /// Registered workers.
    total_count: usize,
    /// Those that `q` fits.
    matching_count: usize,
    offset: usize,
    workers: Vec<Row>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FleetWorker")]
struct Row {
    instance_id: String,
    worker_id: i64,
    ip: String,
    port: i64,
    peer_init_url: Option<String>,
    /// Seconds since the epoch.
    registration_time: f64,
    /// Whether it ever sent a heartbeat.
    heartbeat_seen: bool,
    /// Seconds since its last sign of life.
    silent_s: f64,
    key_count: u64,
    /// Sequence gaps since it registered.
    gaps: u64,
    /// Whether it will be asked for a full sync.
    sync_wanted: bool,
    locations: Vec<FleetLocation>,
}

#[derive(Serialize, JsonSchema)]
struct FleetLocation {
    location: String,
    key_count: u64,
    gaps: u64,
    sync: SyncName,
    /// Of a running full sync: batches that have come.
    #[serde(skip_serializing_if = "Option::is_none")]
    batches_received: Option<u64>,
    /// Of a running full sync: batches in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    batches_announced: Option<u64>,
    /// Some of its keys are not in the map.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<Incomplete>,
}

/// Why lookups see less of a location than its worker holds. Evicts are taken always, so they never see
/// more.
#[derive(Serialize, JsonSchema)]
pub(super) struct Incomplete {
    /// The setting that is reached.
    #[schemars(extend("enum" = ["max_keys_per_worker", "max_index_bytes"]))]
    limit: &'static str,
    /// Since when, in seconds since the epoch.
    since: f64,
    /// What can be done about it.
    remedy: &'static str,
}

impl From<controller::Incomplete> for Incomplete {
    fn from(incomplete: controller::Incomplete) -> Self {
        let (limit, remedy) = limit(incomplete.limit);
        Self {
            limit,
            since: incomplete.since.as_secs_f64(),
            remedy,
        }
    }
}

/// A limit by the name of its setting, and what to do once it is reached.
pub(super) fn limit(limit: Limit) -> (&'static str, &'static str) {
    match limit {
        Limit::Keys => (
            "max_keys_per_worker",
            "raise max_keys_per_worker if engines are that large, otherwise look for what this one reports; its keys are asked for again once an eighth of them is gone, or after a restart with a higher limit",
        ),
        Limit::IndexBytes => (
            "max_index_bytes",
            "raise max_index_bytes if the machine has the memory, otherwise look for the workers with most keys; its keys are asked for again once a quarter of the memory is free, or after a restart with a higher limit",
        ),
    }
}

async fn fleet(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<Fleet>, ApiError> {
    let mut query = Query::read(query.as_deref());
    let wanted = query.text("q").unwrap_or_default().to_lowercase();
    let sort = query.choice("sort", &SORTS).unwrap_or(Sort::Worker);
    let descending = query.flag("desc");
    let offset = query.int("offset").unwrap_or(0);
    let limit = query.count("limit", MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    query.finish()?;
    let mut workers = state.controller.workers();
    let total = workers.len();
    workers.retain(|worker| {
        worker.key.to_string().to_lowercase().contains(&wanted)
            || worker.address.ip.contains(&wanted)
    });
    match sort {
        Sort::Worker => workers.sort_by(|a, b| a.key.cmp(&b.key)),
        Sort::Keys => workers.sort_by_key(|worker| worker.key_count),
        Sort::Seen => workers.sort_by_key(|worker| Reverse(worker.last_seen)),
        Sort::Gaps => workers.sort_by_key(gaps),
    }
    if descending {
        workers.reverse();
    }
    let now = state.clock.now();
    let offset = usize::try_from(offset).unwrap_or(0);
    let rows = workers
        .iter()
        .skip(offset)
        .take(limit)
        .map(|worker| row(worker, now.since(worker.last_seen).as_secs_f64()))
        .collect();
    Ok(Json(Fleet {
        total_count: total,
        matching_count: workers.len(),
        offset,
        workers: rows,
    }))
}

/// A sync state by the name people see.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SyncName {
    #[serde(rename = "in sync")]
    InSync,
    Unproved,
    Wanted,
    Running,
    Unrepairable,
}

impl From<&SyncState> for SyncName {
    fn from(state: &SyncState) -> Self {
        match state {
            SyncState::Idle | SyncState::Completed { .. } => Self::InSync,
            SyncState::Unproved { .. } => Self::Unproved,
            SyncState::Wanted { .. } => Self::Wanted,
            SyncState::Running { .. } => Self::Running,
            SyncState::Unrepairable { .. } => Self::Unrepairable,
        }
    }
}

fn gaps(worker: &WorkerInfo) -> u64 {
    worker.locations.iter().map(|location| location.gaps).sum()
}

fn row(worker: &WorkerInfo, silent_s: f64) -> Row {
    let location = |location: &LocationInfo| {
        let (received, announced) = match location.sync {
            SyncState::Running {
                received,
                announced,
                ..
            } => (Some(received), Some(announced)),
            _ => (None, None),
        };
        FleetLocation {
            location: location.location.to_string(),
            key_count: location.key_count,
            gaps: location.gaps,
            sync: (&location.sync).into(),
            batches_received: received,
            batches_announced: announced,
            incomplete: location.incomplete.map(Incomplete::from),
        }
    };
    Row {
        instance_id: worker.key.instance.to_string(),
        worker_id: worker.key.worker.0,
        ip: worker.address.ip.to_string(),
        port: worker.address.port,
        peer_init_url: worker.address.peer_url.as_ref().map(ToString::to_string),
        registration_time: worker.registered_at.as_secs_f64(),
        heartbeat_seen: worker.heartbeat_seen,
        silent_s,
        key_count: worker.key_count,
        gaps: gaps(worker),
        sync_wanted: worker.sync_wanted.is_some(),
        locations: worker.locations.iter().map(location).collect(),
    }
}
