//! Events of commands that are still running or have finished.

use axum::extract::{Path, RawQuery, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use kvatlas_controller::events::{Event, EventState, Filter, StepRecord, StepState};
use kvatlas_controller::plan::StepValue;
use serde::Serialize;
use serde_json::{Value, json};

use super::body::Body;
use super::error::ApiError;
use super::fields::Fields;
use super::query::Query;
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
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/check_finish", post(check_finish))
        .route("/events", get(events))
        .route("/events/{id}", get(event))
}

/// Upstream names this endpoint and never implemented it.
async fn check_finish(State(shared): State<AppState>, body: Body) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::read(&body.bytes)?;
    let id = fields.text("event_id");
    let id = fields.finish(id)?;
    let event = shared.dispatch.event(&id).ok_or_else(|| unknown(&id))?;
    Ok(Json(json!({ "status": name::state(event.state) })))
}

async fn event(
    State(shared): State<AppState>,
    Path(id): Path<String>,
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

#[derive(Serialize)]
struct EventsView {
    events: Vec<EventView>,
    running_count: usize,
}

#[derive(Serialize)]
struct EventView {
    event_id: String,
    command: &'static str,
    instance_id: String,
    /// Only of a move.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_instance_id: Option<String>,
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

#[derive(Serialize)]
struct StepView {
    worker: String,
    instance_id: String,
    worker_id: i64,
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
