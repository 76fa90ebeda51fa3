//! GET /fleet: the workers a page of the table shows, filtered, sorted and cut here, so that the
//! page stays quick with thousands of them.
//!
//! `?q=` part of `instance:rank` or address, `&sort=worker|keys|seen|gaps`, `&desc=true`,
//! `&offset=`, `&limit=` (at most 500).

use std::cmp::Reverse;

use axum::extract::{RawQuery, State};
use axum::routing::get;
use axum::{Json, Router};
use kvatlas_controller::controller::{SyncState, WorkerInfo};
use serde_json::{Value, json};

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
pub fn routes() -> Router<AppState> {
    Router::new().route("/fleet", get(fleet))
}

async fn fleet(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
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
    let rows: Vec<Value> = workers
        .iter()
        .skip(offset)
        .take(limit)
        .map(|worker| row(worker, now.since(worker.last_seen).as_secs_f64()))
        .collect();
    Ok(Json(json!({
        "total_count": total,
        "matching_count": workers.len(),
        "offset": offset,
        "workers": rows,
    })))
}

/// A sync state by the name people see.
pub(super) fn sync_name(state: &SyncState) -> &'static str {
    match state {
        SyncState::Idle | SyncState::Completed { .. } => "in sync",
        SyncState::Unproved { .. } => "unproved",
        SyncState::Wanted { .. } => "wanted",
        SyncState::Running { .. } => "running",
        SyncState::Unrepairable { .. } => "unrepairable",
    }
}

fn gaps(worker: &WorkerInfo) -> u64 {
    worker.locations.iter().map(|location| location.gaps).sum()
}

fn row(worker: &WorkerInfo, silent_s: f64) -> Value {
    let locations: Vec<Value> = worker
        .locations
        .iter()
        .map(|location| {
            json!({
                "location": location.location.as_str(),
                "key_count": location.key_count,
                "gaps": location.gaps,
                "sync": sync_name(&location.sync),
            })
        })
        .collect();
    json!({
        "instance_id": worker.key.instance.as_str(),
        "worker_id": worker.key.worker.0,
        "ip": worker.address.ip,
        "port": worker.address.port,
        "peer_init_url": worker.address.peer_url,
        "registration_time": worker.registered_at.as_secs_f64(),
        "heartbeat_seen": worker.heartbeat_seen,
        "silent_s": silent_s,
        "key_count": worker.key_count,
        "gaps": gaps(worker),
        "sync_wanted": worker.sync_wanted.is_some(),
        "locations": locations,
    })
}
