//! GET and POST /diagnose: how the fleet hashes, and why a lookup is empty, in plain words.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use kvatlas_controller::controller::{InstanceMatch, WorkerInfo};
use kvatlas_controller::scheme::PromptMatch;
use kvatlas_protocol::{HashScheme, InstanceId};
use serde_json::{Value, json};

use super::body::Body;
use super::error::ApiError;
use super::lookup::{Layout, Prompt, prompt};
use super::sync::persistence;
use crate::app::{AppState, Shared};
use crate::store::Health;

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

/// What keeps any lookup from being right.
fn fleet_reasons(shared: &Shared, workers: &[WorkerInfo]) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Health::Failing { reason, .. } = shared.store.status().health {
        reasons.push(format!(
            "state is not kept ({reason}): lookups are not affected, a restart now would need full syncs"
        ));
    }
    if workers.is_empty() {
        reasons.push(format!(
            "no worker is registered: set controller_pull_url and controller_reply_url of the workers to this host and ports {} and {}",
            shared.ports.pull,
            shared.ports.reply.map_or("(reply is off)".into(), |port| port.to_string()),
        ));
        return reasons;
    }
    if workers.iter().all(|worker| worker.key_count == 0) {
        reasons.push(
            "workers are registered but have reported no keys: nothing is cached yet, or their batches do not arrive (see kvatlas_bad_frames_total and kvatlas_messages_total at /metrics)".into(),
        );
    }
    let silent: Vec<String> = workers
        .iter()
        .filter(|worker| !worker.heartbeat_seen)
        .map(|worker| worker.key.to_string())
        .collect();
    if !silent.is_empty() {
        reasons.push(format!(
            "no heartbeat has come from {}: these workers cannot be asked to sync again after a loss (set lmcache_worker_heartbeat_time, and see that the heartbeat port can be reached)",
            named(&silent),
        ));
    }
    let gaps: u64 = workers
        .iter()
        .flat_map(|worker| &worker.locations)
        .map(|location| location.gaps)
        .sum();
    if gaps > 0 {
        reasons.push(format!(
            "{gaps} sequence gaps: operations were lost on the way, some keys may be missing or stale until the next full sync"
        ));
    }
    reasons
}

/// What one prompt's lookup came to.
fn prompt_reasons(
    shared: &Shared,
    workers: &[WorkerInfo],
    tokens: &[i64],
    probes: &[Probe],
    credits: &[PromptMatch],
) -> Vec<String> {
    let mut reasons = Vec::new();
    if tokens.is_empty() {
        reasons.push("the prompt is empty: it has no chunk".into());
        return reasons;
    }
    let has_keys = workers.iter().any(|worker| worker.key_count > 0);
    let any = probes.iter().any(|probe| !probe.matches.is_empty());
    if let Some(best) = credits.first() {
        reasons.push(format!(
            "instance {} holds the first {} of {} tokens",
            best.found.instance,
            best.tokens,
            tokens.len()
        ));
    } else if !has_keys {
        // The fleet's own reasons say it.
    } else if any {
        reasons.push("a hash scheme that is not confirmed yet finds the prompt; ask again".into());
    } else if probes.iter().any(|probe| probe.confirmed) && !shared.controller.is_scheme_fixed() {
        reasons.push(
            "the fleet's hash scheme is known, and nobody holds this prompt's first chunk: it was never cached, or has been evicted, or the tokens differ (another tokenizer, chat template or special token at the start)".into(),
        );
    } else {
        reasons.push(format!(
            "workers hold keys, but none of the {} hash schemes tried gives one of them for this prompt: either nobody holds it, or the fleet hashes in another way (PYTHONHASHSEED not fixed or not among hash_roots, another chunk size than chunk_sizes, another algorithm)",
            probes.len()
        ));
    }
    reasons
}

fn named(names: &[String]) -> String {
    match names.len().checked_sub(MAX_NAMED) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..MAX_NAMED].join(", ")),
        _ => names.join(", "),
    }
}
