//! One controller with a fleet connected to it, and what the fleet has told it.

use std::time::{Duration, Instant};

use kvatlas_protocol::Message;

use super::Case;
use crate::args::{Args, Attach};
use crate::error::BenchError;
use crate::http::{self, Http};
use crate::launch::Started;
use crate::process::{Process, Usage};
use crate::record::Value;
use crate::sockets::{Asker, Pushes};
use crate::traffic::{self, PROMPTS, Streams};

/// Longest wait for keys to be counted.
const DEADLINE: Duration = Duration::from_secs(120);

/// Longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// See the module's text.
pub(crate) struct Trial<'a> {
    pub(super) args: &'a Args,
    pub(super) ports: Attach,
    pub(super) instances: usize,
    pub(super) pushes: Pushes,
    pub(super) asker: Asker,
    pub(super) streams: Streams,
    /// Keys that each instance ingested, from position 0.
    pub(super) ingested: usize,
    /// Keys that the fleet holds.
    pub(super) held: u64,
    /// Keys that were there before the fleet.
    before: u64,
    http: Http,
    process: Option<Process>,
    first_answer: Option<Duration>,
    idle: Option<Usage>,
    /// Where workers say that they take commands; nobody reads it.
    _commands: zmq::Socket,
}

impl<'a> Trial<'a> {
    /// Connects a fleet, registers it and stores what will be looked up.
    pub(crate) fn begin(
        args: &'a Args,
        ports: Attach,
        started: Option<Started>,
        instances: usize,
    ) -> Result<Self, BenchError> {
        let idle = started.as_ref().map(|started| started.process.usage());
        let first_answer = started.as_ref().map(|started| started.first_answer);
        let commands = zmq::Context::new().socket(zmq::ROUTER)?;
        commands.bind("tcp://127.0.0.1:*")?;
        let mut trial = Self {
            args,
            ports,
            instances,
            pushes: Pushes::connect(instances, ports.pull)?,
            asker: Asker::connect(ports.reply)?,
            streams: Streams::new(instances),
            ingested: 0,
            held: 0,
            before: 0,
            http: Http::connect(ports.http)?,
            process: started.map(|started| started.process),
            first_answer,
            idle,
            _commands: commands,
        };
        trial.before = trial.keys()?;
        trial.register()?;
        trial.store_prompts()?;
        Ok(trial)
    }

    /// What the start took.
    pub(super) fn started(&self) -> Vec<Value> {
        let mut values = Vec::new();
        if let (Some(first_answer), Some(idle)) = (self.first_answer, self.idle) {
            values.push(Value::less(
                "start to first answer",
                "s",
                first_answer.as_secs_f64(),
            ));
            values.push(Value::less("resident when idle", "MB", idle.resident / 1e6));
        }
        values
    }

    /// What the controller's process uses, if this trial started it.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.process.as_ref().map(Process::usage)
    }

    /// Distinct (key, holder) pairs that the controller counts.
    fn keys(&mut self) -> Result<u64, BenchError> {
        let request = http::get("/controller/key-stats");
        let body = match self.http.ask(&request) {
            Ok(body) => body.to_vec(),
            // A server may end a connection that was idle for seconds.
            Err(_) => {
                self.http = Http::connect(self.ports.http)?;
                self.http.ask(&request)?.to_vec()
            }
        };
        total_keys(&body).ok_or_else(|| BenchError::Wrong {
            case: "key-stats",
            expected: "total_key_count".to_owned(),
            got: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// Waits until the controller counts exactly what the fleet holds.
    ///
    /// Asks more and more rarely, and the more rarely the longer an answer takes (it lists every
    /// instance), so that asking neither costs much nor adds more than a few percent to the time.
    pub(super) fn drain(&mut self) -> Result<(), BenchError> {
        let began = Instant::now();
        let expected = self.before + self.held;
        loop {
            let asked = began.elapsed();
            let seen = self.keys()?;
            if seen == expected {
                return Ok(());
            }
            let waited = began.elapsed();
            if waited > DEADLINE {
                return Err(BenchError::Late {
                    what: "keys were not counted",
                    seconds: DEADLINE.as_secs(),
                    expected: expected.to_string(),
                    seen: seen.to_string(),
                });
            }
            let took = waited.saturating_sub(asked);
            std::thread::sleep((waited / 50).max(took * 10).min(LONGEST_PAUSE));
        }
    }

    fn register(&mut self) -> Result<(), BenchError> {
        let endpoint = self._commands.get_last_endpoint()?.unwrap_or_default();
        let port = endpoint
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        let port = port.ok_or(BenchError::Zmq(zmq::Error::EADDRNOTAVAIL))?;
        let requests: Vec<_> = (0..self.instances)
            .map(|instance| traffic::register(instance, port))
            .collect();
        let requests = requests.iter().map(Vec::as_slice);
        self.asker.ask_all(requests, |reply| match reply {
            Message::RegisterRetMsg(_) => Ok(()),
            other => Err(BenchError::Wrong {
                case: Case::Start.name(),
                expected: "RegisterRetMsg".to_owned(),
                got: format!("{other:?}"),
            }),
        })
    }

    /// Also what connects and warms every socket that stores something.
    fn store_prompts(&mut self) -> Result<(), BenchError> {
        for at in 0..PROMPTS {
            let instance = traffic::holder(at, self.instances);
            let keys = traffic::stored_keys(at);
            self.held += keys.len() as u64;
            for multipart in self.streams.admits(instance, &keys) {
                self.pushes.send(&multipart)?;
            }
        }
        self.drain()
    }
}

/// The total in an answer of `/controller/key-stats`, read without building the list of instances.
pub(super) fn total_keys(body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("\"total_key_count\"")?;
    let number = rest.trim_start_matches([':', ' ']);
    let end = number.find(|c: char| !c.is_ascii_digit());
    number[..end?].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::total_keys;

    #[test]
    fn the_total_is_found_anywhere() {
        for (body, expected) in [
            (r#"{"total_key_count":12,"instances":[]}"#, Some(12)),
            (r#"{"instances": [], "total_key_count": 7}"#, Some(7)),
            (r#"{"total_key_count":null}"#, None),
            ("", None),
        ] {
            assert_eq!(total_keys(body.as_bytes()), expected, "{body}");
        }
    }
}
