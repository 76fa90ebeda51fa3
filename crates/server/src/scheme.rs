//! How the fleet hashes: fixed by configuration, or found out from the fleet's own keys.
//!
//! A worker reports hashes and never says how it made them, so a prompt is hashed under every
//! candidate (algorithm x root x chunk size) until the index knows one of the results:
//!
//! ```text
//! lookup -> confirmed schemes                  the usual case: one, nothing else is hashed
//!        -> the other candidates, if due       none is confirmed, or some instance with keys has
//!                                              not been hit by a confirmed one for a while
//! ```
//! Two chunks in a row confirm a candidate: the second hash depends on where the first chunk ended,
//! so only the true chunk size gives it. A single chunk may be another chunk size's short last one;
//! it is answered all the same, and confirms after [`SINGLES`] times. A prompt that nobody holds
//! costs one hash a candidate; after [`FRUITLESS`] such searches only one lookup in [`REST`] searches.
//!
//! **Invariant**: nothing here is a fact about chunks. Losing it costs a few searches.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use kvatlas_controller::Controller;
use kvatlas_controller::controller::InstanceMatch;
use kvatlas_protocol::{HashAlgorithm, HashScheme, InstanceId, Location, Root, Timestamp};
use parking_lot::Mutex;

use crate::config::Config;

/// Searches without a hit before searching becomes rare.
const FRUITLESS: u32 = 64;
/// One lookup in so many searches once searching is rare.
const REST: u32 = 16;
/// Single-chunk hits that confirm a candidate.
const SINGLES: u32 = 8;
/// Time without a hit after which an instance's scheme is in doubt again.
const DOUBT: Duration = Duration::from_secs(600);
/// Most schemes confirmed at the same time: each costs every lookup a hash.
const MAX_CONFIRMED: usize = 8;
/// Least time between two notes of who was hit: notes take a lock.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// Schemes that are tried, and those that the fleet has confirmed.
pub struct Schemes {
    candidates: Vec<Candidate>,
    fixed: bool,
    confirmed: ArcSwap<Vec<Arc<Confirmed>>>,
    /// Some instance holds keys that no confirmed scheme has hit lately.
    uncovered: AtomicBool,
    fruitless: AtomicU32,
}

struct Candidate {
    scheme: HashScheme,
    singles: AtomicU32,
}

/// A scheme that the fleet uses.
pub struct Confirmed {
    /// The scheme.
    pub scheme: HashScheme,
    /// Instances it has hit, and when last.
    hits: Mutex<BTreeMap<InstanceId, Timestamp>>,
    noted: AtomicU64,
}

/// What one instance holds of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    /// Instance.
    pub instance: InstanceId,
    /// Where its last credited chunk is.
    pub location: Location,
    /// Tokens of the unbroken run from the first.
    pub tokens: usize,
}

/// What one candidate finds for a prompt.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The candidate.
    pub scheme: HashScheme,
    /// Whether the fleet has confirmed it.
    pub confirmed: bool,
    /// Who holds the prompt's first chunks under it.
    pub matches: Vec<InstanceMatch>,
}

/// Candidates that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// A part of a scheme that nobody uses.
    #[error("{key}: {reason}")]
    Part {
        /// Key of the configuration.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Nothing is left to try.
    #[error("hash_algorithms, hash_roots and chunk_sizes leave no hash scheme to try")]
    None,
}

impl Schemes {
    /// The candidates of `config`, or its one fixed scheme.
    pub fn new(config: &Config) -> Result<Self, SchemeError> {
        let (schemes, fixed) = match &config.hash_scheme {
            Some(text) => (vec![parse(&text.0)?], true),
            None => (candidates(config)?, false),
        };
        if schemes.is_empty() {
            return Err(SchemeError::None);
        }
        let confirmed = if fixed {
            vec![Arc::new(Confirmed::new(schemes[0].clone()))]
        } else {
            Vec::new()
        };
        Ok(Self {
            candidates: schemes.into_iter().map(Candidate::new).collect(),
            fixed,
            confirmed: ArcSwap::from_pointee(confirmed),
            uncovered: AtomicBool::new(!fixed),
            fruitless: AtomicU32::new(0),
        })
    }

    /// What every instance holds of the prompt `tokens`, most first.
    pub fn lookup(&self, controller: &Controller, tokens: &[i64], now: Timestamp) -> Vec<Credit> {
        let confirmed = self.confirmed.load();
        let mut credits = Vec::new();
        for confirmed in confirmed.iter() {
            let matches = controller.lookup(confirmed.scheme.chain(tokens));
            confirmed.note(&matches, now);
            merge(&mut credits, matches, &confirmed.scheme, tokens.len());
        }
        if self.search_is_due() {
            self.search(controller, tokens, now, &mut credits);
        }
        credits
    }

