//! `kvatlas demo`: a controller and a simulated fleet in one process, with things to try.
//!
//! Everything stays on this machine's loopback unless `--host` says otherwise. The normal ports are
//! taken if they are free, else free ones. Nothing is kept on disk but the request bodies to try,
//! in a directory that goes when the demo ends.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use kvatlas_protocol::HashScheme;
use kvatlas_worker::sim::{CPU, Capacity, Fleet, FleetConfig, SimError, TrafficSettings};
use kvatlas_worker::{full_sync, heartbeat};
use serde_json::json;

use crate::app::{Addresses, App, StartError};
use crate::config::load::{self, Layers};
use crate::config::value::LogFormat;
use crate::config::{Config, KNOBS};
use crate::logging;
use crate::shutdown::Signals;

/// The normal ports of pull, reply and heartbeat.
const WORKER_PORTS: [u16; 3] = [8300, 8400, 8500];

/// What `kvatlas demo` was asked for.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct DemoArgs {
    /// Simulated instances
    #[arg(long, value_name = "N", default_value_t = 4)]
    instances: usize,
    /// Workers (ranks) of each
    #[arg(long, value_name = "N", default_value_t = 2)]
    ranks: usize,
    /// Seed of all prompts: equal seeds give equal fleets
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Requests each instance gets a second
    #[arg(long, value_name = "N", default_value_t = 4.0)]
    requests_per_second: f64,
    /// Address to bind
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// HTTP port; 0 takes free ports for everything
    #[arg(long, value_name = "PORT", default_value_t = 9000)]
    port: u16,
    /// Room of a worker in LocalCPUBackend, in chunks
    #[arg(long, value_name = "CHUNKS", default_value_t = 600)]
    cpu_chunks: usize,
    /// Room of a worker in LocalDiskBackend, in chunks
    #[arg(long, value_name = "CHUNKS", default_value_t = 2400)]
    disk_chunks: usize,
    /// Log level
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log_level: tracing::Level,
}

/// A demo that could not start.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Config(#[from] load::ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Fleet(#[from] SimError),
    #[error("cannot write what to try: {0}")]
    Bodies(io::Error),
    #[error(transparent)]
    Runtime(#[from] io::Error),
}

/// The subcommand.
pub fn command() -> Command {
    DemoArgs::augment_args(Command::new("demo"))
        .about("Run a controller with a simulated fleet to look at, until Ctrl-C")
}

/// Its arguments, taken apart.
pub fn parse(matches: &clap::ArgMatches) -> Result<DemoArgs, clap::Error> {
    DemoArgs::from_arg_matches(matches)
}

