//! Dynamo's three indexes, written through `SyncIndexer::worker` as its thread pool does.
//!
//! The queue is filled before the clock starts; the clock stops at the answer to a flush.

use std::hint::black_box;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use dynamo_kv_router::indexer::WorkerTask;
use dynamo_kv_router::protocols::{
    ExternalSequenceBlockHash, KvCacheEvent, KvCacheEventData, KvCacheRemoveData, KvCacheStoreData,
    KvCacheStoredBlockData,
};
use dynamo_kv_router::{
    ConcurrentRadixTreeCompressed, LocalBlockHash, LowerTierIndexer, OverlapScores,
    PositionalIndexer, RouterEvent, SyncIndexer,
};

use crate::clock::{Moment, Took};
use crate::session::Session;
use crate::subject::Subject;

/// Which of them.
pub trait Kind: Send + Sync + 'static {
    /// Its name in results.
    const NAME: &'static str;
    /// The index.
    type Index: SyncIndexer;
    /// An empty one.
    fn new() -> Self::Index;
    /// Its lookup.
    fn find(index: &Self::Index, chain: &[LocalBlockHash]) -> OverlapScores;
}

/// `ConcurrentRadixTreeCompressed`, what Dynamo runs by default.
pub struct RadixTree;
/// `PositionalIndexer` with its usual jump of 32.
pub struct Positional;
/// `LowerTierIndexer`, its exact one.
pub struct LowerTier;

impl Kind for RadixTree {
    const NAME: &'static str = "dynamo radix tree";
    type Index = ConcurrentRadixTreeCompressed;
    fn new() -> Self::Index {
        ConcurrentRadixTreeCompressed::new()
    }
    fn find(index: &Self::Index, chain: &[LocalBlockHash]) -> OverlapScores {
        index.find_matches_impl(chain, false)
    }
}

impl Kind for Positional {
    const NAME: &'static str = "dynamo positional";
    type Index = PositionalIndexer;
    fn new() -> Self::Index {
        PositionalIndexer::new(32)
    }
    fn find(index: &Self::Index, chain: &[LocalBlockHash]) -> OverlapScores {
        index.find_matches(chain, false)
    }
}

impl Kind for LowerTier {
    const NAME: &'static str = "dynamo lower tier";
    type Index = LowerTierIndexer;
    fn new() -> Self::Index {
        LowerTierIndexer::new()
    }
    fn find(index: &Self::Index, chain: &[LocalBlockHash]) -> OverlapScores {
        index.find_matches(chain, false)
    }
}

/// One of Dynamo's indexes with its writer thread.
pub struct Dynamo<K: Kind> {
    index: Arc<K::Index>,
    /// The writer's queue, once it runs.
    queue: Mutex<Option<flume::Sender<WorkerTask>>>,
    kind: PhantomData<K>,
}

fn event(worker: u64, data: KvCacheEventData) -> RouterEvent {
    let event = KvCacheEvent {
        event_id: 0,
        data,
        dp_rank: 0,
    };
    RouterEvent::new(worker, event)
}

impl<K: Kind> Dynamo<K> {
    /// The queue's sending end, and its receiving end if no thread reads it yet.
    fn queue(
        &self,
    ) -> (
        flume::Sender<WorkerTask>,
        Option<flume::Receiver<WorkerTask>>,
    ) {
        let mut queue = self.queue.lock().expect("no holder of this lock panics");
        match &*queue {
            Some(sender) => (sender.clone(), None),
            None => {
                let (sender, receiver) = flume::unbounded();
                *queue = Some(sender.clone());
                (sender, Some(receiver))
            }
        }
    }

    fn start(&self, receiver: flume::Receiver<WorkerTask>) {
        let index = Arc::clone(&self.index);
        std::thread::spawn(move || index.worker(receiver, None).expect("the writer runs on"));
    }
}

impl<K: Kind> Subject for Dynamo<K> {
    const NAME: &'static str = K::NAME;
    type Batch = RouterEvent;
    type Query = Vec<LocalBlockHash>;

    fn new(_workers: u64) -> Self {
        Self {
            index: Arc::new(K::new()),
            queue: Mutex::new(None),
            kind: PhantomData,
        }
    }

    fn store(&self, worker: u64, session: &Session, chunks: Range<usize>) -> Self::Batch {
        let before = chunks.start.checked_sub(1);
        let block = |i: usize| KvCacheStoredBlockData {
            block_hash: ExternalSequenceBlockHash(session.chained[i]),
            tokens_hash: LocalBlockHash(session.keys[i]),
            mm_extra_info: None,
        };
        let data = KvCacheStoreData {
            parent_hash: before.map(|i| ExternalSequenceBlockHash(session.chained[i])),
            // The positional index would refuse a chunk whose parent its worker does not hold.
            start_position: u32::try_from(chunks.start).ok(),
            blocks: chunks.map(block).collect(),
        };
        event(worker, KvCacheEventData::Stored(data))
    }

    fn remove(&self, worker: u64, session: &Session, chunks: &[usize]) -> Self::Batch {
        let hash = |&i: &usize| ExternalSequenceBlockHash(session.chained[i]);
        let data = KvCacheRemoveData {
            block_hashes: chunks.iter().map(hash).collect(),
        };
        event(worker, KvCacheEventData::Removed(data))
    }

    fn write(&self, batches: Vec<Self::Batch>) -> Took {
        let (sender, receiver) = self.queue();
        let (done, applied) = tokio::sync::oneshot::channel();
        let fill = || {
            for batch in batches {
                sender
                    .send(WorkerTask::Event(batch))
                    .expect("the writer lives");
            }
            sender
                .send(WorkerTask::Flush(done))
                .expect("the writer lives");
        };
        let start = match receiver {
            Some(receiver) => {
                fill();
                let start = Moment::now();
                self.start(receiver);
                start
            }
            None => {
                let start = Moment::now();
                fill();
                start
            }
        };
        applied.blocking_recv().expect("the writer answers");
        start.elapsed()
    }

    fn tidy(&self) {
        let (sender, _) = self.queue();
        let asked = sender.send(WorkerTask::CleanupStaleChildren);
        asked.expect("the writer lives");
        self.write(Vec::new());
    }

    fn query(&self, session: &Session) -> Self::Query {
        session
            .keys
            .iter()
            .map(|&key| LocalBlockHash(key))
            .collect()
    }

    fn look(&self, query: &Self::Query) -> usize {
        black_box(K::find(&self.index, query)).scores.len()
    }

    fn depths(&self, query: &Self::Query) -> Vec<(u64, u64)> {
        let scores = K::find(&self.index, query).scores;
        let depth = |(worker, depth): (_, u32)| {
            let worker: dynamo_kv_router::protocols::WorkerWithDpRank = worker;
            (worker.worker_id, u64::from(depth))
        };
        let held = scores.into_iter().map(depth);
        held.filter(|&(_, depth)| depth > 0).collect()
    }

    fn pairs(&self) -> u64 {
        let (sender, _) = self.queue();
        let (done, stats) = tokio::sync::oneshot::channel();
        let asked = sender.send(WorkerTask::Stats(done));
        asked.expect("the writer lives");
        let stats = stats.blocking_recv().expect("the writer answers");
        stats.block_count() as u64
    }
}