    /// Looks at what has changed: departed instances, and instances no confirmed scheme covers.
    pub fn review(&self, controller: &Controller, now: Timestamp) {
        if self.fixed {
            return;
        }
        let instances = controller.instances();
        let confirmed = self.confirmed.load_full();
        let mut kept = Vec::new();
        let mut covered = std::collections::BTreeSet::new();
        for confirmed in confirmed.iter() {
            let mut hits = confirmed.hits.lock();
            hits.retain(|id, last| {
                now.since(*last) < DOUBT && instances.iter().any(|(known, ..)| known == id)
            });
            covered.extend(hits.keys().cloned());
            if !hits.is_empty() {
                kept.push(Arc::clone(confirmed));
            }
        }
        if kept.len() < confirmed.len() {
            // A scheme confirmed meanwhile is lost with this; the next lookup finds it again.
            self.confirmed.store(Arc::new(kept));
        }
        let uncovered = instances
            .iter()
            .any(|(id, keys, _)| *keys > 0 && !covered.contains(id));
        if uncovered && !self.uncovered.swap(true, Ordering::Relaxed) {
            self.fruitless.store(0, Ordering::Relaxed);
        } else if !uncovered {
            self.uncovered.store(false, Ordering::Relaxed);
            self.fruitless.store(0, Ordering::Relaxed);
        }
    }

    /// What every candidate finds for `tokens`.
    pub fn probe(&self, controller: &Controller, tokens: &[i64]) -> Vec<Probe> {
        let confirmed = self.confirmed.load();
        let candidates = self.candidates.iter().map(|candidate| Probe {
            scheme: candidate.scheme.clone(),
            confirmed: is_among(&confirmed, &candidate.scheme),
            matches: controller.lookup(candidate.scheme.chain(tokens)),
        });
        candidates.collect()
    }

    /// Confirmed schemes with the instances they have hit.
    pub fn confirmed(&self) -> Vec<(HashScheme, Vec<InstanceId>)> {
        let confirmed = self.confirmed.load();
        confirmed
            .iter()
            .map(|confirmed| {
                let instances = confirmed.hits.lock().keys().cloned().collect();
                (confirmed.scheme.clone(), instances)
            })
            .collect()
    }

    /// Whether the scheme is fixed by configuration.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// How many candidates there are.
    pub fn n_candidates(&self) -> usize {
        self.candidates.len()
    }

    /// Tokens a chunk most likely has: where a request names chunks and not tokens.
    pub fn chunk_size(&self) -> NonZeroUsize {
        match self.confirmed.load().first() {
            Some(confirmed) => confirmed.scheme.chunk_size(),
            None => HashScheme::default().chunk_size(),
        }
    }

    fn search_is_due(&self) -> bool {
        if self.fixed {
            return false;
        }
        if !self.confirmed.load().is_empty() && !self.uncovered.load(Ordering::Relaxed) {
            return false;
        }
        let fruitless = self.fruitless.load(Ordering::Relaxed);
        if fruitless < FRUITLESS {
            return true;
        }
        // Wraps back to FRUITLESS long before it could overflow.
        let next = if fruitless >= FRUITLESS + REST {
            FRUITLESS
        } else {
            fruitless + 1
        };
        self.fruitless.store(next, Ordering::Relaxed);
        next == FRUITLESS
    }

