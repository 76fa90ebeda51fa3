//! POST /lookup/chunks: for people, every chunk of a prompt with everyone who holds it, also behind
//! a gap, where a lookup stops.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kvatlas_controller::chunk_map::ChunkHolder;
use kvatlas_protocol::ChunkHash;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::api::Api;
use super::api::operation::{BYTES, Operation};
use super::body::Body;
use super::error::ApiError;
use super::lookup::{Layout, Prompt, RawTokens, TokensBody, prompt};
use crate::app::{AppState, Shared};

/// Chunks a picture shows at most.
const MAX_CHUNKS: usize = 4096;

const NEEDS_TOKENS: &str = "a picture needs tokens: hashes do not say how they were made";

/// Routes of this file.
pub fn routes() -> Api {
    let operation = Operation::new("lookup_chunks", "Every chunk of a prompt, and who holds it")
        .about("Also chunks behind a gap, where a lookup stops. At most 4,096 chunks are shown.")
        .takes::<TokensBody>([json!({ "tokens": [1, 2, 3] })])
        .takes_as::<RawTokens>(BYTES)
        .gives::<Picture>(
            "the chunks",
            json!({
                "scheme": "builtin, root none, chunk size 256",
                "chunk_size": 256,
                "n_tokens": 300,
                "n_chunks": 2,
                "shown_chunks": 2,
                "hashes": ["5d3d1ac53a0e66f1", "94c9d3a5b2ea2b53"],
                "instances": [{
                    "instance_id": "demo-1",
                    "prefix_tokens": 256,
                    "chunks": [[[0, "LocalCPUBackend"], [1, "LocalCPUBackend"]], null],
                }],
                "layout_info": { "demo-1": ["LocalCPUBackend", 256] },
            }),
        )
        .refuses(
            StatusCode::BAD_REQUEST,
            "Hashes came, not tokens.",
            NEEDS_TOKENS,
        )
        .refuses(
            StatusCode::SERVICE_UNAVAILABLE,
            "The process is stopping.",
            "stopping",
        );
    Api::new("Lookup").post("/lookup/chunks", chunks, operation)
}

/// The chunks of a prompt and their holders.
#[derive(Serialize, JsonSchema)]
struct Picture {
    /// How the prompt was hashed.
    scheme: String,
    /// Tokens of a chunk.
    chunk_size: usize,
    n_tokens: usize,
    /// Chunks of the prompt; the last may be short.
    n_chunks: usize,
    /// Chunks in this picture.
    shown_chunks: usize,
    /// The chunk hashes in hexadecimal.
    hashes: Vec<String>,
    instances: Vec<Strip>,
    layout_info: Layout,
}

/// What one instance holds.
#[derive(Serialize, JsonSchema)]
struct Strip {
    instance_id: String,
    /// Tokens it holds from the start without a gap.
    prefix_tokens: usize,
    /// For each chunk its copies as rank and location, null where there is none.
    chunks: Vec<Copies>,
}

/// Copies of one chunk in one instance: rank and location.
type Copies = Option<Vec<(i64, String)>>;

async fn chunks(State(state): State<AppState>, body: Body) -> Result<Json<Picture>, ApiError> {
    let work = tokio::task::spawn_blocking(move || picture(&state, &body));
    match work.await {
        Ok(picture) => picture.map(Json),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApiError::stopping()),
        },
    }
}

fn picture(shared: &Shared, body: &Body) -> Result<Picture, ApiError> {
    let Prompt::Tokens(tokens) = prompt(shared, body)? else {
        return Err(ApiError::bad_request(NEEDS_TOKENS));
    };
    let now = shared.clock.now();
    let credits = shared.controller.lookup_tokens(&tokens, now);
    let scheme = shared.controller.best_scheme(&tokens);
    let chunk_size = scheme.chunk_size().get();
    let hashes: Vec<ChunkHash> = scheme.chain(&tokens).take(MAX_CHUNKS).collect();
    let mut strips: BTreeMap<String, Vec<Copies>> = BTreeMap::new();
    for (chunk, hash) in hashes.iter().enumerate() {
        for ChunkHolder { worker, location } in shared.controller.chunk_holders(*hash) {
            let cells = strips
                .entry(worker.instance.to_string())
                .or_insert_with(|| vec![None; hashes.len()]);
            cells[chunk]
                .get_or_insert_default()
                .push((worker.worker.0, location.to_string()));
        }
    }
    let instances = strips
        .into_iter()
        .map(|(instance_id, chunks)| {
            let credit = credits
                .iter()
                .find(|credit| credit.found.instance.as_str() == instance_id);
            Strip {
                prefix_tokens: credit.map_or(0, |credit| credit.tokens),
                instance_id,
                chunks,
            }
        })
        .collect();
    Ok(Picture {
        scheme: scheme.to_string(),
        chunk_size,
        n_tokens: tokens.len(),
        n_chunks: tokens.len().div_ceil(chunk_size),
        shown_chunks: hashes.len(),
        hashes: hashes
            .iter()
            .map(|hash| format!("{:016x}", hash.0))
            .collect(),
        instances,
        layout_info: Layout(credits),
    })
}
