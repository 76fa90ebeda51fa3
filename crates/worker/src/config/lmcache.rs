//! LMCache's worker configuration: its YAML file, then `LMCACHE_*` variables over it.
//!
//! Only the keys that concern a worker of a controller are read; the other hundred and more are
//! the engine's and are passed over. Older names (`controller_url`, `lmcache_worker_port`) count
//! where the new one is absent. Values convert as upstream's do: `"1,2"`, `1` and `[1, 2]` are all
//! lists of ports, `True`, `"true"` and `1` are all true. A value that does not convert is an
//! error here; upstream warns and goes on with the default.
//! Upstream: `lmcache/v1/config.py`, `config_base.py`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use kvatlas_protocol::WorkerKey;
use kvatlas_protocol::chunk_hash::HashAlgorithm;
use serde_json::Value;

use super::{AgentConfig, KeySign};
use crate::error::ConfigError;
use crate::{full_sync, heartbeat, publisher};

/// Name now, name before.
const ALIASES: &[(&str, &str)] = &[
    ("controller_pull_url", "controller_url"),
    ("lmcache_worker_ports", "lmcache_worker_port"),
];

/// LMCache's configuration, as far as a worker of a controller is concerned.
#[derive(Debug, Clone, PartialEq)]
pub struct LmcacheConfig {
    /// `enable_controller`.
    pub enable_controller: bool,
    /// `lmcache_instance_id`.
    pub instance_id: Option<String>,
    /// `controller_pull_url`, `host:port`.
    pub pull_url: Option<String>,
    /// `controller_reply_url`, `host:port`.
    pub reply_url: Option<String>,
    /// `lmcache_worker_ports`, one a rank.
    pub worker_ports: Vec<u16>,
    /// `lmcache_worker_ids`: the ranks that have a worker; empty for all.
    pub worker_ids: Vec<i64>,
    /// `lmcache_worker_heartbeat_time`. Absent means every 10 s here (upstream: never), 0 never.
    pub heartbeat: heartbeat::Settings,
    /// `enable_p2p`.
    pub enable_p2p: bool,
    /// `p2p_host`.
    pub p2p_host: Option<String>,
    /// `p2p_init_ports`, by rank.
    pub p2p_init_ports: Vec<u16>,
    /// `chunk_size`.
    pub chunk_size: NonZeroUsize,
    /// `pre_caching_hash_algorithm`.
    pub hash_algorithm: HashAlgorithm,
    /// `local_cpu`.
    pub local_cpu: bool,
    /// `max_local_cpu_size`, in GB.
    pub max_local_cpu_size: f64,
    /// `local_disk` is set.
    pub local_disk: bool,
    /// `max_local_disk_size`, in GB.
    pub max_local_disk_size: f64,
    /// `extra_config`'s `worker_socket_recv_timeout_ms`.
    pub request_timeout: Duration,
    /// `extra_config`'s `kv_msg_*`.
    pub batching: publisher::Settings,
    /// `extra_config`'s `full_sync_*`.
    pub full_sync: full_sync::Settings,
}

