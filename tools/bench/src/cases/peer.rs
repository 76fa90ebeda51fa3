//! Peer lookups of 100 hashes that another instance holds.

use std::time::{Duration, Instant};

use kvatlas_protocol::Message;

use super::{Case, Latencies, Trial};
use crate::error::BenchError;
use crate::record::Value;
use crate::sockets::Asker;
use crate::traffic::{self, CHAIN, LOCATION, PROMPTS, holder, name};

/// Most requests whose latency is taken.
const REQUESTS: u64 = 5000;
/// Requests before the first that counts.
const WARM_UP: usize = 20;
/// Requests under way in the throughput part.
const OUTSTANDING: usize = 64;

pub(super) fn run(trial: &mut Trial<'_>) -> Result<Vec<Value>, BenchError> {
    let requests = requests(trial.instances);
    let window = Duration::from_millis(trial.args.window_ms);
    let mut turns = requests.iter().zip(0..).cycle();
    let mut next = || turns.next().expect("the cycle never ends");
    for _ in 0..WARM_UP {
        let (request, chain) = next();
        ask(&trial.asker, request, chain, trial.instances)?;
    }
    let mut latencies = Latencies::new();
    let began = Instant::now();
    while latencies.len() < REQUESTS && began.elapsed() < window {
        let (request, chain) = next();
        latencies.record(ask(&trial.asker, request, chain, trial.instances)?);
    }
    let mut values = latencies.values();

    let asker = Asker::connect(trial.ports.reply)?;
    for _ in 0..OUTSTANDING {
        asker.send(next().0)?;
    }
    let before = trial.usage();
    let began = Instant::now();
    let (mut done, mut waiting, mut hits) = (0_u64, OUTSTANDING, 0);
    while waiting > 0 {
        let reply = asker.receive()?;
        done += 1;
        if began.elapsed() < window {
            asker.send(next().0)?;
        } else {
            waiting -= 1;
        }
        // The replies of several requests need not come in their order.
        hits += found(&reply)?.map_or(0, |(_, hits)| hits);
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = trial.usage();
    let expected = i64::try_from(done).unwrap_or(i64::MAX) * CHAIN as i64;
    if hits != expected {
        return Err(BenchError::Wrong {
            case: Case::Peer.name(),
            expected: format!("{expected} hits"),
            got: format!("{hits}"),
        });
    }
    values.push(Value::more(
        &format!("lookups, {OUTSTANDING} outstanding"),
        "1/s",
        done as f64 / seconds,
    ));
    if let (Some(before), Some(after)) = (before, after) {
        let cpu = (after.cpu.saturating_sub(before.cpu)).as_secs_f64();
        values.push(Value::less("CPU per lookup", "us", cpu * 1e6 / done as f64));
    }
    Ok(values)
}

/// A request for every chain, in their order.
pub(super) fn requests(instances: usize) -> Vec<Vec<u8>> {
    (0..PROMPTS)
        .map(|chain| traffic::peer_lookup(chain, instances))
        .collect()
}

/// One lookup; the check is outside the time.
pub(super) fn ask(
    asker: &Asker,
    request: &[u8],
    chain: usize,
    instances: usize,
) -> Result<Duration, BenchError> {
    let began = Instant::now();
    let reply = asker.ask(request)?;
    let took = began.elapsed();
    let expected = Some((name(holder(chain, instances)), CHAIN as i64));
    let found = found(&reply)?;
    if found == expected {
        Ok(took)
    } else {
        Err(BenchError::Wrong {
            case: Case::Peer.name(),
            expected: format!("{expected:?}"),
            got: format!("{found:?}"),
        })
    }
}

/// Instance and hits of the first peer in a reply.
fn found(reply: &[u8]) -> Result<Option<(String, i64)>, BenchError> {
    match Message::decode(reply)? {
        Message::BatchedP2PLookupRetMsg(ret) => Ok(ret
            .layout_info
            .into_iter()
            .next()
            .filter(|(_, location, ..)| location == LOCATION)
            .map(|(instance, _, hits, _)| (instance, hits))),
        other => Err(BenchError::Wrong {
            case: Case::Peer.name(),
            expected: "BatchedP2PLookupRetMsg".to_owned(),
            got: format!("{other:?}"),
        }),
    }
}
