//! Layers of the configuration: command line over environment over file over default.
//!
//! The caller hands in what it read (arguments, environment, file text), so that every rule here is
//! tested without touching the process.

use std::collections::BTreeMap;
use std::fmt;

use super::value::MonitorPorts;
use super::{Config, ENV_FILE, ENV_PREFIX, KNOBS, Knob};

/// Where a value came from, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The YAML file.
    File,
    /// An environment variable.
    Env,
    /// A flag or `key=value` argument.
    CommandLine,
}

/// The layers, as read from the outside.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file's text, if there is a file.
    pub file: Option<String>,
    /// All environment variables.
    pub env: Vec<(String, String)>,
    /// Keys and values of the command line, in order; the last one wins.
    pub command_line: Vec<(String, String)>,
}

/// What the layers add up to.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// Who set what; absent keys have their default.
    pub sources: BTreeMap<&'static str, Source>,
    /// What the operator should know, to be logged once logging runs.
    pub warnings: Vec<String>,
}

/// A configuration that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that does not parse.
    #[error("{key} ({source_name}): got {given:?}, expected {expected}")]
    Wrong {
        /// Key of the knob.
        key: &'static str,
        /// Which layer, and under which name.
        source_name: String,
        /// What was given.
        given: String,
        /// What would have been accepted.
        expected: String,
    },
    /// The file is not a YAML map.
    #[error("configuration file: {reason}")]
    File {
        /// What is wrong with it.
        reason: String,
    },
}

/// Adds the layers up.
pub fn load(layers: &Layers) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded {
        config: Config::default(),
        sources: BTreeMap::new(),
        warnings: Vec::new(),
    };
    if let Some(text) = &layers.file {
        for (key, value) in file_entries(text)? {
            loaded.apply(&key, &value, Source::File, &format!("file, {key}"))?;
        }
    }
    for (name, value) in &layers.env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        if name != ENV_FILE {
            let key = rest.to_ascii_lowercase();
            loaded.apply(&key, value, Source::Env, &format!("environment, {name}"))?;
        }
    }
    for (key, value) in &layers.command_line {
        let name = format!("command line, {key}");
        loaded.apply(key, value, Source::CommandLine, &name)?;
    }
    loaded.settle_monitor_port();
    Ok(loaded)
}

impl Loaded {
    /// Who set `key`.
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).copied().unwrap_or(Source::Default)
    }

    fn apply(
        &mut self,
        key: &str,
        value: &str,
        source: Source,
        source_name: &str,
    ) -> Result<(), ConfigError> {
        let Some(knob) = KNOBS.iter().find(|knob| knob.key == key) else {
            self.warnings.push(unknown(key, source_name));
            return Ok(());
        };
        match self.config.set(knob.key, value) {
            Some(Ok(())) => {
                self.sources.insert(knob.key, source);
                Ok(())
            }
            Some(Err(refusal)) => Err(ConfigError::Wrong {
                key: knob.key,
                source_name: source_name.to_owned(),
                given: value.to_owned(),
                expected: refusal.expected,
            }),
            None => Ok(()),
        }
    }

    /// `--monitor-port N` means pull = N, unless a source at least as strong names all ports.
    fn settle_monitor_port(&mut self) {
        let Some(port) = self.config.monitor_port else {
            return;
        };
        let all = self.source("controller_monitor_ports");
        if all != Source::Default && all >= self.source("monitor_port") {
            self.warnings
                .push("monitor_port is ignored: controller_monitor_ports is set".into());
        } else {
            self.config.controller_monitor_ports = MonitorPorts {
                pull: port,
                ..self.config.controller_monitor_ports
            };
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Env => "environment",
            Self::CommandLine => "command line",
        })
    }
}

/// Keys and values of a YAML map; scalars as their text, the rest as JSON. Null is as good as absent.
fn file_entries(text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let file = |reason: String| ConfigError::File { reason };
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let value: serde_json::Value =
        serde_saphyr::from_str(text).map_err(|error| file(error.to_string()))?;
    let map = match value {
        serde_json::Value::Object(map) => map,
        serde_json::Value::Null => return Ok(Vec::new()),
        _ => return Err(file("expected a map of keys and values".into())),
    };
    Ok(map
        .into_iter()
        .filter_map(|(key, value)| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some((key, text)),
            other => Some((key, other.to_string())),
        })
        .collect())
}

fn unknown(key: &str, source_name: &str) -> String {
    let nearest = KNOBS
        .iter()
        .map(|knob: &Knob| (distance(key, knob.key), knob.key))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match nearest {
        Some((_, near)) => {
            format!("unknown key {key:?} ({source_name}) is ignored; did you mean {near}?")
        }
        None => format!("unknown key {key:?} ({source_name}) is ignored"),
    }
}

