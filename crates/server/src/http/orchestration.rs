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

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kvatlas_controller::events::EventId;
use kvatlas_controller::plan::{
    Command, CommandKind, Outcome, PlanError, Position, StepError, StepValue,
};
use kvatlas_protocol::WorkerKey;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::api::Api;
use super::api::operation::{JSON, Operation, Parameter};
use super::body::Body;
use super::error::ApiError;
use super::event_id;
use super::field::{Ints, Truth};
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
pub fn routes() -> Api {
    let at = json!({ "instance_id": "demo-1", "location": "LocalCPUBackend" });
    let with = |name: &str, value: Value| {
        let mut body = at.clone();
        body[name] = value;
        body
    };
    let coded = with("method", "cachegen".into());
    let moved = json!({
        "old_position": ["demo-1", "LocalCPUBackend"],
        "new_position": ["demo-2", "LocalCPUBackend"],
        "tokens": [1, 2, 3],
        "should_copy": true,
    });
    let clear_operation = on_tokens(CommandKind::Clear, "Throw away everything in a location")
        .takes::<PositionBody>([at.clone()]);
    let pin_operation = on_tokens(
        CommandKind::Pin,
        "Keep the chunks of a prompt from eviction",
    )
    .takes::<PinBody>([with("tokens", json!([1, 2, 3]))]);
    let compress_operation = on_tokens(CommandKind::Compress, "Compress chunks in place")
        .takes::<CodeBody>([coded.clone()]);
    let decompress_operation =
        on_tokens(CommandKind::Decompress, "Decompress chunks in place").takes::<CodeBody>([coded]);
    let move_operation = on_tokens(CommandKind::Move, "Move or copy chunks to another instance")
        .takes::<MoveBody>([moved])
        .refuses(
            StatusCode::CONFLICT,
            "The instances have other ranks than each other, or peer transfer is off.",
            "worker 0 of demo-2 has no peer_init_url: turn on enable_p2p",
        );
    let health_operation = command(CommandKind::Health, "Ask every worker of an instance whether it is well")
        .about("Codes by rank: 0 well, -1001 worker error, -1002 unexpected answer, -1003 unreadable answer. An unknown instance has no codes.")
        .takes::<InstanceBody>([json!({ "instance_id": "demo-1" })])
        .gives::<Codes>(
            "the codes",
            json!({
                "event_id": "healtha09c4ec0-22ad-4c6a-b7ff-b12705d4cadd",
                "error_codes": { "0": 0, "1": 0 },
            }),
        );
    Api::new("Commands")
        .post(CLEAR, clear, clear_operation)
        .post(PIN, pin, pin_operation)
        .post(COMPRESS, compress, compress_operation)
        .post(DECOMPRESS, decompress, decompress_operation)
        .post(MOVE, move_chunks, move_operation)
        .post(HEALTH, health, health_operation)
}

/// What is said of every command.
fn command(kind: CommandKind, summary: &'static str) -> Operation {
    let failed = |error: &str| {
        json!({
            "detail": error,
            "event_id": format!("{}658594ab-f533-40e7-812c-4a6ff0a9534d", prefix(kind)),
        })
    };
    Operation::new(dispatch::name::command(kind), summary)
        .parameter(Parameter::flag("wait", true, "Whether to answer when it has ended, or at once with the event id."))
        .parameter(Parameter::seconds("timeout_s", MAX_TIMEOUT, "Seconds the workers have; configured by `command_timeout_s` and `health_timeout_s`."))
        .answers::<Running>(
            StatusCode::ACCEPTED,
            "With `wait=false`: what becomes of it is at GET /events/{id}.",
            JSON,
            json!({ "event_id": format!("{}658594ab-f533-40e7-812c-4a6ff0a9534d", prefix(kind)), "status": "running" }),
        )
        .answers::<Failure>(
            StatusCode::BAD_GATEWAY,
            "A worker answered with an error, or workers disagree.",
            JSON,
            failed("worker demo-1:0: location is not known"),
        )
        .refuses(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many commands at once, or the process is stopping.",
            "16 commands wait for worker demo-1:0 already",
        )
        .answers::<Failure>(
            StatusCode::GATEWAY_TIMEOUT,
            "A worker did not answer in time; the next command to it works.",
            JSON,
            failed("worker demo-1:0 did not answer within 60 s"),
        )
}

