//! Who is registered, where, and with how many keys.
//!
//! Upstream: `internal_api_server/controller/{worker_info_api,key_stats_api}.py`,
//! `lmcache/v1/api_server/__main__.py` (`query_instance`, `query_worker_info`). Upstream's list of
//! all workers may be 30 s old; ours never is.

use axum::extract::{RawQuery, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use kvatlas_controller::controller::WorkerInfo;
use kvatlas_protocol::WorkerKey;
use serde_json::{Value, json};

use super::body::Body;
use super::error::ApiError;
use super::event_id;
use super::fields::Fields;
use super::query::Query;
use crate::app::AppState;

/// Routes of this file.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/controller/workers", get(workers))
        .route("/controller/key-stats", get(key_stats))
        .route("/query_instance", post(query_instance))
        .route("/query_worker_info", post(query_worker_info))
}

/// Every instance, in `/query_worker_info`.
const ALL: &str = "all";

async fn workers(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let mut query = Query::read(query.as_deref());
    let instance = query.text("instance_id");
    let worker = query.int("worker_id");
    query.finish()?;
    let controller = &state.controller;
    match (instance, worker) {
        (Some(instance), Some(worker)) => {
            let key = WorkerKey::new(instance.as_str(), worker);
            let info = controller.worker(&key).ok_or_else(|| {
                ApiError::not_found(format!("worker {worker} of instance {instance} not found"))
            })?;
            Ok(Json(with_keys(&info)))
        }
        (Some(instance), None) => {
            let infos = controller.workers_of(&instance);
            if infos.is_empty() {
                let detail = format!("no workers found for instance {instance}");
                return Err(ApiError::not_found(detail));
            }
            Ok(Json(list(&infos)))
        }
        (None, _) => Ok(Json(list(&controller.workers()))),
    }
}

async fn key_stats(State(state): State<AppState>) -> Json<Value> {
    let instances = state.controller.instances();
    let keys: u64 = instances.iter().map(|(_, keys, _)| keys).sum();
    let workers: usize = instances.iter().map(|(.., workers)| workers).sum();
    let rows: Vec<Value> = instances
        .iter()
        .map(|(instance, keys, workers)| {
            json!({
                "instance_id": instance.as_str(),
                "key_count": keys,
                "worker_count": workers,
            })
        })
        .collect();
    Json(json!({
        "total_key_count": keys,
        "total_instance_count": instances.len(),
        "total_worker_count": workers,
        "instances": rows,
    }))
}

async fn query_instance(
    State(state): State<AppState>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::read(&body.bytes)?;
    // Upstream demands an event id and never reads it.
    let _ = fields.optional_text("event_id");
    let ip = fields.text("ip");
    let ip = fields.finish(ip)?;
    let instances = state.controller.instances_on(&ip);
    let Some(first) = instances.first() else {
        return Err(ApiError::not_found(format!("no instance on {ip}")));
    };
    let all: Vec<&str> = instances.iter().map(|instance| instance.as_str()).collect();
    Ok(Json(json!({
        "event_id": event_id("QueryInst"),
        "res": first.as_str(),
        "instances": all,
    })))
}

async fn query_worker_info(
    State(state): State<AppState>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::read(&body.bytes)?;
    let instance = fields.text("instance_id");
    let wanted = fields.optional_ints("worker_ids").unwrap_or_default();
    let (instance, wanted) = fields.finish((instance, wanted))?;
    let mut infos = match instance.as_str() {
        ALL => state.controller.workers(),
        instance => state.controller.workers_of(instance),
    };
    if !wanted.is_empty() {
        infos.retain(|info| wanted.contains(&info.key.worker.0));
        if instance != ALL {
            // As upstream: in the order they were asked for.
            let place = |id: i64| wanted.iter().position(|wanted| *wanted == id);
            infos.sort_by_key(|info| place(info.key.worker.0));
        }
    }
    let rows: Vec<Value> = infos.iter().map(plain).collect();
    Ok(Json(json!({
        "event_id": event_id("QueryWorkerInfo"),
        "worker_infos": rows,
    })))
}

fn list(infos: &[WorkerInfo]) -> Value {
    let rows: Vec<Value> = infos.iter().map(with_keys).collect();
    json!({ "workers": rows, "total_count": infos.len() })
}

fn with_keys(info: &WorkerInfo) -> Value {
    let mut row = plain(info);
    row["key_count"] = info.key_count.into();
    row
}

/// A worker as upstream renders one.
fn plain(info: &WorkerInfo) -> Value {
    json!({
        "instance_id": info.key.instance.as_str(),
        "worker_id": info.key.worker.0,
        "ip": info.address.ip,
        "port": info.address.port,
        "peer_init_url": info.address.peer_url,
        "registration_time": info.registered_at.as_secs_f64(),
        "last_heartbeat_time": info.last_heartbeat.as_secs_f64(),
    })
}
