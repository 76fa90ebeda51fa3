//! One full sync of one worker and location: which batches are in, and when it is complete.
//!
//! ```text
//! Start -> Batch* -> End          complete when End came and every announced batch is in,
//!            ^---------- Status   whichever of them is last; Status may overtake End
//! ```
//!
//! Sans-I/O: knows nothing of locks, keys' places or other workers. While a session runs, the
//! worker's ordinary operations go on: keys they evict are remembered, so that a later batch (listed
//! before the eviction) cannot bring one back; a key admitted again is forgotten there.
//!
//! **Invariant**: memory grows with what arrives, never with what Start announced.
//! Who must sync and when: `full_sync/schedule.rs`.
//! Upstream: `full_sync_tracker.py` (completes at End, so lost batches stay lost).

mod handle;
pub(crate) mod schedule;
pub(crate) mod window;

use std::time::Duration;

use kvatlas_protocol::{BatchId, ChunkHash, Location, Operation, SyncId, Timestamp, WorkerKey};

use crate::error::SyncError;
use crate::index::HolderId;
use crate::restore::SessionRecord;
use window::Window;

/// Most batches one session may announce: 2 billion keys at upstream's 2,000 a batch.
pub const MAX_BATCHES: i64 = 1 << 20;

/// Most missing batches one status answer lists; the worker asks again for the rest.
pub const MAX_MISSING_LISTED: usize = 4096;

/// Start of a full sync, as reported.
#[derive(Debug, Clone)]
pub struct SyncStart {
    /// Worker that starts.
    pub worker: WorkerKey,
    /// Location it will list.
    pub location: Location,
    /// Its name for the session.
    pub sync_id: SyncId,
    /// Keys it will list.
    pub total_keys: i64,
    /// Batches it will send.
    pub batch_count: i64,
}

/// Answer to a status question.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncStatus {
    /// All batches of that session are in and the change-over is done.
    pub is_complete: bool,
    /// Share of registered workers that are ready, 0 to 1.
    pub global_progress: f64,
    /// The worker may leave its freeze.
    pub can_exit_freeze: bool,
    /// Batches not yet received, ascending; at most [`MAX_MISSING_LISTED`].
    pub missing_batches: Vec<BatchId>,
}

/// A running session.
#[derive(Debug)]
pub(crate) struct Session {
    sync_id: SyncId,
    since: Timestamp,
    last_activity: Timestamp,
    announced: u64,
    received: BatchSet,
    ended: bool,
    /// The set being filled while lookups still see the old one; `None` when there were no old keys
    /// and batches show as they arrive.
    hidden: Option<HolderId>,
    /// Keys evicted since the worker listed its own, and whether operations were lost since: then
    /// the new set cannot be trusted either.
    window: Window,
}

impl Session {
    /// A session that starts now. `window` holds what happened since the worker was asked.
    pub(crate) fn start(
        sync_id: SyncId,
        announced: u64,
        hidden: Option<HolderId>,
        window: Window,
        now: Timestamp,
    ) -> Self {
        Self {
            sync_id,
            since: now,
            last_activity: now,
            announced,
            received: BatchSet::default(),
            ended: false,
            hidden,
            window,
        }
    }

    /// A session as a snapshot kept it, filling `hidden`.
    pub(crate) fn restored(record: SessionRecord, hidden: Option<HolderId>) -> Self {
        let SessionRecord {
            sync_id,
            since,
            announced,
            received,
            ended,
            hidden: _,
            window,
        } = record;
        let window = Window::restored(window);
        let mut session = Self::start(sync_id, announced, hidden, window, since);
        for batch in received {
            session.received(batch, since);
        }
        session.ended = ended;
        session
    }

    /// The session as a snapshot keeps it.
    pub(crate) fn record(&self) -> SessionRecord {
        SessionRecord {
            sync_id: self.sync_id.clone(),
            since: self.since,
            announced: self.announced,
            received: self.received.iter().collect(),
            ended: self.ended,
            hidden: self.hidden,
            window: self.window.record(),
        }
    }

    pub(crate) fn sync_id(&self) -> &SyncId {
        &self.sync_id
    }

    pub(crate) fn since(&self) -> Timestamp {
        self.since
    }

    pub(crate) fn announced(&self) -> u64 {
        self.announced
    }

    pub(crate) fn n_received(&self) -> u64 {
        self.received.len
    }

    pub(crate) fn n_missing(&self) -> u64 {
        self.announced - self.received.len
    }

    pub(crate) fn hidden(&self) -> Option<HolderId> {
        self.hidden
    }

    /// End came although batches have not.
    pub(crate) fn awaits_resend(&self) -> bool {
        self.ended && self.n_missing() > 0
    }

    /// Everything is in.
    pub(crate) fn is_finished(&self) -> bool {
        self.ended && self.n_missing() == 0
    }