/// What is said of those that act on tokens.
fn on_tokens(kind: CommandKind, summary: &'static str) -> Operation {
    command(kind, summary)
        .gives::<Done>(
            "how many tokens it was done to",
            json!({ "event_id": format!("{}658594ab-f533-40e7-812c-4a6ff0a9534d", prefix(kind)), "num_tokens": 1024 }),
        )
        .refuses(
            StatusCode::NOT_FOUND,
            "No worker of that instance is registered.",
            "instance nobody has no registered worker",
        )
}

/// A location of an instance.
#[derive(JsonSchema)]
struct PositionBody {
    instance_id: String,
    /// Storage backend, such as LocalCPUBackend.
    location: String,
}

/// What to pin.
#[derive(JsonSchema)]
struct PinBody {
    #[schemars(flatten)]
    at: PositionBody,
    tokens: Ints,
}

/// What to compress or decompress.
#[derive(JsonSchema)]
struct CodeBody {
    #[schemars(flatten)]
    at: PositionBody,
    /// How, such as cachegen.
    method: String,
    /// Whose chunks; everything where it is absent.
    #[schemars(with = "Option<Ints>")]
    tokens: Tokens,
}

/// From where to where.
#[derive(JsonSchema)]
struct MoveBody {
    /// Instance and location.
    old_position: (String, String),
    /// Instance and location.
    new_position: (String, String),
    /// Whose chunks; everything where it is absent.
    #[schemars(with = "Option<Ints>")]
    tokens: Tokens,
    /// Whether the old copies stay.
    #[schemars(with = "Option<Truth>")]
    should_copy: Truth,
}

/// Whom to ask.
#[derive(JsonSchema)]
struct InstanceBody {
    instance_id: String,
}

/// A command that has ended well.
#[derive(Serialize, JsonSchema)]
struct Done<'a> {
    event_id: &'a str,
    num_tokens: i64,
}

/// What the workers say of their health.
#[derive(Serialize, JsonSchema)]
struct Codes<'a> {
    event_id: &'a str,
    /// By rank: JSON has no int keys.
    error_codes: BTreeMap<String, i64>,
}

/// A command that goes on.
#[derive(Serialize, JsonSchema)]
struct Running<'a> {
    event_id: &'a str,
    status: &'static str,
}

/// A command that has failed: upstream's `detail`, and what became of each worker is at its event.
#[derive(Serialize, JsonSchema)]
struct Failure<'a> {
    detail: String,
    event_id: &'a str,
    /// Of a health question: the codes of those that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_codes: Option<BTreeMap<String, i64>>,
}

/// Whether requests to `path` end by a deadline of their own, which may be later than that of
/// other requests.
pub(super) fn has_own_deadline(path: &str) -> bool {
    [CLEAR, PIN, COMPRESS, DECOMPRESS, MOVE, HEALTH].contains(&path)
}

async fn clear(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let at = PositionBody::read(&mut fields).into();
    run(&shared, options, fields.finish(Command::Clear { at })?).await
}

async fn pin(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let PinBody { at, tokens } = PinBody {
        at: PositionBody::read(&mut fields),
        tokens: fields.take("tokens"),
    };
    let (at, tokens) = (at.into(), tokens.0);
    let command = fields.finish(Command::Pin { at, tokens })?;
    run(&shared, options, command).await
}

async fn compress(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let CodeBody { at, method, tokens } = CodeBody::read(&mut fields);
    let command = Command::Compress {
        at: at.into(),
        method,
        tokens: tokens.0,
    };
    run(&shared, options, fields.finish(command)?).await
}

