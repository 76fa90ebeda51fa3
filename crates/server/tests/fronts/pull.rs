//! The pull front: what arrives, what a bad part costs.

use std::io::Write;
use std::net::TcpStream;

use kvatlas_protocol::message::{LookupMsg, Message};
use kvatlas_protocol::{ChunkHash, OperationKind};

use crate::support::{Controller, eventually, hashes, tokens};

#[test]
fn admitted_chunks_are_found_and_evicted_ones_are_not() {
    let controller = Controller::start();
    let mut worker = controller.worker("a", 0);
    worker.register();
    let prompt = tokens(1, 600);
    let chunks = hashes(&prompt);
    worker.admit(&chunks);
    controller.wait_for_keys(3);
    let found = [("a".to_owned(), "LocalCPUBackend".to_owned(), 600)];
    assert_eq!(controller.lookup(&prompt), found);
    let part = worker.batch(OperationKind::Evict, &chunks[1..2]);
    worker.push.send(part, 0).unwrap();
    controller.wait_for_keys(2);
    assert_eq!(controller.lookup(&prompt)[0].2, 256);
    assert_eq!(controller.lookup(&tokens(2, 600)), []);
}

#[test]
fn a_bad_part_between_good_parts_costs_only_itself() {
    let controller = Controller::start();
    let mut worker = controller.worker("a", 0);
    worker.register();
    let good = |worker: &mut crate::support::Worker, key| {
        worker.batch(OperationKind::Admit, &[ChunkHash(key)])
    };
    let parts = [
        good(&mut worker, 1),
        vec![0xc1],
        good(&mut worker, 2),
        Vec::new(),
        b"GET / HTTP/1.1".to_vec(),
        b"{\"type\": \"KVAdmitMsg\"".to_vec(),
        Message::LookupMsg(LookupMsg {
            event_id: "e".into(),
            tokens: vec![1],
        })
        .encode_msgpack(),
        good(&mut worker, 3),
    ];
    worker.push_all(&parts);
    controller.wait_for_keys(3);
    eventually("all parts are counted", || {
        let name = "lmcache:cache_controller_pull_socket_message_count{role=\"controller\"}";
        (controller.metric(name) == 8.0).then_some(())
    });
    let page = controller.get("/metrics").body;
    let bad: f64 = page
        .lines()
        .filter(|line| line.starts_with("kvatlas_bad_frames_total{front=\"pull\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(bad, 5.0);
    assert_eq!(controller.bad_frames("pull", "unexpected"), 1.0);
    // Five operations lost nothing: the numbers of the good parts are without a gap.
    let gaps = "lmcache:cache_controller_kv_op_seq_discontinuity_count{role=\"controller\"}";
    assert_eq!(controller.metric(gaps), 0.0);
}

#[test]
fn an_http_probe_on_the_pull_port_is_survived() {
    let controller = Controller::start();
    let mut worker = controller.worker("a", 0);
    worker.register();
    for _ in 0..3 {
        let address = ("127.0.0.1", controller.addresses.ports.pull);
        let mut probe = TcpStream::connect(address).unwrap();
        probe
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
    }
    worker.admit(&[ChunkHash(1), ChunkHash(2)]);
    controller.wait_for_keys(2);
}

#[test]
fn parts_of_one_multipart_keep_their_order_across_workers_and_messages() {
    let controller = Controller::start();
    let mut a = controller.worker("a", 0);
    let mut b = controller.worker("b", 0);
    a.register();
    b.register();
    // a's first two batches are applied as one, before b's, before a goes.
    let parts = [
        a.batch(OperationKind::Admit, &[ChunkHash(1), ChunkHash(2)]),
        a.batch(OperationKind::Evict, &[ChunkHash(1)]),
        b.batch(OperationKind::Admit, &[ChunkHash(3)]),
        a.deregistration().encode_msgpack(),
        b.batch(OperationKind::Admit, &[ChunkHash(4)]),
        a.batch(OperationKind::Admit, &[ChunkHash(5)]),
    ];
    a.push_all(&parts);
    controller.wait_for_keys(2);
    eventually("a's late batch is refused", || {
        (controller.bad_frames("pull", "unknown_worker") == 1.0).then_some(())
    });
    assert_eq!(controller.metric("kvatlas_ingest_operations_total"), 5.0);
    assert_eq!(controller.metric("kvatlas_ingest_batches_total"), 3.0);
}

#[test]
fn an_old_worker_registers_and_beats_by_push() {
    let controller = Controller::start();
    let mut worker = controller.worker("old", 0);
    worker
        .push
        .send(worker.registration("10.0.0.9").encode_msgpack(), 0)
        .unwrap();
    worker.admit(&[ChunkHash(7)]);
    controller.wait_for_keys(1);
    let info = controller.get("/controller/workers?instance_id=old&worker_id=0");
    assert_eq!(info.json()["ip"], "10.0.0.9");
    worker
        .push
        .send(worker.deregistration().encode_msgpack(), 0)
        .unwrap();
    controller.wait_for_keys(0);
    assert_eq!(
        controller.get("/controller/workers").json()["total_count"],
        0
    );
}

#[test]
fn a_single_admit_in_json_with_a_text_key_counts() {
    let controller = Controller::start();
    let worker = controller.worker("mooncake", 0);
    worker.register();
    let text = br#"{"type": "KVAdmitMsg", "instance_id": "mooncake", "worker_id": 0, "key": "m@vllm@1@0@1f", "location": "LocalCPUBackend"}"#;
    worker.push.send(text.as_slice(), 0).unwrap();
    controller.wait_for_keys(1);
    let reply = controller.post("/lookup", r#"{"hashes": [31, 32]}"#);
    let layout = crate::support::layout(&reply.json());
    assert_eq!(
        layout,
        [("mooncake".to_owned(), "LocalCPUBackend".to_owned(), 256)]
    );
}
