//! Commands of orchestrators: clear, pin, compress, decompress, move, health.
//!
//! Every command takes `?wait=false` (202 with the event id at once) and `?timeout_s=`. Here, and
//! only here, stand upstream's event-id prefixes and the status of each refusal and failure:
//!
//! | what | status |
//! |---|---|
//! | no such instance (health: 200 without codes) | 404 |
//! | ranks that differ, P2P off | 409 |
//! | a worker's error or wrong answer, workers that disagree | 502 |
//! | lines full, stopping | 503 |
//! | a worker that is absent or silent | 504 |
//!
//! Upstream: `lmcache/v1/api_server/__main__.py`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use kvatlas_controller::events::EventId;
use kvatlas_controller::plan::{
    Command, CommandKind, Outcome, PlanError, Position, StepError, StepValue,
};
use kvatlas_protocol::{WorkerId, WorkerKey};
use serde_json::{Value, json};

use super::body::Body;
use super::error::ApiError;
use super::event_id;
use super::fields::Fields;
use super::query::Query;
use crate::app::AppState;
use crate::dispatch::{self, StartError, Started};

/// Longest deadline an orchestrator may set: a move of a whole cache takes minutes.
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);

const CLEAR: &str = "/clear";
const PIN: &str = "/pin";
const COMPRESS: &str = "/compress";
const DECOMPRESS: &str = "/decompress";
const MOVE: &str = "/move";
const HEALTH: &str = "/health";

/// Routes of this file.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route(CLEAR, post(clear))
        .route(PIN, post(pin))
        .route(COMPRESS, post(compress))
        .route(DECOMPRESS, post(decompress))
        .route(MOVE, post(move_chunks))
        .route(HEALTH, post(health))
}

/// Whether requests to `path` end by a deadline of their own, which may be later than that of
/// other requests.
pub(super) fn has_own_deadline(path: &str) -> bool {
    [CLEAR, PIN, COMPRESS, DECOMPRESS, MOVE, HEALTH].contains(&path)
}

async fn clear(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let at = position(&mut fields);
    run(&shared, options, fields.finish(Command::Clear { at })?).await
}

async fn pin(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let (at, tokens) = (position(&mut fields), fields.ints("tokens"));
    run(
        &shared,
        options,
        fields.finish(Command::Pin { at, tokens })?,
    )
    .await
}

async fn compress(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let command = Command::Compress {
        at: position(&mut fields),
        method: fields.text("method"),
        tokens: tokens(&mut fields),
    };
    run(&shared, options, fields.finish(command)?).await
}

async fn decompress(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let command = Command::Decompress {
        at: position(&mut fields),
        method: fields.text("method"),
        tokens: tokens(&mut fields),
    };
    run(&shared, options, fields.finish(command)?).await
}

async fn move_chunks(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let mut pair = |name| {
        let (instance, location) = fields.text_pair(name);
        Position {
            instance: instance.into(),
            location: location.into(),
        }
    };
    let command = Command::Move {
        from: pair("old_position"),
        to: pair("new_position"),
        tokens: tokens(&mut fields),
        copy: fields.optional_bool("should_copy").unwrap_or(false),
    };
    run(&shared, options, fields.finish(command)?).await
}

async fn health(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let instance = fields.text("instance_id").into();
    let command = fields.finish(Command::Health { instance })?;
    run(&shared, options, command).await
}

/// An answer or an error in upstream's shape.
type Answer = Result<Response, ApiError>;

fn position(fields: &mut Fields) -> Position {
    Position {
        instance: fields.text("instance_id").into(),
        location: fields.text("location").into(),
    }
}

/// Upstream's default is the empty list, and null is passed on: to its workers they differ.
fn tokens(fields: &mut Fields) -> Option<Vec<i64>> {
    if fields.has("tokens") {
        fields.optional_ints("tokens")
    } else {
        Some(Vec::new())
    }
}

/// What every command may be told besides its body.
struct Options {
    wait: bool,
    timeout: Option<Duration>,
}

