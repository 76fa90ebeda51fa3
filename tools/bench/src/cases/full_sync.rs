//! Every worker lists all its keys anew, at the same time, as after a restart of the controller.

use std::time::Instant;

use kvatlas_protocol::Message;

use super::{Case, Trial};
use crate::error::BenchError;
use crate::record::Value;
use crate::sockets::Asker;
use crate::traffic::{self, FullSync, KeyOf, Multipart, key};

/// Keys of a message; LMCache's own default.
pub(super) const BATCH: usize = 1000;
/// Rounds of questions after which a sync that does not end is given up.
const ROUNDS: usize = 10_000;

pub(super) fn run(trial: &mut Trial<'_>) -> Result<Vec<Value>, BenchError> {
    let each = (trial.args.operations / 2 / trial.instances).max(1);
    let mut syncs: Vec<FullSync> = (0..trial.instances)
        .map(|instance| {
            let keys: Vec<_> = (0..each).map(|at| key(KeyOf::Sync, instance, at)).collect();
            traffic::full_sync((instance, "bench"), &keys, BATCH)
        })
        .collect();
    let multiparts = in_turn(&mut syncs);

    let began = Instant::now();
    start_all(&trial.asker, &syncs)?;
    for multipart in &multiparts {
        trial.pushes.send(multipart)?;
    }
    let mut waiting: Vec<&[u8]> = syncs.iter().map(|sync| sync.status.as_slice()).collect();
    for _ in 0..ROUNDS {
        let mut complete = Vec::with_capacity(waiting.len());
        trial
            .asker
            .ask_all(waiting.iter().copied(), |reply| match reply {
                Message::FullSyncStatusRetMsg(ret) => {
                    complete.push(ret.is_complete);
                    Ok(())
                }
                other => Err(unexpected("a status", &other)),
            })?;
        // Replies need not come in the order of the questions: all are asked until all are done.
        if complete.iter().all(|complete| *complete) {
            waiting.clear();
            break;
        }
        std::thread::sleep((began.elapsed() / 50).min(std::time::Duration::from_millis(20)));
    }
    if !waiting.is_empty() {
        return Err(BenchError::Wrong {
            case: Case::FullSync.name(),
            expected: "every sync complete".to_owned(),
            got: "some are not".to_owned(),
        });
    }
    let keys = (each * trial.instances) as u64;
    trial.held = keys;
    trial.drain()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(vec![
        Value::more("keys", "1/s", keys as f64 / seconds),
        Value::less("until all are complete", "s", seconds),
    ])
}

/// What the workers push, one message of each in turn.
pub(super) fn in_turn(syncs: &mut [FullSync]) -> Vec<Multipart> {
    let rounds = syncs.iter().map(|sync| sync.pushed.len()).max();
    let mut pushed: Vec<_> = syncs
        .iter_mut()
        .map(|sync| std::mem::take(&mut sync.pushed).into_iter())
        .collect();
    let turn = |_| {
        let turn = pushed
            .iter_mut()
            .enumerate()
            .filter_map(|(instance, sync)| {
                let parts = vec![sync.next()?];
                Some(Multipart { instance, parts })
            });
        turn.collect::<Vec<_>>()
    };
    (0..rounds.unwrap_or_default()).flat_map(turn).collect()
}

/// Begins every sync.
pub(super) fn start_all(asker: &Asker, syncs: &[FullSync]) -> Result<(), BenchError> {
    let starts = syncs.iter().map(|sync| sync.start.as_slice());
    asker.ask_all(starts, |reply| match reply {
        Message::FullSyncStartRetMsg(ret) if ret.accepted => Ok(()),
        other => Err(unexpected("an accepted start", &other)),
    })
}

fn unexpected(expected: &str, got: &Message) -> BenchError {
    BenchError::Wrong {
        case: Case::FullSync.name(),
        expected: expected.to_owned(),
        got: format!("{got:?}"),
    }
}
