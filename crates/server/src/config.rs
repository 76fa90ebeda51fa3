//! Every knob of the process, declared once: key, documentation, type, default and flag.
//!
//! A knob's environment variable is `LMCACHE_CONTROLLER_<KEY>` in capitals, its place in the YAML
//! file its key. [`load`] layers them: command line over environment over file over default. A value
//! that does not parse is refused with the key, the source, what was given and what is expected; an
//! unknown key is only warned about, as upstream ignores them.
//!
//! Upstream: `lmcache/v1/cache_controller/config.py`.

pub mod load;
pub mod memory;
pub mod value;

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::admission::Cidr;

use self::memory::MemoryLimit;
use self::value::{
    CheckInterval, ClientAuth, JsonMap, KnobValue, LogFormat, LogLevel, MonitorPorts, Positive,
    Refusal, SchemeText, Secret, Share,
};

/// What is known about one knob besides its value.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Key in the file and in `key=value`.
    pub key: &'static str,
    /// What it does, for `--help`.
    pub doc: &'static str,
    /// Long flag, without dashes.
    pub flag: &'static str,
}

macro_rules! knobs {
    ($($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr, $flag:literal;)*) => {
        /// The effective configuration.
        #[derive(Debug, Clone)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $key: $type,)*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        /// All knobs, in the order of declaration.
        pub const KNOBS: &[Knob] = &[
            $(Knob { key: stringify!($key), doc: concat!($($doc, "\n"),+), flag: $flag },)*
        ];

        impl Config {
            /// Sets the knob `key` from text; `None` if there is no such knob.
            pub fn set(&mut self, key: &str, text: &str) -> Option<Result<(), Refusal>> {
                match key {
                    $(stringify!($key) => Some(KnobValue::read(text).map(|value| self.$key = value)),)*
                    _ => None,
                }
            }

            /// Every key with its value as text, secrets redacted.
            pub fn shown(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($key), self.$key.show()),)*]
            }
        }
    };
}

