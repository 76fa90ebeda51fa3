//! Pages for operators and probes: health, readiness, version, metrics, log levels, threads.
//!
//! Health and readiness touch nothing that ingest or lookups could hold. `/env` is off unless
//! configured, and shows no values of what looks secret. `/run_script` of upstream runs posted code;
//! it does not exist here and never will.
//!
//! Upstream: `internal_api_server/common/*.py`.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::api::Api;
use super::api::operation::{JSON, Operation, Parameter, TEXT};
use super::error::ApiError;
use super::query::{LastSegment, Query};
use crate::app::{AppState, Shared};
use crate::config::value::{KnobValue, LEVELS, LogLevel};
use crate::housekeeping::{Task, expiry_interval};

/// Routes of this file.
pub fn routes() -> Api {
    probes()
        .merge(counters())
        .merge(background())
        .merge(process())
}

fn probes() -> Api {
    let health =
        Operation::new("healthz", "Whether the process lives").gives_text(TEXT, "yes", "ok\n");
    let ready = Operation::new("readyz", "Whether it takes requests")
        .gives_text(TEXT, "yes", "ready\n")
        .answers::<String>(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not yet, or not any more.",
            TEXT,
            "not ready\n".into(),
        );
    let version_operation = Operation::new("version", "Name and version").gives::<Version>(
        "the version",
        json!({ "name": "kvatlas", "version": "0.1.0" }),
    );
    Api::new("Process")
        .get("/healthz", async || "ok\n", health)
        .get("/readyz", readyz, ready)
        .get("/version", version, version_operation)
}

fn counters() -> Api {
    let show = Operation::new("metrics", "Metrics for Prometheus")
        .about("Open to everybody with `metrics_open`.")
        .gives_text(
            PROMETHEUS,
            "Prometheus text",
            "lmcache:cache_controller_registered_workers_count{role=\"controller\"} 4\n",
        );
    let reset =
        Operation::new("reset_metrics", "Set counters to zero").gives_text(TEXT, "done", "ok");
    Api::new("Process")
        .get("/metrics", metrics, show)
        .post("/metrics/reset", reset_metrics, reset)
}

fn background() -> Api {
    let all = Operation::new("periodic_threads", "Background tasks").gives::<Tasks>(
        "every task",
        json!({
            "summary": {
                "total_count": 1,
                "running_count": 1,
                "active_count": 1,
                "by_level": {
                    "critical": { "total": 0, "running": 0, "active": 0 },
                    "high": { "total": 0, "running": 0, "active": 0 },
                    "medium": { "total": 1, "running": 1, "active": 1 },
                    "low": { "total": 0, "running": 0, "active": 0 },
                },
            },
            "threads": [task_example()],
        }),
    );
    let one = Operation::new("periodic_thread", "One background task")
        .parameter(Parameter::path("name", "Its name.").example("sweep"))
        .gives::<TaskView>("the task", task_example())
        .answers::<TaskError>(
            StatusCode::NOT_FOUND,
            "No such task.",
            JSON,
            json!({ "error": "Thread not found: nothing" }),
        );
    let late = Operation::new("periodic_threads_health", "Background tasks that are late")
        .gives::<TasksHealth>(
        "those that are",
        json!({ "healthy": true, "unhealthy_count": 0, "unhealthy_threads": [] }),
    );
    Api::new("Process")
        .get("/periodic-threads", tasks, all)
        .get("/periodic-threads/{name}", task, one)
        .get("/periodic-threads-health", tasks_health, late)
}

fn process() -> Api {
    let threads_operation = Operation::new("threads", "Threads of the process")
        .parameter(Parameter::text("name", "Part of the thread's name."))
        .parameter(Parameter::int("thread_id", "The kernel's number of it."))
        .gives_text(
            TEXT,
            "a line for each",
            "Thread: kvatlas-http (4711)\n\n\n=== Thread Summary ===\nTotal threads: 1\n",
        );
    let env_operation = Operation::new("env", "The environment")
        .about("Only with `debug_env`. Values of what looks secret are not shown.")
        .gives_text(TEXT, "a JSON object", "{\n  \"LANG\": \"C.UTF-8\"\n}")
        .refuses(StatusCode::NOT_FOUND, "Not switched on.", ENV_OFF);
    Api::new("Process")
        .get("/threads", threads, threads_operation)
        .get(
            "/loglevel",
            loglevel,
            level_operation("show_log_level", "Show log levels"),
        )
        .post(
            "/loglevel",
            loglevel,
            level_operation("set_log_level", "Set a log level"),
        )
        .get("/env", env, env_operation)
}

fn level_operation(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, summary)
        .about("Without `level` it shows, with `level` it sets and needs the admin token: LMCache sets levels by GET.")
        .parameter(Parameter::text("logger_name", "A module; the whole process if absent.").example("kvatlas_server"))
        .parameter(Parameter::any_case("level", LEVELS.map(|(name, _)| name), "The level to set: debug, info, warning, error, ..."))
        .gives_text(TEXT, "the levels", "kvatlas_server: INFO")
        .answers::<String>(
            StatusCode::BAD_REQUEST,
            "No such level, or too many loggers.",
            TEXT,
            "Invalid log level: loud".into(),
        )
}