impl LmcacheConfig {
    /// Reads `file` (if given) and lets `environment` (names and values, such as
    /// `std::env::vars()`) override it.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = match file {
            Some(path) => {
                Some(
                    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                        path: path.display().to_string(),
                        source,
                    })?,
                )
            }
            None => None,
        };
        let name = file.map_or_else(String::new, |path| path.display().to_string());
        Self::parse(&name, text.as_deref().unwrap_or_default(), environment)
    }

    /// As [`load`](Self::load), from text; `name` stands for the file in errors.
    pub fn parse(
        name: &str,
        yaml: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Source::new(name, yaml, environment)?.config()
    }

    /// The ranks that have a worker.
    pub fn ranks(&self) -> Vec<i64> {
        if self.worker_ids.is_empty() {
            (0..self.worker_ports.len() as i64).collect()
        } else {
            self.worker_ids.clone()
        }
    }

    /// One agent a rank, with the checks upstream makes at start.
    pub fn agents(&self) -> Result<Vec<AgentConfig>, ConfigError> {
        if !self.enable_controller {
            return Err(ConfigError::Disabled);
        }
        let instance = required("lmcache_instance_id", self.instance_id.as_ref())?;
        let pull_url = required("controller_pull_url", self.pull_url.as_ref())?;
        let reply_url = required("controller_reply_url", self.reply_url.as_ref())?;
        if self.worker_ports.is_empty() {
            required("lmcache_worker_ports", None)?;
        }
        let ranks = self.ranks();
        if self.worker_ports.len() < ranks.len() {
            return Err(ConfigError::TooFewPorts {
                key: "lmcache_worker_ports",
                given: self.worker_ports.len(),
                needed: ranks.len(),
            });
        }
        let keys = KeySign::of(self.hash_algorithm);
        ranks
            .iter()
            .zip(&self.worker_ports)
            .map(|(&rank, &command_port)| {
                Ok(AgentConfig {
                    command_port,
                    peer_url: self.peer_url(rank)?,
                    keys,
                    request_timeout: self.request_timeout,
                    heartbeat: self.heartbeat.clone(),
                    batching: self.batching.clone(),
                    full_sync: self.full_sync.clone(),
                    ..AgentConfig::new(
                        WorkerKey::new(instance.as_str(), rank),
                        pull_url.clone(),
                        reply_url.clone(),
                    )
                })
            })
            .collect()
    }

    fn peer_url(&self, rank: i64) -> Result<Option<String>, ConfigError> {
        if !self.enable_p2p {
            return Ok(None);
        }
        let host = self.p2p_host.as_ref().ok_or(ConfigError::Missing {
            key: "p2p_host",
            because: " with enable_p2p",
        })?;
        let port = usize::try_from(rank)
            .ok()
            .and_then(|rank| self.p2p_init_ports.get(rank))
            .ok_or(ConfigError::TooFewPorts {
                key: "p2p_init_ports",
                given: self.p2p_init_ports.len(),
                needed: usize::try_from(rank + 1).unwrap_or(1),
            })?;
        Ok(Some(format!("{host}:{port}")))
    }
}

fn required<'a>(key: &'static str, value: Option<&'a String>) -> Result<&'a String, ConfigError> {
    value.ok_or(ConfigError::Missing {
        key,
        because: " with enable_controller",
    })
}

/// Keys with where they came from.
struct Source {
    values: BTreeMap<String, (Value, String)>,
}

