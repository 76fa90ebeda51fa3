//! The command line: flags and `key=value` pairs over the knobs, and the subcommands.
//!
//! Without a subcommand, and with `serve`, the controller starts: upstream's flags work at the top
//! level. Flags come from the table of knobs, so that a knob is declared once.
//!
//! Upstream: `lmcache/v1/api_server/__main__.py` (`main`).

pub mod client;
mod completions;
pub mod demo;
mod man;
pub mod openapi;
pub mod reference;
pub mod top;
pub mod worker;

use std::ffi::OsString;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Subcommand};

use crate::config::{ENV_FILE, KNOBS};

pub mod bench;

/// What the process was asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Talk to a running controller.
    Client(Box<client::ClientCommand>),
    /// Watch a running controller.
    Top(Box<top::TopArgs>),
    /// Simulate an engine.
    Worker(Box<worker::WorkerArgs>),
    /// Start a controller with a simulated fleet.
    Demo(Box<demo::DemoArgs>),
    /// Start the controller.
    Serve {
        /// The configuration file.
        config_file: Option<String>,
        /// Keys and values, in the order of the command line.
        overrides: Vec<(String, String)>,
    },
    /// Measure controllers.
    Bench(Box<kvatlas_bench::Args>),
    /// Print a text made from the command line or the knobs.
    Print(Vec<u8>),
}

const CONFIG: &str = "config";
const PAIRS: &str = "pairs";

/// Takes the arguments apart; the first is the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, clap::Error> {
    let args = args.into_iter().map(underscored_pair);
    let matches = command().try_get_matches_from(args)?;
    if let Some(matches) = matches.subcommand_matches(bench::NAME) {
        return bench::request(matches);
    }
    match matches.subcommand() {
        Some(("worker", matches)) => {
            return worker::parse(matches).map(|args| Request::Worker(Box::new(args)));
        }
        Some(("demo", matches)) => {
            return demo::parse(matches).map(|args| Request::Demo(Box::new(args)));
        }
        Some(("top", matches)) => {
            return top::parse(matches).map(|args| Request::Top(Box::new(args)));
        }
        Some((completions::NAME, matches)) => {
            return Ok(Request::Print(completions::text(&mut command(), matches)));
        }
        Some((man::NAME, matches)) => return man::text(command(), matches).map(Request::Print),
        Some((openapi::NAME, _)) => return Ok(Request::Print(openapi::text().into_bytes())),
        Some((reference::NAME, _)) => return Ok(Request::Print(reference::text().into_bytes())),
        Some(("serve", _)) | None => {}
        Some(_) => {
            let command = client::ClientCommand::from_arg_matches(&matches)?;
            return Ok(Request::Client(Box::new(command)));
        }
    }
    let serve = matches.subcommand_matches("serve");
    let levels = || std::iter::once(&matches).chain(serve);
    let mut overrides: Vec<_> = levels().flat_map(flags).collect();
    let config_file = levels()
        .filter_map(|level| level.get_one::<String>(CONFIG))
        .next_back()
        .cloned();
    for text in levels().flat_map(pairs) {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                overrides.push((key.replace('-', "_"), value.to_owned()));
            }
            _ => {
                return Err(command().error(
                    clap::error::ErrorKind::InvalidSubcommand,
                    format!("{text:?} is neither a subcommand nor key=value"),
                ));
            }
        }
    }
    Ok(Request::Serve {
        config_file,
        overrides,
    })
}

fn command() -> Command {
    let serve = knob_args(Command::new("serve").about("Start the controller (the default)"));
    client::ClientCommand::augment_subcommands(knob_args(Command::new("kvatlas")))
        .version(env!("CARGO_PKG_VERSION"))
        .about("The cache controller for LMCache fleets: who holds which KV chunk, and the hand that moves them")
        .subcommand(serve)
        .subcommand(bench::command())
        .subcommand(worker::command())
        .subcommand(demo::command())
        .subcommand(top::command())
        .subcommand(completions::command())
        .subcommand(man::command())
        .subcommand(reference::command())
        .subcommand(openapi::command())
}

fn knob_args(command: Command) -> Command {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(NonEmptyStringValueParser::new())
        .help(format!(
            "YAML file with any of the keys below [env: {ENV_FILE}]"
        ));
    let pairs = Arg::new(PAIRS)
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .num_args(0..)
        .help("Any key below, as key=value");
    let knobs = KNOBS.iter().map(|knob| {
        let arg = Arg::new(knob.key);
        // A switch by nature: `--no-state`, or `--no-state=false` over a file that says true.
        let arg = match knob.key {
            "no_state" => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            _ => arg,
        };
        arg.long(knob.flag)
            .value_name("VALUE")
            .action(ArgAction::Append)
            .allow_hyphen_values(true)
            .help(format!(
                "{} [key: {}] [env: {}]",
                knob.doc.trim(),
                knob.key,
                knob.env()
            ))
    });
    command.arg(config).arg(pairs).args(knobs)
}

