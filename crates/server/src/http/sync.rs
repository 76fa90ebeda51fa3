//! GET /sync: who is in full sync, why, how far, whose keys are proved, and whether state is kept.
//!
//! `?instance_id=` narrows it to one instance.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use kvatlas_controller::controller::{LocationInfo, SyncState, WorkerInfo};
use kvatlas_protocol::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::api::Api;
use super::api::operation::{Operation, Parameter};
use super::error::ApiError;
use super::fleet::{Incomplete, SyncName};
use super::query::Query;
use crate::app::{AppState, Shared};
use crate::store::{Health, Status};
use crate::zmq::heartbeat::reason_text;

/// Routes of this file.
pub fn routes() -> Api {
    let operation = Operation::new("sync", "Full syncs, gaps, and state on disk")
        .about(
            "Who is in full sync, why and how far; whose keys are proved; whether state is kept.",
        )
        .parameter(Parameter::text("instance_id", "Of this instance only.").example("demo-1"))
        .gives::<SyncView>(
            "the state of every worker",
            json!({
                "progress": 1.0,
                "workers_syncing": 0,
                "workers_completed": 2,
                "workers_incomplete": 0,
                "missing_batches": 0,
                "sequence_gaps": 0,
                "persistence": { "state": "off" },
                "workers": [{
                    "instance_id": "demo-1",
                    "worker_id": 0,
                    "key_count": 478,
                    "sync_wanted": null,
                    "locations": [{
                        "location": "LocalCPUBackend",
                        "state": "in sync",
                        "key_count": 478,
                        "last_seq": 31,
                        "sequence_gaps": 0,
                        "last_proof": null,
                    }],
                }],
            }),
        )
        .refuses(
            StatusCode::NOT_FOUND,
            "No worker of that instance.",
            "no workers found for instance nobody",
        );
    Api::new("Fleet").get("/sync", sync, operation)
}

/// Full syncs, gaps and state on disk.
#[derive(Serialize, JsonSchema)]
struct SyncView {
    /// Share of workers that are ready.
    progress: f64,
    workers_syncing: usize,
    workers_completed: usize,
    /// Workers some of whose keys a limit keeps out.
    workers_incomplete: usize,
    /// Batches missing over all running syncs.
    missing_batches: u64,
    /// Since the start.
    sequence_gaps: u64,
    persistence: Persistence,
    workers: Vec<WorkerSync>,
}

/// Whether state is kept on disk.
#[derive(Serialize, JsonSchema)]
pub(super) struct Persistence {
    #[schemars(extend("enum" = ["off", "working", "failing"]))]
    state: &'static str,
    /// Why it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
    /// Since when, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<f64>,
    #[serde(flatten)]
    kept: Option<Kept>,
}

/// What is on disk.
#[derive(Serialize, JsonSchema)]
struct Kept {
    directory: Option<String>,
    /// Bytes of journals that a restart would replay.
    journal_bytes: u64,
    records_unsaved: u64,
    last_snapshot: Option<SnapshotView>,
    restored: RestoredView,
}

/// The last snapshot of this process.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Snapshot")]
struct SnapshotView {
    /// Seconds since the epoch.
    at: f64,
    keys: u64,
    bytes: u64,
    took_s: f64,
}

/// What the start found.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Restored")]
struct RestoredView {
    workers: usize,
    keys: u64,
    records: u64,
    /// The process before ended in order.
    clean: bool,
    took_s: f64,
    /// What was damaged and what that cost.
    damages: Vec<String>,
    /// Workers whose keys were left out, for all together need more than `max_index_bytes`.
    workers_left_out: usize,
}

#[derive(Serialize, JsonSchema)]
struct WorkerSync {
    instance_id: String,
    worker_id: i64,
    key_count: u64,
    sync_wanted: Option<SyncWanted>,
    locations: Vec<LocationSync>,
}

/// A full sync the worker will be asked for.
#[derive(Serialize, JsonSchema)]
struct SyncWanted {
    reason: &'static str,
    /// Seconds since the epoch.
    since: f64,
}

#[derive(Serialize, JsonSchema)]
struct LocationSync {
    location: String,
    state: SyncName,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batches_received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batches_announced: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batches_missing: Option<u64>,
    /// In this state since then, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<f64>,
    /// End of the last sync, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<f64>,
    key_count: u64,
    /// Last sequence number seen.
    last_seq: Option<i64>,
    sequence_gaps: u64,
    /// When its keys were last proved, in seconds since the epoch.
    last_proof: Option<f64>,
    /// Some of its keys are not in the map.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<Incomplete>,
}

