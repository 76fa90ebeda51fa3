//! Events of commands that are still running or have finished.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use kvatlas_controller::events::{Event, EventState, Filter, StepRecord, StepState};
use kvatlas_controller::plan::StepValue;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::api::Api;
use super::api::operation::{Operation, Parameter};
use super::body::Body;
use super::error::ApiError;
use super::fields::Fields;
use super::query::{LastSegment, Query};
use crate::app::AppState;
use crate::dispatch::name;

/// Events listed when nobody says how many.
const DEFAULT_LIMIT: usize = 100;

/// Most events one answer lists; a few megabytes.
const MAX_LIMIT: usize = 10_000;

/// States that can be asked for.
const STATES: [EventState; 4] = [
    EventState::Running,
    EventState::Finished,
    EventState::Failed,
    EventState::Partial,
];

/// Routes of this file.
pub fn routes() -> Api {
    let unknown = |operation: Operation| {
        let detail = "no event \"nothing\": never started, refused, or finished so long ago that others took its place";
        operation.refuses(StatusCode::NOT_FOUND, "No such event.", detail)
    };
    let check = Operation::new("check_finish", "What became of a command")
        .takes::<CheckBody>([json!({ "event_id": "Pin658594ab-f533-40e7-812c-4a6ff0a9534d" })])
        .gives::<Status>("its state", json!({ "status": "finished" }));
    let list = Operation::new("events", "Commands under way and finished, newest first")
        .parameter(Parameter::choice(
            "state",
            STATES.map(name::state),
            "In this state only.",
        ))
        .parameter(Parameter::text("instance_id", "Of this instance only.").example("demo-1"))
        .parameter(Parameter::count(
            "limit",
            MAX_LIMIT,
            DEFAULT_LIMIT,
            "Most events listed.",
        ))
        .gives::<EventsView>(
            "the events",
            json!({ "events": [event_example()], "running_count": 0 }),
        );
    let one = Operation::new("event", "One command, with what every worker did")
        .parameter(Parameter::path("id", "Its event id."))
        .gives::<EventView>("the event", event_example());
    Api::new("Commands")
        .post("/check_finish", check_finish, unknown(check))
        .get("/events", events, list)
        .get("/events/{id}", event, unknown(one))
}

fn event_example() -> Value {
    json!({
        "event_id": "healtha09c4ec0-22ad-4c6a-b7ff-b12705d4cadd",
        "command": "health",
        "instance_id": "demo-1",
        "state": "finished",
        "num_tokens": null,
        "error": null,
        "started_at": 1_795_374_890.953_506,
        "finished_at": 1_795_374_890.954_654,
        "duration": 0.001_148,
        "steps": [{
            "worker": "demo-1:0",
            "instance_id": "demo-1",
            "worker_id": 0,
            "state": "finished",
            "num_tokens": null,
            "error_code": 0,
            "error": null,
            "duration": 0.000_649_897,
        }],
    })
}

/// Which event.
#[derive(JsonSchema)]
struct CheckBody {
    event_id: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventStatus")]
struct Status {
    #[schemars(extend("enum" = STATES.map(name::state)))]
    status: &'static str,
}

/// Upstream names this endpoint and never implemented it.
async fn check_finish(
    State(shared): State<AppState>,
    body: Body,
) -> Result<Json<Status>, ApiError> {
    let mut fields = Fields::read(&body.bytes)?;
    let body = CheckBody {
        event_id: fields.take("event_id"),
    };
    let CheckBody { event_id: id } = fields.finish(body)?;
    let event = shared.dispatch.event(&id).ok_or_else(|| unknown(&id))?;
    Ok(Json(Status {
        status: name::state(event.state),
    }))
}

async fn event(
    State(shared): State<AppState>,
    LastSegment(id): LastSegment,
) -> Result<Json<EventView>, ApiError> {
    let event = shared.dispatch.event(&id).ok_or_else(|| unknown(&id))?;
    Ok(Json(EventView::from(event)))
}

async fn events(
    State(shared): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<EventsView>, ApiError> {
    let mut query = Query::read(query.as_deref());
    let filter = Filter {
        state: query.choice("state", &STATES.map(|state| (name::state(state), state))),
        instance: query.text("instance_id").map(Into::into),
        limit: query.count("limit", MAX_LIMIT).unwrap_or(DEFAULT_LIMIT),
    };
    query.finish()?;
    let events = shared.dispatch.events(&filter);
    Ok(Json(EventsView {
        events: events.into_iter().map(EventView::from).collect(),
        running_count: shared.dispatch.n_running(),
    }))
}

fn unknown(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::not_found(format!(
        "no event {id:?}: never started, refused, or finished so long ago that others took its place"
    ))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Events")]
struct EventsView {
    events: Vec<EventView>,
    running_count: usize,
}

/// A command.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Event")]
struct EventView {
    event_id: String,
    #[schemars(extend("enum" = ["clear", "pin", "compress", "decompress", "move", "health"]))]
    command: &'static str,
    instance_id: String,
    /// Only of a move.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_instance_id: Option<String>,
    #[schemars(extend("enum" = STATES.map(name::state)))]
    state: &'static str,
    num_tokens: Option<i64>,
    error: Option<String>,
    /// Seconds since the epoch.
    started_at: f64,
    finished_at: Option<f64>,
    /// Seconds.
    duration: Option<f64>,
    steps: Vec<StepView>,
}

/// What one worker did.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Step")]
struct StepView {
    worker: String,
    instance_id: String,
    worker_id: i64,
    #[schemars(extend("enum" = ["running", "finished", "failed"]))]
    state: &'static str,
    num_tokens: Option<i64>,
    /// Only of a health question.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<i64>,
    error: Option<String>,
    /// Seconds.
    duration: Option<f64>,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        let Event {
            id,
            kind,
            instance,
            target,
            state,
            steps,
            num_tokens,
            error,
            started_at,
            finished_at,
        } = event;
        Self {
            event_id: id.to_string(),
            command: name::command(kind),
            instance_id: instance.to_string(),
            target_instance_id: target.map(|target| target.to_string()),
            state: name::state(state),
            num_tokens,
            error,
            started_at: started_at.as_secs_f64(),
            finished_at: finished_at.map(|at| at.as_secs_f64()),
            duration: finished_at.map(|at| at.since(started_at).as_secs_f64()),
            steps: steps.into_iter().map(StepView::from).collect(),
        }
    }
}

impl From<StepRecord> for StepView {
    fn from(record: StepRecord) -> Self {
        let StepRecord { worker, state } = record;
        let mut view = Self {
            worker: worker.to_string(),
            instance_id: worker.instance.to_string(),
            worker_id: worker.worker.0,
            state: "running",
            num_tokens: None,
            error_code: None,
            error: None,
            duration: None,
        };
        match state {
            StepState::Running => {}
            StepState::Finished { value, took } => {
                view.state = "finished";
                view.duration = Some(took.as_secs_f64());
                match value {
                    StepValue::Tokens(number) => view.num_tokens = Some(number),
                    StepValue::Health(code) => view.error_code = Some(code),
                }
            }
            StepState::Failed { error, took } => {
                view.state = "failed";
                view.duration = Some(took.as_secs_f64());
                view.error = Some(error);
            }
        }
        view
    }
}
