//! Who is registered, where, and with how many keys.
//!
//! Upstream: `internal_api_server/controller/{worker_info_api,key_stats_api}.py`,
//! `lmcache/v1/api_server/__main__.py` (`query_instance`, `query_worker_info`). Upstream's list of
//! all workers may be 30 s old; ours never is.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use kvatlas_controller::controller::WorkerInfo;
use kvatlas_protocol::WorkerKey;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::api::Api;
use super::api::operation::{Operation, Parameter};
use super::body::Body;
use super::error::ApiError;
use super::event_id;
use super::field::Ints;
use super::fields::Fields;
use super::query::Query;
use crate::app::AppState;

/// Routes of this file.
pub fn routes() -> Api {
    Api::new("Fleet")
        .get("/controller/workers", workers, workers_operation())
        .get(
            "/controller/key-stats",
            key_stats,
            Operation::new("key_stats", "Keys and workers of every instance").gives::<KeyStats>(
                "the counts",
                json!({
                    "total_key_count": 1824,
                    "total_instance_count": 2,
                    "total_worker_count": 4,
                    "instances": [
                        { "instance_id": "demo-1", "key_count": 956, "worker_count": 2 },
                        { "instance_id": "demo-2", "key_count": 868, "worker_count": 2 },
                    ],
                }),
            ),
        )
        .post("/query_instance", query_instance, instance_operation())
        .post(
            "/query_worker_info",
            query_worker_info,
            Operation::new("query_worker_info", "Workers by instance and rank")
                .about("The instance `all` means every instance. Who is unknown is left out.")
                .takes::<WorkerInfoBody>([json!({ "instance_id": "demo-1", "worker_ids": [0] })])
                .gives::<WorkerInfos>(
                    "those that are registered, in the order they were asked for",
                    json!({
                        "event_id": "QueryWorkerInfo6bc4c2c9-ae55-44c5-9ae2-7cc6dc3ae05c",
                        "worker_infos": [worker_example()],
                    }),
                ),
        )
}

fn workers_operation() -> Operation {
    let mut keyed = worker_example();
    keyed["key_count"] = 478.into();
    Operation::new("workers", "Registered workers")
        .about("With both parameters one worker as an object, else a list; `worker_id` alone narrows nothing.")
        .parameter(Parameter::text("instance_id", "Of this instance only.").example("demo-1"))
        .parameter(Parameter::int("worker_id", "This rank of the instance.").example(0))
        .gives::<Workers>("one worker, or a list", keyed)
        .refuses(
            StatusCode::NOT_FOUND,
            "No such worker, or no worker of that instance.",
            "no workers found for instance nobody",
        )
}

fn instance_operation() -> Operation {
    Operation::new("query_instance", "Instances by address")
        .takes::<AddressBody>([json!({ "ip": "127.0.0.1" })])
        .gives::<Instances>(
            "the instances there",
            json!({
                "event_id": "QueryInstb40043f2-d759-4b58-99f0-99b3bd28f0d7",
                "res": "demo-1",
                "instances": ["demo-1", "demo-2"],
            }),
        )
        .refuses(
            StatusCode::NOT_FOUND,
            "Nobody registered from there.",
            "no instance on 10.1.2.3",
        )
}

fn worker_example() -> Value {
    json!({
        "instance_id": "demo-1",
        "worker_id": 0,
        "ip": "127.0.0.1",
        "port": 34627,
        "peer_init_url": "127.0.0.1:41841",
        "registration_time": 1_795_374_884.613_718,
        "last_heartbeat_time": 1_795_374_888.856_649,
    })
}

/// Every instance, in `/query_worker_info`.
const ALL: &str = "all";

/// One worker, or several.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Workers {
    One(KeyedWorker),
    List {
        workers: Vec<KeyedWorker>,
        total_count: usize,
    },
}

/// A worker as upstream renders one.
#[derive(Serialize, JsonSchema)]
struct Worker {
    instance_id: String,
    worker_id: i64,
    ip: String,
    port: i64,
    /// Where peers fetch chunks from; null where peer transfer is off.
    peer_init_url: Option<String>,
    /// Seconds since the epoch.
    registration_time: f64,
    /// Seconds since the epoch.
    last_heartbeat_time: f64,
}

