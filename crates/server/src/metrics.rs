//! What the process counts, one function per observation, and the text Prometheus reads.
//!
//! The thirteen gauges of upstream come first, as its client library prints them: name with a
//! colon, label `role="controller"`, floats. Ours follow as `kvatlas_*`. Counters are plain atomics:
//! nothing here locks or allocates but rendering.
//!
//! Upstream: `lmcache/v1/cache_controller/observability.py`.

mod commands;
pub mod counts;
pub mod histogram;
pub mod log;
mod process;
pub mod refusals;
pub mod state;
mod text;
pub mod tls;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kvatlas_controller::controller::{BatchOutcome, SweepProgress, Totals};
use kvatlas_controller::events::EventState;
use kvatlas_controller::plan::CommandKind;

use kvatlas_protocol::codec::Reason;

use self::commands::Commands;
use self::histogram::Histogram;
use self::refusals::Refusals;
use self::text::Page;

/// One of the sockets workers talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// PULL: operations.
    Pull,
    /// ROUTER: requests.
    Reply,
    /// ROUTER: heartbeats.
    Heartbeat,
}

/// Why a message of a worker had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The payload ends early.
    Truncated,
    /// Neither MessagePack nor JSON.
    Malformed,
    /// A field of another type.
    Mistyped,
    /// A field is missing.
    MissingField,
    /// No such message.
    UnknownTag,
    /// Nested too deeply.
    TooDeep,
    /// A message that does not belong on this socket.
    Unexpected,
    /// Frames that are no request.
    Envelope,
    /// The sender is not registered.
    UnknownWorker,
    /// A limit of the configuration was reached.
    Limit,
    /// The controller's state does not allow it.
    Refused,
    /// Not on the lists of who may be a worker.
    NotAdmitted,
    /// A bug: handling it panicked.
    Panic,
}

/// Everything the process counts.
#[derive(Debug, Default)]
pub struct Metrics {
    fronts: [FrontMetrics; Front::ALL.len()],
    operations: AtomicU64,
    batches: AtomicU64,
    admitted: AtomicU64,
    evicted: AtomicU64,
    expired: AtomicU64,
    swept: AtomicU64,
    dead_holders: AtomicU64,
    lookups: Outcomes,
    peer_lookups: Outcomes,
    commands: Commands,
    refusals: Refusals,
    http: [AtomicU64; HTTP_CLASSES.len()],
    http_active: AtomicU64,
}

#[derive(Debug, Default)]
struct FrontMetrics {
    messages: AtomicU64,
    active: AtomicU64,
    pending: AtomicBool,
    faults: [AtomicU64; Fault::ALL.len()],
    replies_dropped: AtomicU64,
}

/// Lookups by outcome, and how long they took.
#[derive(Debug, Default)]
struct Outcomes {
    hits: AtomicU64,
    misses: AtomicU64,
    seconds: Histogram,
}

const HTTP_CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

impl Front {
    const ALL: [Self; 3] = [Self::Pull, Self::Reply, Self::Heartbeat];

    /// Name in labels and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Reply => "reply",
            Self::Heartbeat => "heartbeat",
        }
    }
}

impl Fault {
    const ALL: [Self; 13] = [
        Self::Truncated,
        Self::Malformed,
        Self::Mistyped,
        Self::MissingField,
        Self::UnknownTag,
        Self::TooDeep,
        Self::Unexpected,
        Self::Envelope,
        Self::UnknownWorker,
        Self::Limit,
        Self::Refused,
        Self::NotAdmitted,
        Self::Panic,
    ];

    /// Name in labels and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Mistyped => "mistyped",
            Self::MissingField => "missing_field",
            Self::UnknownTag => "unknown_tag",
            Self::TooDeep => "too_deep",
            Self::Unexpected => "unexpected",
            Self::Envelope => "envelope",
            Self::UnknownWorker => "unknown_worker",
            Self::Limit => "limit",
            Self::Refused => "refused",
            Self::NotAdmitted => "not_admitted",
            Self::Panic => "panic",
        }
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Truncated => Self::Truncated,
            Reason::Malformed => Self::Malformed,
            Reason::Mistyped => Self::Mistyped,
            Reason::MissingField => Self::MissingField,
            Reason::UnknownTag => Self::UnknownTag,
            Reason::TooDeep => Self::TooDeep,
        }
    }
}