async fn sync(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<SyncView>, ApiError> {
    let query = Query::read(query.as_deref());
    let instance = query.text("instance_id");
    query.finish()?;
    let workers = match &instance {
        None => state.controller.workers(),
        Some(instance) => state.controller.workers_of(instance),
    };
    if let (Some(instance), true) = (&instance, workers.is_empty()) {
        let detail = format!("no workers found for instance {instance}");
        return Err(ApiError::not_found(detail));
    }
    let totals = state.controller.totals();
    Ok(Json(SyncView {
        progress: totals.sync_progress,
        workers_syncing: totals.workers_syncing,
        workers_completed: totals.workers_completed,
        workers_incomplete: totals.workers_incomplete,
        missing_batches: totals.missing_batches,
        sequence_gaps: totals.gaps,
        persistence: persistence(&state),
        workers: workers.iter().map(worker).collect(),
    }))
}

/// Whether state is kept, and what the last start found.
pub(super) fn persistence(shared: &Shared) -> Persistence {
    let Status {
        health,
        journal_bytes,
        saved,
        last_snapshot,
        restored,
    } = shared.store.status();
    let (state, reason, remedy, since) = match health {
        Health::Off => {
            return Persistence {
                state: "off",
                reason: None,
                remedy: None,
                since: None,
                kept: None,
            };
        }
        Health::Working => ("working", None, None, None),
        Health::Failing {
            reason,
            remedy,
            since,
        } => (
            "failing",
            Some(reason),
            Some(remedy),
            Some(since.as_secs_f64()),
        ),
    };
    let path = shared.store.path();
    let position = shared.controller.journal().position();
    let kept = Kept {
        directory: path.map(|path| path.to_string_lossy().into()),
        journal_bytes,
        records_unsaved: position.saturating_sub(saved),
        last_snapshot: last_snapshot.map(|written| SnapshotView {
            at: written.at.as_secs_f64(),
            keys: written.keys,
            bytes: written.bytes,
            took_s: written.took.as_secs_f64(),
        }),
        restored: RestoredView {
            workers: restored.workers,
            keys: restored.keys,
            records: restored.records,
            clean: restored.is_clean,
            took_s: restored.took.as_secs_f64(),
            damages: restored.damages,
            workers_left_out: restored.left_out.len(),
        },
    };
    Persistence {
        state,
        reason,
        remedy,
        since,
        kept: Some(kept),
    }
}

fn worker(info: &WorkerInfo) -> WorkerSync {
    WorkerSync {
        instance_id: info.key.instance.to_string(),
        worker_id: info.key.worker.0,
        key_count: info.key_count,
        sync_wanted: info.sync_wanted.map(|(reason, since)| SyncWanted {
            reason: reason_text(reason),
            since: since.as_secs_f64(),
        }),
        locations: info.locations.iter().map(location).collect(),
    }
}

fn location(info: &LocationInfo) -> LocationSync {
    let time = |at: &Timestamp| Some(at.as_secs_f64());
    let row = LocationSync {
        location: info.location.to_string(),
        state: (&info.sync).into(),
        reason: None,
        sync_id: None,
        batches_received: None,
        batches_announced: None,
        batches_missing: None,
        since: None,
        completed: None,
        key_count: info.key_count,
        last_seq: info.last_seq.map(|seq| seq.0),
        sequence_gaps: info.gaps,
        last_proof: info.proved_at.as_ref().and_then(time),
        incomplete: info.incomplete.map(Incomplete::from),
    };
    match &info.sync {
        SyncState::Idle => row,
        SyncState::Unproved { since } => LocationSync {
            since: time(since),
            ..row
        },
        SyncState::Wanted { reason, since } => LocationSync {
            reason: Some(reason_text(*reason)),
            since: time(since),
            ..row
        },
        SyncState::Running {
            sync_id,
            received,
            announced,
            since,
        } => LocationSync {
            sync_id: Some(sync_id.to_string()),
            batches_received: Some(*received),
            batches_announced: Some(*announced),
            batches_missing: Some(announced - received),
            since: time(since),
            ..row
        },
        SyncState::Completed { sync_id, at } => LocationSync {
            sync_id: Some(sync_id.to_string()),
            completed: time(at),
            ..row
        },
        SyncState::Unrepairable { reason, since } => LocationSync {
            reason: Some(reason_text(*reason)),
            since: time(since),
            ..row
        },
    }
}