fn flags(matches: &ArgMatches) -> Vec<(String, String)> {
    let mut flags: Vec<(usize, String, String)> = KNOBS
        .iter()
        .flat_map(|knob| {
            let values = matches.get_many::<String>(knob.key).into_iter().flatten();
            let indices = matches.indices_of(knob.key).into_iter().flatten();
            indices
                .zip(values)
                .map(|(at, value)| (at, knob.key.to_owned(), value.clone()))
        })
        .collect();
    flags.sort();
    flags
        .into_iter()
        .map(|(_, key, value)| (key, value))
        .collect()
}

fn pairs(matches: &ArgMatches) -> impl Iterator<Item = &String> {
    matches.get_many::<String>(PAIRS).into_iter().flatten()
}

/// Upstream also takes `--any_key=value`: such an argument loses its dashes.
fn underscored_pair(arg: OsString) -> OsString {
    let stripped = arg
        .to_str()
        .and_then(|text| text.strip_prefix("--"))
        .and_then(|text| text.split_once('=').map(|(key, _)| (text, key)))
        .filter(|(_, key)| key.contains('_') || KNOBS.iter().any(|knob| knob.key == *key))
        .filter(|(_, key)| KNOBS.iter().all(|knob| knob.flag != *key))
        .map(|(text, _)| OsString::from(text));
    stripped.unwrap_or(arg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(args: &[&str]) -> Vec<(String, String)> {
        let args = std::iter::once("kvatlas").chain(args.iter().copied());
        match parse(args.map(OsString::from)).unwrap() {
            Request::Serve { overrides, .. } => overrides,
            other => panic!("expected serve, got {other:?}"),
        }
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn upstreams_flags_work_at_the_top_level() {
        let args = [
            "--host",
            "127.0.0.1",
            "--port",
            "9001",
            "--monitor-ports",
            r#"{"pull": 1}"#,
            "--monitor-port",
            "7",
            "--health-check-interval",
            "-1",
            "--lmcache-worker-timeout",
            "30",
        ];
        let expected = [
            pair("controller_host", "127.0.0.1"),
            pair("controller_port", "9001"),
            pair("controller_monitor_ports", r#"{"pull": 1}"#),
            pair("monitor_port", "7"),
            pair("health_check_interval", "-1"),
            pair("lmcache_worker_timeout", "30"),
        ];
        assert_eq!(overrides(&args), expected);
        let serve: Vec<_> = std::iter::once("serve").chain(args).collect();
        assert_eq!(overrides(&serve), expected);
    }

    #[test]
    fn pairs_come_with_and_without_dashes() {
        assert_eq!(
            overrides(&[
                "controller_port=1",
                "--full_sync_timeout_s=2",
                "--spam_key=3"
            ]),
            [
                pair("controller_port", "1"),
                pair("full_sync_timeout_s", "2"),
                pair("spam_key", "3")
            ]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for args in [&["bogus"][..], &["--bogus"], &["serve", "bogus"], &["=1"]] {
            let args = std::iter::once("kvatlas").chain(args.iter().copied());
            assert!(parse(args.map(OsString::from)).is_err());
        }
    }

    fn printed(args: &[&str]) -> String {
        let args = std::iter::once("kvatlas").chain(args.iter().copied());
        match parse(args.map(OsString::from)).unwrap() {
            Request::Print(text) => String::from_utf8(text).unwrap(),
            other => panic!("expected a text, got {other:?}"),
        }
    }

    #[test]
    fn completions_and_manual_know_every_flag_and_subcommand() {
        for shell in ["bash", "zsh", "fish"] {
            let script = printed(&["completions", shell]);
            for word in ["lookup", "demo", "health-check-interval"] {
                assert!(script.contains(word), "{shell} lacks {word}");
            }
        }
        let page = printed(&["man"]);
        assert!(page.contains(".TH kvatlas 1"), "{page}");
        // roff writes a hyphen as \-.
        assert!(page.contains("health\\-check\\-interval"), "{page}");
        assert!(printed(&["man", "move"]).contains("kvatlas"));
        let args = ["kvatlas", "man", "bogus"].map(OsString::from);
        assert!(parse(args).is_err());
    }

    #[test]
    fn every_knob_has_its_own_flag() {
        command().debug_assert();
    }
}