impl Metrics {
    /// A message arrived and is being worked on.
    pub fn message_begins(&self, front: Front) {
        let front = self.front(front);
        add(&front.messages, 1);
        add(&front.active, 1);
    }

    /// The message that began is done.
    pub fn message_ends(&self, front: Front) {
        self.front(front).active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether more messages are waiting.
    pub fn pending(&self, front: Front, pending: bool) {
        self.front(front).pending.store(pending, Ordering::Relaxed);
    }

    /// A message had no effect.
    pub fn fault(&self, front: Front, fault: Fault) {
        add(&self.front(front).faults[fault as usize], 1);
    }

    /// A reply found nobody to take it.
    pub fn reply_dropped(&self, front: Front) {
        add(&self.front(front).replies_dropped, 1);
    }

    /// A batch of `operations` reached the controller.
    pub fn batch(&self, operations: usize, outcome: BatchOutcome) {
        add(&self.batches, 1);
        add(&self.operations, operations as u64);
        add(&self.admitted, outcome.admitted);
        add(&self.evicted, outcome.evicted);
    }

    /// Workers were removed for their silence.
    pub fn expired(&self, workers: usize) {
        add(&self.expired, workers as u64);
    }

    /// The sweep took a step.
    pub fn swept(&self, progress: SweepProgress) {
        add(&self.swept, progress.freed);
        let dead = progress.dead_holders as u64;
        self.dead_holders.store(dead, Ordering::Relaxed);
    }

    /// A lookup over HTTP was answered.
    pub fn lookup(&self, hit: bool, took: Duration) {
        self.lookups.observe(hit, took);
    }

    /// A peer lookup was answered.
    pub fn peer_lookup(&self, hit: bool, took: Duration) {
        self.peer_lookups.observe(hit, took);
    }

    /// A command to workers ended.
    pub fn command(&self, kind: CommandKind, end: EventState, took: Duration) {
        self.commands.observe(kind, end, took);
    }

    /// An HTTP request began.
    pub fn http_begins(&self) {
        add(&self.http_active, 1);
    }

    /// An HTTP request that began was answered with `status`, or given up.
    pub fn http_ends(&self, status: u16) {
        self.http_active.fetch_sub(1, Ordering::Relaxed);
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        add(&self.http[class], 1);
    }

    /// Everything back to zero, except what counts things in progress.
    pub fn reset(&self) {
        for front in &self.fronts {
            zero(&front.messages);
            zero(&front.replies_dropped);
            front.faults.iter().for_each(zero);
        }
        for counter in [
            &self.operations,
            &self.batches,
            &self.admitted,
            &self.evicted,
            &self.expired,
            &self.swept,
        ] {
            zero(counter);
        }
        self.http.iter().for_each(zero);
        self.lookups.reset();
        self.peer_lookups.reset();
        self.commands.reset();
        self.refusals.reset();
    }

    /// The page for Prometheus.
    pub fn render(&self, totals: &Totals) -> String {
        let mut page = Page::default();
        self.render_upstream(totals, &mut page);
        self.render_ours(totals, &mut page);
        process::render(&mut page);
        page.into_text()
    }

    fn render_upstream(&self, totals: &Totals, page: &mut Page) {
        let of = |front: Front, read: fn(&FrontMetrics) -> u64| read(self.front(front)) as f64;
        // Upstream counts heartbeats as requests.
        let requests = |read| of(Front::Reply, read) + of(Front::Heartbeat, read);
        let messages = |front: &FrontMetrics| value(&front.messages);
        let active = |front: &FrontMetrics| value(&front.active);
        let pending = |front: &FrontMetrics| u64::from(front.pending.load(Ordering::Relaxed));
        let gauges: [(&str, &str, f64); 13] = [
            (
                "kv_pool_keys_count",
                "The number of keys in the KV pool",
                totals.keys as f64,
            ),
            (
                "registered_workers_count",
                "The total number of registered workers",
                totals.workers as f64,
            ),
            (
                "pull_socket_message_count",
                "The total number of messages received on PULL socket",
                of(Front::Pull, messages),
            ),
            (
                "reply_socket_message_count",
                "The total number of messages received on REPLY socket",
                requests(messages),
            ),
            (
                "pull_socket_has_pending",
                "Whether PULL socket has pending messages (1=yes, 0=no)",
                of(Front::Pull, pending),
            ),
            (
                "reply_socket_has_pending",
                "Whether REPLY socket has pending messages (1=yes, 0=no)",
                of(Front::Reply, pending),
            ),
            (
                "pull_socket_active_requests",
                "Number of requests being processed from PULL socket",
                of(Front::Pull, active),
            ),
            (
                "reply_socket_active_requests",
                "Number of requests being processed from REPLY socket",
                requests(active),
            ),
            (
                "kv_op_seq_discontinuity_count",
                "Total count of KV operation sequence number discontinuities",
                totals.gaps as f64,
            ),
            (
                "full_sync_workers_syncing",
                "Number of workers currently in full sync",
                totals.workers_syncing as f64,
            ),
            (
                "full_sync_workers_completed",
                "Number of workers that have completed full sync",
                totals.workers_completed as f64,
            ),
            (
                "full_sync_global_progress",
                "Global full sync progress (0.0 to 1.0)",
                totals.sync_progress,
            ),
            (
                "full_sync_missing_batches_total",
                "Total count of missing batches across all syncing workers",
                totals.missing_batches as f64,
            ),
        ];
        for (name, help, value) in gauges {
            let name = format!("lmcache:cache_controller_{name}");
            page.head(&name, help, "gauge");
            page.sample(&name, &[("role", "controller")], value);
        }
    }

    fn render_ours(&self, totals: &Totals, page: &mut Page) {
        page.single(
            "kvatlas_ingest_operations_total",
            "Admits and evicts received in batches that were applied",
            "counter",
            value(&self.operations) as f64,
        );
        page.single(
            "kvatlas_ingest_batches_total",
            "Batches applied, after coalescing",
            "counter",
            value(&self.batches) as f64,
        );
        let name = "kvatlas_ingest_changes_total";
        page.head(name, "Keys that became held or ceased to be", "counter");
        for (kind, count) in [("admit", &self.admitted), ("evict", &self.evicted)] {
            page.sample(name, &[("kind", kind)], value(count) as f64);
        }
        let name = "kvatlas_bad_frames_total";
        page.head(
            name,
            "Messages of workers without effect, by reason",
            "counter",
        );
        for front in Front::ALL {
            for fault in Fault::ALL {
                let labels = [("front", front.name()), ("reason", fault.name())];
                let count = value(&self.front(front).faults[fault as usize]);
                page.sample(name, &labels, count as f64);
            }
        }
        let name = "kvatlas_messages_total";
        page.head(name, "Messages of workers received", "counter");
        for front in Front::ALL {
            let count = value(&self.front(front).messages);
            page.sample(name, &[("front", front.name())], count as f64);
        }
        let name = "kvatlas_replies_dropped_total";
        page.head(
            name,
            "Replies whose worker was gone or did not read",
            "counter",
        );
        for front in [Front::Reply, Front::Heartbeat] {
            let count = value(&self.front(front).replies_dropped);
            page.sample(name, &[("front", front.name())], count as f64);
        }
        self.lookups.render("lookup", "Lookups over HTTP", page);
        self.peer_lookups
            .render("peer_lookup", "Peer lookups", page);
        self.commands.render(page);
        self.refusals.render(page);
        let name = "kvatlas_http_requests_total";
        page.head(
            name,
            "HTTP requests answered, by class of status",
            "counter",
        );
        for (class, count) in HTTP_CLASSES.iter().zip(&self.http) {
            page.sample(name, &[("code", class)], value(count) as f64);
        }
        for (name, help, kind, value) in [
            (
                "kvatlas_http_requests_active",
                "HTTP requests being worked on",
                "gauge",
                value(&self.http_active) as f64,
            ),
            (
                "kvatlas_instances",
                "Registered instances",
                "gauge",
                totals.instances as f64,
            ),
            (
                "kvatlas_workers_expired_total",
                "Workers removed for their silence",
                "counter",
                value(&self.expired) as f64,
            ),
            (
                "kvatlas_index_bytes",
                "Memory of the index",
                "gauge",
                totals.index_bytes as f64,
            ),
            (
                "kvatlas_index_limit_bytes",
                "Most memory the index may have; 0 for no limit",
                "gauge",
                totals.index_limit_bytes as f64,
            ),
            (
                "kvatlas_workers_incomplete",
                "Workers some of whose keys a limit keeps out",
                "gauge",
                totals.workers_incomplete as f64,
            ),
            (
                "kvatlas_sweep_dead_holders",
                "Departed holders whose index slots are not all freed",
                "gauge",
                value(&self.dead_holders) as f64,
            ),
            (
                "kvatlas_sweep_freed_total",
                "Index entries of departed holders freed",
                "counter",
                value(&self.swept) as f64,
            ),
        ] {
            page.single(name, help, kind, value);
        }
        let name = "kvatlas_build_info";
        page.head(name, "Version of the process", "gauge");
        page.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    }

    fn front(&self, front: Front) -> &FrontMetrics {
        &self.fronts[front as usize]
    }
}

impl Outcomes {
    fn observe(&self, hit: bool, took: Duration) {
        add(if hit { &self.hits } else { &self.misses }, 1);
        self.seconds.observe(took);
    }

