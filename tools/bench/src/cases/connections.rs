//! A thousand connections at once, each with one question.

use std::time::Instant;

use super::{Case, Trial, peer};
use crate::error::BenchError;
use crate::record::Value;
use crate::sockets::{self, Asker};

/// Connections opened.
const CONNECTIONS: usize = 1000;

pub(super) fn run(trial: &mut Trial<'_>) -> Result<Vec<Value>, BenchError> {
    let requests = peer::requests(trial.instances);
    let before = trial.usage();
    let began = Instant::now();
    let sockets = sockets::connect(CONNECTIONS, zmq::DEALER, trial.ports.reply)?;
    let askers: Vec<Asker> = sockets.into_iter().map(Asker::new).collect();
    for (asker, request) in askers.iter().zip(requests.iter().cycle()) {
        asker.send(request)?;
    }
    let mut answered = 0;
    for asker in &askers {
        answered += usize::from(!asker.receive()?.is_empty());
    }
    let seconds = began.elapsed().as_secs_f64();
    if answered != CONNECTIONS {
        return Err(BenchError::Wrong {
            case: Case::Connections.name(),
            expected: CONNECTIONS.to_string(),
            got: answered.to_string(),
        });
    }
    let mut values = vec![Value::less("1,000 connected and answered", "s", seconds)];
    if let (Some(before), Some(after)) = (before, trial.usage()) {
        values.push(Value::less(
            "memory per connection",
            "kB",
            (after.resident - before.resident) / CONNECTIONS as f64 / 1e3,
        ));
    }
    Ok(values)
}
