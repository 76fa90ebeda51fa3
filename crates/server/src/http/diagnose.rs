//! GET and POST /diagnose: how the fleet hashes, and why a lookup is empty, in plain words.

mod reasons;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use kvatlas_controller::controller::{InstanceMatch, WorkerInfo};
use kvatlas_protocol::{HashScheme, InstanceId};
use serde_json::{Value, json};

use super::body::Body;
use super::error::ApiError;
use super::lookup::{Layout, Prompt, prompt};
use super::sync::persistence;
use crate::app::{AppState, Shared};
use reasons::{fleet_reasons, prompt_reasons};

/// Most workers an answer names.
const MAX_NAMED: usize = 20;

/// Routes of this file.
pub fn routes() -> Router<AppState> {
    Router::new().route("/diagnose", get(fleet).post(one_prompt))
}

async fn fleet(State(state): State<AppState>) -> Json<Value> {
    let workers = state.controller.workers();
    let mut reasons = fleet_reasons(&state, &workers);
    if reasons.is_empty() {
        reasons.push("nothing is wrong with the fleet as seen from here; POST the tokens of a prompt to see why that one is not found".into());
    }
    let mut report = report(&state, &workers);
    report["reasons"] = reasons.into();
    Json(report)
}

async fn one_prompt(State(state): State<AppState>, body: Body) -> Result<Json<Value>, ApiError> {
    // Every candidate hashes the prompt: never on the async threads.
    let work = tokio::task::spawn_blocking(move || diagnose(&state, &body));
    match work.await {
        Ok(report) => report.map(Json),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApiError::bad_request("stopping")),
        },
    }
}

fn diagnose(shared: &Shared, body: &Body) -> Result<Value, ApiError> {
    let tokens = match prompt(shared, body)? {
        Prompt::Tokens(tokens) => tokens,
        Prompt::Hashes(_) => {
            let detail = "diagnosis needs tokens: hashes do not say how they were made";
            return Err(ApiError::bad_request(detail));
        }
    };
    let workers = shared.controller.workers();
    let probes = probe(shared, &tokens);
    let now = shared.clock.now();
    let credits = shared.controller.lookup_tokens(&tokens, now);
    let mut reasons = fleet_reasons(shared, &workers);
    reasons.extend(prompt_reasons(shared, &workers, &tokens, &probes, &credits));
    let tried: Vec<Value> = probes
        .iter()
        .map(|probe| {
            let first = probe.scheme.chain(&tokens).next();
            let mut row = scheme(&probe.scheme);
            row["confirmed"] = probe.confirmed.into();
            row["first_chunk_hash"] = first.map_or(Value::Null, |hash| hash.0.into());
            row["first_chunk_hash_signed"] =
                first.map_or(Value::Null, |hash| hash.as_signed().into());
            row["matches"] = probe.matches.iter().take(MAX_NAMED).map(found).collect();
            row
        })
        .collect();
    let mut report = report(shared, &workers);
    report["n_tokens"] = tokens.len().into();
    report["tried"] = tried.into();
    report["layout_info"] = json!(Layout(&credits));
    report["reasons"] = reasons.into();
    Ok(report)
}

fn found(found: &InstanceMatch) -> Value {
    json!({
        "instance_id": found.instance.as_str(),
        "location": found.location.as_str(),
        "chunks": found.chunks,
    })
}

fn scheme(scheme: &HashScheme) -> Value {
    json!({
        "algorithm": scheme.algorithm().name(),
        "root": scheme.root().to_string(),
        "chunk_size": scheme.chunk_size(),
    })
}

/// What one candidate finds for a prompt.
struct Probe {
    scheme: HashScheme,
    /// Some instance is known to use it, or the configuration says so.
    confirmed: bool,
    matches: Vec<InstanceMatch>,
}

fn probe(shared: &Shared, tokens: &[i64]) -> Vec<Probe> {
    let is_fixed = shared.controller.is_scheme_fixed();
    let known = shared.controller.schemes();
    let found = shared.controller.probe_schemes(tokens);
    let probes = found.into_iter().map(|(scheme, matches)| Probe {
        confirmed: is_fixed
            || known
                .iter()
                .any(|known| known.scheme == scheme && !known.instances.is_empty()),
        scheme,
        matches,
    });
    probes.collect()
}

/// What is known without a prompt.
fn report(shared: &Shared, workers: &[WorkerInfo]) -> Value {
    let schemes = shared.controller.schemes();
    let is_fixed = shared.controller.is_scheme_fixed();
    let confirmed: Vec<Value> = schemes
        .iter()
        .filter(|known| is_fixed || !known.instances.is_empty())
        .map(|known| {
            let mut row = scheme(&known.scheme);
            row["instances"] = known.instances.iter().map(InstanceId::as_str).collect();
            row
        })
        .collect();
    let unknown = shared.controller.instances_without_scheme();
    let totals = shared.controller.totals();
    json!({
        "instances": totals.instances,
        "workers": workers.len(),
        "keys": totals.keys,
        "sequence_gaps": totals.gaps,
        "hash_schemes": {
            "mode": if is_fixed { "fixed by configuration" } else { "found out from the fleet's keys" },
            "candidates": schemes.len(),
            "confirmed": confirmed,
            "unknown_for": unknown.iter().take(MAX_NAMED).map(InstanceId::as_str).collect::<Vec<_>>(),
        },
        "persistence": persistence(shared),
    })
}
