//! The process as a value: configuration in, bound sockets out, then running, then drained.
//!
//! ```text
//! App::bind(config)  every socket bound, nothing served; port 0 is known from here on
//! App::run(stop)     threads and HTTP start, readiness is set; when `stop` completes: not ready,
//!                    HTTP drained, threads joined
//! ```
//! State that outlives the process is loaded by `bind`, once the addresses are ours, and kept by a
//! thread of `run`; its final snapshot is the last thing that happens.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvatlas_controller::Controller;
use kvatlas_controller::controller::Settings;

use crate::admission::Admission;
use crate::clock::Clock;
use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::history::History;
use crate::housekeeping::Housekeeping;
use crate::http::auth::{Access, TokenError};
use crate::http::serve::Listener;
use crate::logging::{Levels, Throttle};
use crate::metrics::{Fault, Front, Metrics};
use crate::scheme::{self, SchemeError};
use crate::store::Store;
use crate::store::dir::DirError;
use crate::tls::TlsError;
use crate::tls::front::FrontTls;
use crate::zmq::{BindError, Ports, Sockets};

/// Time that threads may take to end, the final snapshot included.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// What every front shares. Fronts keep nothing of their own.
pub struct Shared {
    /// The facts.
    pub controller: Controller,
    /// What outlives the process.
    pub store: Store,
    /// The only clock.
    pub clock: Clock,
    /// The effective configuration.
    pub config: Config,
    /// Ports the worker fronts really have.
    pub ports: Ports,
    /// Commands to workers.
    pub dispatch: Dispatch,
    /// What is counted.
    pub metrics: Metrics,
    /// Who may be a worker.
    pub admission: Admission,
    /// Tokens and sessions of the HTTP front.
    pub access: Access,
    /// Certificates of the HTTP front; none for plain HTTP.
    pub tls: Option<FrontTls>,
    /// Log levels.
    pub levels: Levels,
    /// Latch: everything is bound, loaded and served, and nothing is stopping.
    pub ready: AtomicBool,
    /// What runs beside the fronts.
    pub housekeeping: Housekeeping,
    /// The last hour, for the page.
    pub history: History,
    throttle: Throttle,
}

/// State of every HTTP handler.
pub type AppState = Arc<Shared>;

/// Bound, not running.
pub struct App {
    shared: AppState,
    sockets: Sockets,
    listener: Listener,
    addresses: Addresses,
}

/// Where the process can be reached, as it was really bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP.
    pub http: SocketAddr,
    /// Whether that is HTTPS.
    pub tls: bool,
    /// Host of the worker fronts, as configured.
    pub host: String,
    /// Ports of the worker fronts.
    pub ports: Ports,
}

/// A start that failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A worker socket could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The HTTP socket could not be bound.
    #[error("cannot bind HTTP to {host}:{port}: {source}")]
    Http {
        /// Host asked for.
        host: String,
        /// Port asked for.
        port: u16,
        /// What the system says.
        source: std::io::Error,
    },
    /// The hash schemes make no sense.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// Another process has the state directory.
    #[error(transparent)]
    State(#[from] DirError),
    /// The tokens cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificates cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl StartError {
    /// Whether only another configuration would help: the hash schemes, tokens or certificates.
    pub fn is_refused_setting(&self) -> bool {
        matches!(self, Self::Scheme(_) | Self::Token(_) | Self::Tls(_))
    }
}

impl App {
    /// Binds everything that `config` asks for.
    pub fn bind(config: Config, levels: Levels) -> Result<Self, StartError> {
        let settings = settings(&config)?;
        let access = Access::new(&config)?;
        let tls = FrontTls::load(&config)?;
        let sockets = Sockets::bind(&config)?;
        let listener = Listener::bind(&config).map_err(|source| StartError::Http {
            host: config.controller_host.clone(),
            port: config.controller_port,
            source,
        })?;
        let addresses = Addresses {
            http: listener.address(),
            tls: tls.is_some(),
            host: config.controller_host.clone(),
            ports: sockets.ports(),
        };
        let clock = Clock::new();
        // Workers that connect meanwhile wait in the bound sockets.
        let (controller, store) = Store::open(&config, settings, clock.now())?;
        let shared = Arc::new(Shared {
            controller,
            clock,
            store,
            ports: sockets.ports(),
            dispatch: Dispatch::new()?,
            metrics: Metrics::default(),
            access,
            tls,
            admission: Admission::new(&config),
            levels,
            ready: AtomicBool::new(false),
            housekeeping: Housekeeping::default(),
            history: History::default(),
            throttle: Throttle::default(),
            config,
        });
        Ok(Self {
            shared,
            sockets,
            listener,
            addresses,
        })
    }

