//! Kept state at size: a snapshot of ten million keys written and read back, what the journal costs
//! ingest, and what lookups notice of a snapshot being written.
//!
//! `cargo bench -p kvatlas-server --bench state [-- KEYS]`

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should say where"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvatlas_controller::Controller;
use kvatlas_controller::controller::{Settings, WorkerAddress};
use kvatlas_protocol::{
    ChunkHash, Operation, OperationKind, SeqNum, Timestamp, WorkerId, WorkerKey,
};
use kvatlas_server::config::Config;
use kvatlas_server::store::Store;
use kvatlas_server::store::dir::StateDir;
use kvatlas_server::store::frame::Head;
use kvatlas_server::store::write;

const WORKERS: u64 = 1000;
const LOCATION: &str = "LocalCPUBackend";
const BATCH: u64 = 500;

fn main() {
    let keys = std::env::args()
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(10_000_000);
    let path = std::env::temp_dir().join(format!("kvatlas-bench-state-{}", std::process::id()));
    println!("{keys} keys of {WORKERS} workers, half of them held by two");
    let controller = fleet();
    let plain = fill(&controller, keys, None);
    println!(
        "ingest without a journal      {:>8.2} M operations/s",
        plain / 1e6
    );
    drop(controller);
    let controller = fleet();
    controller.journal().start(0, 1 << 30);
    let journaled = fill(&controller, keys, Some(&path));
    println!(
        "ingest with a journal         {:>8.2} M operations/s  ({:+.1} %)",
        journaled / 1e6,
        (journaled / plain - 1.0) * 100.0
    );
    let dir = StateDir::open(&path).unwrap();
    let quiet = lookups(&controller, keys, || {
        std::thread::sleep(Duration::from_secs(1))
    });
    let mut written = None;
    let busy = lookups(&controller, keys, || {
        written = Some(snapshot(&dir, &controller, false));
    });
    let written = written.unwrap();
    println!(
        "snapshot while serving        {:>8.2} s, {:.2} bytes a key ({} keys)",
        written.took.as_secs_f64(),
        written.bytes as f64 / written.keys as f64,
        written.keys,
    );
    println!("lookup of 64 chunks, p50/p99  {quiet} without, {busy} with a snapshot being written");
    let last = snapshot(&dir, &controller, true);
    println!(
        "final snapshot                {:>8.2} s",
        last.took.as_secs_f64()
    );
    let totals = controller.totals();
    drop((dir, controller));

    let config = Config {
        state_dir: Some(path.to_string_lossy().into_owned()),
        ..Config::default()
    };
    let start = Instant::now();
    let (restored, _store) = Store::open(&config, Settings::default(), Timestamp(1)).unwrap();
    println!(
        "restored                      {:>8.2} s",
        start.elapsed().as_secs_f64()
    );
    assert_eq!(restored.totals().keys, totals.keys);
    std::fs::remove_dir_all(path).unwrap();
}

fn fleet() -> Controller {
    let controller = Controller::new(Settings {
        hash_seed: 1,
        ..Settings::default()
    });
    for worker in 0..WORKERS {
        let address = WorkerAddress {
            ip: "10.0.0.1".into(),
            port: 1,
            peer_url: None,
        };
        controller
            .handle_register(key(worker), address, Timestamp(1))
            .unwrap();
    }
    controller
}

fn key(worker: u64) -> WorkerKey {
    WorkerKey::new(format!("instance-{worker:04}"), 0)
}

fn chunk(n: u64) -> ChunkHash {
    ChunkHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 7))
}

/// Admits `keys` keys, every second one for a second worker too; operations a second. With a
/// directory, another thread writes the journal there as the store does.
fn fill(controller: &Controller, keys: u64, journal: Option<&std::path::Path>) -> f64 {
    let done = AtomicBool::new(false);
    let names: Vec<_> = (0..WORKERS).map(key).collect();
    let mut seqs = vec![0_i64; names.len()];
    std::thread::scope(|scope| {
        if let Some(path) = journal {
            let done = &done;
            scope.spawn(move || {
                use std::io::Write;
                std::fs::create_dir_all(path).unwrap();
                let scrap = path.join("bench.tmp");
                let mut file = std::fs::File::create(&scrap).unwrap();
                let mut spare = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let taken = controller.journal().take(std::mem::take(&mut spare));
                    assert!(!taken.is_broken);
                    file.write_all(&kvatlas_server::store::frame::group_start(0, &taken.bytes))
                        .unwrap();
                    file.write_all(&taken.bytes).unwrap();
                    file.sync_data().unwrap();
                    spare = taken.bytes;
                    std::thread::sleep(Duration::from_millis(50));
                }
                std::fs::remove_file(scrap).unwrap();
            });
        }
        let start = Instant::now();
        let mut n_operations = 0_u64;
        let mut apply = |worker: usize, chunks: &mut dyn Iterator<Item = u64>| {
            let operations: Vec<_> = chunks
                .map(|n| {
                    seqs[worker] += 1;
                    Operation {
                        kind: OperationKind::Admit,
                        hash: chunk(n),
                        seq: SeqNum(seqs[worker]),
                    }
                })
                .collect();
            n_operations += operations.len() as u64;
            let instance = names[worker].instance.as_str();
            controller
                .apply_batch(instance, WorkerId(0), LOCATION, &operations, Timestamp(2))
                .unwrap();
        };
        for batch in 0..keys.div_ceil(BATCH) {
            let range = batch * BATCH..((batch + 1) * BATCH).min(keys);
            let worker = (batch % WORKERS) as usize;
            apply(worker, &mut range.clone());
            apply((worker * 7 + 1) % names.len(), &mut range.step_by(2));
        }
        let rate = n_operations as f64 / start.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        rate
    })
}

fn snapshot(dir: &StateDir, controller: &Controller, is_clean: bool) -> write::Written {
    let head = Head {
        position: controller.journal().position(),
        seed: 1,
        created: 1,
        is_clean,
    };
    write::snapshot(dir, controller, &head).unwrap()
}

/// Median and 99th percentile of lookups while `work` runs.
fn lookups(controller: &Controller, keys: u64, work: impl FnOnce()) -> String {
    let stop = Arc::new(AtomicBool::new(false));
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let stopped = Arc::clone(&stop);
        let reader = scope.spawn(move || {
            let (mut times, mut at) = (Vec::new(), 0_u64);
            while !stopped.load(Ordering::Relaxed) {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let first = at % (keys - 64) / BATCH * BATCH;
                let chain = (first..first + 64).map(chunk);
                let start = Instant::now();
                std::hint::black_box(controller.lookup(chain));
                times.push(start.elapsed());
            }
            times
        });
        work();
        stop.store(true, Ordering::Relaxed);
        times = reader.join().unwrap();
    });
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_nanos() as f64 / 1e3;
    format!("{:.1}/{:.1} us", at(0.5), at(0.99))
}
