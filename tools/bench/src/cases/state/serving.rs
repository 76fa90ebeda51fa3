//! A controller that was started on a state directory, and lookups while it does something.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::trial::total_keys;
use super::super::{Latencies, lookup, peer};
use super::{CASE, INSTANCES};
use crate::args::{Attach, Launch};
use crate::error::BenchError;
use crate::http::{self, Http};
use crate::launch::{self, Started};
use crate::process::Process;
use crate::record::Value;
use crate::sockets::Asker;
use crate::traffic;

/// Longest time for an end in order: the final snapshot is in it.
const END: Duration = Duration::from_secs(60);
/// Pause between two looks at how far the controller is; they cost lookups little.
const LOOK: Duration = Duration::from_millis(20);

/// `own` on a state directory. Snapshots are written when the process says so, not by the clock.
pub(super) fn on(dir: &Path, own: &Launch) -> Launch {
    let mut launch = own.clone();
    let state = format!("--state-dir={}", dir.display());
    for argument in ["--no-state=false", &state, "--snapshot-interval-s=86400"] {
        launch.command.push(argument.to_owned());
    }
    launch
}

/// A running process.
pub(super) struct Serving {
    process: Process,
    pub(super) ports: Attach,
    http: Http,
    pub(super) asker: Asker,
    /// From its start until it was ready.
    pub(super) ready: Duration,
}

impl Serving {
    /// Starts it and waits until it is ready and has exactly `keys` keys.
    pub(super) fn start(launch: &Launch, keys: u64) -> Result<Self, BenchError> {
        let Started {
            process,
            ports,
            first_answer,
        } = launch::start(launch, "/readyz")?;
        let mut serving = Self {
            process,
            ports,
            http: Http::connect(ports.http)?,
            asker: Asker::connect(ports.reply)?,
            ready: first_answer,
        };
        serving.expect_keys(keys)?;
        Ok(serving)
    }

    /// It must count exactly so many keys.
    pub(super) fn expect_keys(&mut self, keys: u64) -> Result<(), BenchError> {
        let body = self.http.ask(&http::get("/controller/key-stats"))?;
        let counted = total_keys(body);
        if counted == Some(keys) {
            return Ok(());
        }
        Err(BenchError::Wrong {
            case: CASE,
            expected: format!("{keys} keys"),
            got: format!("{counted:?}"),
        })
    }

    /// `/sync`, cut down to one instance.
    pub(super) fn sync(&mut self) -> Result<serde_json::Value, BenchError> {
        sync(&mut self.http)
    }

    /// Ends it in order.
    pub(super) fn end(self) -> Result<Duration, BenchError> {
        Ok(self.process.terminate(END)?)
    }

    /// Lookups of both kinds in turn, one at a time, until `is_over`.
    pub(super) fn lookups(
        &mut self,
        mut is_over: impl FnMut(&mut Self) -> Result<bool, BenchError>,
    ) -> Result<Lookups, BenchError> {
        let prompts: Vec<_> = (0..traffic::PROMPTS).map(traffic::lookup).collect();
        let chains = peer::requests(INSTANCES);
        let mut client = lookup::Client::connect(self.ports.http, INSTANCES, &prompts)?;
        let mut found = Lookups {
            by_http: Latencies::new(),
            by_peers: Latencies::new(),
        };
        let mut looked = Instant::now();
        for (request, chain) in chains.iter().zip(0..).cycle() {
            found.by_http.record(client.ask()?);
            let took = peer::ask(&self.asker, request, chain, INSTANCES)?;
            found.by_peers.record(took);
            if looked.elapsed() >= LOOK {
                if is_over(self)? {
                    break;
                }
                looked = Instant::now();
            }
        }
        Ok(found)
    }
}

/// `/sync`, cut down to one instance.
pub(super) fn sync(http: &mut Http) -> Result<serde_json::Value, BenchError> {
    let path = format!("/sync?instance_id={}", traffic::name(0));
    Ok(http.json(&http::get(&path))?)
}

/// How long lookups took.
pub(super) struct Lookups {
    by_http: Latencies,
    by_peers: Latencies,
}

impl Lookups {
    /// Median and 99th percentile of each kind, `when` something happened.
    pub(super) fn values(&self, when: &str) -> Vec<Value> {
        let kinds = [("lookup", &self.by_http), ("peer lookup", &self.by_peers)];
        let of_kind = |(kind, latencies): (&str, &Latencies)| {
            let named = |mut value: Value| {
                value.metric = format!("{kind} {}, {when}", value.metric);
                value
            };
            let values = latencies.values().into_iter().take(2);
            values.map(named).collect::<Vec<_>>()
        };
        kinds.into_iter().flat_map(of_kind).collect()
    }
}