impl Source {
    fn new(
        name: &str,
        yaml: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let invalid = |reason: String| ConfigError::Yaml {
            path: name.to_owned(),
            reason,
        };
        let parsed = if yaml.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(yaml).map_err(|error| invalid(error.to_string()))?
        };
        let mut values = BTreeMap::new();
        match parsed {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map {
                    values.insert(key, (value, name.to_owned()));
                }
            }
            _ => return Err(invalid("not a mapping of keys to values".into())),
        }
        for (variable, value) in environment {
            if let Some(key) = variable.strip_prefix("LMCACHE_") {
                let value = Value::String(unquoted(&value).to_owned());
                values.insert(key.to_ascii_lowercase(), (value, variable));
            }
        }
        Ok(Self { values })
    }

    fn config(&self) -> Result<LmcacheConfig, ConfigError> {
        let extra = self.extra()?;
        let heartbeat = heartbeat::Settings::default();
        let sync = full_sync::Settings::default();
        let batching = publisher::Settings::default();
        Ok(LmcacheConfig {
            enable_controller: self.read("enable_controller", boolean)?.unwrap_or(false),
            instance_id: self.read("lmcache_instance_id", text)?,
            pull_url: self.read("controller_pull_url", text)?,
            reply_url: self.read("controller_reply_url", text)?,
            worker_ports: self.read("lmcache_worker_ports", list)?.unwrap_or_default(),
            worker_ids: self.read("lmcache_worker_ids", list)?.unwrap_or_default(),
            heartbeat: heartbeat::Settings {
                interval: match self.read("lmcache_worker_heartbeat_time", number::<f64>)? {
                    None => heartbeat.interval,
                    Some(seconds) => positive_seconds(seconds),
                },
                delay: self
                    .read("lmcache_worker_heartbeat_delay_time", seconds)?
                    .unwrap_or(heartbeat.delay),
                min_silence: heartbeat.min_silence,
            },
            enable_p2p: self.read("enable_p2p", boolean)?.unwrap_or(false),
            p2p_host: self.read("p2p_host", text)?,
            p2p_init_ports: self.read("p2p_init_ports", list)?.unwrap_or_default(),
            chunk_size: self
                .read("chunk_size", number)?
                .unwrap_or(const { NonZeroUsize::new(256).unwrap() }),
            hash_algorithm: self
                .read("pre_caching_hash_algorithm", algorithm)?
                .unwrap_or_default(),
            local_cpu: self.read("local_cpu", boolean)?.unwrap_or(true),
            max_local_cpu_size: self.read("max_local_cpu_size", size)?.unwrap_or(5.0),
            local_disk: self
                .read("local_disk", text)?
                .is_some_and(|path| !path.trim().is_empty()),
            max_local_disk_size: self.read("max_local_disk_size", size)?.unwrap_or(0.0),
            request_timeout: extra
                .read("worker_socket_recv_timeout_ms", milliseconds)?
                .unwrap_or(Duration::from_secs(30)),
            batching: publisher::Settings {
                batch_size: extra
                    .read("kv_msg_batch_size", number::<NonZeroUsize>)?
                    .map_or(batching.batch_size, NonZeroUsize::get),
                batch_timeout: extra
                    .read("kv_msg_batch_timeout", seconds)?
                    .unwrap_or(batching.batch_timeout),
                queue_limit: extra
                    .read("kv_msg_queue_limit", number::<NonZeroUsize>)?
                    .map_or(batching.queue_limit, NonZeroUsize::get),
            },
            full_sync: full_sync::Settings {
                batch_size: extra
                    .read("full_sync_batch_size", number::<NonZeroUsize>)?
                    .map_or(sync.batch_size, NonZeroUsize::get),
                batch_interval: extra
                    .read("full_sync_batch_interval_ms", milliseconds)?
                    .unwrap_or(sync.batch_interval),
                startup_delay: extra
                    .read("full_sync_startup_delay_s", seconds)?
                    .unwrap_or(sync.startup_delay),
                status_poll_interval: extra
                    .read("full_sync_status_poll_interval_s", seconds)?
                    .unwrap_or(sync.status_poll_interval),
                max_start_attempts: extra
                    .read("full_sync_max_retry_count", number)?
                    .unwrap_or(sync.max_start_attempts),
                retry_delay: extra
                    .read("full_sync_retry_delay_s", seconds)?
                    .unwrap_or(sync.retry_delay),
                max_poll_attempts: extra
                    .read("full_sync_max_poll_attempts", number)?
                    .unwrap_or(sync.max_poll_attempts),
                resend_after: sync.resend_after,
            },
        })
    }

    /// The keys inside `extra_config`: a mapping, or JSON text of one.
    fn extra(&self) -> Result<Self, ConfigError> {
        let map = self.read("extra_config", |value| match value {
            Value::Object(map) => Ok(map.clone()),
            Value::String(json) => serde_json::from_str(json).map_err(|_| "a JSON object"),
            _ => Err("a mapping"),
        })?;
        let origin = self
            .values
            .get("extra_config")
            .map_or_else(String::new, |(_, origin)| {
                format!("extra_config of {origin}")
            });
        Ok(Self {
            values: map
                .into_iter()
                .flatten()
                .map(|(key, value)| (key, (value, origin.clone())))
                .collect(),
        })
    }

    /// The value of `key`, or of its older name; null is as good as absent.
    fn read<T>(
        &self,
        key: &str,
        convert: impl Fn(&Value) -> Result<T, &'static str>,
    ) -> Result<Option<T>, ConfigError> {
        let older = ALIASES.iter().find(|(now, _)| *now == key);
        let found = [Some(key), older.map(|(_, before)| *before)]
            .into_iter()
            .flatten()
            .find_map(|key| Some((key, self.values.get(key)?)));
        let Some((key, (value, origin))) = found else {
            return Ok(None);
        };
        if value.is_null() {
            return Ok(None);
        }
        convert(value)
            .map(Some)
            .map_err(|expected| ConfigError::Value {
                key: key.to_owned(),
                origin: origin.clone(),
                expected,
                given: value.to_string().chars().take(80).collect(),
            })
    }
}

