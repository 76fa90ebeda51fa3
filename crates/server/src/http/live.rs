//! GET /live: the fleet and the counters once a second, as server-sent events.
//!
//! ```text
//! event: history   {"bounds":[s, ..], "samples":[{..}, ..]}   once, at the beginning
//! event: sample    {"at":.., "workers":.., "keys":.., ..}     every second
//! ```
//! A stream ends when the process stops. At most [`MAX_STREAMS`] at a time.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::api::Api;
use super::api::operation::Operation;
use super::error::ApiError;
use crate::app::AppState;
use crate::history::Sample;
use crate::metrics::counts::LATENCY_BOUNDS;

/// Pages that may watch at the same time.
const MAX_STREAMS: usize = 128;
static STREAMS: Semaphore = Semaphore::const_new(MAX_STREAMS);

/// Time between two samples.
const TICK: Duration = Duration::from_secs(1);

/// Routes of this file.
pub fn routes() -> Api {
    let operation = Operation::new("live", "The fleet and the counters once a second")
        .about("Server-sent events: `history` once, with the last hour and the bounds of the latency counts in seconds; then `sample` every second. The stream has no end.")
        .answers::<LiveEvent>(
            StatusCode::OK,
            "the stream; the schema is that of one event",
            "text/event-stream",
            "event: sample\ndata: {\"at\":1795374888.8,\"instances\":2,\"workers\":4,\"keys\":1824}\n\n".into(),
        )
        .refuses(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many pages are watching.",
            "128 pages are watching already; close one",
        );
    Api::new("Page").get("/live", live, operation)
}

/// The last hour.
#[derive(Serialize, JsonSchema)]
struct History {
    /// Bounds of the latency counts, in seconds.
    bounds: [f64; LATENCY_BOUNDS.len()],
    /// Oldest first.
    samples: Vec<Sample>,
}

/// One event of the stream: `data` is a History or a Sample as JSON.
struct LiveEvent;

impl JsonSchema for LiveEvent {
    fn schema_name() -> Cow<'static, str> {
        "LiveEvent".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let forms = [
            generator.subschema_for::<History>(),
            generator.subschema_for::<Sample>(),
        ];
        json_schema!({
            "type": "object",
            "properties": {
                "event": { "type": "string", "enum": ["history", "sample"] },
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": { "anyOf": forms },
                },
            },
            "required": ["event", "data"],
        })
    }
}

struct Watch {
    state: AppState,
    ticks: Interval,
    begun: bool,
    _place: SemaphorePermit<'static>,
}

async fn live(
    State(state): State<AppState>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let place = STREAMS.try_acquire().map_err(|_| {
        ApiError::Detail(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MAX_STREAMS} pages are watching already; close one"),
        )
    })?;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = Watch {
        state,
        ticks,
        begun: false,
        _place: place,
    };
    let stream = unfold(watch, |mut watch| async move {
        let event = if watch.begun {
            watch.ticks.tick().await;
            if !watch.state.ready.load(Ordering::Relaxed) {
                return None;
            }
            let sample = Sample::take(&watch.state, watch.state.clock.now());
            Event::default()
                .event("sample")
                .data(json!(sample).to_string())
        } else {
            watch.begun = true;
            let samples = watch.state.history.samples();
            let history = History {
                bounds: LATENCY_BOUNDS,
                samples,
            };
            Event::default()
                .event("history")
                .data(json!(history).to_string())
        };
        Some((Ok(event), watch))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}
