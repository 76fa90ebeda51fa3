//! Every worker lists all its keys anew, at the same time, as after a restart of the controller.

use std::time::Instant;

use kvatlas_protocol::Message;

use super::{Case, Trial};
use crate::error::BenchError;
use crate::record::Value;
use crate::traffic::{self, FullSync, Multipart};

/// Keys of a message; LMCache's own default.
const BATCH: usize = 1000;
/// Rounds of questions after which a sync that does not end is given up.
const ROUNDS: usize = 10_000;

pub(super) fn run(trial: &mut Trial<'_>) -> Result<Vec<Value>, BenchError> {
    let each = (trial.args.operations / 2 / trial.instances).max(1);
    let mut syncs: Vec<FullSync> = (0..trial.instances)
        .map(|instance| traffic::full_sync(instance, each, BATCH))
        .collect();
    let mut pushed: Vec<_> = syncs
        .iter_mut()
        .map(|sync| std::mem::take(&mut sync.pushed).into_iter())
        .collect();
    let rounds = each.div_ceil(BATCH) + 1;
    let multiparts: Vec<Multipart> = (0..rounds)
        .flat_map(|_| {
            let turn = pushed
                .iter_mut()
                .enumerate()
                .filter_map(|(instance, sync)| {
                    let parts = vec![sync.next()?];
                    Some(Multipart { instance, parts })
                });
            turn.collect::<Vec<_>>()
        })
        .collect();

    let began = Instant::now();
    let starts = syncs.iter().map(|sync| sync.start.as_slice());
    trial.asker.ask_all(starts, |reply| match reply {
        Message::FullSyncStartRetMsg(ret) if ret.accepted => Ok(()),
        other => Err(unexpected("an accepted start", &other)),
    })?;
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

fn unexpected(expected: &str, got: &Message) -> BenchError {
    BenchError::Wrong {
        case: Case::FullSync.name(),
        expected: expected.to_owned(),
        got: format!("{got:?}"),
    }
}
