//! Operations of the whole fleet, as fast as the controller takes them.

use std::ops::Range;
use std::time::Instant;

use super::Trial;
use crate::error::BenchError;
use crate::process::Usage;
use crate::record::Value;
use crate::traffic::{BATCH, KeyOf, MULTIPART, Multipart, Streams, key};

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
    let operations = each * trial.instances;
    let multiparts = wave(&mut trial.streams, trial.instances, 1..each + 1);
    let before = trial.usage();
    let began = Instant::now();
    send(trial, &multiparts, operations)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = trial.usage();
    // As many again: what the first ones left behind in buffers is there already.
    let multiparts = wave(&mut trial.streams, trial.instances, each + 1..2 * each + 1);
    send(trial, &multiparts, operations)?;
    let twice = trial.usage();
    trial.ingested = 1 + 2 * each;
    let operations = operations as f64;

    let mut values = vec![Value::more("operations", "1/s", operations / seconds)];
    if let (Some(before), Some(after), Some(twice)) = (before, after, twice) {
        let cpu = (after.cpu.saturating_sub(before.cpu)).as_secs_f64();
        let per_key = |from: Usage, to: Usage| (to.resident - from.resident) / operations;
        values.extend([
            Value::less("CPU per operation", "us", cpu * 1e6 / operations),
            Value::less("memory per key", "B", per_key(before, after)),
            Value::less("memory per further key", "B", per_key(after, twice)),
        ]);
    }
    Ok(values)
}

/// Admits of every instance's keys at these positions.
pub(super) fn wave(
    streams: &mut Streams,
    instances: usize,
    positions: Range<usize>,
) -> Vec<Multipart> {
    let rounds = positions.len().div_ceil(BATCH * MULTIPART);
    let mut streams: Vec<_> = (0..instances)
        .map(|instance| {
            let keys: Vec<_> = positions
                .clone()
                .map(|at| key(KeyOf::Instance, instance, at))
                .collect();
            streams.admits(instance, &keys).into_iter()
        })
        .collect();
    // Instances take turns, as they would.
    (0..rounds)
        .flat_map(|_| {
            let turn = streams.iter_mut().filter_map(Iterator::next);
            turn.collect::<Vec<_>>()
        })
        .collect()
}

/// Sends admits of `keys` new keys and waits until they are counted.
fn send(trial: &mut Trial<'_>, multiparts: &[Multipart], keys: usize) -> Result<(), BenchError> {
    for multipart in multiparts {
        trial.pushes.send(multipart)?;
    }
    trial.held += keys as u64;
    trial.drain()
}
