//! Who comes and goes.

use super::*;

#[test]
fn registering_again_is_a_restart() {
    let mut f = Fleet::of(&[("i", 0), ("j", 0)]);
    f.admit("i", 0, &[1, 2]);
    f.admit("j", 0, &[1]);
    let before = f.controller.worker(&key("i", 0)).unwrap().epoch;
    let moved = address("10.9.9.9", None);
    let again = f
        .controller
        .handle_register(key("i", 0), moved.clone(), at(3))
        .unwrap();
    assert!(again.replaced && again.epoch > before);
    let info = f.controller.worker(&key("i", 0)).unwrap();
    assert_eq!(
        (info.address, info.key_count, info.epoch),
        (moved, 0, again.epoch)
    );
    assert!(info.locations.is_empty());
    assert_eq!(f.lookup(&[1, 2]), ["j@LocalCPUBackend=1"]);
    // Its numbers start anew: no gap.
    f.seqs.clear();
    assert_eq!(f.admit("i", 0, &[1, 2]).gaps, 0);
    assert_eq!(f.lookup(&[1, 2])[0], "i@LocalCPUBackend=2");
}

#[test]
fn the_last_worker_takes_its_instance_with_it() {
    let mut f = Fleet::of(&[("i", 0), ("i", 1), ("j", 0)]);
    f.admit("i", 0, &[1]);
    f.admit("i", 1, &[1]);
    assert!(f.controller.handle_deregister(&key("i", 1), at(2)));
    assert_eq!(f.lookup(&[1]), ["i@LocalCPUBackend=1"]);
    assert!(f.controller.handle_deregister(&key("i", 0), at(2)));
    assert!(!f.controller.handle_deregister(&key("i", 0), at(2)));
    assert!(f.lookup(&[1]).is_empty());
    let names: Vec<_> = f.controller.instances();
    assert_eq!(names, [("j".into(), 0, 1)]);
    let late = f.send(("i", 0, CPU), OperationKind::Admit, &[1], at(2));
    assert_eq!(late, Err(BatchError::UnknownWorker(key("i", 0))));
}

#[test]
fn ordinals_are_used_again_without_mixing_up_workers() {
    let mut f = Fleet::of(&[("a", 0), ("b", 0)]);
    f.admit("a", 0, &[1]);
    f.controller.handle_deregister(&key("a", 0), at(1));
    f.register("c", 0);
    assert!(f.lookup(&[1]).is_empty());
    f.admit("c", 0, &[2]);
    f.admit("b", 0, &[1]);
    while f.controller.sweep(1000).remaining > 0 {}
    assert_eq!(f.lookup(&[2]), ["c@LocalCPUBackend=1"]);
    assert_eq!(f.lookup(&[1]), ["b@LocalCPUBackend=1"]);
    f.controller.check_invariants();
}

#[test]
fn silence_removes_only_those_that_sent_heartbeats() {
    let f = Fleet::of(&[("beats", 0), ("never", 0), ("busy", 0)]);
    f.heartbeat("beats", 0, at(1));
    f.heartbeat("busy", 0, at(1));
    f.controller.handle_sign_of_life(&key("busy", 0), at(300));
    assert!(f.controller.expire(at(301)).is_empty());
    assert_eq!(f.controller.expire(at(302)), [key("beats", 0)]);
    assert!(f.controller.worker(&key("never", 0)).is_some());

    let strict = Settings {
        expire_without_heartbeat: true,
        ..Settings::default()
    };
    let f = Fleet::with(strict);
    f.register("never", 0);
    assert_eq!(f.controller.expire(at(301)), [key("never", 0)]);
}

#[test]
fn a_heartbeat_brings_the_address() {
    let f = Fleet::of(&[("i", 0)]);
    let epoch = f.controller.worker(&key("i", 0)).unwrap().epoch;
    assert!(!f.heartbeat("i", 0, at(1)).readdressed);
    let moved = address("10.0.0.2", Some("new:1"));
    let reply = f
        .controller
        .handle_heartbeat(key("i", 0), moved.clone(), at(2));
    assert!(reply.unwrap().readdressed);
    let info = f.controller.worker(&key("i", 0)).unwrap();
    assert!(info.epoch > epoch && info.address == moved && info.heartbeat_seen);
    assert_eq!(f.controller.instances_on("10.0.0.2"), ["i".into()]);
    assert!(f.controller.instances_on("10.0.0.1").is_empty());
}

#[test]
fn limits_are_kept() {
    let mut f = Fleet::with(Settings {
        max_instances: 2,
        max_workers: 3,
        max_locations_per_worker: 1,
        max_keys_per_worker: 2,
        ..Settings::default()
    });
    f.register("i", 0);
    f.register("j", 0);
    let refused = |instance, worker| {
        f.controller
            .handle_register(key(instance, worker), address("h", None), at(0))
            .unwrap_err()
    };
    assert_eq!(
        refused("k", 0),
        RegisterError::TooManyInstances { limit: 2 }
    );
    f.register("j", 1);
    assert_eq!(refused("j", 2), RegisterError::TooManyWorkers { limit: 3 });
    assert!(f.register("j", 1), "a known worker may come again");
    f.admit("i", 0, &[1, 2]);
    let full = f.send(("i", 0, CPU), OperationKind::Admit, &[3], at(1));
    let worker = key("i", 0);
    assert_eq!(
        full,
        Err(BatchError::TooManyKeys {
            worker: worker.clone(),
            limit: 2
        })
    );
    assert_eq!(f.evict("i", 0, &[1]).evicted, 1);
    assert_eq!(f.admit("i", 0, &[3]).admitted, 1);
    let other = f.send(("i", 0, DISK), OperationKind::Admit, &[3], at(1));
    assert_eq!(
        other,
        Err(BatchError::TooManyLocations { worker, limit: 1 })
    );
}

#[test]
fn totals_add_up() {
    let mut f = Fleet::of(&[("i", 0), ("i", 1), ("j", 0)]);
    f.admit("i", 0, &[1, 2]);
    f.admit("i", 1, &[1]);
    f.lose("i", 1, CPU, 5);
    f.admit("i", 1, &[7]);
    let totals = f.controller.totals();
    assert_eq!((totals.instances, totals.workers, totals.keys), (2, 3, 4));
    assert_eq!((totals.gaps, totals.sync_progress), (1, 1.0));
    assert_eq!(Fleet::new().controller.totals().sync_progress, 0.0);
    let order: Vec<_> = f.controller.workers().into_iter().map(|w| w.key).collect();
    assert_eq!(order, [key("i", 0), key("i", 1), key("j", 0)]);
    assert_eq!(f.controller.workers_of("i").len(), 2);
    assert!(f.controller.workers_of("x").is_empty());
}
