//! Peer lookups, one at a time, while operations arrive at a fixed rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvatlas_protocol::{OperationKind, WireKey};

use super::{Latencies, Trial, peer};
use crate::error::BenchError;
use crate::record::Value;
use crate::traffic::{BATCH, KeyOf, MULTIPART, Multipart, key};

/// Operations that arrive in a second.
const RATE: usize = 200_000;
/// Messages of each multipart that admit; the others evict.
const ADMITS: usize = 12;

pub(super) fn run(trial: &mut Trial<'_>) -> Result<Vec<Value>, BenchError> {
    let per_multipart = BATCH * MULTIPART;
    let pause = Duration::from_secs_f64(per_multipart as f64 / RATE as f64);
    let window = Duration::from_millis(2 * trial.args.window_ms);
    let n_multiparts = (window.as_secs_f64() / pause.as_secs_f64()) as usize;
    let (multiparts, gained) = stream(trial, n_multiparts);
    let requests = peer::requests(trial.instances);

    let sent = AtomicBool::new(false);
    let mut latencies = Latencies::new();
    let Trial {
        pushes,
        asker,
        instances,
        ..
    } = trial;
    let (pushes, instances) = (&mut *pushes, *instances);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let outcome = send_paced(pushes, &multiparts, pause);
            sent.store(true, Ordering::Relaxed);
            outcome
        });
        let mut outcome = Ok(());
        let mut turns = requests.iter().zip(0..).cycle();
        while !sent.load(Ordering::Relaxed)
            && outcome.is_ok()
            && let Some((request, chain)) = turns.next()
        {
            outcome =
                peer::ask(asker, request, chain, instances).map(|took| latencies.record(took));
        }
        match sender.join() {
            Ok(sent) => outcome.and(sent),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    let began = Instant::now();
    trial.held += gained;
    trial.drain()?;
    let mut values = latencies.values();
    values.push(Value::less(
        "drain afterwards",
        "ms",
        began.elapsed().as_secs_f64() * 1e3,
    ));
    Ok(values)
}

/// Multiparts of instances in turn, each admitting new keys and evicting ingested ones, and how many
/// keys they add in all.
fn stream(trial: &mut Trial<'_>, n_multiparts: usize) -> (Vec<Multipart>, u64) {
    let mut admitted = vec![trial.ingested; trial.instances];
    let mut evicted = vec![0; trial.instances];
    let mut gained = 0;
    let mut multiparts = Vec::with_capacity(n_multiparts);
    for at in 0..n_multiparts {
        let instance = at % trial.instances;
        let mut parts = Vec::with_capacity(MULTIPART);
        for message in 0..MULTIPART {
            // An instance that has nothing left to evict admits instead.
            let admits = message < ADMITS || evicted[instance] + BATCH > trial.ingested;
            let (kind, next) = if admits {
                gained += BATCH as u64;
                (OperationKind::Admit, &mut admitted[instance])
            } else {
                gained -= BATCH as u64;
                (OperationKind::Evict, &mut evicted[instance])
            };
            let from = *next;
            *next += BATCH;
            let operations = (from..from + BATCH).map(|at| -> (OperationKind, WireKey) {
                (kind, key(KeyOf::Instance, instance, at))
            });
            parts.push(trial.streams.batch(instance, operations));
        }
        multiparts.push(Multipart { instance, parts });
    }
    (multiparts, gained)
}

/// Sends one multipart every `pause`.
pub(super) fn send_paced(
    pushes: &mut crate::sockets::Pushes,
    multiparts: &[Multipart],
    pause: Duration,
) -> Result<(), BenchError> {
    let began = Instant::now();
    for (multipart, at) in multiparts.iter().zip(0..) {
        let due = pause * at;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        pushes.send(multipart)?;
    }
    Ok(())
}
