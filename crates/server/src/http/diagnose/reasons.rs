//! Why a lookup is empty or short, in plain words: what is wrong with the fleet, with one prompt,
//! with the ranks of an instance. Reads only; every list of names is cut at [`MAX_NAMED`].

use std::collections::HashSet;

use kvatlas_controller::controller::{Limit, LocationInfo, RankRun, SyncState, WorkerInfo};
use kvatlas_controller::scheme::PromptMatch;
use kvatlas_protocol::InstanceId;

use super::super::fleet::limit;
use super::{MAX_NAMED, Probe};
use crate::app::Shared;
use crate::store::Health;

/// What keeps any lookup from being right.
pub(super) fn fleet_reasons(shared: &Shared, workers: &[WorkerInfo]) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Health::Failing { reason, remedy, .. } = shared.store.status().health {
        reasons.push(format!(
            "state is not kept ({reason}): lookups are not affected, a restart now would need full syncs; {remedy}"
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
            "{gaps} sequence gap{}: operations were lost on the way, some keys may be missing or stale until the next full sync",
            if gaps == 1 { "" } else { "s" }
        ));
    }
    reasons.extend(incomplete_reasons(workers));
    reasons.extend(sync_reasons(workers));
    reasons
}

/// Keys that a limit keeps out.
fn incomplete_reasons(workers: &[WorkerInfo]) -> Vec<String> {
    let said = |wanted: Limit| {
        let is_out = |location: &LocationInfo| {
            location
                .incomplete
                .is_some_and(|incomplete| incomplete.limit == wanted)
        };
        let names: Vec<String> = workers
            .iter()
            .filter(|worker| worker.locations.iter().any(is_out))
            .map(|worker| worker.key.to_string())
            .collect();
        let (limit, remedy) = limit(wanted);
        (!names.is_empty()).then(|| {
            format!(
                "{limit} is reached: keys of {} are not all known, lookups credit them with too little; {remedy}",
                named(&names),
            )
        })
    };
    [Limit::Keys, Limit::IndexBytes]
        .into_iter()
        .filter_map(said)
        .collect()
}

/// Full syncs that are not over: what lookups show meanwhile.
fn sync_reasons(workers: &[WorkerInfo]) -> Vec<String> {
    let (mut running, mut wanted, mut hopeless) = (Vec::new(), Vec::new(), Vec::new());
    for worker in workers {
        if worker.sync_wanted.is_some() {
            wanted.push(worker.key.to_string());
        }
        for LocationInfo { location, sync, .. } in &worker.locations {
            let name = format!("{} {location}", worker.key);
            match sync {
                SyncState::Running {
                    received,
                    announced,
                    ..
                } => running.push(format!("{name} ({received} of {announced} batches)")),
                SyncState::Wanted { .. } => wanted.push(name),
                SyncState::Unrepairable { .. } => hopeless.push(name),
                SyncState::Idle | SyncState::Unproved { .. } | SyncState::Completed { .. } => {}
            }
        }
    }
    let mut reasons = Vec::new();
    if !running.is_empty() {
        reasons.push(format!(
            "full syncs are running: {}; until one is complete, lookups see the keys known before it, or the batches that have come where none were known",
            named(&running),
        ));
    }
    if !wanted.is_empty() {
        reasons.push(format!(
            "a full sync is wanted of {}: asked for with their next heartbeats, keys may be missing until then",
            named(&wanted),
        ));
    }
    if !hopeless.is_empty() {
        reasons.push(format!(
            "operations of {} were lost, and the worker cannot sync that location: some of its keys may be missing or stale until it registers again",
            named(&hopeless),
        ));
    }
    reasons
}

/// Instances that are credited with less than one of their ranks holds.
fn rank_reasons(shared: &Shared, tokens: &[i64], probes: &[Probe]) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    let mut seen: HashSet<InstanceId> = HashSet::new();
    let (confirmed, others): (Vec<_>, Vec<_>) = probes.iter().partition(|probe| probe.confirmed);
    for probe in confirmed.into_iter().chain(others) {
        let runs = shared.controller.rank_runs(probe.scheme.chain(tokens));
        let chunk_size = probe.scheme.chunk_size().get();
        for ranks in runs.chunk_by(|a, b| a.worker.instance == b.worker.instance) {
            let most = ranks.iter().map(|run| run.chunks).max().unwrap_or(0);
            let least = ranks.iter().map(|run| run.chunks).min().unwrap_or(0);
            let Some(RankRun { worker, .. }) = ranks.first() else {
                continue;
            };
            if least == most || !seen.insert(worker.instance.clone()) {
                continue;
            }
            let covered = |chunks: usize| chunks.saturating_mul(chunk_size).min(tokens.len());
            let missing: Vec<String> = ranks
                .iter()
                .filter(|run| run.chunks < most)
                .map(|run| format!("{} holds {}", run.worker, covered(run.chunks)))
                .collect();
            reasons.push(format!(
                "ranks of instance {} differ: one holds the first {} tokens, but {}; an instance is credited with what all its reporting ranks hold",
                worker.instance,
                covered(most),
                named(&missing),
            ));
            if reasons.len() == MAX_NAMED {
                return reasons;
            }
        }
    }
    reasons
}

/// What one prompt's lookup came to.
pub(super) fn prompt_reasons(
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
    let ranks = rank_reasons(shared, tokens, probes);
    let any = probes.iter().any(|probe| !probe.matches.is_empty());
    if let Some(best) = credits.first() {
        reasons.push(format!(
            "instance {} holds the first {} of {} tokens",
            best.found.instance,
            best.tokens,
            tokens.len()
        ));
    } else if !has_keys || !ranks.is_empty() {
        // The fleet's own reasons, or those of the ranks, say it.
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
    reasons.extend(ranks);
    reasons
}

fn named(names: &[String]) -> String {
    match names.len().checked_sub(MAX_NAMED) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..MAX_NAMED].join(", ")),
        _ => names.join(", "),
    }
}
