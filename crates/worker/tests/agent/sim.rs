//! The simulated engine: chunks really go to peers, ranks stay alike, equal seeds give equal caches.

use std::collections::BTreeSet;
use std::sync::mpsc;

use kvatlas_protocol::message::Message;
use kvatlas_protocol::{HashScheme, Location, OperationKind, Root, WorkerKey};
use kvatlas_worker::sim::{
    CPU, Capacity, DISK, PromptSettings, Prompts, SimEngine, SimInstance, Traffic, TrafficSettings,
    WorkerConfig, run_worker,
};
use kvatlas_worker::{AgentConfig, Compression, Engine, Movement, Runtime};

use super::fake_controller::{FakeController, eventually};
use super::{operations, plain};

/// An instance with two ranks and nobody to report to.
fn instance(runtime: &Runtime, name: &str, capacity: Capacity) -> SimInstance {
    let agents = (0..2)
        .map(|rank| AgentConfig {
            command_host: "127.0.0.1".into(),
            peer_url: Some("127.0.0.1:0".into()),
            ..AgentConfig::new(WorkerKey::new(name, rank), "127.0.0.1:1", "127.0.0.1:1")
        })
        .collect();
    SimInstance::start(runtime, agents, capacity, &HashScheme::default()).unwrap()
}

fn keys(engine: &SimEngine, location: &str) -> Vec<u64> {
    let keys = engine.keys(&location.into());
    keys.into_iter().map(|key| key.0).collect()
}

fn signed(tokens: &[u32]) -> Vec<i64> {
    tokens.iter().map(|&token| i64::from(token)).collect()
}

/// Serves until it is taken: a command keeps the gate quiet for a moment.
fn serve(instance: &SimInstance, tokens: &[u32]) -> usize {
    let mut hits = None;
    eventually("the request is served", || {
        hits = instance.instance().serve(tokens);
        hits.is_some()
    });
    hits.unwrap()
}

const ROOM: Capacity = Capacity { cpu: 40, disk: 200 };

#[test]
fn equal_seeds_give_equal_caches_on_every_rank() {
    let runtime = Runtime::start().unwrap();
    let cached = |stream| {
        let instance = instance(&runtime, "sim", ROOM);
        let mut prompts = Prompts::new(PromptSettings::default(), 9, stream);
        let hits: usize = (0..150)
            .map(|_| serve(&instance, &prompts.next_prompt()))
            .sum();
        let ranks = instance.instance().ranks();
        assert_eq!(keys(&ranks[0], CPU), keys(&ranks[1], CPU));
        assert_eq!(keys(&ranks[0], DISK), keys(&ranks[1], DISK));
        assert_eq!(keys(&ranks[0], CPU).len(), ROOM.cpu, "full, so it evicted");
        assert!(hits > 0, "prefixes are shared");
        (hits, keys(&ranks[0], CPU), keys(&ranks[0], DISK))
    };
    assert_eq!(cached(1), cached(1));
    assert_ne!(cached(1), cached(2));
}

#[test]
fn chunks_move_between_instances_and_between_storages() {
    let runtime = Runtime::start().unwrap();
    let small = Capacity { cpu: 10, disk: 10 };
    let (from, to) = (
        instance(&runtime, "a", small),
        instance(&runtime, "b", small),
    );
    let tokens: Vec<u32> = (0..1000).collect();
    serve(&from, &tokens);
    let peer_url = |instance: &SimInstance| instance.instance().ranks()[0].peer_url().unwrap();
    let movement = |copy, to_url: String, storage: &str| Movement {
        from: CPU.into(),
        to_url,
        to: storage.into(),
        tokens: Some(signed(&tokens)),
        copy,
    };
    let rank = &from.instance().ranks()[0];
    let moved = rank.relocate(&movement(true, peer_url(&to), CPU)).unwrap();
    assert_eq!(moved.0, 768, "three full chunks");
    let arrived = &to.instance().ranks()[0];
    let sorted = |keys: Vec<u64>| keys.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(sorted(keys(arrived, CPU)), sorted(keys(rank, CPU)));
    assert_eq!(keys(&to.instance().ranks()[1], CPU), Vec::<u64>::new());
    let moved = rank
        .relocate(&movement(false, peer_url(&to), DISK))
        .unwrap();
    assert_eq!((moved.0, keys(rank, CPU).len()), (768, 0));
    assert_eq!(keys(arrived, DISK).len(), 3);
    // Nothing is left to take from memory; within the worker, from disk to memory.
    let moved = rank.relocate(&movement(false, peer_url(&to), CPU)).unwrap();
    assert_eq!(moved.0, 0);
    let own = Movement {
        from: DISK.into(),
        ..movement(true, peer_url(&from), CPU)
    };
    assert_eq!(rank.relocate(&own).unwrap().0, 768);
    assert_eq!(keys(rank, CPU).len(), 3);
    let nowhere = rank.relocate(&movement(true, "127.0.0.1:1".into(), CPU));
    assert!(
        nowhere
            .unwrap_err()
            .to_string()
            .starts_with("peer 127.0.0.1:1: ")
    );
    let tape = rank.relocate(&movement(true, peer_url(&to), "tape"));
    assert!(tape.unwrap_err().to_string().contains("no location tape"));
}

