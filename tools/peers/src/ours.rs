//! KVAtlas' index, written on the calling thread as its pull front does.

use std::cell::RefCell;
use std::hint::black_box;
use std::ops::Range;

use kvatlas_controller::index::{HolderId, HolderMeta, Index, Run};
use kvatlas_protocol::{ChunkHash, Operation, OperationKind, SeqNum};

use crate::clock::{Moment, Took};
use crate::session::Session;
use crate::subject::Subject;

/// The index and the holders of the workload's workers.
pub struct Ours {
    index: Index,
    holders: Vec<HolderId>,
}

thread_local! {
    static RUNS: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
}

fn operation(kind: OperationKind, key: u64) -> Operation {
    Operation {
        kind,
        hash: ChunkHash(key),
        seq: SeqNum(0),
    }
}

impl Ours {
    fn runs<T>(&self, query: &[ChunkHash], read: impl FnOnce(&[Run]) -> T) -> T {
        RUNS.with_borrow_mut(|runs| {
            self.index.view().runs(query.iter().copied(), runs);
            read(black_box(runs))
        })
    }
}

impl Subject for Ours {
    const NAME: &'static str = "kvatlas";
    type Batch = (HolderId, Vec<Operation>);
    type Query = Vec<ChunkHash>;

    fn new(workers: u64) -> Self {
        let index = Index::new(0x1234_5678);
        let open = |worker| {
            let meta = HolderMeta {
                worker: u32::try_from(worker).expect("at most 256 workers"),
                location: 0,
            };
            index.open_holder(meta, true).expect("far from the last id")
        };
        Self {
            holders: (0..workers).map(open).collect(),
            index,
        }
    }

    fn store(&self, worker: u64, session: &Session, chunks: Range<usize>) -> Self::Batch {
        let keys = session.keys[chunks].iter();
        let operations = keys.map(|&key| operation(OperationKind::Admit, key));
        (self.holders[worker as usize], operations.collect())
    }

    fn remove(&self, worker: u64, session: &Session, chunks: &[usize]) -> Self::Batch {
        let operations = chunks
            .iter()
            .map(|&i| operation(OperationKind::Evict, session.keys[i]));
        (self.holders[worker as usize], operations.collect())
    }

    fn write(&self, batches: Vec<Self::Batch>) -> Took {
        let start = Moment::now();
        for (holder, operations) in &batches {
            self.index.apply(*holder, operations);
        }
        start.elapsed()
    }

    fn tidy(&self) {}

    fn query(&self, session: &Session) -> Self::Query {
        session.keys.iter().map(|&key| ChunkHash(key)).collect()
    }

    fn look(&self, query: &Self::Query) -> usize {
        self.runs(query, <[Run]>::len)
    }

    fn depths(&self, query: &Self::Query) -> Vec<(u64, u64)> {
        let view = self.index.view();
        self.runs(query, |runs| {
            let depth = |run: &Run| (u64::from(view.holder(run.holder).worker), run.chunks.into());
            runs.iter().map(depth).collect()
        })
    }

    fn pairs(&self) -> u64 {
        self.holders.iter().map(|&h| self.index.count(h)).sum()
    }
}