    fn reset(&self) {
        zero(&self.hits);
        zero(&self.misses);
        self.seconds.reset();
    }

    fn render(&self, what: &str, words: &str, page: &mut Page) {
        let name = format!("kvatlas_{what}s_total");
        page.head(&name, &format!("{words}, by outcome"), "counter");
        for (result, count) in [("hit", &self.hits), ("miss", &self.misses)] {
            page.sample(&name, &[("result", result)], value(count) as f64);
        }
        let name = format!("kvatlas_{what}_seconds");
        page.histogram(
            &name,
            &format!("{words}: time from request to answer"),
            &self.seconds,
        );
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn zero(counter: &AtomicU64) {
    counter.store(0, Ordering::Relaxed);
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_gauges_are_printed_as_upstream_prints_them() {
        let metrics = Metrics::default();
        metrics.message_begins(Front::Reply);
        metrics.message_begins(Front::Heartbeat);
        metrics.message_ends(Front::Heartbeat);
        let totals = Totals {
            keys: 12_345_678,
            workers: 3,
            sync_progress: 0.5,
            ..Totals::default()
        };
        let page = metrics.render(&totals);
        let head = "\
# HELP lmcache:cache_controller_kv_pool_keys_count The number of keys in the KV pool
# TYPE lmcache:cache_controller_kv_pool_keys_count gauge
lmcache:cache_controller_kv_pool_keys_count{role=\"controller\"} 1.2345678e+07
# HELP lmcache:cache_controller_registered_workers_count The total number of registered workers
# TYPE lmcache:cache_controller_registered_workers_count gauge
lmcache:cache_controller_registered_workers_count{role=\"controller\"} 3.0
";
        assert!(page.starts_with(head), "{page}");
        for line in [
            "lmcache:cache_controller_reply_socket_message_count{role=\"controller\"} 2.0\n",
            "lmcache:cache_controller_reply_socket_active_requests{role=\"controller\"} 1.0\n",
            "lmcache:cache_controller_full_sync_global_progress{role=\"controller\"} 0.5\n",
        ] {
            assert!(page.contains(line), "{line}");
        }
        assert_eq!(page.matches("{role=\"controller\"}").count(), 13);
    }

    #[test]
    fn every_fault_counts_under_its_own_name() {
        let metrics = Metrics::default();
        for (n, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, n);
            metrics.fault(Front::Pull, fault);
        }
        let page = metrics.render(&Totals::default());
        for fault in Fault::ALL {
            let line = format!(
                "kvatlas_bad_frames_total{{front=\"pull\",reason=\"{}\"}} 1.0\n",
                fault.name()
            );
            assert!(page.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_reset_keeps_what_is_in_progress() {
        let metrics = Metrics::default();
        metrics.message_begins(Front::Pull);
        metrics.lookup(true, Duration::from_micros(30));
        metrics.reset();
        metrics.message_ends(Front::Pull);
        let page = metrics.render(&Totals::default());
        for line in [
            "pull_socket_active_requests{role=\"controller\"} 0.0\n",
            "pull_socket_message_count{role=\"controller\"} 0.0\n",
            "kvatlas_lookups_total{result=\"hit\"} 0.0\n",
            "kvatlas_lookup_seconds_count 0.0\n",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }
}
