//! The controller as its fronts use it: small fleets, whole journeys.

mod fleet;
mod journal;
mod lookup;
mod memory;
mod model;
mod restore;
mod scheme;
mod sync;

use kvatlas_protocol::{
    BatchId, ChunkHash, Operation, OperationKind, SeqNum, Timestamp, WorkerId, WorkerKey,
};

use crate::controller::{
    BatchOutcome, Controller, FullSyncRequest, HeartbeatReply, Settings, SyncReason, SyncStart,
    SyncState, WorkerAddress,
};
use crate::error::{BatchError, RegisterError, SyncError};

const CPU: &str = "LocalCPUBackend";
const DISK: &str = "LocalDiskBackend";

fn at(seconds: u64) -> Timestamp {
    Timestamp((1_000_000 + seconds) * 1_000_000)
}

fn key(instance: &str, worker: i64) -> WorkerKey {
    WorkerKey::new(instance, worker)
}

fn address(ip: &str, peer_url: Option<&str>) -> WorkerAddress {
    WorkerAddress {
        ip: ip.into(),
        port: 9000,
        peer_url: peer_url.map(Into::into),
    }
}

fn hashes(keys: &[u64]) -> Vec<ChunkHash> {
    keys.iter().map(|&key| ChunkHash(key)).collect()
}

/// A controller and the numbers its workers count with.
struct Fleet {
    controller: Controller,
    seqs: std::collections::HashMap<(WorkerKey, String), i64>,
}

impl Fleet {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self {
            controller: Controller::new(settings),
            seqs: Default::default(),
        }
    }

    /// Registers workers as `instance:rank`, each with a peer URL of that name.
    fn of(workers: &[(&str, i64)]) -> Self {
        let fleet = Self::new();
        for (instance, worker) in workers {
            fleet.register(instance, *worker);
        }
        fleet
    }

    fn register(&self, instance: &str, worker: i64) -> bool {
        let url = format!("{instance}:{worker}");
        let registered = self.controller.handle_register(
            key(instance, worker),
            address("10.0.0.1", Some(&url)),
            at(0),
        );
        registered.unwrap().replaced
    }

    fn heartbeat(&self, instance: &str, worker: i64, now: Timestamp) -> HeartbeatReply {
        let url = format!("{instance}:{worker}");
        let address = address("10.0.0.1", Some(&url));
        let reply = self
            .controller
            .handle_heartbeat(key(instance, worker), address, now);
        reply.unwrap()
    }

    /// What the heartbeat asks to sync.
    fn asked(&self, instance: &str, worker: i64, now: Timestamp) -> Vec<FullSyncRequest> {
        self.heartbeat(instance, worker, now).full_sync
    }

    fn send(
        &mut self,
        (instance, worker, location): (&str, i64, &str),
        kind: OperationKind,
        keys: &[u64],
        now: Timestamp,
    ) -> Result<BatchOutcome, BatchError> {
        let seq = self
            .seqs
            .entry((key(instance, worker), location.into()))
            .or_default();
        let operations: Vec<_> = keys
            .iter()
            .map(|&key| {
                *seq += 1;
                Operation {
                    kind,
                    hash: ChunkHash(key),
                    seq: SeqNum(*seq),
                }
            })
            .collect();
        self.controller
            .apply_batch(instance, WorkerId(worker), location, &operations, now)
    }

    fn admit(&mut self, instance: &str, worker: i64, keys: &[u64]) -> BatchOutcome {
        self.send((instance, worker, CPU), OperationKind::Admit, keys, at(1))
            .unwrap()
    }

    fn evict(&mut self, instance: &str, worker: i64, keys: &[u64]) -> BatchOutcome {
        self.send((instance, worker, CPU), OperationKind::Evict, keys, at(1))
            .unwrap()
    }

    /// Operations that never arrive.
    fn lose(&mut self, instance: &str, worker: i64, location: &str, n: i64) {
        *self
            .seqs
            .entry((key(instance, worker), location.into()))
            .or_default() += n;
    }

    fn start(
        &self,
        (instance, worker, location): (&str, i64, &str),
        sync_id: &str,
        batch_count: i64,
        now: Timestamp,
    ) -> Result<(), SyncError> {
        let start = SyncStart {
            worker: key(instance, worker),
            location: location.into(),
            sync_id: sync_id.into(),
            total_keys: 0,
            batch_count,
        };
        self.controller.handle_sync_start(start, now)
    }

    fn batch(
        &self,
        (instance, worker, location): (&str, i64, &str),
        sync_id: &str,
        batch: i64,
        keys: &[u64],
    ) -> Result<bool, SyncError> {
        self.controller.handle_sync_batch(
            instance,
            WorkerId(worker),
            location,
            sync_id,
            BatchId(batch),
            &hashes(keys),
            at(2),
        )
    }

    fn end(
        &self,
        (instance, worker, location): (&str, i64, &str),
        sync_id: &str,
    ) -> Result<bool, SyncError> {
        self.controller
            .handle_sync_end(&key(instance, worker), location, sync_id, 0, at(2))
    }

    /// `instance@location=chunks` of every match, in order.
    fn lookup(&self, keys: &[u64]) -> Vec<String> {
        self.controller
            .lookup(hashes(keys))
            .iter()
            .map(|m| format!("{}@{}={}", m.instance, m.location, m.chunks))
            .collect()
    }

    fn peers(&self, keys: &[u64], instance: &str, worker: i64) -> Vec<String> {
        self.controller
            .peer_lookup(&hashes(keys), &key(instance, worker))
            .iter()
            .map(|m| format!("{}={} {}", m.instance, m.chunks, m.peer_url))
            .collect()
    }

    fn sync_state(&self, instance: &str, worker: i64, location: &str) -> SyncState {
        let info = self.controller.worker(&key(instance, worker)).unwrap();
        let known = info
            .locations
            .into_iter()
            .find(|known| known.location.as_str() == location);
        known.unwrap().sync
    }
}
