//! What an instance misses and a peer holds: the controller is asked who, the peer for the chunks.
//!
//! Copies change nothing about what is cached: a chunk that nobody has is computed, and kept just
//! the same. So equal seeds still give equal caches, whoever was quick to answer; only the counters
//! say where chunks came from. Nothing is locked while anybody is asked, and a controller or a peer
//! that is silent is left alone for [`REST`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kvatlas_protocol::Timestamp;

use super::peer;
use super::tiers::Chunk;
use crate::agent::PeerFinder;

/// Longest wait for the controller, on the way of a request.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause after somebody did not answer.
const REST: Duration = Duration::from_secs(5);

/// Peer traffic of one instance since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerTraffic {
    /// Misses that the controller was asked about.
    pub lookups: u64,
    /// Chunks copied from peers, over all ranks.
    pub chunks: u64,
}

/// How one instance fetches.
#[derive(Default)]
pub(super) struct Fetcher {
    /// One a rank; empty with P2P off.
    finders: Vec<PeerFinder>,
    lookups: AtomicU64,
    chunks: AtomicU64,
    /// Nobody is asked before (microseconds).
    rest_until: AtomicU64,
}

impl Fetcher {
    pub(super) fn new(finders: Vec<PeerFinder>) -> Self {
        Self {
            finders,
            ..Self::default()
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.finders.is_empty()
    }

    /// Fetches for `rank` what of `missing`, a run of a prompt's chunks, some peer holds.
    pub(super) fn fetch(&self, rank: usize, missing: &[Chunk], now: Timestamp) {
        let Some(finder) = self.finders.get(rank) else {
            return;
        };
        let rests = now.0 < self.rest_until.load(Ordering::Relaxed);
        if missing.is_empty() || rests || !finder.is_registered() {
            return;
        }
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let hashes = missing.iter().map(|chunk| chunk.hash).collect();
        let Ok(hits) = finder.lookup(hashes, PATIENCE) else {
            return self.rest(now);
        };
        let Some(best) = hits.first() else {
            return;
        };
        let wanted = &missing[..best.chunks.min(missing.len())];
        match peer::fetch(&best.peer_url, &best.location, wanted) {
            Ok(copied) => {
                self.chunks
                    .fetch_add(copied.len() as u64, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::debug!(%error, peer = best.peer_url, "chunks not fetched");
                self.rest(now);
            }
        }
    }

    pub(super) fn traffic(&self) -> PeerTraffic {
        PeerTraffic {
            lookups: self.lookups.load(Ordering::Relaxed),
            chunks: self.chunks.load(Ordering::Relaxed),
        }
    }

    fn rest(&self, now: Timestamp) {
        self.rest_until.store((now + REST).0, Ordering::Relaxed);
    }
}
