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

use std::borrow::Cow;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use kvatlas_controller::scheme::PromptMatch;
use kvatlas_protocol::ChunkHash;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::json;

use super::api::Api;
use super::api::operation::{BYTES, Operation};
use super::body::Body;
use super::error::ApiError;
use super::field::{Hashes, Ints};
use super::fields::Fields;
use super::{event_id, tokens};
use crate::app::{AppState, Shared};

/// Bodies above this size, in bytes, leave the async threads: about 20,000 tokens, half a
/// millisecond of work.
const SLOW_BODY: usize = 128 * 1024;

/// Routes of this file.
pub fn routes() -> Api {
    let operation = Operation::new("lookup", "What every instance holds of a prompt")
        .about("For each instance the location of its last chunk and the tokens it holds from the start, most first. Empty where nobody holds the first chunk; POST /diagnose says why. Raw tokens (`application/octet-stream`, little-endian u32) cost least.")
        .takes::<LookupBody>([json!({ "tokens": [1, 2, 3] }), json!({ "hashes": [-5_230_478_012_i64, 8123] })])
        .takes_as::<RawTokens>(BYTES)
        .gives::<LookupAnswer>(
            "what each instance holds",
            json!({
                "event_id": "Lookup53825e29-9d49-49ae-b512-ea1d3213eab7",
                "layout_info": { "demo-1": ["LocalCPUBackend", 1024], "demo-2": ["LocalDiskBackend", 512] },
            }),
        )
        .refuses(StatusCode::SERVICE_UNAVAILABLE, "The process is stopping.", "stopping");
    Api::new("Lookup").post("/lookup", lookup, operation)
}

/// Tokens, or chunk hashes where there are no tokens.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "read one by one, to leave plain bodies to a faster reader"
)]
enum LookupBody {
    Tokens(TokensBody),
    Hashes(HashesBody),
}

/// A prompt.
#[derive(JsonSchema)]
pub(super) struct TokensBody {
    tokens: Ints,
}

/// The chunks of a prompt; tokens are counted in chunks of the fleet's size.
#[derive(JsonSchema)]
#[schemars(extend("not" = { "required": ["tokens"] }))]
struct HashesBody {
    hashes: Hashes,
}

/// Tokens as little-endian u32.
pub(super) struct RawTokens;

impl JsonSchema for RawTokens {
    fn schema_name() -> Cow<'static, str> {
        "RawTokens".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "binary",
            "description": "Tokens as little-endian u32, four bytes each.",
        })
    }
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
            Err(_) => Err(ApiError::stopping()),
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
    let is_hit = !credits.is_empty();
    let answer = LookupAnswer {
        event_id: event_id("Lookup"),
        layout_info: Layout(credits),
    };
    let text = serde_json::to_vec(&answer)
        .map_err(|error| ApiError::Detail(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    shared.metrics.lookup(is_hit, start.elapsed());
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
            let HashesBody { hashes } = HashesBody {
                hashes: fields.take("hashes"),
            };
            return fields.finish(Prompt::Hashes(hashes.0));
        }
        let TokensBody { tokens } = TokensBody {
            tokens: fields.take("tokens"),
        };
        fields.finish(tokens.0)?
    };
    if tokens.len() > limit {
        return Err(ApiError::Detail(
            StatusCode::PAYLOAD_TOO_LARGE,
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

#[derive(Serialize, JsonSchema)]
struct LookupAnswer {
    event_id: String,
    layout_info: Layout,
}

/// Renders credits as `{instance: [location, tokens]}`, in their order.
pub(super) struct Layout(pub(super) Vec<PromptMatch>);

impl JsonSchema for Layout {
    fn schema_name() -> Cow<'static, str> {
        "Layout".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<(String, usize)>(),
            "description": "For each instance the location of its last chunk and the tokens it holds from the start, most first.",
        })
    }
}

impl Serialize for Layout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for credit in &self.0 {
            let value = (credit.found.location.as_str(), credit.tokens);
            map.serialize_entry(credit.found.instance.as_str(), &value)?;
        }
        map.end()
    }
}