fn text(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("text"),
    }
}

/// Also YAML 1.1's words, which PyYAML reads as booleans and this crate's parser as text.
fn boolean(value: &Value) -> Result<bool, &'static str> {
    const EXPECTED: &str = "true or false";
    match value {
        Value::Bool(given) => Ok(*given),
        Value::Number(number) => Ok(number.as_i64() == Some(1)),
        Value::String(word) => match word.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" | "" => Ok(false),
            _ => Err(EXPECTED),
        },
        _ => Err(EXPECTED),
    }
}

fn number<T: FromStr>(value: &Value) -> Result<T, &'static str> {
    match value {
        Value::Number(number) => number.to_string().parse().ok(),
        Value::String(digits) => digits.trim().parse().ok(),
        _ => None,
    }
    .ok_or("a number in range")
}

fn list<T: FromStr>(value: &Value) -> Result<Vec<T>, &'static str> {
    match value {
        Value::Array(items) => items.iter().map(number).collect(),
        Value::String(items) => items
            .split(',')
            .filter(|item| !item.trim().is_empty())
            .map(|item| number(&Value::from(item)))
            .collect(),
        single => Ok(vec![number(single)?]),
    }
}

fn size(value: &Value) -> Result<f64, &'static str> {
    let size: f64 = number(value)?;
    if size.is_finite() && size >= 0.0 {
        Ok(size)
    } else {
        Err("a size in GB")
    }
}

fn seconds(value: &Value) -> Result<Duration, &'static str> {
    Duration::try_from_secs_f64(number(value)?).map_err(|_| "seconds")
}

fn milliseconds(value: &Value) -> Result<Duration, &'static str> {
    let milliseconds: f64 = number(value)?;
    Duration::try_from_secs_f64(milliseconds / 1e3).map_err(|_| "milliseconds")
}

fn positive_seconds(seconds: f64) -> Option<Duration> {
    (seconds > 0.0)
        .then(|| Duration::try_from_secs_f64(seconds).ok())
        .flatten()
}

fn algorithm(value: &Value) -> Result<HashAlgorithm, &'static str> {
    const EXPECTED: &str = "builtin, sha256_cbor, xxhash_cbor, sha256 or xxhash";
    match value {
        Value::String(name) => name.parse().map_err(|_| EXPECTED),
        _ => Err(EXPECTED),
    }
}

