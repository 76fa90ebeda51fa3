//! `kvatlas worker`: a simulated engine as LMCache's own configuration describes it.
//!
//! Flags stand over the environment, which stands over the file. Without a file and without
//! `LMCACHE_ENABLE_CONTROLLER` the worker is one of a controller on this machine, on free ports.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use kvatlas_protocol::Root;
use kvatlas_worker::sim::prompts::system_prompt;
use kvatlas_worker::sim::{
    Capacity, PromptSettings, SimError, SimInstance, Traffic, TrafficSettings, WorkerConfig,
    run_worker,
};

use crate::config::value::LogFormat;
use crate::logging;
use crate::shutdown::Signals;

/// How often it says how it stands.
const REPORT: Duration = Duration::from_secs(30);

/// What `kvatlas worker` was asked for.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct WorkerArgs {
    /// LMCache's worker configuration (YAML); LMCACHE_* variables override it
    #[arg(long, value_name = "FILE", env = "LMCACHE_CONFIG_FILE")]
    config: Option<PathBuf>,
    /// Instance to be [key: lmcache_instance_id]
    #[arg(long, value_name = "NAME")]
    instance_id: Option<String>,
    /// Controller's pull socket, host:port [key: controller_pull_url]
    #[arg(long, value_name = "ADDRESS")]
    pull_url: Option<String>,
    /// Controller's reply socket, host:port [key: controller_reply_url]
    #[arg(long, value_name = "ADDRESS")]
    reply_url: Option<String>,
    /// Command ports, one a rank, comma-separated; 0 takes a free one [key: lmcache_worker_ports]
    #[arg(long, value_name = "PORTS")]
    worker_ports: Option<String>,
    /// Address to announce instead of that of the interface towards the controller
    #[arg(long, value_name = "IP")]
    advertise_ip: Option<String>,
    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    requests_per_second: f64,
    /// Requests served at once at the start
    #[arg(long, value_name = "N", default_value_t = 0)]
    warm_up: usize,
    /// Seed of all prompts; workers with equal seeds share system prompts
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// KV bytes of one token over all ranks: how many chunks fit into max_local_*_size
    #[arg(long, value_name = "BYTES", default_value_t = 131_072.0)]
    kv_bytes_per_token: f64,
    /// Room in LocalCPUBackend, in chunks, instead of max_local_cpu_size
    #[arg(long, value_name = "CHUNKS", requires = "disk_chunks")]
    cpu_chunks: Option<usize>,
    /// Room in LocalDiskBackend, in chunks, instead of max_local_disk_size
    #[arg(long, value_name = "CHUNKS", requires = "cpu_chunks")]
    disk_chunks: Option<usize>,
    /// Write the prompt asked for most to this file, as a body for POST /lookup
    #[arg(long, value_name = "FILE")]
    write_prompt: Option<PathBuf>,
    /// What chains of hashes begin with: absent, pythonhashseed:SEED or vllm-none-hash
    #[arg(long, value_name = "ROOT", default_value = "absent")]
    hash_root: Root,
    /// Log level
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: tracing::Level,
}

/// The subcommand.
pub fn command() -> Command {
    WorkerArgs::augment_args(Command::new("worker"))
        .about("Simulate an engine with LMCache's worker configuration")
}

/// Its arguments, taken apart.
pub fn parse(matches: &clap::ArgMatches) -> Result<WorkerArgs, clap::Error> {
    WorkerArgs::from_arg_matches(matches)
}

