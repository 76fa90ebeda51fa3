//! POST /lookup: what every instance holds of a prompt.
//!
//! ```text
//! {"tokens": [int, ...]}                 upstream's form
//! application/octet-stream               tokens as little-endian u32
//! {"hashes": [int, ...]}                 chunk hashes, first chunk first; tokens are counted in
//!                                        chunks of the fleet's size
//! ```
//! A long prompt is parsed and hashed on a blocking thread, so that a short one never waits for it.
//!
//! Upstream: `lmcache/v1/api_server/__main__.py`, `controllers/kv_controller.py` (`lookup`).

use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use kvatlas_controller::scheme::PromptMatch;
use kvatlas_protocol::ChunkHash;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::body::Body;
use super::error::ApiError;
use super::fields::Fields;
use super::{event_id, tokens};
use crate::app::{AppState, Shared};

/// Bodies above this size, in bytes, leave the async threads: about 20,000 tokens, half a
/// millisecond of work.
const SLOW_BODY: usize = 128 * 1024;

/// Routes of this file.
pub fn routes() -> Router<AppState> {
    Router::new().route("/lookup", post(lookup))
}

/// What a lookup asks about.
pub(super) enum Prompt {
    /// Its tokens.
    Tokens(Vec<i64>),
    /// Its chunk hashes.
    Hashes(Vec<ChunkHash>),
}

async fn lookup(State(state): State<AppState>, body: Body) -> Result<Response, ApiError> {
    if body.bytes.len() <= SLOW_BODY {
        return answer(&state, &body);
    }
    let work = tokio::task::spawn_blocking(move || answer(&state, &body));
    match work.await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            // The guard around all handlers turns it into an answer.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApiError::Detail(
                axum::http::StatusCode::SERVICE_UNAVAILABLE,
                "stopping".into(),
            )),
        },
    }
}

fn answer(shared: &Shared, body: &Body) -> Result<Response, ApiError> {
    let start = Instant::now();
    let credits = match prompt(shared, body)? {
        Prompt::Tokens(tokens) => {
            let now = shared.clock.now();
            shared.controller.lookup_tokens(&tokens, now)
        }
        Prompt::Hashes(hashes) => by_hashes(shared, &hashes),
    };
    let answer = Answer {
        event_id: event_id("Lookup"),
        layout_info: Layout(&credits),
    };
    let text = serde_json::to_vec(&answer).map_err(|error| {
        ApiError::Detail(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )
    })?;
    shared.metrics.lookup(!credits.is_empty(), start.elapsed());
    Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
}

/// Reads the prompt of a lookup or a diagnosis.
pub(super) fn prompt(shared: &Shared, body: &Body) -> Result<Prompt, ApiError> {
    let limit = shared.config.max_tokens.0;
    let tokens = if body.is_binary {
        tokens::from_bytes(&body.bytes)?
    } else if let Some(tokens) = tokens::from_plain_json(&body.bytes) {
        tokens
    } else {
        let mut fields = Fields::read(&body.bytes)?;
        if fields.has("hashes") && !fields.has("tokens") {
            let hashes = fields.hashes("hashes");
            return fields.finish(()).map(|()| Prompt::Hashes(hashes));
        }
        let tokens = fields.ints("tokens");
        fields.finish(tokens)?
    };
    if tokens.len() > limit {
        return Err(ApiError::Detail(
            axum::http::StatusCode::PAYLOAD_TOO_LARGE,
            format!("more than {limit} tokens; raise max_tokens"),
        ));
    }
    Ok(Prompt::Tokens(tokens))
}

fn by_hashes(shared: &Shared, hashes: &[ChunkHash]) -> Vec<PromptMatch> {
    let chunk_size = shared.controller.likely_chunk_size().get();
    let matches = shared.controller.lookup(hashes.iter().copied());
    let credits = matches.into_iter().map(|found| PromptMatch {
        tokens: found.chunks.saturating_mul(chunk_size),
        found,
    });
    credits.collect()
}

#[derive(Serialize)]
struct Answer<'a> {
    event_id: String,
    layout_info: Layout<'a>,
}

/// Renders credits as `{instance: [location, tokens]}`, in their order.
pub(super) struct Layout<'a>(pub(super) &'a [PromptMatch]);

impl Serialize for Layout<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for credit in self.0 {
            let value = (credit.found.location.as_str(), credit.tokens);
            map.serialize_entry(credit.found.instance.as_str(), &value)?;
        }
        map.end()
    }
}
