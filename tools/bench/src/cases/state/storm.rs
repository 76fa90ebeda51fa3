//! Every worker lists all its keys anew at the same time, and lookups go on.

use std::time::{Duration, Instant};

use super::super::full_sync::{self, BATCH};
use super::super::mixed::send_paced;
use super::INSTANCES;
use super::serving::Serving;
use crate::error::BenchError;
use crate::record::Value;
use crate::sockets::Pushes;
use crate::traffic::{self, FullSync, KeyOf, PROMPTS, holder, key};

/// Longest time for all of it.
const DEADLINE: Duration = Duration::from_secs(60);

/// How fast the workers send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// As fast as the generator can: it and the controller fight for the cores.
    Full,
    /// So many keys a second in all, half a core of the generator's.
    Keys(u32),
}

impl Pace {
    /// In names of results.
    fn text(self) -> &'static str {
        match self {
            Self::Full => "at full speed",
            Self::Keys(_) => "paced",
        }
    }

    /// Between two batches, whoever sends them.
    fn pause(self) -> Duration {
        match self {
            Self::Full => Duration::ZERO,
            Self::Keys(rate) => Duration::from_secs(BATCH as u64) / rate,
        }
    }
}

/// Syncs of `each` chunks, and of the prompts and chains an instance holds beside them.
pub(super) fn run(
    serving: &mut Serving,
    pace: Pace,
    each: usize,
    held: u64,
) -> Result<Vec<Value>, BenchError> {
    let mut syncs: Vec<FullSync> = (0..INSTANCES)
        .map(|instance| {
            let mut keys: Vec<_> = (0..each)
                .map(|at| key(KeyOf::Instance, instance, at))
                .collect();
            for at in (0..PROMPTS).filter(|&at| holder(at, INSTANCES) == instance) {
                keys.extend(traffic::stored_keys(at));
            }
            traffic::full_sync((instance, pace.text()), &keys, BATCH)
        })
        .collect();
    let multiparts = full_sync::in_turn(&mut syncs);
    let mut pushes = Pushes::connect(INSTANCES, serving.ports.pull)?;
    full_sync::start_all(&serving.asker, &syncs)?;

    let began = Instant::now();
    let (pushes, multiparts) = (&mut pushes, &multiparts);
    let (seconds, lookups) = std::thread::scope(|scope| {
        let pushing = scope.spawn(move || send_paced(pushes, multiparts, pace.pause()));
        let mut seconds = 0.0;
        let lookups = serving.lookups(
            || true,
            |serving| {
                let sync = serving.sync()?;
                let completed = sync["workers_completed"].as_u64();
                seconds = began.elapsed().as_secs_f64();
                if began.elapsed() > DEADLINE {
                    return Err(BenchError::Late {
                        what: "syncs did not complete",
                        seconds: DEADLINE.as_secs(),
                        expected: INSTANCES.to_string(),
                        seen: format!("{completed:?}"),
                    });
                }
                Ok(completed == Some(INSTANCES as u64))
            },
        );
        match pushing.join() {
            Ok(pushed) => pushed.and(lookups).map(|[lookups, _]| (seconds, lookups)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    serving.expect_keys(held)?;
    let pace = pace.text();
    let name = format!("until all are complete, {pace}");
    let mut values = vec![Value::less(&name, "s", seconds)];
    values.extend(lookups.values(pace));
    Ok(values)
}
