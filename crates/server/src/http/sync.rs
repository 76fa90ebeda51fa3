//! GET /sync: who is in full sync, why, how far, whose keys are proved, and whether state is kept.
//!
//! `?instance_id=` narrows it to one instance.

use axum::extract::{RawQuery, State};
use axum::routing::get;
use axum::{Json, Router};
use kvatlas_controller::controller::{LocationInfo, SyncState, WorkerInfo};
use kvatlas_protocol::Timestamp;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::query::Query;
use crate::app::{AppState, Shared};
use crate::store::{Health, Status};
use crate::zmq::heartbeat::reason_text;

/// Routes of this file.
pub fn routes() -> Router<AppState> {
    Router::new().route("/sync", get(sync))
}

async fn sync(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
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
    let rows: Vec<Value> = workers.iter().map(worker).collect();
    Ok(Json(json!({
        "progress": totals.sync_progress,
        "workers_syncing": totals.workers_syncing,
        "workers_completed": totals.workers_completed,
        "missing_batches": totals.missing_batches,
        "sequence_gaps": totals.gaps,
        "persistence": persistence(&state),
        "workers": rows,
    })))
}

/// Whether state is kept, and what the last start found.
pub fn persistence(shared: &Shared) -> Value {
    let Status {
        health,
        journal_bytes,
        saved,
        last_snapshot,
        restored,
    } = shared.store.status();
    let mut row = match health {
        Health::Off => return json!({ "state": "off" }),
        Health::Working => json!({ "state": "working" }),
        Health::Failing {
            reason,
            remedy,
            since,
        } => json!({
            "state": "failing",
            "reason": reason,
            "remedy": remedy,
            "since": since.as_secs_f64(),
        }),
    };
    row["directory"] = shared
        .store
        .path()
        .map_or(Value::Null, |path| path.to_string_lossy().into());
    row["journal_bytes"] = journal_bytes.into();
    let position = shared.controller.journal().position();
    row["records_unsaved"] = position.saturating_sub(saved).into();
    row["last_snapshot"] = last_snapshot.map_or(Value::Null, |written| {
        json!({
            "at": written.at.as_secs_f64(),
            "keys": written.keys,
            "bytes": written.bytes,
            "took_s": written.took.as_secs_f64(),
        })
    });
    row["restored"] = json!({
        "workers": restored.workers,
        "keys": restored.keys,
        "records": restored.records,
        "clean": restored.is_clean,
        "took_s": restored.took.as_secs_f64(),
        "damages": restored.damages,
    });
    row
}

fn worker(info: &WorkerInfo) -> Value {
    let locations: Vec<Value> = info.locations.iter().map(location).collect();
    json!({
        "instance_id": info.key.instance.as_str(),
        "worker_id": info.key.worker.0,
        "key_count": info.key_count,
        "sync_wanted": info.sync_wanted.map(|(reason, since)| {
            json!({ "reason": reason_text(reason), "since": since.as_secs_f64() })
        }),
        "locations": locations,
    })
}

fn location(info: &LocationInfo) -> Value {
    let mut row = Map::new();
    row.insert("location".into(), info.location.as_str().into());
    let time = |at: Timestamp| Value::from(at.as_secs_f64());
    let mut put = |key: &str, value: Value| {
        row.insert(key.into(), value);
    };
    match &info.sync {
        SyncState::Idle => put("state", "in sync".into()),
        SyncState::Unproved { since } => {
            put("state", "unproved".into());
            put("since", time(*since));
        }
        SyncState::Wanted { reason, since } => {
            put("state", "wanted".into());
            put("reason", reason_text(*reason).into());
            put("since", time(*since));
        }
        SyncState::Running {
            sync_id,
            received,
            announced,
            since,
        } => {
            put("state", "running".into());
            put("sync_id", sync_id.as_str().into());
            put("batches_received", (*received).into());
            put("batches_announced", (*announced).into());
            put("batches_missing", (announced - received).into());
            put("since", time(*since));
        }
        SyncState::Completed { sync_id, at } => {
            put("state", "in sync".into());
            put("sync_id", sync_id.as_str().into());
            put("completed", time(*at));
        }
        SyncState::Unrepairable { reason, since } => {
            put("state", "unrepairable".into());
            put("reason", reason_text(*reason).into());
            put("since", time(*since));
        }
    }
    put("key_count", info.key_count.into());
    put("last_seq", info.last_seq.map(|seq| seq.0).into());
    put("sequence_gaps", info.gaps.into());
    put(
        "last_proof",
        info.proved_at.map(|at| at.as_secs_f64()).into(),
    );
    Value::Object(row)
}
