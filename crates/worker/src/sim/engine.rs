//! A simulated engine: the ranks of one instance, which hold the same chunks, and what they are told.
//!
//! Locks: the instance's gate, then a rank's tiers, then (inside the reporter) its publisher. A
//! request holds the gate while it is applied to every rank, so commands, freezes and listings see
//! the ranks alike. A command keeps the gate quiet for [`QUIET`]: the same command reaches the other
//! ranks before the next request, and they answer with the same number. No lock is held while a
//! peer is talked to. What a tier changes is reported under its lock: the stream fits the listing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvatlas_protocol::{ChunkHash, HashScheme, Location, Timestamp, TokenCount};
use parking_lot::{Mutex, MutexGuard};

use super::fetch::{Fetcher, PeerTraffic};
use super::peer;
use super::tiers::{Capacity, Change, Chunk, Tiers};
use crate::agent::{PeerFinder, Reporter};
use crate::commands::{Compression, Engine, Movement};
use crate::error::EngineError;

/// How long requests wait after a command, for its siblings to reach the other ranks.
pub const QUIET: Duration = Duration::from_millis(500);

/// The ranks of one instance in this process.
pub struct Instance {
    gate: Arc<Gate>,
    scheme: HashScheme,
    ranks: Vec<Arc<SimEngine>>,
    fetcher: Fetcher,
}

/// One rank.
pub struct SimEngine {
    gate: Arc<Gate>,
    scheme: HashScheme,
    tiers: Mutex<Tiers>,
    reporter: Reporter,
    /// Under which peers reach this rank.
    peer_url: Option<String>,
    frozen: AtomicBool,
}

/// What requests pass one at a time.
pub struct Gate {
    state: Mutex<GateState>,
    started: Instant,
}

#[derive(Default)]
struct GateState {
    /// Ranks that are frozen.
    frozen: usize,
    quiet_until: Timestamp,
}

impl Instance {
    /// These ranks, made with the same gate and scheme.
    pub fn new(gate: Arc<Gate>, scheme: HashScheme, ranks: Vec<Arc<SimEngine>>) -> Self {
        Self {
            gate,
            scheme,
            ranks,
            fetcher: Fetcher::default(),
        }
    }

    /// Misses are fetched from peers, found by these, one a rank.
    pub fn fetching(mut self, finders: Vec<PeerFinder>) -> Self {
        self.fetcher = Fetcher::new(finders);
        self
    }

    /// What came from peers on misses.
    pub fn peer_traffic(&self) -> PeerTraffic {
        self.fetcher.traffic()
    }

    /// Serves a request on every rank: how many of its tokens were cached, `None` if the instance
    /// is frozen or obeying, and the request must come again.
    pub fn serve(&self, tokens: &[u32]) -> Option<usize> {
        let chain = chain(&self.scheme, tokens);
        if !self.fetcher.is_off() {
            self.fetch_missing(&chain)?;
        }
        let gate = self.gate.state.lock();
        let now = self.gate.now();
        if gate.is_closed(now) {
            return None;
        }
        let mut hits = usize::MAX;
        for rank in &self.ranks {
            hits = hits.min(rank.serve(&chain, now));
        }
        Some(hits.min(chain.len()) * self.scheme.chunk_size().get())
    }

    /// Asks peers for what the ranks miss, as real ranks do: each for itself.
    fn fetch_missing(&self, chain: &[Chunk]) -> Option<()> {
        let now = self.gate.now();
        if self.gate.state.lock().is_closed(now) {
            return None;
        }
        for (number, rank) in self.ranks.iter().enumerate() {
            let hits = rank.tiers.lock().hits(chain);
            self.fetcher.fetch(number, &chain[hits..], now);
        }
        Some(())
    }

    /// Whether every rank holds all full chunks of `tokens` in some storage.
    pub fn holds(&self, tokens: &[u32]) -> bool {
        let chain = chain(&self.scheme, tokens);
        let _gate = self.gate.state.lock();
        self.ranks.iter().all(|rank| {
            let tiers = rank.tiers.lock();
            let locations = tiers.locations();
            chain.iter().all(|&chunk| {
                locations.iter().any(|location| {
                    tiers
                        .prefix(location, &[chunk])
                        .is_some_and(|held| !held.is_empty())
                })
            })
        })
    }

    /// The ranks.
    pub fn ranks(&self) -> &[Arc<SimEngine>] {
        &self.ranks
    }
}

impl GateState {
    fn is_closed(&self, now: Timestamp) -> bool {
        self.frozen > 0 || self.quiet_until > now
    }
}

impl Gate {
    /// An open gate.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            started: Instant::now(),
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Waits for the request under way and keeps the next ones back for a while.
    fn quiet(&self) -> (MutexGuard<'_, GateState>, Timestamp) {
        let mut state = self.state.lock();
        let now = self.now();
        state.quiet_until = now + QUIET;
        (state, now)
    }
}

impl SimEngine {
    /// An empty rank behind `gate`.
    pub fn new(
        gate: Arc<Gate>,
        scheme: HashScheme,
        capacity: Capacity,
        reporter: Reporter,
        peer_url: Option<String>,
    ) -> Self {
        Self {
            gate,
            scheme,
            tiers: Mutex::new(Tiers::new(capacity)),
            reporter,
            peer_url,
            frozen: AtomicBool::new(false),
        }
    }

    /// Under which peers reach it, `host:port`.
    pub fn peer_url(&self) -> Option<String> {
        self.peer_url.clone()
    }

