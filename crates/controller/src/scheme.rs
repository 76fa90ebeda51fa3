//! How the fleet hashes: fixed by configuration, or found out from the fleet's own keys.
//!
//! Workers report hashes and never say how they made them. A looked-up prompt is hashed under every
//! scheme that some instance is known to use; while an instance with keys has none, its first chunk
//! is also hashed under the other candidates (algorithm x root x chunk size):
//!
//! ```text
//! instance holds chunk 0 of the prompt           -> likely: its scheme is used from now on
//! it holds two chunks in a row                   -> certain: no more search for this instance
//! it registers again (a restart), or is gone     -> forgotten
//! ```
//! One chunk leaves a doubt: it may be the short last chunk of a larger chunk size, whose hash is
//! the same. The search costs one hash and one index probe a candidate; [`FREE_SEARCHES`] are made at
//! will, then one in [`SEARCH_PAUSE`], so prompts that nobody holds cost little.
//!
//! Locks: `change` is taken before the registry's, never on the path of a lookup that has nothing to
//! learn. Cost when everything is certain: one chain per scheme in use, hashed as far as it is held.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use kvatlas_protocol::{HashAlgorithm, HashScheme, InstanceId, Root, Timestamp};
use parking_lot::Mutex;

use crate::controller::Controller;
use crate::lookup::InstanceMatch;

/// Searches at will after something new was learned or forgotten.
const FREE_SEARCHES: u32 = 64;

/// Least time between two searches after that.
const SEARCH_PAUSE: Duration = Duration::from_millis(250);

/// Which hash schemes to use.
#[derive(Debug, Clone)]
pub enum SchemeChoice {
    /// This one.
    Fixed(HashScheme),
    /// Whichever of these the fleet's keys confirm; the likeliest first.
    Discover(Vec<HashScheme>),
}

impl SchemeChoice {
    /// Every combination that makes sense, in the order of the chunk sizes.
    pub fn among(
        algorithms: &[HashAlgorithm],
        roots: &[Root],
        chunk_sizes: &[NonZeroUsize],
    ) -> Self {
        let mut schemes = Vec::new();
        for chunk_size in chunk_sizes {
            for algorithm in algorithms {
                for root in roots {
                    // A root that is random under an algorithm cannot be guessed.
                    if let Ok(scheme) = HashScheme::new(*algorithm, root.clone(), *chunk_size)
                        && !schemes.contains(&scheme)
                    {
                        schemes.push(scheme);
                    }
                }
            }
        }
        Self::Discover(schemes)
    }
}

impl Default for SchemeChoice {
    /// All algorithms, the roots and chunk sizes that are in use in the field.
    fn default() -> Self {
        const ROOTS: [&str; 6] = [
            "absent",
            "pythonhashseed:0",
            "pythonhashseed:1",
            "pythonhashseed:42",
            "pythonhashseed:123",
            "vllm-none-hash",
        ];
        let roots: Vec<Root> = ROOTS.iter().filter_map(|root| root.parse().ok()).collect();
        let chunk_sizes = [256, 16, 32, 64, 128, 512, 1024].map(NonZeroUsize::new);
        let chunk_sizes: Vec<_> = chunk_sizes.into_iter().flatten().collect();
        Self::among(&HashAlgorithm::ALL, &roots, &chunk_sizes)
    }
}

/// What is known about the fleet's hashing.
#[derive(Debug)]
pub(crate) struct Schemes {
    candidates: Vec<HashScheme>,
    is_fixed: bool,
    known: ArcSwap<Known>,
    /// Whoever changes `known` holds this.
    change: Mutex<()>,
    searches: AtomicU32,
    next_search: AtomicU64,
}

#[derive(Debug, Clone, Default)]
struct Known {
    /// Candidates that some instance uses, ascending.
    in_use: Vec<usize>,
    by_instance: HashMap<InstanceId, Finding>,
    n_certain: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Finding {
    candidate: usize,
    /// Two chunks in a row were found, not just one.
    is_certain: bool,
}

/// What one instance holds of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptMatch {
    /// Instance, location and chunks.
    pub found: InstanceMatch,
    /// Tokens those chunks cover.
    pub tokens: usize,
}

/// One candidate, and what it has to do with the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemeReport {
    /// The candidate.
    pub scheme: HashScheme,
    /// Instances known to use it.
    pub instances: Vec<InstanceId>,
}

