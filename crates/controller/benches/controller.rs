//! The controller's own share of a lookup: 400 instances, a 128-chunk prompt that 49 of them hold to
//! different depths, as in KVIDX-1 (32 chunks shared by 49, the rest by two); peers; departure of a
//! worker with a million keys. Compare with `index_kvidx` for the walk alone.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use kvatlas_controller::Controller;
use kvatlas_controller::controller::{Settings, WorkerAddress};
use kvatlas_protocol::{
    ChunkHash, Operation, OperationKind, SeqNum, Timestamp, WorkerId, WorkerKey,
};

const N_INSTANCES: u64 = 400;
const N_HOLDERS: u64 = 49;

fn register(controller: &Controller, instance: &str) {
    let address = WorkerAddress {
        ip: "10.0.0.1".into(),
        port: 9000,
        peer_url: Some(format!("{instance}:1")),
    };
    let registered = controller.handle_register(WorkerKey::new(instance, 0), address, Timestamp(0));
    registered.expect("the limits are far");
}

fn admit(controller: &Controller, instance: &str, keys: impl Iterator<Item = u64>) {
    let operations: Vec<_> = keys
        .enumerate()
        .map(|(n, key)| Operation {
            kind: OperationKind::Admit,
            hash: ChunkHash(key.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            seq: SeqNum(n as i64),
        })
        .collect();
    let applied = controller.apply_batch(instance, WorkerId(0), "cpu", &operations, Timestamp(0));
    applied.expect("the worker is registered");
}

fn fleet() -> Controller {
    let controller = Controller::new(Settings::default());
    for n in 0..N_INSTANCES {
        let instance = format!("instance-{n}");
        register(&controller, &instance);
        let depth = match n {
            0..2 => 128,
            _ if n < N_HOLDERS => 32,
            _ => 0,
        };
        let own = (1 << 40) + n * 10_000;
        admit(&controller, &instance, (0..depth).chain(own..own + 5000));
    }
    controller
}

fn lookups(c: &mut Criterion) {
    let controller = fleet();
    let chain: Vec<_> = (0..128_u64)
        .map(|key| ChunkHash(key.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    assert_eq!(
        controller.lookup(chain.iter().copied()).len(),
        N_HOLDERS as usize
    );
    let asker = WorkerKey::new("instance-7", 0);
    let mut group = c.benchmark_group("400 instances, 49 holders, 128 chunks");
    group.bench_function("lookup", |b| {
        b.iter(|| controller.lookup(black_box(&chain).iter().copied()));
    });
    group.bench_function("peer lookup", |b| {
        b.iter(|| controller.peer_lookup(black_box(&chain), &asker));
    });
    group.bench_function("miss", |b| {
        b.iter(|| controller.lookup([ChunkHash(black_box(77))]));
    });
    group.finish();
}

fn departure(c: &mut Criterion) {
    c.bench_function("deregister, 1M keys", |b| {
        let full = || {
            let controller = Controller::new(Settings::default());
            register(&controller, "i");
            admit(&controller, "i", 0..1_000_000);
            controller
        };
        let leave = |controller: Controller| {
            controller.handle_deregister(&WorkerKey::new("i", 0), Timestamp(1));
            controller
        };
        b.iter_batched(full, leave, BatchSize::PerIteration);
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = lookups, departure
}
criterion_main!(benches);