/// Edits between two keys. Keys longer than any knob's are far from all of them.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(file: &str, env: &[(&str, &str)], command_line: &[(&str, &str)]) -> Layers {
        let own = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        Layers {
            file: Some(file.to_owned()),
            env: own(env),
            command_line: own(command_line),
        }
    }

    #[test]
    fn each_layer_wins_over_the_one_below() {
        let port = |layers: &Layers| load(layers).unwrap().config.controller_port;
        let file = "controller_port: 1111";
        let env = [("LMCACHE_CONTROLLER_CONTROLLER_PORT", "2222")];
        assert_eq!(port(&Layers::default()), 9000);
        assert_eq!(port(&layers(file, &[], &[])), 1111);
        assert_eq!(port(&layers(file, &env, &[])), 2222);
        assert_eq!(
            port(&layers(file, &env, &[("controller_port", "3333")])),
            3333
        );
    }

    #[test]
    fn the_file_may_hold_maps_lists_and_scalars() {
        let loaded = load(&layers(
            "controller_monitor_ports: {pull: 1, reply: 2}\nchunk_sizes: [16, 256]\nlmcache_worker_timeout: 2.5\nexpire_without_heartbeat: true\ncontroller_advertise_host: null\n",
            &[],
            &[],
        ))
        .unwrap();
        let config = loaded.config;
        assert_eq!(config.controller_monitor_ports.pull, 1);
        assert_eq!(config.controller_monitor_ports.reply, Some(2));
        assert_eq!(config.controller_monitor_ports.heartbeat, Some(8500));
        assert_eq!(config.chunk_sizes.len(), 2);
        assert_eq!(config.lmcache_worker_timeout.as_millis(), 2500);
        assert!(config.expire_without_heartbeat);
        assert_eq!(config.controller_advertise_host, None);
    }

    #[test]
    fn a_wrong_value_names_key_source_given_and_expected() {
        let error = load(&layers(
            "",
            &[("LMCACHE_CONTROLLER_CONTROLLER_PORT", "70000")],
            &[],
        ))
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "controller_port (environment, LMCACHE_CONTROLLER_CONTROLLER_PORT): got \"70000\", expected a port number from 0 to 65535"
        );
        let error = load(&layers("full_sync_completion_threshold: 1.5", &[], &[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "full_sync_completion_threshold (file, full_sync_completion_threshold): got \"1.5\", expected a number from 0 to 1"
        );
    }

    #[test]
    fn an_unknown_key_is_a_warning_with_a_suggestion() {
        let loaded = load(&layers("controller_prot: 1", &[], &[("spam", "1")])).unwrap();
        assert_eq!(
            loaded.warnings,
            [
                "unknown key \"controller_prot\" (file, controller_prot) is ignored; did you mean controller_port?",
                "unknown key \"spam\" (command line, spam) is ignored"
            ]
        );
    }

    #[test]
    fn monitor_port_alone_is_the_pull_port() {
        let pull = |layers: &Layers| load(layers).unwrap().config.controller_monitor_ports;
        let alone = pull(&layers("", &[], &[("monitor_port", "7000")]));
        assert_eq!((alone.pull, alone.reply), (7000, Some(8400)));
        let ports = ("controller_monitor_ports", r#"{"pull": 1, "reply": 2}"#);
        let both = pull(&layers("", &[], &[("monitor_port", "7000"), ports]));
        assert_eq!(both.pull, 1);
        let stronger = pull(&layers(
            "controller_monitor_ports: {pull: 1, reply: 2}",
            &[],
            &[("monitor_port", "7000")],
        ));
        assert_eq!((stronger.pull, stronger.reply), (7000, Some(2)));
    }

    #[test]
    fn a_file_that_is_no_map_is_refused() {
        assert!(matches!(
            load(&layers("- 1\n- 2", &[], &[])),
            Err(ConfigError::File { .. })
        ));
        assert!(matches!(
            load(&layers("a: [", &[], &[])),
            Err(ConfigError::File { .. })
        ));
    }

    #[test]
    fn secrets_are_not_shown() {
        let loaded = load(&layers("extra_config: {token: hunter2}", &[], &[])).unwrap();
        let shown = loaded.config.shown();
        assert!(shown.iter().any(|(_, value)| value == "{token: ***}"));
        assert!(!shown.iter().any(|(_, value)| value.contains("hunter2")));
    }

    #[test]
    fn every_default_reads_back_as_itself() {
        let mut config = Config::default();
        for (key, value) in Config::default().shown() {
            let value = if value == "unset" {
                String::new()
            } else {
                value
            };
            config.set(key, &value).unwrap().unwrap();
        }
        assert_eq!(config.shown(), Config::default().shown());
    }
}