    /// What happened meanwhile makes one more sync necessary.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.window.is_doubtful()
    }

    /// Nothing of this session came for longer than `timeout`.
    pub(crate) fn is_idle(&self, now: Timestamp, timeout: Duration) -> bool {
        now.since(self.last_activity) > timeout
    }

    /// Start was repeated.
    pub(crate) fn touch(&mut self, now: Timestamp) {
        self.last_activity = now;
    }

    /// Checks a batch's number; `Ok(false)` if it is in already. Marks nothing.
    pub(crate) fn expects(&self, batch: BatchId) -> Result<bool, SyncError> {
        match u64::try_from(batch.0) {
            Ok(n) if n < self.announced => Ok(!self.received.contains(n)),
            _ => Err(SyncError::BatchOutOfRange {
                given: batch.0,
                announced: i64::try_from(self.announced).unwrap_or(i64::MAX),
            }),
        }
    }

    /// A batch that [`Self::expects`] accepted is applied.
    pub(crate) fn received(&mut self, batch: BatchId, now: Timestamp) {
        self.last_activity = now;
        if let Ok(n) = u64::try_from(batch.0)
            && n < self.announced
        {
            self.received.insert(n);
        }
    }

    /// End came.
    pub(crate) fn end(&mut self, now: Timestamp) {
        self.ended = true;
        self.last_activity = now;
    }

    /// Ordinary operations of the worker went by; `doubtful` when some were lost.
    pub(crate) fn note(&mut self, operations: &[Operation], doubtful: bool) {
        self.window.note_evictions(operations);
        if doubtful {
            self.window.doubt();
        }
    }

    /// The keys of a batch that were not evicted since they were listed.
    pub(crate) fn still_held<'a>(
        &self,
        keys: &'a [ChunkHash],
    ) -> std::borrow::Cow<'a, [ChunkHash]> {
        if self.window.is_empty() {
            return keys.into();
        }
        keys.iter()
            .copied()
            .filter(|&key| !self.window.evicted(key))
            .collect::<Vec<_>>()
            .into()
    }

    /// Batches not yet received, ascending, at most `limit`.
    pub(crate) fn missing(&self, limit: usize) -> Vec<BatchId> {
        (0..self.announced)
            .filter(|&n| !self.received.contains(n))
            .take(limit)
            .filter_map(|n| i64::try_from(n).ok().map(BatchId))
            .collect()
    }
}

/// Batch numbers received: one bit each, up to the largest that came.
#[derive(Debug, Default)]
struct BatchSet {
    words: Vec<u64>,
    len: u64,
}

impl BatchSet {
    fn contains(&self, n: u64) -> bool {
        usize::try_from(n / 64)
            .ok()
            .and_then(|word| self.words.get(word))
            .is_some_and(|word| word >> (n % 64) & 1 == 1)
    }

    fn iter(&self) -> impl Iterator<Item = BatchId> {
        (0..self.words.len() as u64 * 64)
            .filter(|&n| self.contains(n))
            .filter_map(|n| i64::try_from(n).ok().map(BatchId))
    }

    fn insert(&mut self, n: u64) {
        let Ok(word) = usize::try_from(n / 64) else {
            return;
        };
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (n % 64);
        if self.words[word] & bit == 0 {
            self.words[word] |= bit;
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(announced: u64) -> Session {
        Session::start("s".into(), announced, None, Window::default(), Timestamp(0))
    }

    fn take(session: &mut Session, batch: i64) -> Result<bool, SyncError> {
        let new = session.expects(BatchId(batch))?;
        session.received(BatchId(batch), Timestamp(0));
        Ok(new)
    }

    #[test]
    fn end_with_batches_missing_does_not_complete_until_the_last_arrives() {
        let mut s = session(3);
        assert_eq!(take(&mut s, 2), Ok(true));
        s.end(Timestamp(0));
        assert!(s.awaits_resend() && !s.is_finished());
        assert_eq!(s.missing(9), [BatchId(0), BatchId(1)]);
        assert_eq!(s.missing(1), [BatchId(0)]);
        assert_eq!(take(&mut s, 0), Ok(true));
        assert_eq!(take(&mut s, 0), Ok(false));
        assert_eq!(take(&mut s, 1), Ok(true));
        assert!(s.is_finished() && s.missing(9).is_empty());
    }

    #[test]
    fn batches_outside_the_announced_are_refused() {
        let mut s = session(1);
        for given in [-1, 1, i64::MAX, i64::MIN] {
            let refused = SyncError::BatchOutOfRange {
                given,
                announced: 1,
            };
            assert_eq!(take(&mut s, given), Err(refused));
        }
        assert_eq!(s.n_received(), 0);
    }

    #[test]
    fn memory_follows_what_arrives_not_what_is_announced() {
        let mut s = session(u64::MAX / 2);
        take(&mut s, 100).expect("in range");
        assert_eq!(s.received.words.len(), 2);
    }

    #[test]
    fn an_empty_session_completes_with_its_end() {
        let mut s = session(0);
        assert!(!s.is_finished());
        s.end(Timestamp(0));
        assert!(s.is_finished());
    }

    #[test]
    fn status_traffic_is_no_activity() {
        let mut s = session(1);
        assert!(!s.is_idle(Timestamp(10), Duration::from_micros(10)));
        assert!(s.is_idle(Timestamp(11), Duration::from_micros(10)));
        s.touch(Timestamp(11));
        assert!(!s.is_idle(Timestamp(21), Duration::from_micros(10)));
    }
}
