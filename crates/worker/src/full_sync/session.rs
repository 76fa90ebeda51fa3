//! What is told of one location: its keys as they were listed, and the messages that carry them.
//!
//! It decides nothing; order and patience are [`FullSync`](super::FullSync)'s.

use kvatlas_protocol::message::{
    FullSyncBatchMsg, FullSyncEndMsg, FullSyncStartMsg, FullSyncStatusMsg, Message,
};
use kvatlas_protocol::{ChunkHash, Location, Timestamp, WorkerKey};

use crate::config::KeySign;

/// One session, as far as it was sent.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) location: Location,
    pub(super) sync_id: String,
    pub(super) keys: Vec<ChunkHash>,
    /// When each batch was last sent.
    pub(super) sent_at: Vec<Timestamp>,
    pub(super) end_sent_at: Timestamp,
    /// The command came again after Start was accepted: the controller may be another.
    pub(super) asked_again: bool,
}

impl Session {
    /// Start.
    pub(super) fn start(&self, worker: &WorkerKey) -> Message {
        FullSyncStartMsg {
            instance_id: worker.instance.to_string(),
            worker_id: worker.worker.0,
            location: self.location.to_string(),
            sync_id: self.sync_id.clone(),
            total_keys: self.keys.len() as i64,
            batch_count: self.sent_at.len() as i64,
        }
        .into()
    }

    /// Batch number `batch`, of `size` keys.
    pub(super) fn batch(
        &self,
        batch: usize,
        size: usize,
        worker: &WorkerKey,
        sign: KeySign,
    ) -> Message {
        let from = (batch * size).min(self.keys.len());
        let to = (from + size).min(self.keys.len());
        FullSyncBatchMsg {
            instance_id: worker.instance.to_string(),
            worker_id: worker.worker.0,
            location: self.location.to_string(),
            sync_id: self.sync_id.clone(),
            batch_id: batch as i64,
            keys: self.keys[from..to]
                .iter()
                .map(|&key| sign.wire(key))
                .collect(),
        }
        .into()
    }

    /// End.
    pub(super) fn end(&self, worker: &WorkerKey) -> Message {
        FullSyncEndMsg {
            instance_id: worker.instance.to_string(),
            worker_id: worker.worker.0,
            location: self.location.to_string(),
            sync_id: self.sync_id.clone(),
            actual_total_keys: self.keys.len() as i64,
        }
        .into()
    }
}

/// The question about a session.
pub(super) fn status(worker: &WorkerKey, sync_id: &str) -> Message {
    FullSyncStatusMsg {
        instance_id: worker.instance.to_string(),
        worker_id: worker.worker.0,
        sync_id: sync_id.to_owned(),
    }
    .into()
}
