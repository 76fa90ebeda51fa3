//! POST /lookup/chunks: for people, every chunk of a prompt with everyone who holds it, also behind
//! a gap, where a lookup stops.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use kvatlas_controller::chunk_map::ChunkHolder;
use kvatlas_protocol::ChunkHash;
use serde_json::{Value, json};

use super::body::Body;
use super::error::ApiError;
use super::lookup::{Layout, Prompt, prompt};
use crate::app::{AppState, Shared};

/// Chunks a picture shows at most.
const MAX_CHUNKS: usize = 4096;

/// Routes of this file.
pub fn routes() -> Router<AppState> {
    Router::new().route("/lookup/chunks", post(chunks))
}

async fn chunks(State(state): State<AppState>, body: Body) -> Result<Json<Value>, ApiError> {
    let work = tokio::task::spawn_blocking(move || picture(&state, &body));
    match work.await {
        Ok(picture) => picture.map(Json),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApiError::bad_request("stopping")),
        },
    }
}

fn picture(shared: &Shared, body: &Body) -> Result<Value, ApiError> {
    let Prompt::Tokens(tokens) = prompt(shared, body)? else {
        return Err(ApiError::bad_request(
            "a picture needs tokens: hashes do not say how they were made",
        ));
    };
    let now = shared.clock.now();
    let credits = shared.controller.lookup_tokens(&tokens, now);
    let scheme = shared.controller.best_scheme(&tokens);
    let chunk_size = scheme.chunk_size().get();
    let hashes: Vec<ChunkHash> = scheme.chain(&tokens).take(MAX_CHUNKS).collect();
    let mut strips: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (chunk, hash) in hashes.iter().enumerate() {
        for ChunkHolder { worker, location } in shared.controller.chunk_holders(*hash) {
            let cells = strips
                .entry(worker.instance.to_string())
                .or_insert_with(|| vec![Value::Null; hashes.len()]);
            let copy = json!([worker.worker.0, location.as_str()]);
            match &mut cells[chunk] {
                Value::Array(copies) => copies.push(copy),
                empty => *empty = json!([copy]),
            }
        }
    }
    let instances: Vec<Value> = strips
        .into_iter()
        .map(|(instance, cells)| {
            let credit = credits
                .iter()
                .find(|credit| credit.found.instance.as_str() == instance);
            json!({
                "instance_id": instance,
                "prefix_tokens": credit.map_or(0, |credit| credit.tokens),
                "chunks": cells,
            })
        })
        .collect();
    Ok(json!({
        "scheme": scheme.to_string(),
        "chunk_size": chunk_size,
        "n_tokens": tokens.len(),
        "n_chunks": tokens.len().div_ceil(chunk_size),
        "shown_chunks": hashes.len(),
        "hashes": hashes.iter().map(|hash| format!("{:016x}", hash.0)).collect::<Vec<_>>(),
        "instances": instances,
        "layout_info": Layout(&credits),
    }))
}