#[test]
fn commands_keep_the_ranks_alike_and_a_freeze_stops_requests() {
    let runtime = Runtime::start().unwrap();
    let instance = instance(&runtime, "sim", ROOM);
    let mut prompts = Prompts::new(PromptSettings::default(), 1, 1);
    let prompt = prompts.next_prompt();
    serve(&instance, &prompt);
    assert!(instance.instance().holds(&prompt));
    let cpu = Location::from(CPU);
    let [zero, one] = instance.instance().ranks() else {
        panic!("two ranks");
    };
    let full = (prompt.len() / 256 * 256) as u64;
    let pinned = zero.pin(&cpu, &signed(&prompt)).unwrap();
    assert_eq!(pinned.0, full);
    assert_eq!(
        instance.instance().serve(&prompt),
        None,
        "the gate is quiet"
    );
    assert_eq!(one.pin(&cpu, &signed(&prompt)).unwrap(), pinned);
    for _ in 0..30 {
        serve(&instance, &prompts.next_prompt());
    }
    let dropped = zero.clear(&cpu).unwrap();
    assert_eq!(one.clear(&cpu).unwrap(), dropped);
    assert_eq!(keys(zero, CPU).len() as u64, full / 256, "pins are left");
    assert_eq!(serve(&instance, &prompt) as u64, full);
    let everything = Compression {
        method: "cachegen".into(),
        location: cpu.clone(),
        tokens: None,
    };
    assert_eq!(zero.compress(&everything).unwrap().0, full);
    assert_eq!(zero.compress(&everything).unwrap().0, 0);
    assert_eq!(zero.decompress(&everything).unwrap().0, full);
    zero.freeze(true);
    zero.freeze(true);
    assert_eq!(instance.instance().serve(&prompt), None);
    zero.freeze(false);
    serve(&instance, &prompt);
}

#[test]
fn the_warm_up_waits_for_a_frozen_instance_and_skips_nothing() {
    let runtime = Runtime::start().unwrap();
    let instance = instance(&runtime, "sim", ROOM);
    let settings = TrafficSettings {
        requests_per_second: 0.0,
        warm_up: 5,
        seed: 3,
        ..TrafficSettings::default()
    };
    let rank = &instance.instance().ranks()[0];
    rank.freeze(true);
    let traffic = Traffic::start(vec![(instance.instance().clone(), 1)], &settings).unwrap();
    assert_eq!(traffic.served(), 0);
    rank.freeze(false);
    eventually("the warm-up", || traffic.served() == 5);
    let mut prompts = Prompts::new(settings.prompts.clone(), 3, 1);
    let first: Vec<_> = (0..5).map(|_| prompts.next_prompt()).collect();
    assert!(instance.instance().holds(&first[4]), "the same five");
    // It can be ended while it waits.
    rank.freeze(true);
    drop(Traffic::start(vec![(instance.instance().clone(), 1)], &settings).unwrap());
}

#[test]
fn one_file_drives_a_simulated_worker() {
    let controller = FakeController::start(|_, message| plain(message));
    let variables = [
        ("ENABLE_CONTROLLER", "True"),
        ("LMCACHE_INSTANCE_ID", "from-file"),
        ("CONTROLLER_PULL_URL", controller.pull.as_str()),
        ("CONTROLLER_REPLY_URL", controller.reply.as_str()),
        ("LMCACHE_WORKER_PORTS", "0,0"),
        ("LOCAL_DISK", "file:///tmp/x"),
        ("MAX_LOCAL_CPU_SIZE", "0.25"),
        ("MAX_LOCAL_DISK_SIZE", "1"),
    ];
    let config = WorkerConfig {
        file: None,
        environment: variables
            .map(|(name, value)| (format!("LMCACHE_{name}"), value.to_owned()))
            .into(),
        kv_bytes_per_token: 131_072.0,
        capacity: None,
        root: Root::Absent,
        advertise_ip: None,
        traffic: TrafficSettings {
            requests_per_second: 200.0,
            warm_up: 3,
            ..TrafficSettings::default()
        },
    };
    let (tell, told) = mpsc::channel();
    run_worker(&config, |instance, traffic| {
        // 0.25 GiB at 16 MiB a chunk and rank.
        eventually("memory is full and evicts", || {
            operations(&controller)
                .iter()
                .any(|op| op.0 == CPU && op.1 == OperationKind::Evict)
        });
        assert!(traffic.served() > 0);
        let ranks = instance.instance().ranks();
        tell.send((keys(&ranks[0], CPU).len(), ranks.len()))
            .unwrap();
    })
    .unwrap();
    assert_eq!(told.recv().unwrap(), (16, 2));
    eventually("goodbyes", || {
        controller.seen(|seen| {
            let ranks: BTreeSet<i64> = seen
                .pushed
                .iter()
                .filter_map(|message| match message {
                    Message::DeRegisterMsg(goodbye) => {
                        assert_eq!(goodbye.instance_id, "from-file");
                        Some(goodbye.worker_id)
                    }
                    _ => None,
                })
                .collect();
            ranks == BTreeSet::from([0, 1])
        })
    });
    // Numbers rise by one in every stream.
    for location in [CPU, DISK] {
        for rank in [0, 1] {
            let sequence: Vec<i64> = controller.seen(|seen| {
                seen.pushed
                    .iter()
                    .filter_map(|message| match message {
                        Message::BatchedKVOperationMsg(batch)
                            if batch.worker_id == rank && batch.location == location =>
                        {
                            Some(batch)
                        }
                        _ => None,
                    })
                    .flat_map(|batch| batch.operations.iter().map(|op| op.seq_num))
                    .collect()
            });
            assert!(!sequence.is_empty());
            assert!(sequence.iter().copied().eq(0..sequence.len() as i64));
        }
    }
    let unusable = WorkerConfig {
        environment: Vec::new(),
        ..config
    };
    let refusal = run_worker(&unusable, |_, _| {}).unwrap_err();
    assert_eq!(refusal.to_string(), "enable_controller is not true");
}
