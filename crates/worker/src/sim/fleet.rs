//! Simulated instances under traffic: one from LMCache's configuration, or a whole fleet.
//!
//! One event loop thread drives up to [`MAX_AGENTS`](crate::agent::MAX_AGENTS) workers, one thread
//! makes the traffic of all instances, and with P2P on each worker has a thread for its peers.

use std::net::{TcpListener, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvatlas_protocol::chunk_hash::RandomRoot;
use kvatlas_protocol::{HashScheme, Root, WorkerKey};
use thiserror::Error;

use super::engine::{Gate, Instance, SimEngine};
use super::peer::{PeerServer, Wish};
use super::prompts::{PromptSettings, Prompts, system_prompt};
use super::tiers::Capacity;
use crate::agent::{Agent, MAX_AGENTS, Runtime};
use crate::config::{AgentConfig, KeySign, LmcacheConfig};
use crate::error::{AgentError, ConfigError};
use crate::{full_sync, heartbeat};

/// Pause before a request of the warm-up is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// How requests come.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficSettings {
    /// What they ask.
    pub prompts: PromptSettings,
    /// How many an instance gets a second; 0 for none after the first.
    pub requests_per_second: f64,
    /// Requests each instance serves at once at the start.
    pub warm_up: usize,
    /// Seed of all prompts; equal seeds share system prompts.
    pub seed: u64,
}

/// A fleet to look at.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// Controller's pull socket, `host:port`.
    pub pull_url: String,
    /// Controller's reply socket, `host:port`.
    pub reply_url: String,
    /// Instances, called `{prefix}-1` and so on.
    pub instances: usize,
    /// Workers of each.
    pub ranks: usize,
    /// Beginning of the instances' names.
    pub prefix: String,
    /// Address that workers bind and announce.
    pub host: String,
    /// Room of each worker.
    pub capacity: Capacity,
    /// How chunks are hashed.
    pub scheme: HashScheme,
    /// Whether peers can hand over chunks.
    pub p2p: bool,
    /// How often to beat.
    pub heartbeat: heartbeat::Settings,
    /// How to sync.
    pub full_sync: full_sync::Settings,
    /// How requests come.
    pub traffic: TrafficSettings,
}

/// A simulated instance or fleet that could not start.
#[derive(Debug, Error)]
pub enum SimError {
    /// A worker could not.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Its configuration is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address for peers could not be bound.
    #[error("peer address {url}: {source}")]
    Peer {
        /// What was to be bound.
        url: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("traffic: {0}")]
    Thread(std::io::Error),
    /// The root has no value under the algorithm.
    #[error(transparent)]
    Root(#[from] RandomRoot),
    /// Neither memory nor disk has room for one chunk.
    #[error("no storage has room for a chunk of {chunk_bytes} bytes")]
    NoRoom {
        /// Size of a chunk on one rank.
        chunk_bytes: f64,
    },
}

/// One simulated instance: its workers in this process.
pub struct SimInstance {
    instance: Arc<Instance>,
    agents: Vec<Agent>,
    _peers: Vec<PeerServer>,
}

/// The thread that makes requests. Ends when dropped.
pub struct Traffic {
    stop: Sender<()>,
    served: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// Many simulated instances under traffic. Dropping it deregisters them.
pub struct Fleet {
    traffic: Traffic,
    settings: TrafficSettings,
    chunk_size: NonZeroUsize,
    instances: Vec<SimInstance>,
    _runtimes: Vec<Runtime>,
}

/// What `kvatlas worker` runs.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// LMCache's configuration file; its environment is read anyway.
    pub file: Option<PathBuf>,
    /// Environment variables, such as `std::env::vars()`.
    pub environment: Vec<(String, String)>,
    /// KV bytes of one token over all ranks: with `max_local_*_size`, how many chunks fit.
    pub kv_bytes_per_token: f64,
    /// Room of each worker instead of what follows from the file.
    pub capacity: Option<Capacity>,
    /// What chains of hashes begin with: what a real worker's Python environment decides.
    pub root: Root,
    /// Address to announce instead of the one found.
    pub advertise_ip: Option<String>,
    /// How requests come.
    pub traffic: TrafficSettings,
}

impl Default for TrafficSettings {
    fn default() -> Self {
        Self {
            prompts: PromptSettings::default(),
            requests_per_second: 2.0,
            warm_up: 0,
            seed: 0,
        }
    }
}

impl SimInstance {
    /// Starts one worker for each of `agents`; a peer URL with port 0 gets a free one.
    pub fn start(
        runtime: &Runtime,
        agents: Vec<AgentConfig>,
        capacity: Capacity,
        scheme: &HashScheme,
    ) -> Result<Self, SimError> {
        let gate = Gate::new();
        let mut started = Self {
            instance: Arc::new(Instance::new(gate.clone(), scheme.clone(), Vec::new())),
            agents: Vec::new(),
            _peers: Vec::new(),
        };
        let mut ranks = Vec::new();
        let mut finders = Vec::new();
        for mut config in agents {
            let listener = config.peer_url.as_mut().map(bind).transpose()?;
            let peer_url = config.peer_url.clone();
            let mut made = None;
            started.agents.push(runtime.agent(config, |reporter| {
                let engine = Arc::new(SimEngine::new(
                    gate.clone(),
                    scheme.clone(),
                    capacity,
                    reporter,
                    peer_url.clone(),
                ));
                made = Some(engine.clone());
                engine
            })?);
            if let (Some(engine), Some(listener)) = (&made, listener) {
                let engine = engine.clone();
                let fulfill = move |wish, location: &_, chunks: &[_]| {
                    let fulfilled = match wish {
                        Wish::Give => engine.accept(location, chunks),
                        Wish::Get => engine.hand_out(location, chunks),
                    };
                    fulfilled.map_err(|error| error.to_string())
                };
                let server = PeerServer::start(listener, Arc::new(fulfill));
                started._peers.push(server.map_err(SimError::Thread)?);
                finders.extend(started.agents.last().map(Agent::peer_finder));
            }
            ranks.extend(made);
        }
        if finders.len() < ranks.len() {
            // P2P is a matter of all ranks or none.
            finders.clear();
        }
        let instance = Instance::new(gate, scheme.clone(), ranks).fetching(finders);
        started.instance = Arc::new(instance);
        Ok(started)
    }