knobs! {
    /// Address that every front binds: an IPv4 address, a name, `[::]`, or `*` for all.
    controller_host: String = "0.0.0.0".into(), "host";
    /// Port of the HTTP front; 0 takes a free one.
    controller_port: u16 = 9000, "port";
    /// Ports of the worker fronts as JSON, such as {"pull": 8300, "reply": 8400, "heartbeat": 8500}; null turns reply or heartbeat off, 0 takes a free port.
    controller_monitor_ports: MonitorPorts = MonitorPorts::default(), "monitor-ports";
    /// Port of the pull front alone, the others keep their defaults; kept for old scripts.
    monitor_port: Option<u16> = None, "monitor-port";
    /// Seconds between two looks for silent workers; -1 turns expiry off.
    health_check_interval: CheckInterval = CheckInterval(None), "health-check-interval";
    /// Seconds of silence after which a worker and its keys are removed.
    lmcache_worker_timeout: Duration = Duration::from_secs(300), "lmcache-worker-timeout";
    /// Host that workers are told to send heartbeats to, when the bound one is not reachable.
    controller_advertise_host: Option<String> = None, "advertise-host";
    /// Free-form settings of upstream; accepted, not used.
    extra_config: Option<JsonMap> = None, "extra-config";
    /// Also remove silent workers that never sent a heartbeat.
    expire_without_heartbeat: bool = false, "expire-without-heartbeat";

    /// Share of workers that must be ready before a full-sync freeze is lifted, 0 to 1.
    full_sync_completion_threshold: Share = Share(0.8), "full-sync-completion-threshold";
    /// Seconds of silence after which a running full sync fails and is asked for again.
    full_sync_timeout_s: Duration = Duration::from_secs(300), "full-sync-timeout-s";
    /// Workers asked for a full sync at the same time.
    full_sync_parallel: Positive = Positive(32), "full-sync-parallel";
    /// Seconds over which first full syncs after a restart, and repeated ones, are spread.
    full_sync_jitter_s: Duration = Duration::from_secs(5), "full-sync-jitter-s";
    /// Least seconds between two full syncs asked of one worker because of sequence gaps.
    gap_sync_interval_s: Duration = Duration::from_secs(60), "gap-sync-interval-s";

    /// One fixed hash scheme, algorithm/root/chunk size such as builtin/absent/256; unset finds it out from the fleet's keys.
    hash_scheme: Option<SchemeText> = None, "hash-scheme";
    /// Hash algorithms to try: builtin, sha256_cbor, xxhash_cbor, sha256, xxhash.
    hash_algorithms: Vec<String> = text(&["builtin", "sha256_cbor", "xxhash_cbor", "sha256", "xxhash"]), "hash-algorithms";
    /// Chain roots to try: absent, vllm-none-hash, or pythonhashseed:SEED.
    hash_roots: Vec<String> = text(&["absent", "pythonhashseed:0", "vllm-none-hash"]), "hash-roots";
    /// Chunk sizes to try, in tokens.
    chunk_sizes: Vec<NonZeroUsize> = sizes([256, 16, 32, 64, 128, 512, 1024]), "chunk-sizes";

    /// Most instances that may be registered.
    max_instances: Positive = Positive(20_000), "max-instances";
    /// Most workers that may be registered.
    max_workers: Positive = Positive(100_000), "max-workers";
    /// Most locations one worker may name.
    max_locations_per_worker: Positive = Positive(16), "max-locations-per-worker";
    /// Most keys one worker may hold over all its locations.
    max_keys_per_worker: Positive = Positive(100_000_000), "max-keys-per-worker";
    /// Most bytes of the index, auto for three quarters of the memory this process may have, or none. Near the limit, workers with more keys than the mean are refused first.
    max_index_bytes: MemoryLimit = MemoryLimit::Auto, "max-index-bytes";
    /// Largest frame a worker may send, in bytes; a larger one ends its connection.
    max_message_bytes: Positive = Positive(64 << 20), "max-message-bytes";
    /// Largest HTTP body, in bytes.
    max_body_bytes: Positive = Positive(64 << 20), "max-body-bytes";
    /// Most tokens of one prompt.
    max_tokens: Positive = Positive(4 << 20), "max-tokens";
    /// HTTP connections open at the same time; beyond, the longest idle one is closed.
    max_http_connections: Positive = Positive(4096), "max-http-connections";
    /// HTTP requests worked on at the same time; more are answered 429.
    max_http_requests: Positive = Positive(1024), "max-http-requests";
    /// Seconds an HTTP request may take, body included.
    request_timeout_s: Duration = Duration::from_secs(60), "request-timeout-s";
    /// Seconds the body of an HTTP request may take to arrive.
    body_timeout_s: Duration = Duration::from_secs(30), "body-timeout-s";
    /// Seconds that a TLS handshake and the head of an HTTP request may take, and that a connection may be idle.
    header_timeout_s: Duration = Duration::from_secs(30), "header-timeout-s";
    /// Seconds for which browsers that have seen the page over HTTPS come back by HTTPS only, to any port of that host name; 0 does not ask them to.
    hsts_max_age_s: Duration = Duration::from_secs(86_400), "hsts-max-age-s";
    /// Threads that serve HTTP.
    http_threads: Positive = Positive(2), "http-threads";

    /// Token for reading over HTTP; prefer the environment or read_token_file, arguments are seen by every user of the machine.
    read_token: Option<Secret> = None, "read-token";
    /// File with the token for reading; read again when it changes.
    read_token_file: Option<String> = None, "read-token-file";
    /// Token for commands and everything else over HTTP; prefer the environment or admin_token_file.
    admin_token: Option<Secret> = None, "admin-token";
    /// File with the token for commands and everything else; read again when it changes.
    admin_token_file: Option<String> = None, "admin-token-file";
    /// Serve GET /metrics without a token.
    metrics_open: bool = false, "metrics-open";
    /// Origins whose pages may use the HTTP front, such as https://ops.example; * for all.
    cors_origins: Vec<String> = Vec::new(), "cors-origins";

    /// PEM file with the certificate of the HTTP front, and the chain to its authority; the front then speaks HTTPS only. Files are read again when they change.
    tls_cert: Option<String> = None, "tls-cert";
    /// PEM file with the key of tls_cert.
    tls_key: Option<String> = None, "tls-key";
    /// PEM file with the authorities that vouch for HTTP clients; unset asks for no certificate.
    tls_client_ca: Option<String> = None, "tls-client-ca";
    /// With tls_client_ca: required; except-open lets clients without a certificate have what is open without a token, such as probes; optional only checks the certificates of those who have one.
    tls_client_auth: ClientAuth = ClientAuth::Required, "tls-client-auth";

    /// Patterns of instances that may be registered, such as pod-*,engine-?; empty for all.
    allow_instances: Vec<String> = Vec::new(), "allow-instances";
    /// Networks that workers may come from, such as 10.0.0.0/8,fd00::/8; empty for all.
    allow_sources: Vec<Cidr> = Vec::new(), "allow-sources";

    /// Seconds a worker may take to answer a command.
    command_timeout_s: Duration = Duration::from_secs(30), "command-timeout-s";
    /// Seconds a worker may take to answer a health probe.
    health_timeout_s: Duration = Duration::from_secs(5), "health-timeout-s";
    /// Seconds that stopping may take before it is forced.
    shutdown_timeout_s: Duration = Duration::from_secs(10), "shutdown-timeout-s";

    /// Directory for what outlives the process; unset takes $STATE_DIRECTORY, $XDG_STATE_HOME/kvatlas, ~/.local/state/kvatlas or /var/lib/kvatlas.
    state_dir: Option<String> = None, "state-dir";
    /// Keep nothing: after a restart every worker is asked for a full sync.
    no_state: bool = false, "no-state";
    /// Milliseconds between two writes of the journal: what a crash may lose.
    journal_sync_ms: Positive = Positive(50), "journal-sync-ms";
    /// Most seconds between two snapshots while something changes.
    snapshot_interval_s: Duration = Duration::from_secs(300), "snapshot-interval-s";
    /// Bytes of journal after which a snapshot is written, whatever the time.
    journal_max_bytes: Positive = Positive(256 << 20), "journal-max-bytes";
    /// Seconds after a restart in which a worker may prove its keys by its numbers before it is asked to sync.
    restart_grace_s: Duration = Duration::from_secs(60), "restart-grace-s";

    /// What is logged: error, warn, info, debug or trace.
    log_level: LogLevel = LogLevel(tracing::Level::INFO), "log-level";
    /// How logs are written to standard error: text or json.
    log_format: LogFormat = LogFormat::Text, "log-format";
    /// Where OpenTelemetry traces are sent over OTLP/HTTP, such as http://127.0.0.1:4318 or https://collector:4318; needs a build with the feature otlp.
    otlp_endpoint: Option<String> = None, "otlp-endpoint";
    /// Serve the environment, redacted, at GET /env.
    debug_env: bool = false, "debug-env";
}

impl Knob {
    /// Name of the knob's environment variable.
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.to_ascii_uppercase())
    }
}

/// What every environment variable of the configuration starts with.
pub const ENV_PREFIX: &str = "LMCACHE_CONTROLLER_";
/// Environment variable that names the configuration file.
pub const ENV_FILE: &str = "LMCACHE_CONTROLLER_CONFIG_FILE";

fn text(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn sizes<const N: usize>(sizes: [usize; N]) -> Vec<NonZeroUsize> {
    sizes.into_iter().filter_map(NonZeroUsize::new).collect()
}
