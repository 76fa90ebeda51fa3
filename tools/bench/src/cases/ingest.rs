//! Operations of the whole fleet, as fast as the controller takes them.

use std::time::Instant;

use super::Trial;
use crate::error::BenchError;
use crate::record::Value;
use crate::traffic::{BATCH, KeyOf, MULTIPART, Multipart, key};

pub(super) fn run(trial: &mut Trial<'_>) -> Result<Vec<Value>, BenchError> {
    // One operation first, from each instance, so that every connection is up.
    let warm_up: Vec<Multipart> = (0..trial.instances)
        .flat_map(|instance| {
            let first = [key(KeyOf::Instance, instance, 0)];
            trial.streams.admits(instance, &first)
        })
        .collect();
    send(trial, &warm_up, trial.instances)?;

    let each = (trial.args.operations / trial.instances).max(1);
    let mut streams: Vec<_> = (0..trial.instances)
        .map(|instance| {
            let keys: Vec<_> = (1..=each)
                .map(|at| key(KeyOf::Instance, instance, at))
                .collect();
            trial.streams.admits(instance, &keys).into_iter()
        })
        .collect();
    // Instances take turns, as they would.
    let rounds = each.div_ceil(BATCH * MULTIPART);
    let multiparts: Vec<Multipart> = (0..rounds)
        .flat_map(|_| {
            let turn = streams.iter_mut().filter_map(Iterator::next);
            turn.collect::<Vec<_>>()
        })
        .collect();

    let operations = each * trial.instances;
    let before = trial.usage();
    let began = Instant::now();
    send(trial, &multiparts, operations)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = trial.usage();
    trial.ingested = 1 + each;
    let operations = operations as f64;

    let mut values = vec![Value::more("operations", "1/s", operations / seconds)];
    if let (Some(before), Some(after)) = (before, after) {
        let cpu = (after.cpu.saturating_sub(before.cpu)).as_secs_f64();
        values.push(Value::less(
            "CPU per operation",
            "us",
            cpu * 1e6 / operations,
        ));
        values.push(Value::less(
            "memory per key",
            "B",
            (after.resident - before.resident) / operations,
        ));
    }
    Ok(values)
}

/// Sends admits of `keys` new keys and waits until they are counted.
fn send(trial: &mut Trial<'_>, multiparts: &[Multipart], keys: usize) -> Result<(), BenchError> {
    for multipart in multiparts {
        trial.pushes.send(multipart)?;
    }
    trial.held += keys as u64;
    trial.drain()
}