    /// Where the process can be reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What the fronts share: for tests that look inside.
    pub fn shared(&self) -> &AppState {
        &self.shared
    }

    /// Serves until `stop` completes, then drains within the configured time.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let shared = self.shared;
        let state = shared.store.start(&shared)?;
        let sockets = self.sockets.serve(&shared)?;
        let keeper = shared.housekeeping.start(&shared)?;
        let http = self.listener.serve(Arc::clone(&shared))?;
        shared.ready.store(true, Ordering::Release);
        stop.await;
        shared.ready.store(false, Ordering::Release);
        let within = shared.config.shutdown_timeout_s;
        // Commands are given up early enough for their answers to reach those who wait.
        tokio::join!(
            http.drain(within),
            shared.dispatch.drain(within.mul_f64(0.8))
        );
        // Joining takes as long as the longest wait of a socket thread: off the async threads.
        let joined = tokio::task::spawn_blocking(move || {
            sockets.stop();
            keeper.stop();
            state.stop();
        });
        if tokio::time::timeout(STOP_TIMEOUT, joined).await.is_err() {
            tracing::warn!("a thread does not end, leaving it behind");
        }
        Ok(())
    }
}

impl Shared {
    /// A message without effect: counted, and logged once per source and minute.
    pub fn fault(
        &self,
        front: Front,
        fault: Fault,
        source: Option<&str>,
        reason: &dyn fmt::Display,
    ) {
        self.metrics.fault(front, fault);
        let source = source.unwrap_or("unknown");
        if self.may_log(fault.name(), &format_args!("{} {source}", front.name())) {
            tracing::warn!(
                front = front.name(),
                fault = fault.name(),
                source,
                %reason,
                "message without effect; further ones from this source are counted for a minute"
            );
        }
    }

    /// Whether `event` of `source` may be logged: once a minute, so that no peer floods the log.
    pub fn may_log(&self, event: &str, source: &dyn fmt::Display) -> bool {
        let key = format!("{event} {source}");
        self.throttle.passes(&key, self.clock.now())
    }

    /// Whether requests can be answered.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

impl fmt::Display for Addresses {
    /// One line for people and scripts alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        write!(
            f,
            "listening http={}{} pull={host}:{}",
            if self.tls { "https://" } else { "" },
            self.http,
            self.ports.pull
        )?;
        if let Some(port) = self.ports.reply {
            write!(f, " reply={host}:{port}")?;
        }
        if let Some(port) = self.ports.heartbeat {
            write!(f, " heartbeat={host}:{port}")?;
        }
        Ok(())
    }
}

fn settings(config: &Config) -> Result<Settings, SchemeError> {
    // Nobody looks for silent workers: none is ever silent for long enough.
    let worker_timeout = match config.health_check_interval.0 {
        Some(_) => config.lmcache_worker_timeout,
        None => Duration::MAX,
    };
    Ok(Settings {
        worker_timeout,
        expire_without_heartbeat: config.expire_without_heartbeat,
        full_sync_completion_threshold: config.full_sync_completion_threshold.0,
        full_sync_timeout: config.full_sync_timeout_s,
        full_sync_parallel: config.full_sync_parallel.0,
        full_sync_jitter: config.full_sync_jitter_s,
        gap_sync_interval: config.gap_sync_interval_s,
        max_instances: config.max_instances.0,
        max_workers: config.max_workers.0,
        max_locations_per_worker: config.max_locations_per_worker.0,
        max_keys_per_worker: config.max_keys_per_worker.0 as u64,
        max_index_bytes: config.max_index_bytes.bytes(),
        schemes: scheme::choice(config)?,
        hash_seed: RandomState::new().hash_one("index"),
    })
}
