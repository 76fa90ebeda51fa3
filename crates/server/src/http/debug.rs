//! Pages for operators and probes: health, readiness, version, metrics, log levels, threads.
//!
//! Health and readiness touch nothing that ingest or lookups could hold. `/env` is off unless
//! configured, and shows no values of what looks secret. `/run_script` of upstream runs posted code;
//! it does not exist here and never will.
//!
//! Upstream: `internal_api_server/common/*.py`.

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::error::ApiError;
use super::query::Query;
use crate::app::{AppState, Shared};
use crate::config::value::{KnobValue, LogLevel};
use crate::housekeeping::{Task, expiry_interval};

/// Routes of this file.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route("/metrics/reset", post(reset_metrics))
        .route("/loglevel", get(loglevel).post(loglevel))
        .route("/threads", get(threads))
        .route("/periodic-threads", get(tasks))
        .route("/periodic-threads/{name}", get(task))
        .route("/periodic-threads-health", get(tasks_health))
        .route("/env", get(env))
}

/// What Prometheus calls its text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

async fn readyz(State(state): State<AppState>) -> Response {
    if state.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn version() -> Json<Value> {
    Json(json!({ "name": "kvatlas", "version": env!("CARGO_PKG_VERSION") }))
}

async fn metrics(State(state): State<AppState>) -> Response {
    let mut text = state.metrics.render(&state.controller.totals());
    text.push_str(&crate::metrics::log::render(state.levels.dropped_lines()));
    text.push_str(&crate::metrics::state::render(&state.store.status()));
    let tls = state.tls.as_ref().map(|tls| tls.status());
    text.push_str(&crate::metrics::tls::render(tls.unwrap_or_default()));
    ([(CONTENT_TYPE, PROMETHEUS)], text).into_response()
}

async fn reset_metrics(State(state): State<AppState>) -> &'static str {
    state.metrics.reset();
    "ok"
}

async fn loglevel(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let query = Query::read(query.as_deref());
    let given = |name| query.text(name).filter(|text: &String| !text.is_empty());
    let levels = &state.levels;
    let name = |level: tracing::Level| match level {
        // Python's spelling.
        tracing::Level::WARN => "WARNING",
        level => level.as_str(),
    };
    let text = match (given("logger_name"), given("level")) {
        (None, None) => {
            let lines = levels.all().into_iter();
            let lines: String = lines
                .map(|(logger, level)| format!("{logger}: {}\n", name(level)))
                .collect();
            format!("=== Loggers and Levels ===\n{lines}")
        }
        (Some(logger), None) => format!("{logger}: {}", name(levels.of(&logger))),
        (logger, Some(level)) => {
            let logger = logger.unwrap_or_else(|| crate::logging::ROOT.to_owned());
            let Ok(LogLevel(parsed)) = LogLevel::read(&level) else {
                let text = format!("Invalid log level: {level}");
                return (StatusCode::BAD_REQUEST, text).into_response();
            };
            if !levels.set(&logger, parsed) {
                let text = "too many loggers have a level of their own";
                return (StatusCode::BAD_REQUEST, text).into_response();
            }
            format!("Set {logger} level to {}", name(parsed))
        }
    };
    text.into_response()
}

/// The process's threads by name, with the state the kernel gives them.
async fn threads(RawQuery(query): RawQuery) -> Result<String, ApiError> {
    let mut query = Query::read(query.as_deref());
    let name = query.text("name").map(|name| name.to_lowercase());
    let id = query.int("thread_id");
    query.finish()?;
    let mut lines = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let tid: Option<i64> = entry.file_name().to_str().and_then(|tid| tid.parse().ok());
        // A thread that has just ended is not listed.
        let Ok(comm) = std::fs::read_to_string(entry.path().join("comm")) else {
            continue;
        };
        let comm = comm.trim();
        let is_wanted = name
            .as_ref()
            .is_none_or(|name| comm.to_lowercase().contains(name))
            && id.is_none_or(|id| tid == Some(id));
        if is_wanted {
            lines.push(format!("Thread: {comm} ({})\n", tid.unwrap_or_default()));
        }
    }
    let total = lines.len();
    Ok(format!(
        "{}\n\n=== Thread Summary ===\nTotal threads: {total}\n",
        lines.concat()
    ))
}

async fn tasks(State(state): State<AppState>) -> Json<Value> {
    let tasks = listed(&state);
    let total = tasks.len();
    let group = |level: &str| {
        let n = tasks.iter().filter(|task| task["level"] == level).count();
        json!({ "total": n, "running": n, "active": n })
    };
    let by_level: Value = ["critical", "high", "medium", "low"]
        .iter()
        .map(|level| ((*level).to_owned(), group(level)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    Json(json!({
        "summary": {
            "total_count": total,
            "running_count": total,
            "active_count": total,
            "by_level": by_level,
        },
        "threads": tasks,
    }))
}

async fn task(State(state): State<AppState>, Path(name): Path<String>) -> Response {
    let mut tasks = listed(&state).into_iter();
    match tasks.find(|task| task["name"] == name.as_str()) {
        Some(task) => Json(task).into_response(),
        None => {
            let body = json!({ "error": format!("Thread not found: {name}") });
            (StatusCode::NOT_FOUND, Json(body)).into_response()
        }
    }
}

async fn tasks_health(State(state): State<AppState>) -> Json<Value> {
    let late: Vec<Value> = listed(&state)
        .into_iter()
        .filter(|task| task["is_active"] == false)
        .collect();
    Json(json!({
        "healthy": late.is_empty(),
        "unhealthy_count": late.len(),
        "unhealthy_threads": late,
    }))
}

fn listed(shared: &Shared) -> Vec<Value> {
    let tasks = &shared.housekeeping;
    let now = shared.clock.now();
    let row = |name: &str, level: &str, task: &Task, interval: f64| {
        let ago = task.last_run().map(|last| now.since(last).as_secs_f64());
        json!({
            "name": name,
            "level": level,
            "interval": interval,
            "is_running": true,
            // As upstream: ran within three intervals, or has had no time to.
            "is_active": ago.is_none_or(|ago| ago <= 3.0 * interval.max(1.0)),
            "last_run_time": task.last_run().map_or(0.0, |last| last.as_secs_f64()),
            "last_run_ago": ago,
            "last_duration_ms": task.last_duration().as_secs_f64() * 1e3,
            "total_runs": task.runs(),
        })
    };
    let expiry = expiry_interval(shared).as_secs_f64();
    vec![
        row("expiry", "high", &tasks.expiry, expiry),
        row("sweep", "medium", &tasks.sweep, 0.5),
    ]
}

/// What the name of a secret usually contains.
const SECRET: [&str; 9] = [
    "KEY", "TOKEN", "SECRET", "PASS", "AUTH", "CRED", "COOKIE", "DSN", "URL",
];

async fn env(State(state): State<AppState>) -> Result<String, ApiError> {
    if !state.config.debug_env {
        return Err(ApiError::not_found(
            "Not Found; set debug_env to see the environment",
        ));
    }
    let shown: std::collections::BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .map(|(name, value)| {
            let upper = name.to_uppercase();
            if SECRET.iter().any(|word| upper.contains(word)) {
                (name, "***".to_owned())
            } else {
                (name, value)
            }
        })
        .collect();
    serde_json::to_string_pretty(&shown).map_err(|error| ApiError::bad_request(error.to_string()))
}