    fn search(
        &self,
        controller: &Controller,
        tokens: &[i64],
        now: Timestamp,
        credits: &mut Vec<Credit>,
    ) {
        let confirmed = self.confirmed.load();
        let mut found = false;
        for candidate in &self.candidates {
            let scheme = &candidate.scheme;
            if is_among(&confirmed, scheme) {
                continue;
            }
            let matches = controller.lookup(scheme.chain(tokens));
            let Some(longest) = matches.iter().map(|found| found.chunks).max() else {
                continue;
            };
            found = true;
            let is_proof = longest >= 2
                || (tokens.len() >= scheme.chunk_size().get()
                    && candidate.singles.fetch_add(1, Ordering::Relaxed) + 1 >= SINGLES);
            if is_proof {
                self.confirm(scheme, &matches, now);
            }
            merge(credits, matches, scheme, tokens.len());
        }
        if found {
            self.fruitless.store(0, Ordering::Relaxed);
        } else if self.fruitless.load(Ordering::Relaxed) < FRUITLESS {
            self.fruitless.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn confirm(&self, scheme: &HashScheme, matches: &[InstanceMatch], now: Timestamp) {
        let mut is_new = false;
        self.confirmed.rcu(|confirmed| {
            is_new = !is_among(confirmed, scheme) && confirmed.len() < MAX_CONFIRMED;
            let mut confirmed = Vec::clone(confirmed);
            if is_new {
                let new = Confirmed::new(scheme.clone());
                new.note(matches, now);
                confirmed.push(Arc::new(new));
            }
            confirmed
        });
        if is_new {
            tracing::info!(%scheme, "hash scheme confirmed by the fleet's keys");
        }
    }
}

impl Candidate {
    fn new(scheme: HashScheme) -> Self {
        Self {
            scheme,
            singles: AtomicU32::new(0),
        }
    }
}

impl Confirmed {
    fn new(scheme: HashScheme) -> Self {
        Self {
            scheme,
            hits: Mutex::default(),
            noted: AtomicU64::new(0),
        }
    }

    /// Remembers who was hit, at most once in [`NOTE_INTERVAL`].
    fn note(&self, matches: &[InstanceMatch], now: Timestamp) {
        let noted = self.noted.load(Ordering::Relaxed);
        if matches.is_empty() || now.since(Timestamp(noted)) < NOTE_INTERVAL {
            return;
        }
        self.noted.store(now.0, Ordering::Relaxed);
        let mut hits = self.hits.lock();
        for found in matches {
            hits.insert(found.instance.clone(), now);
        }
    }
}

/// Adds what `scheme` found; an instance keeps its longest run.
fn merge(
    credits: &mut Vec<Credit>,
    matches: Vec<InstanceMatch>,
    scheme: &HashScheme,
    n_tokens: usize,
) {
    let is_first = credits.is_empty();
    for InstanceMatch {
        instance,
        location,
        chunks,
    } in matches
    {
        let tokens = chunks
            .saturating_mul(scheme.chunk_size().get())
            .min(n_tokens);
        let credit = Credit {
            instance,
            location,
            tokens,
        };
        // The controller names no instance twice.
        let known = if is_first {
            None
        } else {
            credits
                .iter_mut()
                .find(|known| known.instance == credit.instance)
        };
        match known {
            Some(known) if known.tokens < credit.tokens => *known = credit,
            Some(_) => {}
            None => credits.push(credit),
        }
    }
    if !is_first {
        credits.sort_by_key(|credit| std::cmp::Reverse(credit.tokens));
    }
}

fn is_among(confirmed: &[Arc<Confirmed>], scheme: &HashScheme) -> bool {
    confirmed.iter().any(|known| known.scheme == *scheme)
}

fn candidates(config: &Config) -> Result<Vec<HashScheme>, SchemeError> {
    let algorithms: Vec<HashAlgorithm> = parts("hash_algorithms", &config.hash_algorithms)?;
    let roots: Vec<Root> = parts("hash_roots", &config.hash_roots)?;
    let mut schemes = Vec::new();
    for chunk_size in &config.chunk_sizes {
        for algorithm in &algorithms {
            for root in &roots {
                // A root that is random under an algorithm cannot be guessed.
                if let Ok(scheme) = HashScheme::new(*algorithm, root.clone(), *chunk_size)
                    && !schemes.contains(&scheme)
                {
                    schemes.push(scheme);
                }
            }
        }
    }
    Ok(schemes)
}

fn parts<T: std::str::FromStr<Err: std::fmt::Display>>(
    key: &'static str,
    texts: &[String],
) -> Result<Vec<T>, SchemeError> {
    texts.iter().map(|text| part(key, text)).collect()
}

fn part<T: std::str::FromStr<Err: std::fmt::Display>>(
    key: &'static str,
    text: &str,
) -> Result<T, SchemeError> {
    text.parse().map_err(|error: T::Err| SchemeError::Part {
        key,
        reason: error.to_string(),
    })
}

/// A scheme from `algorithm/root/chunk size`.
fn parse(text: &str) -> Result<HashScheme, SchemeError> {
    const KEY: &str = "hash_scheme";
    let mut words = text.split('/');
    let mut word = || words.next().unwrap_or_default();
    let algorithm = part(KEY, word())?;
    let root = part(KEY, word())?;
    let chunk_size = part(KEY, word())?;
    HashScheme::new(algorithm, root, chunk_size).map_err(|error| SchemeError::Part {
        key: KEY,
        reason: error.to_string(),
    })
}
