//! The hot paths, alone and with fixed inputs. A round is as much work as fits a fixed number of units.

use std::hint::black_box;

use kvatlas_controller::index::{HolderMeta, Index};
use kvatlas_protocol::codec::publish::{BatchHeader, encode_batch};
use kvatlas_protocol::codec::pull::decode_pull;
use kvatlas_protocol::message::KVOpEvent;
use kvatlas_protocol::{
    ChunkHash, HashAlgorithm, HashScheme, Operation, OperationKind, Root, SeqNum, WireKey,
};

/// One path.
pub(crate) struct Case {
    /// Its name.
    pub(crate) name: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// How many of them a round has.
    pub(crate) units: u32,
    /// Runs a number of rounds.
    pub(crate) run: fn(u32),
}

/// Operations of a message, as LMCache sends them.
const BATCH: usize = 50;
/// Tokens hashed in a round.
const TOKENS: u32 = 8192;
/// Chunks of a looked-up prompt.
const CHAIN: usize = 128;
/// Keys in the index; 128 KiB of them do not hide what a lookup costs.
const KEYS: usize = 50_000;

impl Case {
    pub(crate) const ALL: &[Self] = &[
        Self {
            name: "decode",
            unit: "operation",
            units: BATCH as u32,
            run: decode,
        },
        Self {
            name: "hash builtin",
            unit: "token",
            units: TOKENS,
            run: |rounds| hash(rounds, HashAlgorithm::Builtin),
        },
        Self {
            name: "hash sha256_cbor",
            unit: "token",
            units: TOKENS,
            run: |rounds| hash(rounds, HashAlgorithm::Sha256Cbor),
        },
        Self {
            name: "apply",
            unit: "operation",
            units: 2 * BATCH as u32,
            run: apply,
        },
        Self {
            name: "lookup hit",
            unit: "chunk",
            units: CHAIN as u32,
            run: |rounds| lookup(rounds, true),
        },
        Self {
            name: "lookup miss",
            unit: "lookup",
            units: 1,
            run: |rounds| lookup(rounds, false),
        },
    ];
}

fn key(at: usize) -> ChunkHash {
    let z = (at as u64)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ChunkHash(z ^ (z >> 29))
}

fn decode(rounds: u32) {
    let events: Vec<KVOpEvent> = (0..BATCH)
        .zip(1000..)
        .map(|(at, seq_num)| KVOpEvent {
            op_type: OperationKind::Admit,
            key: WireKey::from_hash_signed(key(at)),
            seq_num,
        })
        .collect();
    let header = BatchHeader {
        instance_id: "engine-0001",
        worker_id: 0,
        location: "LocalCPUBackend",
    };
    let mut part = Vec::new();
    encode_batch(header, &events, &mut part);
    let (mut operations, mut keys) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        operations.clear();
        let message = decode_pull(black_box(&part), &mut operations, &mut keys);
        assert!(message.is_ok() && operations.len() == BATCH);
    }
}

fn hash(rounds: u32, algorithm: HashAlgorithm) {
    let size = HashScheme::default().chunk_size();
    let scheme = HashScheme::new(algorithm, Root::Absent, size);
    let scheme = scheme.expect("an absent root is 0 under every algorithm");
    let tokens: Vec<u32> = (0..TOKENS).map(|at| at * 31 % 128_000).collect();
    for _ in 0..rounds {
        black_box(scheme.chain(black_box(&tokens)).last());
    }
}

/// An index whose keys two of eight holders have.
fn index() -> (Index, Vec<kvatlas_controller::index::HolderId>) {
    let index = Index::new(1);
    let holders: Vec<_> = (0..8)
        .map(|worker| {
            let meta = HolderMeta {
                worker,
                location: 0,
            };
            index.open_holder(meta, true).expect("far from the last id")
        })
        .collect();
    for (at, chain) in (0..KEYS).step_by(CHAIN).enumerate() {
        let keys: Vec<_> = (chain..chain + CHAIN).map(key).collect();
        index.admit(holders[at % 8], &keys);
        index.admit(holders[(at + 3) % 8], &keys);
    }
    (index, holders)
}

fn apply(rounds: u32) {
    let (index, holders) = index();
    for round in 0..rounds as usize {
        let from = round * 97 % KEYS;
        for kind in [OperationKind::Evict, OperationKind::Admit] {
            let operations: [Operation; BATCH] = std::array::from_fn(|at| Operation {
                kind,
                hash: key(from + at),
                seq: SeqNum(0),
            });
            index.apply(holders[round % 8], &operations);
        }
    }
}

fn lookup(rounds: u32, hit: bool) {
    let (index, _holders) = index();
    let mut runs = Vec::new();
    for round in 0..rounds as usize {
        let from = if hit { round % 300 * CHAIN } else { 10 * KEYS };
        index.view().runs((from..from + CHAIN).map(key), &mut runs);
        assert_eq!(runs.len(), if hit { 2 } else { 0 });
    }
}