async fn decompress(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let CodeBody { at, method, tokens } = CodeBody::read(&mut fields);
    let command = Command::Decompress {
        at: at.into(),
        method,
        tokens: tokens.0,
    };
    run(&shared, options, fields.finish(command)?).await
}

async fn move_chunks(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let body = MoveBody {
        old_position: fields.take("old_position"),
        new_position: fields.take("new_position"),
        tokens: Tokens::take(&mut fields, "tokens"),
        should_copy: fields.take("should_copy"),
    };
    let MoveBody {
        old_position,
        new_position,
        tokens,
        should_copy,
    } = fields.finish(body)?;
    let position = |(instance, location): (String, String)| Position {
        instance: instance.into(),
        location: location.into(),
    };
    let command = Command::Move {
        from: position(old_position),
        to: position(new_position),
        tokens: tokens.0,
        copy: should_copy.0,
    };
    run(&shared, options, command).await
}

async fn health(State(shared): State<AppState>, request: Request) -> Answer {
    let (mut fields, options) = read(&shared, request).await?;
    let body = InstanceBody {
        instance_id: fields.take("instance_id"),
    };
    let InstanceBody { instance_id } = fields.finish(body)?;
    let instance = instance_id.into();
    run(&shared, options, Command::Health { instance }).await
}

/// An answer or an error in upstream's shape.
type Answer = Result<Response, ApiError>;

impl PositionBody {
    fn read(fields: &mut Fields) -> Self {
        Self {
            instance_id: fields.take("instance_id"),
            location: fields.take("location"),
        }
    }
}

impl From<PositionBody> for Position {
    fn from(body: PositionBody) -> Self {
        let PositionBody {
            instance_id,
            location,
        } = body;
        Self {
            instance: instance_id.into(),
            location: location.into(),
        }
    }
}

impl CodeBody {
    fn read(fields: &mut Fields) -> Self {
        Self {
            at: PositionBody::read(fields),
            method: fields.take("method"),
            tokens: Tokens::take(fields, "tokens"),
        }
    }
}

/// Tokens of a command. Upstream's default is the empty list, and null is passed on: to its workers
/// they differ.
struct Tokens(Option<Vec<i64>>);

impl Tokens {
    fn take(fields: &mut Fields, name: &str) -> Self {
        if fields.has(name) {
            let given: Option<Ints> = fields.take(name);
            Self(given.map(|ints| ints.0))
        } else {
            Self(Some(Vec::new()))
        }
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
        let body = Json(Running {
            event_id: id.as_str(),
            status: "running",
        });
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
    let event_id = id.as_str();
    let status = match outcome {
        Outcome::Tokens(num_tokens) => {
            let num_tokens = *num_tokens;
            return Json(Done {
                event_id,
                num_tokens,
            })
            .into_response();
        }
        Outcome::Health(codes) => {
            let codes = codes.iter().map(|(rank, code)| (rank.to_string(), *code));
            return Json(Codes {
                event_id,
                error_codes: codes.collect(),
            })
            .into_response();
        }
        _ if outcome.is_silence() => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    let error_codes = match outcome {
        Outcome::Failed { obeyed, .. } => partial_codes(obeyed),
        _ => None,
    };
    let body = Failure {
        detail: outcome.to_string(),
        event_id,
        error_codes,
    };
    (status, Json(body)).into_response()
}

fn partial_codes(obeyed: &[(WorkerKey, StepValue)]) -> Option<BTreeMap<String, i64>> {
    let codes: BTreeMap<_, _> = obeyed
        .iter()
        .filter_map(|(worker, value)| match value {
            StepValue::Health(code) => Some((worker.worker.to_string(), *code)),
            StepValue::Tokens(_) => None,
        })
        .collect();
    (!codes.is_empty()).then_some(codes)
}
