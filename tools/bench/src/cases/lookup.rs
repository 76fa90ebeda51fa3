//! `POST /lookup` with prompts that somebody holds whole.

use std::time::{Duration, Instant};

use super::{Case, Latencies, Trial};
use crate::error::BenchError;
use crate::http::Http;
use crate::record::Value;
use crate::traffic::{self, LOCATION, PROMPT_TOKENS, PROMPTS, holder, name};

/// Most requests whose latency is taken.
const REQUESTS: u64 = 2000;
/// Requests before the first that counts.
const WARM_UP: usize = 20;

pub(super) fn run(trial: &mut Trial<'_>) -> Result<Vec<Value>, BenchError> {
    let requests: Vec<_> = (0..PROMPTS).map(traffic::lookup).collect();
    let window = Duration::from_millis(trial.args.window_ms);
    let mut client = Client::connect(trial.ports.http, trial.instances, &requests)?;
    for _ in 0..WARM_UP {
        client.ask()?;
    }
    let mut latencies = Latencies::new();
    let began = Instant::now();
    while latencies.len() < REQUESTS && began.elapsed() < window {
        latencies.record(client.ask()?);
    }
    let mut values = latencies.values();

    let mut clients = Vec::new();
    for _ in 0..trial.args.connections {
        let mut client = Client::connect(trial.ports.http, trial.instances, &requests)?;
        client.ask()?;
        clients.push(client);
    }
    let before = trial.usage();
    let began = Instant::now();
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let mut done = 0_u64;
                    while began.elapsed() < window {
                        client.ask()?;
                        done += 1;
                    }
                    Ok::<u64, BenchError>(done)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(count) => count,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect::<Result<Vec<u64>, _>>()
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let requests = counts.iter().sum::<u64>() as f64;
    let connections = trial.args.connections;
    values.push(Value::more(
        &format!("requests, {connections} connections"),
        "1/s",
        requests / seconds,
    ));
    if let (Some(before), Some(after)) = (before, trial.usage()) {
        let cpu = (after.cpu.saturating_sub(before.cpu)).as_secs_f64();
        values.push(Value::less("CPU per request", "us", cpu * 1e6 / requests));
    }
    Ok(values)
}

/// One connection that asks for the prompts in turn and checks the answers.
pub(super) struct Client<'r> {
    http: Http,
    requests: &'r [Vec<u8>],
    instances: usize,
    next: usize,
}

impl<'r> Client<'r> {
    pub(super) fn connect(
        port: u16,
        instances: usize,
        requests: &'r [Vec<u8>],
    ) -> Result<Self, BenchError> {
        Ok(Self {
            http: Http::connect(port)?,
            requests,
            instances,
            next: 0,
        })
    }

    /// One request; the check is outside the time.
    pub(super) fn ask(&mut self) -> Result<Duration, BenchError> {
        let prompt = self.next;
        self.next = (prompt + 1) % self.requests.len();
        let began = Instant::now();
        let body = self.http.ask(&self.requests[prompt])?;
        let took = began.elapsed();
        let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let instance = name(holder(prompt, self.instances));
        let expected = serde_json::json!({ instance: [LOCATION, PROMPT_TOKENS] });
        if answer["layout_info"] == expected {
            Ok(took)
        } else {
            Err(BenchError::Wrong {
                case: Case::Lookup.name(),
                expected: expected.to_string(),
                got: answer.to_string(),
            })
        }
    }
}