    /// What serves.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Its workers.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// Deregisters every worker.
    pub fn close(self, patience: Duration) {
        let until = Instant::now() + patience;
        for agent in self.agents {
            agent.close(until.saturating_duration_since(Instant::now()));
        }
    }
}

impl Traffic {
    /// Starts requests to these instances; the number is the instance's stream of prompts.
    pub fn start(
        instances: Vec<(Arc<Instance>, u64)>,
        settings: &TrafficSettings,
    ) -> Result<Self, SimError> {
        let (stop, stopped) = mpsc::channel();
        let served = Arc::new(AtomicU64::new(0));
        let mut streams: Vec<(Arc<Instance>, Prompts)> = instances
            .into_iter()
            .map(|(instance, stream)| {
                let prompts = Prompts::new(settings.prompts.clone(), settings.seed, stream);
                (instance, prompts)
            })
            .collect();
        let warm_up = settings.warm_up;
        let rate = settings.requests_per_second * streams.len() as f64;
        let pause = (rate > 0.0)
            .then(|| Duration::try_from_secs_f64(1.0 / rate).ok())
            .flatten();
        let thread = std::thread::Builder::new()
            .name("kvatlas-traffic".into())
            .spawn({
                let served = served.clone();
                move || {
                    let serve = |instance: &Instance, prompt: &[u32]| {
                        let taken = instance.serve(prompt).is_some();
                        served.fetch_add(u64::from(taken), Ordering::Relaxed);
                        taken
                    };
                    let is_over =
                        |pause| stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
                    for _ in 0..warm_up {
                        for (instance, prompts) in &mut streams {
                            let prompt = prompts.next_prompt();
                            // One that is frozen or obeying is asked again: it begins warm.
                            while !serve(instance, &prompt) {
                                if is_over(ASK_AGAIN) {
                                    return;
                                }
                            }
                        }
                        if is_over(Duration::ZERO) {
                            return;
                        }
                    }
                    if warm_up > 0 {
                        let requests = served.load(Ordering::Relaxed);
                        tracing::info!(requests, "warm-up done");
                    }
                    let mut due = Instant::now();
                    for at in (0..streams.len()).cycle() {
                        due += pause.unwrap_or(Duration::from_secs(3600));
                        let wait = due.saturating_duration_since(Instant::now());
                        if wait.is_zero() {
                            // Behind its rate: go on from here rather than catch up in a burst.
                            due = Instant::now();
                        }
                        if is_over(wait) {
                            return;
                        }
                        if pause.is_some() {
                            let (instance, prompts) = &mut streams[at];
                            // A request that an instance cannot take now is not asked again.
                            serve(instance, &prompts.next_prompt());
                        }
                    }
                }
            })
            .map_err(SimError::Thread)?;
        Ok(Self {
            stop,
            served,
            thread: Some(thread),
        })
    }