impl Schemes {
    pub(crate) fn new(choice: SchemeChoice) -> Self {
        let (candidates, is_fixed) = match choice {
            SchemeChoice::Fixed(scheme) => (vec![scheme], true),
            SchemeChoice::Discover(schemes) => (schemes, false),
        };
        let known = Known {
            in_use: if is_fixed { vec![0] } else { Vec::new() },
            ..Known::default()
        };
        Self {
            candidates,
            is_fixed,
            known: ArcSwap::from_pointee(known),
            change: Mutex::default(),
            searches: AtomicU32::new(0),
            next_search: AtomicU64::new(0),
        }
    }

    /// The instance restarted or is gone: it may hash otherwise when it comes back.
    pub(crate) fn forget(&self, instance: &InstanceId) {
        if self.is_fixed || !self.known.load().by_instance.contains_key(instance) {
            return;
        }
        let _change = self.change.lock();
        let mut known = Known::clone(&self.known.load());
        known.by_instance.remove(instance);
        self.store(known);
    }

    fn store(&self, mut known: Known) {
        known.n_certain = known.by_instance.values().filter(|f| f.is_certain).count();
        known.in_use = known.by_instance.values().map(|f| f.candidate).collect();
        known.in_use.sort_unstable();
        known.in_use.dedup();
        self.known.store(Arc::new(known));
        self.searches.store(0, Ordering::Relaxed);
    }

    /// Searches since something was learned or forgotten, up to [`FREE_SEARCHES`].
    #[cfg(test)]
    pub(crate) fn searches(&self) -> u32 {
        self.searches.load(Ordering::Relaxed)
    }

