//! How much of the memory allowed to the index is left, and who may still take from it.
//!
//! ```text
//! 0 ............ 7/8 of the limit ............ the limit
//!   everybody       holders with less than the mean        nobody
//! ```
//! One worker that runs wild is stopped first, while the others go on. Evicts are taken always.
//!
//! Measuring takes the index's lock for a moment. It is done once per so many operations that what
//! is left cannot be used up meanwhile ([`COSTLY`]), at the latest every [`LONGEST`]. The limit may be
//! passed by what one message brings, and tables that were once full keep up to a quarter more until
//! they shrink.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::index::Index;

/// Bytes an admit may take: a key that is new and its part in a table that grows, or a set of holders
/// that nobody else has. Larger sets are met by measuring often enough.
const COSTLY: usize = 256;
/// Bytes that a key takes at least when many come: its part in tables that were just built.
const USUAL: u64 = 16;
/// Most operations between two measurements.
const LONGEST: usize = 1 << 16;

/// The limit, and what may still come before it is looked at again.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: Option<usize>,
    unmeasured: AtomicI64,
}

impl Memory {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            unmeasured: AtomicI64::new(0),
        }
    }

    /// Whether a holder that has `n_keys` may admit `more` operations' worth; the limit if not.
    pub(crate) fn admits(&self, index: &Index, n_keys: u64, more: usize) -> Result<(), usize> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        let more = i64::try_from(more).unwrap_or(i64::MAX);
        if self.unmeasured.fetch_sub(more, Ordering::Relaxed) > more {
            return Ok(());
        }
        let fill = index.fill();
        let tight = limit - limit / 8;
        if fill.used < tight && fill.bytes < limit {
            let credit = ((tight - fill.used) / COSTLY).min(LONGEST);
            self.unmeasured
                .store(i64::try_from(credit).unwrap_or(0), Ordering::Relaxed);
            return Ok(());
        }
        self.unmeasured.store(0, Ordering::Relaxed);
        let mean = fill.pairs / (fill.holders.max(1) as u64);
        if fill.used < limit && fill.bytes < limit + limit / 4 && n_keys < mean {
            return Ok(());
        }
        Err(limit)
    }

    /// Whether so many keys more may come at once; the limit if not.
    pub(crate) fn fits(&self, index: &Index, more: u64) -> Result<(), usize> {
        let Some(limit) = self.limit.filter(|_| more > 0) else {
            return Ok(());
        };
        let free = limit.saturating_sub(index.fill().used);
        match more.saturating_mul(USUAL) <= free as u64 {
            true => Ok(()),
            false => Err(limit),
        }
    }

    /// Whether there is room enough to ask for what was refused.
    pub(crate) fn is_roomy(&self, index: &Index) -> bool {
        self.limit.is_none_or(|limit| {
            let fill = index.fill();
            fill.used < limit / 4 * 3 && fill.bytes < limit
        })
    }
}
