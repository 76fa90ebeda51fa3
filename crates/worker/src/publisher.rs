//! The stream of admits and evicts on its way out: a bounded queue that never blocks the engine.
//!
//! **Invariants.** Operations of one location leave in the order they came, numbered by one from 0.
//! Every operation gets a number, also one that is dropped because the queue is full: the numbers
//! that are missing are the gap by which the controller finds out. The last operation dropped is
//! kept beside the queue and leaves after it, so that a gap shows even if nothing ever follows.
//! A dropped operation is counted.
//!
//! Batches: everything waiting leaves as soon as `batch_size` operations wait for one location, or
//! `batch_timeout` after the first one came. Upstream: `storage_backend/batched_message_sender.py`,
//! whose queue is unbounded.
//!
//! Sans-I/O: the agent holds it behind one lock, taken by engine threads for a push (constant time)
//! and by the event loop for a drain (which swaps queues, it does not copy them).

use std::collections::VecDeque;
use std::time::Duration;

use kvatlas_protocol::{ChunkHash, Location, Operation, OperationKind, SeqNum, Timestamp};

/// How operations are gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Operations of one location that make a batch leave (`kv_msg_batch_size`, 50).
    pub batch_size: usize,
    /// Longest wait of an operation (`kv_msg_batch_timeout`, 10 ms).
    pub batch_timeout: Duration,
    /// Operations that may wait over all locations, 40 bytes each: at 65,536 an engine that admits
    /// 10,000 chunks a second survives six seconds without a controller.
    pub queue_limit: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_size: 50,
            batch_timeout: Duration::from_millis(10),
            queue_limit: 65_536,
        }
    }
}

/// Operations waiting to be sent.
#[derive(Debug)]
pub struct Publisher {
    settings: Settings,
    streams: Vec<Stream>,
    /// Operations in all queues.
    waiting: usize,
    /// When the oldest waiting operation must leave.
    due: Option<Timestamp>,
    dropped: u64,
}

/// Operations of one location, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Storage they happened in.
    pub location: Location,
    /// Oldest first.
    pub operations: VecDeque<Operation>,
}

/// One location's queue.
#[derive(Debug)]
struct Stream {
    location: Location,
    next_seq: i64,
    queue: VecDeque<Operation>,
    /// The newest operation that found the queue full.
    overflow: Option<Operation>,
    /// Operations are missing in what the controller was told since the last full sync.
    gap: bool,
}

impl Publisher {
    /// An empty queue.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            streams: Vec::new(),
            waiting: 0,
            due: None,
            dropped: 0,
        }
    }

    /// Adds one operation; whether the event loop should look (a deadline arose or came forward).
    pub fn push(
        &mut self,
        location: &Location,
        kind: OperationKind,
        hash: ChunkHash,
        now: Timestamp,
    ) -> bool {
        let full = self.waiting >= self.settings.queue_limit;
        let stream = stream(&mut self.streams, location);
        let operation = Operation {
            kind,
            hash,
            seq: SeqNum(stream.next_seq),
        };
        stream.next_seq += 1;
        // Once one operation waits outside, later ones may not pass it.
        if full || stream.overflow.is_some() {
            if stream.overflow.replace(operation).is_some() {
                self.dropped += 1;
                stream.gap = true;
            }
            return false;
        }
        stream.queue.push_back(operation);
        self.waiting += 1;
        match self.due {
            None => {
                self.due = Some(now + self.settings.batch_timeout);
                true
            }
            Some(due) if due > now && stream.queue.len() >= self.settings.batch_size => {
                self.due = Some(now);
                true
            }
            Some(_) => false,
        }
    }

    /// When the waiting operations must leave; `None` if there are none.
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Takes everything that waits, one batch a location.
    pub fn drain(&mut self) -> Vec<Batch> {
        self.waiting = 0;
        self.due = None;
        self.streams
            .iter_mut()
            .filter_map(|stream| {
                let mut operations = std::mem::take(&mut stream.queue);
                operations.extend(stream.overflow.take());
                (!operations.is_empty()).then(|| Batch {
                    location: stream.location.clone(),
                    operations,
                })
            })
            .collect()
    }

    /// Locations whose stream lost operations since they were last taken here.
    pub fn take_gaps(&mut self) -> Vec<Location> {
        self.streams
            .iter_mut()
            .filter_map(|stream| std::mem::take(&mut stream.gap).then(|| stream.location.clone()))
            .collect()
    }

    /// Operations dropped for want of room, ever.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Operations waiting.
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

