//! Sequence numbers of one worker's stream for one location: what continues, what is missing.
//!
//! Every operation's number should be the one before plus one. The first number after a
//! registration or a full sync is the base. Workers that number nothing send 0 for ever.
//!
//! Going back (a repeated batch, or a sender that counts anew) is a discontinuity and the new number
//! is adopted, as upstream does. Applying again the last operations in order changes nothing, so a
//! repetition that ends where the stream was needs no repair; one that stops earlier may have undone
//! later operations, so it does. Coming back to where the stream was is not counted a second time.
//!
//! O(1) per operation, no allocation. Upstream: `WorkerNode.handle_batched_kv_operations`.

use kvatlas_protocol::{Operation, SeqNum};

use crate::restore::SequenceRecord;

/// Where a stream stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// Number of the last operation; `None` before the first.
    last: Option<SeqNum>,
    /// The next number is the base, whatever it is.
    any_next: bool,
    /// How far the stream was before it went back, until it gets there again.
    reached: Option<SeqNum>,
    /// Batches with a discontinuity since registration.
    gaps: u64,
}

/// What a batch's numbers say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Continuity {
    /// The numbers did not follow each other: counted once a batch, as upstream counts.
    pub broken: bool,
    /// The keys can no longer be trusted to be the worker's.
    pub doubtful: bool,
    /// The first number was the last one plus one: nothing was lost in between.
    pub continued: bool,
}

impl Sequence {
    /// A stream as a snapshot kept it.
    pub(crate) fn restored(record: SequenceRecord) -> Self {
        let SequenceRecord {
            last,
            any_next,
            reached,
            gaps,
        } = record;
        Self {
            last,
            any_next,
            reached,
            gaps,
        }
    }

    /// The stream as a snapshot keeps it.
    pub(crate) fn record(&self) -> SequenceRecord {
        SequenceRecord {
            last: self.last,
            any_next: self.any_next,
            reached: self.reached,
            gaps: self.gaps,
        }
    }

    /// No number came yet, and none is waived by a sync.
    pub(crate) fn is_new(&self) -> bool {
        self.last.is_none() && !self.any_next
    }

    /// After a restart only the last number plus one continues.
    pub(crate) fn expect_next(&mut self) {
        self.any_next = false;
        self.reached = None;
    }

    /// Number of the last operation.
    pub(crate) fn last(&self) -> Option<SeqNum> {
        self.last
    }

    /// Batches with a discontinuity since registration.
    pub(crate) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// The next number is a new base. The last one is kept: a restart can still be proved by it.
    pub(crate) fn rebase(&mut self) {
        self.any_next = true;
        self.reached = None;
    }

    /// Takes the numbers of one batch.
    pub(crate) fn advance(&mut self, operations: &[Operation]) -> Continuity {
        let mut found = Continuity {
            continued: match (self.last, operations.first()) {
                (Some(last), Some(first)) => last.0.checked_add(1) == Some(first.seq.0),
                _ => false,
            },
            ..Continuity::default()
        };
        let mut went_back = false;
        for operation in operations {
            let seq = operation.seq;
            if let Some(last) = self.last
                && !self.any_next
            {
                let unnumbered = last.0 == 0 && seq.0 == 0;
                if last.0.checked_add(1) != Some(seq.0) && !unnumbered {
                    if seq > last {
                        found.doubtful = true;
                        found.broken |= self.reached.is_none_or(|r| seq.0 > r.0.saturating_add(1));
                    } else {
                        found.broken = true;
                        went_back = true;
                        self.reached = self.reached.max(Some(last));
                    }
                }
            }
            self.last = Some(seq);
            self.any_next = false;
            if self.reached.is_some_and(|reached| seq >= reached) {
                self.reached = None;
            }
        }
        found.doubtful |= went_back && self.reached.is_some();
        self.gaps += u64::from(found.broken);
        found
    }
}

#[cfg(test)]
mod tests {
    use kvatlas_protocol::{ChunkHash, OperationKind};

    use super::*;

    fn feed(sequence: &mut Sequence, numbers: &[i64]) -> (bool, bool) {
        let operations: Vec<_> = numbers
            .iter()
            .map(|&seq| Operation {
                kind: OperationKind::Admit,
                hash: ChunkHash(1),
                seq: SeqNum(seq),
            })
            .collect();
        let found = sequence.advance(&operations);
        (found.broken, found.doubtful)
    }

    #[test]
    fn first_number_is_the_base_and_the_next_continues() {
        let mut s = Sequence::default();
        assert_eq!(feed(&mut s, &[41, 42]), (false, false));
        assert_eq!(feed(&mut s, &[43]), (false, false));
        assert_eq!(s.gaps(), 0);
    }

    #[test]
    fn forward_gap_is_counted_once_and_the_number_adopted() {
        let mut s = Sequence::default();
        feed(&mut s, &[0, 1]);
        assert_eq!(feed(&mut s, &[5, 6, 9]), (true, true));
        assert_eq!(feed(&mut s, &[10]), (false, false));
        assert_eq!((s.gaps(), s.last()), (1, Some(SeqNum(10))));
    }

    #[test]
    fn after_a_rebase_any_number_follows() {
        let mut s = Sequence::default();
        feed(&mut s, &[5, 6]);
        s.rebase();
        assert_eq!(s.last(), Some(SeqNum(6)));
        assert_eq!(feed(&mut s, &[2]), (false, false));
        assert_eq!(feed(&mut s, &[3]), (false, false));
        assert_eq!(feed(&mut s, &[6]), (true, true));
    }

    #[test]
    fn unnumbered_operations_are_no_gap() {
        let mut s = Sequence::default();
        for _ in 0..3 {
            assert_eq!(feed(&mut s, &[0, 0, 0]), (false, false));
        }
    }

    #[test]
    fn repeating_the_last_batch_needs_no_repair() {
        let mut s = Sequence::default();
        feed(&mut s, &[1, 2, 3, 4]);
        assert_eq!(feed(&mut s, &[3, 4]), (true, false));
        assert_eq!(feed(&mut s, &[5]), (false, false));
        assert_eq!(s.gaps(), 1);
    }

    #[test]
    fn repeating_an_older_batch_is_doubtful_but_the_way_back_is_no_second_gap() {
        let mut s = Sequence::default();
        feed(&mut s, &[1, 2, 3, 4]);
        assert_eq!(feed(&mut s, &[1, 2]), (true, true));
        assert!(!feed(&mut s, &[5, 6]).0);
        assert_eq!(s.gaps(), 1);
        assert_eq!(feed(&mut s, &[7]), (false, false));
    }

    #[test]
    fn numbers_at_the_ends_of_the_range_do_not_overflow() {
        let mut s = Sequence::default();
        feed(&mut s, &[i64::MAX]);
        assert!(feed(&mut s, &[i64::MIN]).0);
        feed(&mut s, &[i64::MAX, i64::MAX, 0]);
    }
}