/// Upstream takes quotes around a variable's value off.
fn unquoted(value: &str) -> &str {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
        {
            return inner;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As LMCache's documentation and its P2P examples show it.
    const EXAMPLE: &str = "\
chunk_size: 256
local_cpu: True
max_local_cpu_size: 5
enable_async_loading: True

# P2P configurations
enable_p2p: True
p2p_host: \"localhost\"
p2p_init_ports: [8200, 8201]
p2p_lookup_ports: [8202, 8203]
transfer_channel: \"nixl\"

# Controller configurations
enable_controller: True
lmcache_instance_id: \"lmcache_instance_1\"
controller_pull_url: \"localhost:8300\"
controller_reply_url: \"localhost:8400\"
lmcache_worker_ports: [8500, 8501]

extra_config:
  lookup_backoff_time: 0.001
  full_sync_batch_size: 500
  full_sync_startup_delay_s: 0
  kv_msg_batch_timeout: 0.02
";

    fn parse(yaml: &str, environment: &[(&str, &str)]) -> Result<LmcacheConfig, ConfigError> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        LmcacheConfig::parse("worker.yaml", yaml, environment)
    }

    #[test]
    fn one_agent_a_rank_from_the_documented_file() {
        let config = parse(EXAMPLE, &[]).unwrap();
        let agents = config.agents().unwrap();
        assert_eq!(agents.len(), 2);
        assert_eq!(agents[1].worker, WorkerKey::new("lmcache_instance_1", 1));
        assert_eq!(agents[1].command_port, 8501);
        assert_eq!(agents[1].peer_url.as_deref(), Some("localhost:8201"));
        assert_eq!(agents[1].pull_url, "localhost:8300");
        assert_eq!(agents[1].reply_url, "localhost:8400");
        assert_eq!(agents[1].keys, KeySign::Signed);
        assert_eq!(agents[0].full_sync.batch_size, 500);
        assert_eq!(agents[0].full_sync.startup_delay, Duration::ZERO);
        assert_eq!(agents[0].batching.batch_timeout, Duration::from_millis(20));
        assert_eq!(agents[0].batching.batch_size, 50);
    }

    #[test]
    fn environment_wins_and_older_names_count() {
        let config = parse(
            "enable_controller: yes\ncontroller_url: a:1\nlmcache_worker_port: 9001\n",
            &[
                ("LMCACHE_CONTROLLER_REPLY_URL", "'b:2'"),
                ("LMCACHE_LMCACHE_INSTANCE_ID", "from-env"),
                ("LMCACHE_LMCACHE_WORKER_HEARTBEAT_TIME", "3"),
                ("LMCACHE_PRE_CACHING_HASH_ALGORITHM", "sha256_cbor"),
                (
                    "LMCACHE_EXTRA_CONFIG",
                    r#"{"full_sync_max_retry_count": 9}"#,
                ),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        let agents = config.agents().unwrap();
        assert_eq!(agents.len(), 1);
        let agent = &agents[0];
        assert_eq!(
            (agent.pull_url.as_str(), agent.reply_url.as_str()),
            ("a:1", "b:2")
        );
        assert_eq!(agent.worker, WorkerKey::new("from-env", 0));
        assert_eq!(agent.command_port, 9001);
        assert_eq!(agent.keys, KeySign::Unsigned);
        assert_eq!(agent.heartbeat.interval, Some(Duration::from_secs(3)));
        assert_eq!(agent.full_sync.max_start_attempts, 9);
        assert_eq!(agent.peer_url, None);
    }

    #[test]
    fn worker_ids_choose_the_ranks_and_ports_follow_their_order() {
        let config = parse(EXAMPLE, &[("LMCACHE_LMCACHE_WORKER_IDS", "1")]).unwrap();
        let agents = config.agents().unwrap();
        assert_eq!(agents.len(), 1);
        assert_eq!(agents[0].worker.worker.0, 1);
        assert_eq!(agents[0].command_port, 8500);
        assert_eq!(agents[0].peer_url.as_deref(), Some("localhost:8201"));
    }

    #[test]
    fn heartbeats_default_on_and_zero_is_off() {
        assert_eq!(
            parse(EXAMPLE, &[]).unwrap().heartbeat.interval,
            Some(Duration::from_secs(10))
        );
        let off = [("LMCACHE_LMCACHE_WORKER_HEARTBEAT_TIME", "0")];
        assert_eq!(parse(EXAMPLE, &off).unwrap().heartbeat.interval, None);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let said = |yaml: &str, environment: &[(&str, &str)]| {
            parse(yaml, environment)
                .and_then(|config| config.agents())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(said("", &[]), "enable_controller is not true");
        assert_eq!(
            said("enable_controller: true", &[]),
            "lmcache_instance_id is required with enable_controller"
        );
        assert_eq!(
            said(EXAMPLE, &[("LMCACHE_LMCACHE_WORKER_PORTS", "1,x")]),
            "lmcache_worker_ports from LMCACHE_LMCACHE_WORKER_PORTS: \
             expected a number in range, got \"1,x\""
        );
        assert_eq!(
            said(EXAMPLE, &[("LMCACHE_LMCACHE_WORKER_PORTS", "1,2,3")]),
            "p2p_init_ports has 2 ports, 3 ranks need one each"
        );
        assert!(said("- a\n- b\n", &[]).starts_with("worker.yaml: not a mapping"));
        assert!(said("a: [", &[]).starts_with("worker.yaml: "));
        assert!(said("chunk_size: 0", &[]).contains("chunk_size from worker.yaml"));
        assert!(said("extra_config: {full_sync_retry_delay_s: -1}", &[]).contains("seconds"));
    }
}