    /// Takes chunks that a peer sends; those now held.
    pub fn accept(&self, location: &Location, chunks: &[Chunk]) -> Result<Vec<Chunk>, EngineError> {
        let (_gate, now) = self.gate.quiet();
        let mut tiers = self.tiers.lock();
        let (taken, changes) = tiers
            .accept(location, chunks, now)
            .ok_or_else(|| unknown(&tiers, location))?;
        self.report(changes);
        Ok(taken)
    }

    /// Copies for a peer: which of `chunks` are held. Does not count as use, so that what is evicted
    /// next depends on this instance's own requests alone.
    pub fn hand_out(
        &self,
        location: &Location,
        chunks: &[Chunk],
    ) -> Result<Vec<Chunk>, EngineError> {
        let tiers = self.tiers.lock();
        tiers
            .held(location, chunks)
            .ok_or_else(|| unknown(&tiers, location))
    }

    fn serve(&self, chain: &[Chunk], now: Timestamp) -> usize {
        let mut tiers = self.tiers.lock();
        let (hits, changes) = tiers.serve(chain, now);
        self.report(changes);
        hits
    }

    /// Runs of one location go in one call; order is kept.
    fn report(&self, changes: Vec<Change>) {
        for run in changes.chunk_by(|a, b| a.location == b.location) {
            self.reporter.report(
                &run[0].location,
                run.iter().map(|change| (change.kind, change.hash)),
            );
        }
    }

    /// What a command is about: the held prefix of `tokens`, or everything in the location.
    fn selected(
        &self,
        tiers: &Tiers,
        location: &Location,
        tokens: Option<&[i64]>,
    ) -> Result<Vec<Chunk>, EngineError> {
        match tokens {
            Some(tokens) => tiers.prefix(location, &chain(&self.scheme, tokens)),
            None => tiers.chunks(location),
        }
        .ok_or_else(|| unknown(tiers, location))
    }

    fn recode(&self, what: &Compression, compressed: bool) -> Result<TokenCount, EngineError> {
        if what.method != "cachegen" {
            return Err(EngineError::UnknownMethod {
                method: what.method.clone(),
            });
        }
        let _gate = self.gate.quiet();
        let mut tiers = self.tiers.lock();
        let chunks = self.selected(&tiers, &what.location, what.tokens.as_deref())?;
        Ok(TokenCount(tiers.compress(
            &what.location,
            &chunks,
            compressed,
        )))
    }
}

impl Engine for SimEngine {
    fn locations(&self) -> Vec<Location> {
        self.tiers.lock().locations()
    }

    fn keys(&self, location: &Location) -> Vec<ChunkHash> {
        let chunks = self.tiers.lock().chunks(location).unwrap_or_default();
        chunks.into_iter().map(|chunk| chunk.hash).collect()
    }

    fn freeze(&self, frozen: bool) {
        let mut gate = self.gate.state.lock();
        if self.frozen.swap(frozen, Ordering::Relaxed) != frozen {
            if frozen {
                gate.frozen += 1;
            } else {
                gate.frozen -= 1;
            }
        }
    }

    fn clear(&self, location: &Location) -> Result<TokenCount, EngineError> {
        let (_gate, now) = self.gate.quiet();
        let mut tiers = self.tiers.lock();
        let (dropped, changes) = tiers
            .clear(location, now)
            .ok_or_else(|| unknown(&tiers, location))?;
        self.report(changes);
        Ok(count(&dropped))
    }

    fn pin(&self, location: &Location, tokens: &[i64]) -> Result<TokenCount, EngineError> {
        let (_gate, now) = self.gate.quiet();
        let mut tiers = self.tiers.lock();
        let chunks = self.selected(&tiers, location, Some(tokens))?;
        tiers.pin(location, &chunks, now);
        Ok(count(&chunks))
    }

    fn compress(&self, what: &Compression) -> Result<TokenCount, EngineError> {
        self.recode(what, true)
    }

    fn decompress(&self, what: &Compression) -> Result<TokenCount, EngineError> {
        self.recode(what, false)
    }

    fn relocate(&self, what: &Movement) -> Result<TokenCount, EngineError> {
        let chunks = {
            let _gate = self.gate.quiet();
            let tiers = self.tiers.lock();
            self.selected(&tiers, &what.from, what.tokens.as_deref())?
        };
        let here = self.peer_url.as_ref() == Some(&what.to_url);
        let taken = if chunks.is_empty() || (here && what.from == what.to) {
            return Ok(TokenCount(0));
        } else if here {
            self.accept(&what.to, &chunks)?
        } else {
            peer::send(&what.to_url, &what.to, &chunks).map_err(|source| EngineError::Peer {
                url: what.to_url.clone(),
                source,
            })?
        };
        if !what.copy {
            let (_gate, now) = self.gate.quiet();
            let mut tiers = self.tiers.lock();
            if let Some((_, changes)) = tiers.remove(&what.from, &taken, now) {
                self.report(changes);
            }
        }
        Ok(count(&taken))
    }

    fn health(&self) -> Result<i64, EngineError> {
        Ok(0)
    }
}

/// The full chunks of `tokens`; the partial one at the end is not stored.
fn chain<T: Copy + Into<i64>>(scheme: &HashScheme, tokens: &[T]) -> Vec<Chunk> {
    let size = scheme.chunk_size().get();
    let full = tokens.len() / size * size;
    scheme
        .chain(&tokens[..full])
        .map(|hash| Chunk {
            hash,
            tokens: u32::try_from(size).unwrap_or(u32::MAX),
        })
        .collect()
}

fn count(chunks: &[Chunk]) -> TokenCount {
    TokenCount(chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum())
}

fn unknown(tiers: &Tiers, location: &Location) -> EngineError {
    let known: Vec<String> = tiers.locations().iter().map(Location::to_string).collect();
    EngineError::UnknownLocation {
        location: location.clone(),
        known: known.join(", "),
    }
}
