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

/// `own` on a state directory, with a snapshot every so many seconds if something happened.
pub(super) fn on(dir: &Path, own: &Launch, snapshot_interval_s: f64) -> Launch {
    let mut launch = own.clone();
    launch.command.extend([
        "--no-state=false".to_owned(),
        format!("--state-dir={}", dir.display()),
        format!("--snapshot-interval-s={snapshot_interval_s}"),
    ]);
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

    /// Lookups of both kinds in turn, one at a time, until `is_over`: those while `is_busy`, and the
    /// others.
    pub(super) fn lookups(
        &mut self,
        is_busy: impl Fn() -> bool,
        mut is_over: impl FnMut(&mut Self) -> Result<bool, BenchError>,
    ) -> Result<[Lookups; 2], BenchError> {
        let prompts: Vec<_> = (0..traffic::PROMPTS).map(traffic::lookup).collect();
        let chains = peer::requests(INSTANCES);
        let mut client = lookup::Client::connect(self.ports.http, INSTANCES, &prompts)?;
        let [mut busy, mut quiet] = [Lookups::default(), Lookups::default()];
        let mut looked = Instant::now();
        for (request, chain) in chains.iter().zip(0..).cycle() {
            let was_busy = is_busy();
            let by_http = client.ask()?;
            let by_peer = peer::ask(&self.asker, request, chain, INSTANCES)?;
            let found = match was_busy || is_busy() {
                true => &mut busy,
                false => &mut quiet,
            };
            found.by_http.record(by_http);
            found.by_peers.record(by_peer);
            if looked.elapsed() >= LOOK {
                if is_over(self)? {
                    break;
                }
                looked = Instant::now();
            }
        }
        Ok([busy, quiet])
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

impl Default for Lookups {
    fn default() -> Self {
        Self {
            by_http: Latencies::new(),
            by_peers: Latencies::new(),
        }
    }
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
