//! HTTP connections, and requests refused before a handler saw them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::text::Page;

/// Why a request was refused at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpRefusal {
    /// No token, or one that is none.
    Unauthorized,
    /// A token of too small a role.
    Forbidden,
    /// A foreign page in a browser.
    Origin,
    /// Too many requests at the same time.
    Concurrency,
    /// Too many bytes of bodies in memory at the same time.
    Memory,
    /// A body above the limit.
    Size,
    /// A body that came too slowly.
    Slow,
}

/// What the HTTP listener and its guards count.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    refused: [AtomicU64; HttpRefusal::ALL.len()],
    connections: AtomicU64,
    evicted: AtomicU64,
    handshakes_failed: AtomicU64,
}

impl HttpRefusal {
    const ALL: [Self; 7] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::Origin,
        Self::Concurrency,
        Self::Memory,
        Self::Size,
        Self::Slow,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Origin => "origin",
            Self::Concurrency => "concurrency",
            Self::Memory => "memory",
            Self::Size => "size",
            Self::Slow => "slow",
        }
    }
}

impl super::Metrics {
    /// A request was refused before its handler ran.
    pub fn http_refused(&self, refusal: HttpRefusal) {
        let counter = &self.refusals.refused[refusal as usize];
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// An HTTP connection was accepted.
    pub fn http_connected(&self) {
        self.refusals.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// An HTTP connection that was accepted has ended.
    pub fn http_disconnected(&self) {
        self.refusals.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A TLS handshake failed or took too long.
    pub fn handshake_failed(&self) {
        let counter = &self.refusals.handshakes_failed;
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// An idle HTTP connection was closed to make room.
    pub fn http_evicted(&self) {
        self.refusals.evicted.fetch_add(1, Ordering::Relaxed);
    }
}

impl Refusals {
    /// Everything back to zero, except what counts things in progress.
    pub(super) fn reset(&self) {
        let ours = [&self.evicted, &self.handshakes_failed];
        for counter in self.refused.iter().chain(ours) {
            counter.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn render(&self, page: &mut Page) {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let name = "kvatlas_http_refused_total";
        page.head(
            name,
            "HTTP requests refused before a handler saw them, by reason",
            "counter",
        );
        for refusal in HttpRefusal::ALL {
            let count = value(&self.refused[refusal as usize]);
            page.sample(name, &[("reason", refusal.name())], count);
        }
        page.single(
            "kvatlas_http_connections",
            "HTTP connections open",
            "gauge",
            value(&self.connections),
        );
        page.single(
            "kvatlas_http_evicted_total",
            "Idle HTTP connections closed to make room for others",
            "counter",
            value(&self.evicted),
        );
        page.single(
            "kvatlas_tls_handshakes_failed_total",
            "TLS handshakes that failed or took too long",
            "counter",
            value(&self.handshakes_failed),
        );
    }
}