/// Runs until a signal.
pub fn run(args: WorkerArgs) -> ExitCode {
    let (_, _flush) = logging::start(args.log_level, LogFormat::Text);
    if let Some(path) = &args.write_prompt {
        let tokens = system_prompt(&PromptSettings::default(), args.seed, 0);
        let body = serde_json::json!({ "tokens": tokens });
        if let Err(error) = std::fs::write(path, body.to_string()) {
            eprintln!("kvatlas worker: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    let config = args.config(std::env::vars());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime.map_err(SimError::Thread).and_then(|runtime| {
        run_worker(&config, |instance, traffic| {
            runtime.block_on(watch(instance, traffic));
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvatlas worker: {error}");
            ExitCode::FAILURE
        }
    }
}

impl WorkerArgs {
    fn config(self, environment: impl Iterator<Item = (String, String)>) -> WorkerConfig {
        let Self {
            config: file,
            instance_id,
            pull_url,
            reply_url,
            worker_ports,
            advertise_ip,
            requests_per_second,
            warm_up,
            seed,
            kv_bytes_per_token,
            cpu_chunks,
            disk_chunks,
            write_prompt: _,
            hash_root: root,
            log_level: _,
        } = self;
        let mut environment: Vec<(String, String)> = environment.collect();
        let configured = file.is_some()
            || environment
                .iter()
                .any(|(name, _)| name == "LMCACHE_ENABLE_CONTROLLER");
        if !configured {
            let defaults = [
                ("ENABLE_CONTROLLER", "true".to_owned()),
                ("LMCACHE_INSTANCE_ID", format!("sim-{}", std::process::id())),
                ("CONTROLLER_PULL_URL", "127.0.0.1:8300".to_owned()),
                ("CONTROLLER_REPLY_URL", "127.0.0.1:8400".to_owned()),
                ("LMCACHE_WORKER_PORTS", "0".to_owned()),
            ];
            // In front: whatever the environment says about these keys still counts.
            environment.splice(
                0..0,
                variables(defaults.map(|(key, value)| (key, Some(value)))),
            );
        }
        environment.extend(variables([
            ("LMCACHE_INSTANCE_ID", instance_id),
            ("CONTROLLER_PULL_URL", pull_url),
            ("CONTROLLER_REPLY_URL", reply_url),
            ("LMCACHE_WORKER_PORTS", worker_ports),
        ]));
        WorkerConfig {
            file,
            environment,
            kv_bytes_per_token,
            capacity: cpu_chunks
                .zip(disk_chunks)
                .map(|(cpu, disk)| Capacity { cpu, disk }),
            root,
            advertise_ip,
            traffic: TrafficSettings {
                requests_per_second,
                warm_up,
                seed,
                ..TrafficSettings::default()
            },
        }
    }
}

fn variables<const N: usize>(
    keys: [(&str, Option<String>); N],
) -> impl Iterator<Item = (String, String)> {
    keys.into_iter()
        .filter_map(|(key, value)| Some((format!("LMCACHE_{key}"), value?)))
}

/// Waits for a signal and says now and then how the workers stand.
async fn watch(instance: &SimInstance, traffic: &Traffic) {
    let ports: Vec<String> = instance
        .agents()
        .iter()
        .map(|agent| agent.command_port().to_string())
        .collect();
    println!("commands on {}", ports.join(" "));
    let signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be caught");
            return;
        }
    };
    let stop = signals.stop();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(REPORT) => {}
        }
        for (rank, agent) in instance.agents().iter().enumerate() {
            let status = agent.status();
            tracing::info!(
                rank,
                requests = traffic.served(),
                registered = status.registered,
                operations = status.operations_sent,
                dropped = status.operations_dropped,
                heartbeats = status.heartbeats,
                syncs = status.syncs_completed,
                commands = status.commands,
                from_peers = instance.instance().peer_traffic().chunks,
                "status"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use kvatlas_worker::LmcacheConfig;

    use super::*;

    fn config(args: &[&str], environment: &[(&str, &str)]) -> WorkerConfig {
        let matches = command()
            .try_get_matches_from(std::iter::once(&"worker").chain(args))
            .unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        parse(&matches).unwrap().config(environment)
    }

    fn agents(config: WorkerConfig) -> Vec<kvatlas_worker::AgentConfig> {
        LmcacheConfig::load(None, config.environment)
            .unwrap()
            .agents()
            .unwrap()
    }

    #[test]
    fn without_anything_it_joins_the_controller_of_this_machine() {
        let agents = agents(config(&[], &[]));
        assert_eq!(agents.len(), 1);
        assert_eq!(agents[0].pull_url, "127.0.0.1:8300");
        assert_eq!(agents[0].command_port, 0);
    }

    #[test]
    fn flags_over_environment_over_defaults() {
        let agents = agents(config(
            &["--instance-id", "flag", "--worker-ports", "0,0,0"],
            &[
                ("LMCACHE_LMCACHE_INSTANCE_ID", "env"),
                ("LMCACHE_CONTROLLER_PULL_URL", "elsewhere:1"),
            ],
        ));
        assert_eq!(agents.len(), 3);
        assert_eq!(agents[0].worker.instance.as_str(), "flag");
        assert_eq!(agents[0].pull_url, "elsewhere:1");
        assert_eq!(agents[0].reply_url, "127.0.0.1:8400");
    }

    #[test]
    fn a_configured_environment_gets_no_defaults() {
        let config = config(&[], &[("LMCACHE_ENABLE_CONTROLLER", "true")]);
        assert_eq!(config.environment.len(), 1);
        let args = ["worker", "--cpu-chunks", "3"];
        assert!(command().try_get_matches_from(args).is_err());
        assert!(
            command()
                .try_get_matches_from(["worker", "--hash-root", "x"])
                .is_err()
        );
    }
}