/// Runs until a signal.
pub fn run(args: DemoArgs) -> ExitCode {
    let (levels, _flush) = logging::start(args.log_level, LogFormat::Text);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(DemoError::from)
        .and_then(|runtime| runtime.block_on(demo(&args, levels)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvatlas demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &DemoArgs, levels: logging::Levels) -> Result<(), DemoError> {
    let signals = Signals::new()?;
    let app = bind(args, levels)?;
    let addresses = app.addresses().clone();
    let fleet = Fleet::start(&args.fleet(&addresses))?;
    let bodies = Bodies::write(&fleet).map_err(DemoError::Bodies)?;
    print!("{}", what_to_try(args, &addresses, &bodies.directory));
    app.run(async move {
        signals.stop().await;
        // Goodbyes take sockets that block; a fault there must not keep the process.
        let farewell = tokio::task::spawn_blocking(|| fleet.close(Duration::from_secs(3)));
        if farewell.await.is_err() {
            tracing::warn!("the fleet did not say goodbye");
        }
    })
    .await?;
    drop(bodies);
    Ok(())
}

/// On the normal ports if all of them are free, else on free ones.
fn bind(args: &DemoArgs, levels: logging::Levels) -> Result<App, DemoError> {
    if args.port == 0 {
        return Ok(App::bind(args.config(0, [0; 3])?, levels)?);
    }
    let [pull, reply, heartbeat] = WORKER_PORTS;
    let taken = [args.port, pull, reply, heartbeat]
        .into_iter()
        .find_map(|port| Some((port, TcpListener::bind((args.host.as_str(), port)).err()?)));
    let config = match taken {
        None => args.config(args.port, WORKER_PORTS),
        Some((port, reason)) => {
            println!("port {port}: {reason}; taking free ports instead of the normal ones");
            args.config(0, [0; 3])
        }
    };
    Ok(App::bind(config?, levels)?)
}

impl DemoArgs {
    fn config(&self, port: u16, worker_ports: [u16; 3]) -> Result<Config, load::ConfigError> {
        let [pull, reply, heartbeat] = worker_ports;
        let ports = json!({"pull": pull, "reply": reply, "heartbeat": heartbeat});
        let mut command_line = vec![
            ("controller_host".to_owned(), self.host.clone()),
            ("controller_port".to_owned(), port.to_string()),
            ("controller_monitor_ports".to_owned(), ports.to_string()),
            ("full_sync_jitter_s".to_owned(), "0.2".to_owned()),
        ];
        // A demo leaves nothing behind.
        if KNOBS.iter().any(|knob| knob.key == "no_state") {
            command_line.push(("no_state".to_owned(), "true".to_owned()));
        }
        let layers = Layers {
            command_line,
            ..Layers::default()
        };
        Ok(load::load(&layers)?.config)
    }

    fn fleet(&self, addresses: &Addresses) -> FleetConfig {
        let at = |port: u16| format!("{}:{port}", self.host);
        FleetConfig {
            pull_url: at(addresses.ports.pull),
            reply_url: at(addresses.ports.reply.unwrap_or(addresses.ports.pull)),
            instances: self.instances,
            ranks: self.ranks,
            prefix: "demo".to_owned(),
            host: self.host.clone(),
            capacity: Capacity {
                cpu: self.cpu_chunks,
                disk: self.disk_chunks,
            },
            scheme: HashScheme::default(),
            p2p: true,
            heartbeat: heartbeat::Settings {
                interval: Some(Duration::from_secs(2)),
                delay: Duration::from_millis(200),
                ..heartbeat::Settings::default()
            },
            full_sync: full_sync::Settings {
                startup_delay: Duration::from_millis(200),
                ..full_sync::Settings::default()
            },
            traffic: TrafficSettings {
                requests_per_second: self.requests_per_second,
                warm_up: 60,
                seed: self.seed,
                ..TrafficSettings::default()
            },
        }
    }
}

/// Request bodies with a prompt that is cached, ready for curl.
struct Bodies {
    directory: PathBuf,
}

impl Bodies {
    fn write(fleet: &Fleet) -> io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("kvatlas-demo-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let bodies = Self { directory };
        let tokens = fleet.popular_prompt();
        let (one, other) = ("demo-1", "demo-2");
        let requests = [
            ("lookup", json!({"tokens": tokens})),
            (
                "pin",
                json!({"instance_id": one, "location": CPU, "tokens": tokens}),
            ),
            (
                "move",
                json!({
                    "old_position": [one, CPU],
                    "new_position": [other, CPU],
                    "tokens": tokens,
                    "should_copy": true,
                }),
            ),
            ("clear", json!({"instance_id": one, "location": CPU})),
            ("health", json!({"instance_id": one})),
        ];
        for (name, body) in requests {
            fs::write(
                bodies.directory.join(format!("{name}.json")),
                body.to_string(),
            )?;
        }
        Ok(bodies)
    }
}

impl Drop for Bodies {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::debug!(%error, "request bodies left behind");
        }
    }
}

fn what_to_try(args: &DemoArgs, addresses: &Addresses, bodies: &Path) -> String {
    let url = format!("http://{}", addresses.http);
    let prompt = bodies.join("lookup.json").display().to_string();
    let reply = addresses.ports.reply.unwrap_or(addresses.ports.pull);
    let (instances, ranks, rate) = (args.instances, args.ranks, args.requests_per_second);
    // As it was called, so that the lines can be copied where it is not installed.
    let called = std::env::args().next().filter(|name| name.contains('/'));
    let kvatlas = called.as_deref().unwrap_or("kvatlas");
    format!(
        "kvatlas demo: {instances} instances of {ranks} ranks, {rate} requests a second each
{addresses}

Look at it    {url}/

export KVATLAS_URL={url}
{kvatlas} lookup -f {prompt}                     # the prompt asked for most: who holds it
{kvatlas} pin demo-1 -f {prompt}                 # keep it from being evicted
{kvatlas} clear demo-1                           # drop everything else
{kvatlas} move demo-1 demo-2 --copy -f {prompt}  # hand it to a peer
{kvatlas} health demo-1; {kvatlas} workers; {kvatlas} stats; {kvatlas} events

curl -s {url}/lookup -H 'content-type: application/json' -d @{prompt}
curl -s {url}/pin -H 'content-type: application/json' -d @{bodies}/pin.json    # also move, clear, health
curl -s {url}/controller/workers

One more engine, by LMCache's own configuration keys:
{kvatlas} worker --instance-id extra --pull-url {host}:{pull} --reply-url {host}:{reply} --seed {seed}

Ctrl-C ends it.
",
        bodies = bodies.display(),
        host = args.host,
        pull = addresses.ports.pull,
        seed = args.seed,
    )
}