/// The stream of `location`, made if need be. An engine has a handful of locations.
fn stream<'a>(streams: &'a mut Vec<Stream>, location: &Location) -> &'a mut Stream {
    let at = streams
        .iter()
        .position(|stream| stream.location == *location)
        .unwrap_or_else(|| {
            streams.push(Stream {
                location: location.clone(),
                next_seq: 0,
                queue: VecDeque::new(),
                overflow: None,
                gap: false,
            });
            streams.len() - 1
        });
    &mut streams[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMIT: OperationKind = OperationKind::Admit;

    fn publisher(queue_limit: usize) -> Publisher {
        Publisher::new(Settings {
            queue_limit,
            ..Settings::default()
        })
    }

    fn sequence(batches: &[Batch], location: &str) -> Vec<i64> {
        batches
            .iter()
            .filter(|batch| batch.location.as_str() == location)
            .flat_map(|batch| batch.operations.iter().map(|op| op.seq.0))
            .collect()
    }

    #[test]
    fn each_location_counts_for_itself_and_keeps_its_order() {
        let mut publisher = publisher(100);
        let (cpu, disk) = (Location::from("cpu"), Location::from("disk"));
        for n in 0..6 {
            publisher.push(&cpu, ADMIT, ChunkHash(n), Timestamp(0));
            if n % 2 == 0 {
                publisher.push(&disk, OperationKind::Evict, ChunkHash(n), Timestamp(0));
            }
        }
        let batches = publisher.drain();
        assert_eq!(sequence(&batches, "cpu"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(sequence(&batches, "disk"), [0, 1, 2]);
        assert!(publisher.drain().is_empty());
        publisher.push(&cpu, ADMIT, ChunkHash(9), Timestamp(0));
        assert_eq!(sequence(&publisher.drain(), "cpu"), [6]);
    }

    #[test]
    fn due_after_the_timeout_or_at_once_with_a_full_batch() {
        let mut publisher = publisher(100);
        let cpu = Location::from("cpu");
        assert_eq!(publisher.due(), None);
        assert!(publisher.push(&cpu, ADMIT, ChunkHash(0), Timestamp(1_000)));
        assert_eq!(publisher.due(), Some(Timestamp(11_000)));
        for n in 1..49 {
            assert!(!publisher.push(&cpu, ADMIT, ChunkHash(n), Timestamp(1_000 + n)));
        }
        assert!(publisher.push(&cpu, ADMIT, ChunkHash(49), Timestamp(2_000)));
        assert_eq!(publisher.due(), Some(Timestamp(2_000)));
        assert!(
            !publisher.push(&cpu, ADMIT, ChunkHash(50), Timestamp(2_000)),
            "the loop knows already"
        );
        publisher.drain();
        assert_eq!(publisher.due(), None);
    }

    #[test]
    fn overflow_leaves_a_gap_that_shows_even_if_nothing_follows() {
        let mut publisher = publisher(3);
        let cpu = Location::from("cpu");
        for n in 0..10 {
            publisher.push(&cpu, ADMIT, ChunkHash(n), Timestamp(0));
        }
        assert_eq!(publisher.waiting(), 3);
        assert_eq!(publisher.dropped(), 6);
        let batches = publisher.drain();
        assert_eq!(sequence(&batches, "cpu"), [0, 1, 2, 9]);
        assert_eq!(
            batches[0].operations.back().map(|op| op.hash),
            Some(ChunkHash(9))
        );
        assert_eq!(publisher.take_gaps(), std::slice::from_ref(&cpu));
        assert!(publisher.take_gaps().is_empty());
        publisher.push(&cpu, ADMIT, ChunkHash(10), Timestamp(0));
        assert_eq!(sequence(&publisher.drain(), "cpu"), [10]);
    }

    #[test]
    fn one_operation_too_many_is_not_lost() {
        let mut publisher = publisher(2);
        let cpu = Location::from("cpu");
        for n in 0..3 {
            publisher.push(&cpu, ADMIT, ChunkHash(n), Timestamp(0));
        }
        assert_eq!(sequence(&publisher.drain(), "cpu"), [0, 1, 2]);
        assert_eq!(publisher.dropped(), 0);
        assert!(publisher.take_gaps().is_empty());
    }

    #[test]
    fn a_full_queue_of_one_location_marks_only_the_locations_that_lost() {
        let mut publisher = publisher(2);
        let (cpu, disk) = (Location::from("cpu"), Location::from("disk"));
        publisher.push(&cpu, ADMIT, ChunkHash(0), Timestamp(0));
        publisher.push(&cpu, ADMIT, ChunkHash(1), Timestamp(0));
        for n in 0..4 {
            publisher.push(&disk, ADMIT, ChunkHash(n), Timestamp(0));
        }
        let batches = publisher.drain();
        assert_eq!(sequence(&batches, "cpu"), [0, 1]);
        assert_eq!(sequence(&batches, "disk"), [3]);
        assert_eq!(publisher.take_gaps(), [disk]);
    }
}