    /// Requests served.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Ends the requests.
    pub fn stop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Fleet {
    /// Starts the workers, then the traffic.
    pub fn start(config: &FleetConfig) -> Result<Self, SimError> {
        let mut runtimes = Vec::new();
        let mut instances = Vec::new();
        let mut room = 0;
        for number in 1..=config.instances {
            if room < config.ranks {
                runtimes.push(Runtime::start()?);
                room = MAX_AGENTS;
            }
            room = room.saturating_sub(config.ranks);
            let runtime = runtimes.last().ok_or(AgentError::Ended)?;
            let agents = (0..config.ranks as i64)
                .map(|rank| AgentConfig {
                    command_host: config.host.clone(),
                    advertise_ip: Some(config.host.clone()),
                    peer_url: config.p2p.then(|| format!("{}:0", config.host)),
                    keys: KeySign::of(config.scheme.algorithm()),
                    heartbeat: config.heartbeat.clone(),
                    full_sync: config.full_sync.clone(),
                    ..AgentConfig::new(
                        WorkerKey::new(format!("{}-{number}", config.prefix), rank),
                        config.pull_url.clone(),
                        config.reply_url.clone(),
                    )
                })
                .collect();
            instances.push(SimInstance::start(
                runtime,
                agents,
                config.capacity,
                &config.scheme,
            )?);
        }
        let streams = instances
            .iter()
            .zip(1..)
            .map(|(started, stream)| (started.instance.clone(), stream))
            .collect();
        Ok(Self {
            traffic: Traffic::start(streams, &config.traffic)?,
            settings: config.traffic.clone(),
            chunk_size: config.scheme.chunk_size(),
            instances,
            _runtimes: runtimes,
        })
    }

    /// The instances, in order.
    pub fn instances(&self) -> &[SimInstance] {
        &self.instances
    }

    /// Requests served.
    pub fn served(&self) -> u64 {
        self.traffic.served()
    }

    /// The system prompt asked for most, without its partial chunk: nearly always cached everywhere.
    pub fn popular_prompt(&self) -> Vec<u32> {
        let mut tokens = system_prompt(&self.settings.prompts, self.settings.seed, 0);
        tokens.truncate(tokens.len() / self.chunk_size * self.chunk_size.get());
        tokens
    }

    /// Ends the traffic; the workers go on.
    pub fn stop_traffic(&mut self) {
        self.traffic.stop();
    }

    /// Ends the traffic and deregisters every worker.
    pub fn close(mut self, patience: Duration) {
        self.traffic.stop();
        let until = Instant::now() + patience;
        for instance in std::mem::take(&mut self.instances) {
            instance.close(until.saturating_duration_since(Instant::now()));
        }
    }
}

impl WorkerConfig {
    /// Room of each worker: what the file allows, at these bytes a token.
    pub fn capacity(&self, lmcache: &LmcacheConfig) -> Result<Capacity, SimError> {
        if let Some(capacity) = self.capacity {
            return Ok(capacity);
        }
        let ranks = lmcache.ranks().len().max(1) as f64;
        let chunk_bytes = self.kv_bytes_per_token * lmcache.chunk_size.get() as f64 / ranks;
        // GB are GiB to LMCache; the sizes are one rank's.
        let chunks =
            |gigabytes: f64| (gigabytes * 1024_f64.powi(3) / chunk_bytes.max(1.0)) as usize;
        let capacity = Capacity {
            cpu: if lmcache.local_cpu {
                chunks(lmcache.max_local_cpu_size)
            } else {
                0
            },
            disk: if lmcache.local_disk {
                chunks(lmcache.max_local_disk_size)
            } else {
                0
            },
        };
        if capacity.cpu == 0 && capacity.disk == 0 {
            return Err(SimError::NoRoom { chunk_bytes });
        }
        Ok(capacity)
    }
}

/// Runs the workers of one instance as LMCache's configuration says, until `wait` returns; it is
/// given what runs. Then they deregister.
pub fn run_worker(
    config: &WorkerConfig,
    wait: impl FnOnce(&SimInstance, &Traffic),
) -> Result<(), SimError> {
    let lmcache = LmcacheConfig::load(config.file.as_deref(), config.environment.iter().cloned())?;
    let mut agents = lmcache.agents()?;
    for agent in &mut agents {
        agent.advertise_ip.clone_from(&config.advertise_ip);
    }
    let capacity = config.capacity(&lmcache)?;
    let scheme = HashScheme::new(
        lmcache.hash_algorithm,
        config.root.clone(),
        lmcache.chunk_size,
    )?;
    let runtime = Runtime::start()?;
    let started = SimInstance::start(&runtime, agents, capacity, &scheme)?;
    let stream = lmcache.instance_id.as_deref().map_or(0, stream_of);
    let mut traffic = Traffic::start(vec![(started.instance.clone(), stream)], &config.traffic)?;
    wait(&started, &traffic);
    traffic.stop();
    started.close(Duration::from_secs(3));
    Ok(())
}

/// Instances of one seed differ by their names (FNV-1a).
fn stream_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Binds a peer URL and writes the port it got into it.
fn bind(url: &mut String) -> Result<TcpListener, SimError> {
    let error = |source| SimError::Peer {
        url: url.clone(),
        source,
    };
    let addresses: Vec<_> = url.to_socket_addrs().map_err(error)?.collect();
    let listener = TcpListener::bind(addresses.as_slice()).map_err(error)?;
    let port = listener.local_addr().map_err(error)?.port();
    if let Some((host, _)) = url.rsplit_once(':') {
        *url = format!("{host}:{port}");
    }
    Ok(listener)
}
