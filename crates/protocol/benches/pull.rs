//! Time per operation of the pull hot path: `cargo bench -p kvatlas-protocol`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvatlas_protocol::codec::publish::{BatchHeader, encode_batch};
use kvatlas_protocol::codec::pull::decode_pull;
use kvatlas_protocol::message::KVOpEvent;
use kvatlas_protocol::{OperationKind, WireKey};

const OPERATIONS: i64 = 100;

fn batch() -> Vec<KVOpEvent> {
    (0..OPERATIONS)
        .map(|seq_num| KVOpEvent {
            op_type: if seq_num % 3 == 0 {
                OperationKind::Evict
            } else {
                OperationKind::Admit
            },
            key: WireKey::signed(seq_num.wrapping_mul(0x1e37_79b9_7f4a_7c15)),
            seq_num: 1_000_000 + seq_num,
        })
        .collect()
}

fn header() -> BatchHeader<'static> {
    BatchHeader {
        instance_id: "inst_0",
        worker_id: 0,
        location: "LocalCPUBackend",
    }
}

/// The same batch as a sender with another field order would write it.
fn reordered() -> Vec<u8> {
    let mut part = Vec::new();
    encode_batch(header(), &batch(), &mut part);
    let (op_type, rest) = (b"\xa7op_type".as_slice(), b"\xa3key".as_slice());
    let mut out = Vec::new();
    let mut at = 0;
    while at < part.len() {
        let here = &part[at..];
        if here.starts_with(op_type) && here.get(14..).is_some_and(|next| next.starts_with(rest)) {
            // op_type and its word (14 bytes) go behind the key (4 + 1..9 bytes).
            let key_end = match here[18] {
                0xcf | 0xd3 => 27,
                _ => 19,
            };
            out.extend_from_slice(&here[14..key_end]);
            out.extend_from_slice(&here[..14]);
            at += key_end;
        } else {
            out.push(here[0]);
            at += 1;
        }
    }
    out
}

fn decode(c: &mut Criterion) {
    let mut in_order = Vec::new();
    encode_batch(header(), &batch(), &mut in_order);
    let mut group = c.benchmark_group("pull");
    group.throughput(Throughput::Elements(OPERATIONS.unsigned_abs()));
    for (name, part) in [("msgspec order", in_order), ("other order", reordered())] {
        let (mut operations, mut keys) = (Vec::new(), Vec::new());
        group.bench_function(name, |b| {
            b.iter(|| {
                operations.clear();
                decode_pull(&part, &mut operations, &mut keys).expect("valid batch");
                operations.len()
            });
        });
        assert_eq!(operations.len() as i64, OPERATIONS);
    }
    let (events, mut out) = (batch(), Vec::new());
    group.bench_function("encode", |b| {
        b.iter(|| {
            out.clear();
            encode_batch(header(), &events, &mut out);
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
