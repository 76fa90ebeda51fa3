//! Who is credited with what.

use super::*;

#[test]
fn every_holder_is_credited_with_its_own_unbroken_run() {
    // Upstream answers A: 3 chunks, B: 2 here.
    let mut f = Fleet::of(&[("A", 0), ("B", 0)]);
    f.admit("A", 0, &[10, 12]);
    f.admit("B", 0, &[10, 11]);
    assert_eq!(
        f.lookup(&[10, 11, 12]),
        ["B@LocalCPUBackend=2", "A@LocalCPUBackend=1"]
    );
}

#[test]
fn longest_first_and_ties_in_registration_order() {
    let mut f = Fleet::of(&[("z", 0), ("a", 0), ("m", 0)]);
    for instance in ["m", "a", "z"] {
        f.admit(instance, 0, &[1, 2]);
    }
    f.admit("m", 0, &[3]);
    let found = f.lookup(&[1, 2, 3]);
    assert_eq!(
        found.join(" "),
        "m@LocalCPUBackend=3 z@LocalCPUBackend=2 a@LocalCPUBackend=2"
    );
}

#[test]
fn an_instance_holds_what_all_its_reporting_ranks_hold() {
    let mut f = Fleet::of(&[("i", 0), ("i", 1), ("i", 2)]);
    f.admit("i", 0, &[1, 2, 3]);
    assert_eq!(
        f.lookup(&[1, 2, 3]),
        ["i@LocalCPUBackend=3"],
        "others are silent"
    );
    f.admit("i", 1, &[1, 2]);
    assert_eq!(f.lookup(&[1, 2, 3]), ["i@LocalCPUBackend=2"]);
    f.evict("i", 1, &[1, 2]);
    assert!(
        f.lookup(&[1, 2, 3]).is_empty(),
        "a rank that reported counts"
    );
}

#[test]
fn rank_runs_tell_which_rank_holds_an_instance_back() {
    let mut f = Fleet::of(&[("b", 0), ("i", 1), ("i", 0), ("i", 2), ("z", 0)]);
    f.admit("i", 0, &[1, 3]);
    f.send(("i", 0, DISK), OperationKind::Admit, &[2], at(1))
        .unwrap();
    f.admit("i", 1, &[9]);
    f.admit("z", 0, &[1]);
    f.admit("b", 0, &[2]);
    let runs = f.controller.rank_runs(hashes(&[1, 2, 3, 4]));
    let runs: Vec<String> = runs
        .iter()
        .map(|run| format!("{}={}", run.worker, run.chunks))
        .collect();
    // i:2 never reported; b has nothing of the first chunk.
    assert_eq!(runs, ["i:0=3", "i:1=0", "z:0=1"]);
}

#[test]
fn chunks_may_lie_in_several_locations() {
    let mut f = Fleet::of(&[("i", 0)]);
    f.admit("i", 0, &[1, 3]);
    f.send(("i", 0, DISK), OperationKind::Admit, &[2, 3, 4], at(1))
        .unwrap();
    assert_eq!(f.lookup(&[1, 2]), ["i@LocalDiskBackend=2"]);
    assert_eq!(
        f.lookup(&[1, 2, 3]),
        ["i@LocalCPUBackend=3"],
        "reported first"
    );
    assert_eq!(f.lookup(&[1, 2, 3, 4]), ["i@LocalDiskBackend=4"]);
    f.evict("i", 0, &[3]);
    assert_eq!(f.lookup(&[1, 2, 3]), ["i@LocalDiskBackend=3"]);
}

#[test]
fn the_location_is_that_of_the_lowest_rank() {
    let mut f = Fleet::of(&[("i", 1), ("i", 0)]);
    f.admit("i", 1, &[1]);
    f.send(("i", 0, DISK), OperationKind::Admit, &[1], at(1))
        .unwrap();
    assert_eq!(f.lookup(&[1]), ["i@LocalDiskBackend=1"]);
}

#[test]
fn nothing_is_hashed_far_beyond_the_first_miss() {
    let mut f = Fleet::of(&[("i", 0)]);
    f.admit("i", 0, &[0, 1]);
    let mut pulled = 0;
    f.controller.lookup((0..100_000).map(|n| {
        pulled += 1;
        ChunkHash(n)
    }));
    assert!(pulled <= 4, "{pulled}");
    assert!(f.controller.lookup([]).is_empty());
}

#[test]
fn peers_exclude_the_asker_and_those_without_an_address() {
    let mut f = Fleet::of(&[("a", 0), ("b", 0), ("c", 0)]);
    f.controller
        .handle_register(key("mute", 0), address("10.0.0.9", None), at(0))
        .unwrap();
    for instance in ["a", "mute"] {
        f.admit(instance, 0, &[1, 2, 3]);
    }
    f.admit("b", 0, &[1]);
    f.admit("c", 0, &[1, 2]);
    assert_eq!(f.peers(&[1, 2, 3], "a", 0), ["c=2 c:0", "b=1 b:0"]);
    assert_eq!(f.peers(&[1, 2, 3], "nobody", 0)[0], "a=3 a:0");
    assert!(f.peers(&[], "b", 0).is_empty());
    assert!(f.peers(&[9], "b", 0).is_empty());
}

#[test]
fn the_askers_own_rank_is_given() {
    let mut f = Fleet::of(&[("b", 0), ("b", 1), ("c", 0)]);
    f.admit("b", 0, &[1, 2, 3]);
    f.admit("b", 1, &[1, 2]);
    f.admit("c", 0, &[1, 2]);
    assert_eq!(f.peers(&[1, 2, 3], "a", 1), ["b=2 b:1", "c=2 c:0"]);
    assert_eq!(f.peers(&[1, 2, 3], "a", 0), ["b=3 b:0", "c=2 c:0"]);
    assert_eq!(f.peers(&[1, 2, 3], "a", 7)[0], "b=3 b:0");
}

#[test]
fn a_peers_run_stays_in_one_location() {
    let mut f = Fleet::of(&[("b", 0), ("c", 0)]);
    let disk = ("b", 0, DISK);
    f.admit("b", 0, &[1, 2]);
    f.send(disk, OperationKind::Admit, &[3, 4], at(1)).unwrap();
    f.admit("c", 0, &[1, 2, 3]);
    assert_eq!(f.peers(&[1, 2, 3, 4], "a", 0), ["c=3 c:0", "b=2 b:0"]);
    f.send(disk, OperationKind::Admit, &[1, 2], at(1)).unwrap();
    assert_eq!(f.peers(&[1, 2, 3, 4], "a", 0), ["b=4 b:0", "c=3 c:0"]);
    let best = &f.controller.peer_lookup(&hashes(&[1, 2, 3]), &key("a", 0))[0];
    assert_eq!((best.location.as_str(), best.chunks), (disk.2, 3));
}

#[test]
fn holders_of_one_hash_are_told() {
    let mut f = Fleet::of(&[("b", 0), ("a", 0), ("a", 1)]);
    f.admit("a", 1, &[5]);
    f.admit("a", 0, &[6]);
    f.admit("b", 0, &[5]);
    let names: Vec<_> = f.controller.instances_holding(ChunkHash(5));
    assert_eq!(names, ["b".into(), "a".into()]);
}
