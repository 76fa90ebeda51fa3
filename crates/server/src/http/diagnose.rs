//! GET and POST /diagnose: how the fleet hashes, and why a lookup is empty, in plain words.

mod reasons;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kvatlas_controller::controller::{InstanceMatch, WorkerInfo};
use kvatlas_protocol::{HashScheme, InstanceId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::api::Api;
use super::api::operation::{BYTES, Operation};
use super::body::Body;
use super::error::ApiError;
use super::lookup::{Layout, Prompt, RawTokens, TokensBody, prompt};
use super::sync::{Persistence, persistence};
use crate::app::{AppState, Shared};
use reasons::{fleet_reasons, prompt_reasons};

/// Most workers an answer names.
const MAX_NAMED: usize = 20;

const NEEDS_TOKENS: &str = "diagnosis needs tokens: hashes do not say how they were made";

/// Routes of this file.
pub fn routes() -> Api {
    let fleet_operation = Operation::new(
        "diagnose_fleet",
        "How the fleet hashes, and what is wrong with it",
    )
    .gives::<FleetDiagnosis>("what is known without a prompt", fleet_example());
    let mut example = fleet_example();
    example["n_tokens"] = 3.into();
    example["tried"] = json!([{
        "algorithm": "builtin",
        "root": "none",
        "chunk_size": 256,
        "confirmed": true,
        "first_chunk_hash": 5_320_471_966_842_109_004_u64,
        "first_chunk_hash_signed": 5_320_471_966_842_109_004_i64,
        "matches": [],
    }]);
    example["layout_info"] = json!({});
    example["reasons"] = json!(["nobody holds the first chunk of this prompt under any candidate"]);
    let prompt_operation =
        Operation::new("diagnose", "Why a prompt is not found, or not all of it")
            .takes::<TokensBody>([json!({ "tokens": [1, 2, 3] })])
            .takes_as::<RawTokens>(BYTES)
            .gives::<PromptDiagnosis>(
                "every candidate scheme with what it finds, and reasons in words",
                example,
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
    Api::new("Lookup")
        .get("/diagnose", fleet, fleet_operation)
        .post("/diagnose", one_prompt, prompt_operation)
}

fn fleet_example() -> Value {
    json!({
        "instances": 2,
        "workers": 4,
        "keys": 1824,
        "sequence_gaps": 0,
        "hash_schemes": {
            "mode": "found out from the fleet's keys",
            "candidates": 12,
            "confirmed": [{
                "algorithm": "builtin",
                "root": "none",
                "chunk_size": 256,
                "instances": ["demo-1", "demo-2"],
            }],
            "unknown_for": [],
        },
        "persistence": { "state": "off" },
        "reasons": ["nothing is wrong with the fleet as seen from here"],
    })
}

/// What is known without a prompt.
#[derive(Serialize, JsonSchema)]
struct Report {
    instances: usize,
    workers: usize,
    keys: u64,
    sequence_gaps: u64,
    hash_schemes: Schemes,
    persistence: Persistence,
}

#[derive(Serialize, JsonSchema)]
struct Schemes {
    /// Whether they are configured or found out.
    mode: &'static str,
    /// How many are tried.
    candidates: usize,
    confirmed: Vec<ConfirmedScheme>,
    /// Instances whose scheme is not known yet, 20 at most.
    unknown_for: Vec<String>,
}

/// How chunks are hashed.
#[derive(Serialize, JsonSchema)]
struct Scheme {
    algorithm: &'static str,
    root: String,
    /// Tokens of a chunk.
    chunk_size: usize,
}

#[derive(Serialize, JsonSchema)]
struct ConfirmedScheme {
    #[serde(flatten)]
    scheme: Scheme,
    instances: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct FleetDiagnosis {
    #[serde(flatten)]
    report: Report,
    /// What is wrong, in words.
    reasons: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct PromptDiagnosis {
    #[serde(flatten)]
    report: Report,
    n_tokens: usize,
    tried: Vec<Tried>,
    layout_info: Layout,
    /// Why it is not found, in words.
    reasons: Vec<String>,
}

/// One candidate scheme.
#[derive(Serialize, JsonSchema)]
struct Tried {
    #[serde(flatten)]
    scheme: Scheme,
    /// Some instance is known to use it, or the configuration says so.
    confirmed: bool,
    /// Null for no tokens.
    first_chunk_hash: Option<u64>,
    first_chunk_hash_signed: Option<i64>,
    /// Who holds the prompt under it, 20 at most.
    matches: Vec<Found>,
}

#[derive(Serialize, JsonSchema)]
struct Found {
    instance_id: String,
    location: String,
    /// Chunks held from the start without a gap.
    chunks: usize,
}

async fn fleet(State(state): State<AppState>) -> Json<FleetDiagnosis> {
    let workers = state.controller.workers();
    let mut reasons = fleet_reasons(&state, &workers);
    if reasons.is_empty() {
        reasons.push("nothing is wrong with the fleet as seen from here; POST the tokens of a prompt to see why that one is not found".into());
    }
    let report = report(&state, &workers);
    Json(FleetDiagnosis { report, reasons })
}

async fn one_prompt(
    State(state): State<AppState>,
    body: Body,
) -> Result<Json<PromptDiagnosis>, ApiError> {
    // Every candidate hashes the prompt: never on the async threads.
    let work = tokio::task::spawn_blocking(move || diagnose(&state, &body));
    match work.await {
        Ok(report) => report.map(Json),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApiError::stopping()),
        },
    }
}

fn diagnose(shared: &Shared, body: &Body) -> Result<PromptDiagnosis, ApiError> {
    let tokens = match prompt(shared, body)? {
        Prompt::Tokens(tokens) => tokens,
        Prompt::Hashes(_) => return Err(ApiError::bad_request(NEEDS_TOKENS)),
    };
    let workers = shared.controller.workers();
    let probes = probe(shared, &tokens);
    let now = shared.clock.now();
    let credits = shared.controller.lookup_tokens(&tokens, now);
    let mut reasons = fleet_reasons(shared, &workers);
    reasons.extend(prompt_reasons(shared, &workers, &tokens, &probes, &credits));
    let tried = |probe: &Probe| {
        let first = probe.scheme.chain(&tokens).next();
        Tried {
            scheme: scheme(&probe.scheme),
            confirmed: probe.confirmed,
            first_chunk_hash: first.map(|hash| hash.0),
            first_chunk_hash_signed: first.map(|hash| hash.as_signed()),
            matches: probe.matches.iter().take(MAX_NAMED).map(found).collect(),
        }
    };
    Ok(PromptDiagnosis {
        report: report(shared, &workers),
        n_tokens: tokens.len(),
        tried: probes.iter().map(tried).collect(),
        layout_info: Layout(credits),
        reasons,
    })
}

fn found(found: &InstanceMatch) -> Found {
    Found {
        instance_id: found.instance.to_string(),
        location: found.location.to_string(),
        chunks: found.chunks,
    }
}

fn scheme(scheme: &HashScheme) -> Scheme {
    Scheme {
        algorithm: scheme.algorithm().name(),
        root: scheme.root().to_string(),
        chunk_size: scheme.chunk_size().get(),
    }
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
fn report(shared: &Shared, workers: &[WorkerInfo]) -> Report {
    let schemes = shared.controller.schemes();
    let is_fixed = shared.controller.is_scheme_fixed();
    let confirmed = schemes
        .iter()
        .filter(|known| is_fixed || !known.instances.is_empty())
        .map(|known| ConfirmedScheme {
            scheme: scheme(&known.scheme),
            instances: known.instances.iter().map(InstanceId::to_string).collect(),
        })
        .collect();
    let unknown = shared.controller.instances_without_scheme();
    let totals = shared.controller.totals();
    Report {
        instances: totals.instances,
        workers: workers.len(),
        keys: totals.keys,
        sequence_gaps: totals.gaps,
        hash_schemes: Schemes {
            mode: if is_fixed {
                "fixed by configuration"
            } else {
                "found out from the fleet's keys"
            },
            candidates: schemes.len(),
            confirmed,
            unknown_for: unknown
                .iter()
                .take(MAX_NAMED)
                .map(InstanceId::to_string)
                .collect(),
        },
        persistence: persistence(shared),
    }
}