    /// Whether this lookup may search; counts it.
    fn may_search(&self, now: Timestamp) -> bool {
        if self.searches.load(Ordering::Relaxed) < FREE_SEARCHES {
            self.searches.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let due = self.next_search.load(Ordering::Relaxed);
        let next = now + SEARCH_PAUSE;
        now.0 >= due
            && self
                .next_search
                .compare_exchange(due, next.0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Controller {
    /// What every instance holds of the prompt `tokens`: its own unbroken run from the first token
    /// under the scheme it uses, most tokens first, ties in registration order.
    pub fn lookup_tokens<T: Copy + Into<i64>>(
        &self,
        tokens: &[T],
        now: Timestamp,
    ) -> Vec<PromptMatch> {
        let schemes = &self.schemes;
        let known = schemes.known.load();
        let mut found = Vec::new();
        for &candidate in &known.in_use {
            let matches = self.lookup(schemes.candidates[candidate].chain(tokens));
            found.push((candidate, matches));
        }
        if !schemes.is_fixed && known.n_certain < self.n_reporting() {
            if schemes.may_search(now) {
                self.search(tokens, &known, &mut found);
            }
            self.learn(&known, &found, tokens.len());
        }
        merge(&schemes.candidates, found, tokens.len())
    }

    /// Every candidate's matches for `tokens`: what [`Self::lookup_tokens`] would search, without
    /// its thrift and without learning from it.
    pub fn probe_schemes<T: Copy + Into<i64>>(
        &self,
        tokens: &[T],
    ) -> Vec<(HashScheme, Vec<InstanceMatch>)> {
        let candidates = self.schemes.candidates.iter();
        candidates
            .map(|scheme| (scheme.clone(), self.lookup(scheme.chain(tokens))))
            .collect()
    }

    /// The scheme in use that finds most of `tokens`; the first one if none finds any, the default
    /// one if none is in use.
    pub fn best_scheme<T: Copy + Into<i64>>(&self, tokens: &[T]) -> HashScheme {
        let known = self.schemes.known.load();
        let in_use = known.in_use.iter().rev();
        in_use
            .map(|&candidate| &self.schemes.candidates[candidate])
            .max_by_key(|scheme| {
                let matches = self.lookup(scheme.chain(tokens));
                matches.first().map_or(0, |best| best.chunks) * scheme.chunk_size().get()
            })
            .cloned()
            .unwrap_or_default()
    }

    /// All candidates, and which instances are known to use them.
    pub fn schemes(&self) -> Vec<SchemeReport> {
        let known = self.schemes.known.load();
        let users = |candidate| {
            let mut users: Vec<_> = known
                .by_instance
                .iter()
                .filter(|(_, finding)| finding.candidate == candidate)
                .map(|(instance, _)| instance.clone())
                .collect();
            users.sort();
            users
        };
        let candidates = self.schemes.candidates.iter().enumerate();
        candidates
            .map(|(candidate, scheme)| SchemeReport {
                scheme: scheme.clone(),
                instances: users(candidate),
            })
            .collect()
    }

    /// Tokens a chunk most likely has, where a request names chunks and not tokens.
    pub fn likely_chunk_size(&self) -> NonZeroUsize {
        let known = self.schemes.known.load();
        match known.in_use.first() {
            Some(&candidate) => self.schemes.candidates[candidate].chunk_size(),
            None => HashScheme::default().chunk_size(),
        }
    }

    /// Whether the scheme is fixed by configuration.
    pub fn is_scheme_fixed(&self) -> bool {
        self.schemes.is_fixed
    }

    /// Instances that hold keys, and whose scheme is not known.
    pub fn instances_without_scheme(&self) -> Vec<InstanceId> {
        let known = self.schemes.known.load();
        let mut unknown = Vec::new();
        for (instance, n_keys, _) in self.instances() {
            if n_keys > 0 && !self.schemes.is_fixed && !known.by_instance.contains_key(&instance) {
                unknown.push(instance);
            }
        }
        unknown
    }

    /// Adds what the candidates not in use find.
    fn search<T: Copy + Into<i64>>(
        &self,
        tokens: &[T],
        known: &Known,
        found: &mut Vec<(usize, Vec<InstanceMatch>)>,
    ) {
        for (candidate, scheme) in self.schemes.candidates.iter().enumerate() {
            if known.in_use.contains(&candidate) {
                continue;
            }
            // One hash, where a lookup takes several ahead.
            let first = scheme.chain(tokens).next();
            if first.is_some_and(|hash| self.is_held(hash)) {
                found.push((candidate, self.lookup(scheme.chain(tokens))));
            }
        }
    }

    /// Notes what the matches say about instances whose scheme is not certain.
    fn learn(&self, known: &Known, found: &[(usize, Vec<InstanceMatch>)], n_tokens: usize) {
        let mut news: HashMap<&InstanceId, (usize, Finding)> = HashMap::new();
        for (candidate, matches) in found {
            let chunk_size = self.schemes.candidates[*candidate].chunk_size().get();
            for InstanceMatch {
                instance, chunks, ..
            } in matches
            {
                let finding = Finding {
                    candidate: *candidate,
                    is_certain: *chunks >= 2,
                };
                // A prompt shorter than a chunk says nothing about the chunk size.
                let teaches = n_tokens >= chunk_size
                    && known
                        .by_instance
                        .get(instance)
                        .is_none_or(|old| finding.is_certain && !old.is_certain);
                let tokens = chunks.saturating_mul(chunk_size).min(n_tokens);
                let best = (tokens, finding);
                if teaches && news.get(instance).is_none_or(|(most, _)| tokens > *most) {
                    news.insert(instance, best);
                }
            }
        }
        if news.is_empty() {
            return;
        }
        let _change = self.schemes.change.lock();
        let mut known = Known::clone(&self.schemes.known.load());
        for (instance, (_, finding)) in news {
            // It may have left since: then it was forgotten before, or will be after this.
            if self.registry.has_instance(instance.as_str()) {
                known.by_instance.insert(instance.clone(), finding);
            }
        }
        self.schemes.store(known);
    }

    /// Instances that ever admitted a key.
    fn n_reporting(&self) -> usize {
        self.registry.fleet().n_reporting_instances()
    }
}

/// One list: an instance keeps the run that covers most.
fn merge(
    candidates: &[HashScheme],
    mut found: Vec<(usize, Vec<InstanceMatch>)>,
    n_tokens: usize,
) -> Vec<PromptMatch> {
    let covered = |candidate: usize, found: InstanceMatch| PromptMatch {
        tokens: found
            .chunks
            .saturating_mul(candidates[candidate].chunk_size().get())
            .min(n_tokens),
        found,
    };
    if found.len() <= 1 {
        let only = found.pop().into_iter();
        return only
            .flat_map(|(candidate, matches)| matches.into_iter().map(move |m| (candidate, m)))
            .map(|(candidate, found)| covered(candidate, found))
            .collect();
    }
    let mut merged: Vec<PromptMatch> = Vec::new();
    let mut places: HashMap<InstanceId, usize> = HashMap::new();
    for (candidate, matches) in found {
        for found in matches {
            let new = covered(candidate, found);
            match places.get(&new.found.instance) {
                Some(&at) if merged[at].tokens < new.tokens => merged[at] = new,
                Some(_) => {}
                None => {
                    places.insert(new.found.instance.clone(), merged.len());
                    merged.push(new);
                }
            }
        }
    }
    // Stable: within one scheme ties stay in registration order.
    merged.sort_by_key(|found| Reverse(found.tokens));
    merged
}