fn task_example() -> Value {
    json!({
        "name": "sweep",
        "level": "medium",
        "interval": 0.5,
        "is_running": true,
        "is_active": true,
        "last_run_time": 1_795_374_888.856_649,
        "last_run_ago": 0.2,
        "last_duration_ms": 0.004,
        "total_runs": 12,
    })
}

#[derive(Serialize, JsonSchema)]
struct Version {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct Tasks {
    summary: TasksSummary,
    threads: Vec<TaskView>,
}

#[derive(Serialize, JsonSchema)]
struct TasksSummary {
    total_count: usize,
    running_count: usize,
    active_count: usize,
    by_level: TaskLevels,
}

/// How many tasks there are of each level.
#[derive(Serialize, JsonSchema)]
struct TaskLevels {
    critical: TaskCounts,
    high: TaskCounts,
    medium: TaskCounts,
    low: TaskCounts,
}

#[derive(Serialize, JsonSchema)]
struct TaskCounts {
    total: usize,
    running: usize,
    active: usize,
}

/// A background task, as upstream shows its threads.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Task")]
struct TaskView {
    name: &'static str,
    level: &'static str,
    /// Seconds.
    interval: f64,
    is_running: bool,
    /// Ran within three intervals, or has had no time to.
    is_active: bool,
    /// Seconds since the epoch; 0 before the first run.
    last_run_time: f64,
    /// Seconds.
    last_run_ago: Option<f64>,
    last_duration_ms: f64,
    total_runs: u64,
}

#[derive(Serialize, JsonSchema)]
struct TasksHealth {
    healthy: bool,
    unhealthy_count: usize,
    unhealthy_threads: Vec<TaskView>,
}

/// Upstream's error of this one path.
#[derive(Serialize, JsonSchema)]
struct TaskError {
    error: String,
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

async fn version() -> Json<Version> {
    Json(Version {
        name: "kvatlas",
        version: env!("CARGO_PKG_VERSION"),
    })
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

async fn tasks(State(state): State<AppState>) -> Json<Tasks> {
    let threads = listed(&state);
    let total = threads.len();
    let group = |level: &'static str| {
        let n = threads.iter().filter(|task| task.level == level).count();
        TaskCounts {
            total: n,
            running: n,
            active: n,
        }
    };
    Json(Tasks {
        summary: TasksSummary {
            total_count: total,
            running_count: total,
            active_count: total,
            by_level: TaskLevels {
                critical: group("critical"),
                high: group("high"),
                medium: group("medium"),
                low: group("low"),
            },
        },
        threads,
    })
}

async fn task(State(state): State<AppState>, LastSegment(name): LastSegment) -> Response {
    let mut tasks = listed(&state).into_iter();
    match tasks.find(|task| task.name == name) {
        Some(task) => Json(task).into_response(),
        None => {
            let error = format!("Thread not found: {name}");
            (StatusCode::NOT_FOUND, Json(TaskError { error })).into_response()
        }
    }
}

async fn tasks_health(State(state): State<AppState>) -> Json<TasksHealth> {
    let mut late = listed(&state);
    late.retain(|task| !task.is_active);
    Json(TasksHealth {
        healthy: late.is_empty(),
        unhealthy_count: late.len(),
        unhealthy_threads: late,
    })
}

fn listed(shared: &Shared) -> Vec<TaskView> {
    let tasks = &shared.housekeeping;
    let now = shared.clock.now();
    let row = |name, level, task: &Task, interval: f64| {
        let ago = task.last_run().map(|last| now.since(last).as_secs_f64());
        TaskView {
            name,
            level,
            interval,
            is_running: true,
            is_active: ago.is_none_or(|ago| ago <= 3.0 * interval.max(1.0)),
            last_run_time: task.last_run().map_or(0.0, |last| last.as_secs_f64()),
            last_run_ago: ago,
            last_duration_ms: task.last_duration().as_secs_f64() * 1e3,
            total_runs: task.runs(),
        }
    };
    let expiry = expiry_interval(shared).as_secs_f64();
    vec![
        row("expiry", "high", &tasks.expiry, expiry),
        row("sweep", "medium", &tasks.sweep, 0.5),
    ]
}

const ENV_OFF: &str = "Not Found; set debug_env to see the environment";

/// What the name of a secret usually contains.
const SECRET: [&str; 9] = [
    "KEY", "TOKEN", "SECRET", "PASS", "AUTH", "CRED", "COOKIE", "DSN", "URL",
];

async fn env(State(state): State<AppState>) -> Result<String, ApiError> {
    if !state.config.debug_env {
        return Err(ApiError::not_found(ENV_OFF));
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