/// The body, within the time any request has for it, and the options.
async fn read(shared: &AppState, request: Request) -> Result<(Fields, Options), ApiError> {
    let mut query = Query::read(request.uri().query());
    let options = Options {
        wait: query.optional_flag("wait").unwrap_or(true),
        timeout: query.seconds("timeout_s", MAX_TIMEOUT),
    };
    query.finish()?;
    let limit = shared.config.request_timeout_s;
    let body = tokio::time::timeout(limit, Body::from_request(request, shared))
        .await
        .map_err(|_| {
            let detail = format!("no body within {} s", limit.as_secs_f64());
            ApiError::Detail(StatusCode::REQUEST_TIMEOUT, detail)
        })??;
    // The body is not kept: large ones take turns, and a command may take an hour.
    Ok((Fields::read(&body.bytes)?, options))
}

/// Starts `command` and, unless told not to, waits for its end.
async fn run(shared: &AppState, options: Options, command: Command) -> Answer {
    let Options { wait, timeout } = options;
    let kind = command.kind();
    let timeout = timeout.unwrap_or(match kind {
        CommandKind::Health => shared.config.health_timeout_s,
        _ => shared.config.command_timeout_s,
    });
    let id = EventId::from(event_id(prefix(kind)));
    let Started { id, outcome } = match dispatch::start(shared, command, id.clone(), timeout).await
    {
        Ok(started) => started,
        // Upstream's dashboard asks for the health of instances that may be gone.
        Err(StartError::Plan(PlanError::UnknownInstance(_))) if kind == CommandKind::Health => {
            return Ok(done(&id, &Outcome::Health(BTreeMap::new())));
        }
        Err(refusal) => return Err(refused(&refusal)),
    };
    if !wait {
        let body = Json(json!({ "event_id": id.as_str(), "status": "running" }));
        return Ok((StatusCode::ACCEPTED, body).into_response());
    }
    match outcome.await {
        Ok(outcome) => Ok(done(&id, &outcome)),
        // The runtime is going away under us.
        Err(_) => Err(ApiError::Detail(
            StatusCode::SERVICE_UNAVAILABLE,
            StepError::Stopping.to_string(),
        )),
    }
}

/// Upstream's prefix of event ids; health alone is lower case.
fn prefix(kind: CommandKind) -> &'static str {
    match kind {
        CommandKind::Clear => "Clear",
        CommandKind::Pin => "Pin",
        CommandKind::Compress => "Compress",
        CommandKind::Decompress => "Decompress",
        CommandKind::Move => "Move",
        CommandKind::Health => "health",
    }
}

fn refused(refusal: &StartError) -> ApiError {
    let status = match refusal {
        StartError::Plan(PlanError::UnknownInstance(_)) => StatusCode::NOT_FOUND,
        StartError::Plan(PlanError::RanksDiffer { .. } | PlanError::PeerTransferOff { .. }) => {
            StatusCode::CONFLICT
        }
        StartError::Refused(_) | StartError::TableFull(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    ApiError::Detail(status, refusal.to_string())
}

/// The end of a command. A failure's body carries the event id beside upstream's `detail`, and for
/// health the codes of those that answered.
fn done(id: &EventId, outcome: &Outcome) -> Response {
    let id = id.as_str();
    let status = match outcome {
        Outcome::Tokens(num_tokens) => {
            return Json(json!({ "event_id": id, "num_tokens": num_tokens })).into_response();
        }
        Outcome::Health(codes) => {
            let codes = error_codes(codes.iter().map(|(rank, code)| (*rank, *code)));
            return Json(json!({ "event_id": id, "error_codes": codes })).into_response();
        }
        _ if outcome.is_silence() => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    let mut body = json!({ "detail": outcome.to_string(), "event_id": id });
    if let Outcome::Failed { obeyed, .. } = outcome
        && let Some(codes) = partial_codes(obeyed)
    {
        body["error_codes"] = codes;
    }
    (status, Json(body)).into_response()
}

fn partial_codes(obeyed: &[(WorkerKey, StepValue)]) -> Option<Value> {
    let codes: Vec<_> = obeyed
        .iter()
        .filter_map(|(worker, value)| match value {
            StepValue::Health(code) => Some((worker.worker, *code)),
            StepValue::Tokens(_) => None,
        })
        .collect();
    (!codes.is_empty()).then(|| error_codes(codes.into_iter()))
}

/// JSON has no int keys.
fn error_codes(codes: impl Iterator<Item = (WorkerId, i64)>) -> Value {
    codes
        .map(|(rank, code)| (rank.to_string(), Value::from(code)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