/// A worker and its keys.
#[derive(Serialize, JsonSchema)]
struct KeyedWorker {
    #[serde(flatten)]
    worker: Worker,
    key_count: u64,
}

async fn workers(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<Workers>, ApiError> {
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
            Ok(Json(Workers::One(KeyedWorker::from(&info))))
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

#[derive(Serialize, JsonSchema)]
struct KeyStats {
    total_key_count: u64,
    total_instance_count: usize,
    total_worker_count: usize,
    instances: Vec<InstanceStats>,
}

#[derive(Serialize, JsonSchema)]
struct InstanceStats {
    instance_id: String,
    key_count: u64,
    worker_count: usize,
}

async fn key_stats(State(state): State<AppState>) -> Json<KeyStats> {
    let instances = state.controller.instances();
    Json(KeyStats {
        total_key_count: instances.iter().map(|(_, keys, _)| keys).sum(),
        total_instance_count: instances.len(),
        total_worker_count: instances.iter().map(|(.., workers)| workers).sum(),
        instances: instances
            .iter()
            .map(|(instance, keys, workers)| InstanceStats {
                instance_id: instance.to_string(),
                key_count: *keys,
                worker_count: *workers,
            })
            .collect(),
    })
}

/// Whose instances.
#[derive(JsonSchema)]
struct AddressBody {
    /// Upstream demands one.
    #[expect(dead_code, reason = "its type is checked, its value means nothing")]
    event_id: Option<String>,
    /// As the workers gave it when they registered.
    ip: String,
}

#[derive(Serialize, JsonSchema)]
struct Instances {
    event_id: String,
    /// The one that registered first.
    res: String,
    /// All of them.
    instances: Vec<String>,
}

async fn query_instance(
    State(state): State<AppState>,
    body: Body,
) -> Result<Json<Instances>, ApiError> {
    let mut fields = Fields::read(&body.bytes)?;
    let body = AddressBody {
        event_id: fields.take("event_id"),
        ip: fields.take("ip"),
    };
    let ip = fields.finish(body)?.ip;
    let instances = state.controller.instances_on(&ip);
    let Some(first) = instances.first() else {
        return Err(ApiError::not_found(format!("no instance on {ip}")));
    };
    Ok(Json(Instances {
        event_id: event_id("QueryInst"),
        res: first.to_string(),
        instances: instances.iter().map(ToString::to_string).collect(),
    }))
}

/// Whose workers, and which.
#[derive(JsonSchema)]
struct WorkerInfoBody {
    /// An instance, or `all`.
    instance_id: String,
    /// Ranks; all of them where it is absent, null or empty.
    worker_ids: Option<Ints>,
}

#[derive(Serialize, JsonSchema)]
struct WorkerInfos {
    event_id: String,
    worker_infos: Vec<Worker>,
}

async fn query_worker_info(
    State(state): State<AppState>,
    body: Body,
) -> Result<Json<WorkerInfos>, ApiError> {
    let mut fields = Fields::read(&body.bytes)?;
    let asked = WorkerInfoBody {
        instance_id: fields.take("instance_id"),
        worker_ids: fields.take("worker_ids"),
    };
    let WorkerInfoBody {
        instance_id: instance,
        worker_ids,
    } = fields.finish(asked)?;
    let Ints(wanted) = worker_ids.unwrap_or_default();
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
    Ok(Json(WorkerInfos {
        event_id: event_id("QueryWorkerInfo"),
        worker_infos: infos.iter().map(Worker::from).collect(),
    }))
}

fn list(infos: &[WorkerInfo]) -> Workers {
    Workers::List {
        workers: infos.iter().map(KeyedWorker::from).collect(),
        total_count: infos.len(),
    }
}

impl From<&WorkerInfo> for KeyedWorker {
    fn from(info: &WorkerInfo) -> Self {
        Self {
            worker: info.into(),
            key_count: info.key_count,
        }
    }
}

impl From<&WorkerInfo> for Worker {
    fn from(info: &WorkerInfo) -> Self {
        Self {
            instance_id: info.key.instance.to_string(),
            worker_id: info.key.worker.0,
            ip: info.address.ip.to_string(),
            port: info.address.port,
            peer_init_url: info.address.peer_url.as_ref().map(ToString::to_string),
            registration_time: info.registered_at.as_secs_f64(),
            last_heartbeat_time: info.last_heartbeat.as_secs_f64(),
        }
    }
}
