//! The reply and heartbeat fronts.

use std::net::TcpListener;

use kvatlas_protocol::message::{
    BatchedP2PLookupMsg, CommandArgs, FullSyncStartMsg, FullSyncStatusMsg, HeartbeatCommand,
    HeartbeatMsg, Message, WireKey,
};
use kvatlas_protocol::{ChunkHash, OperationKind};
use kvatlas_server::config::value::{KnobValue, MonitorPorts};

use crate::support::{Controller, LOCATION, Worker, ask};

fn heartbeat(worker: &Worker) -> Message {
    Message::HeartbeatMsg(HeartbeatMsg {
        instance_id: worker.instance.clone(),
        worker_id: worker.rank,
        ip: "10.0.0.1".into(),
        port: 5000,
        peer_init_url: None,
    })
}

fn heartbeat_url(registered: &Message) -> Option<&str> {
    let Message::RegisterRetMsg(reply) = registered else {
        panic!("{registered:?}");
    };
    reply.extra_config.get("heartbeat_url").map(String::as_str)
}

fn error(reply: Message) -> String {
    match reply {
        Message::ErrorMsg(reply) => reply.error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_answered_in_the_shape_they_came() {
    let controller = Controller::start();
    let worker = controller.worker("a", 0);
    let payload = worker.registration("10.0.0.1").encode_msgpack();
    let socket = &worker.reply;
    let answers = |frames: &[&[u8]]| {
        socket.send_multipart(frames, 0).unwrap();
        let mut answer = socket.recv_multipart(0).unwrap();
        let last = Message::decode(&answer.pop().unwrap()).unwrap();
        assert!(matches!(last, Message::RegisterRetMsg(_)), "{last:?}");
        answer
    };
    // A DEALER as upstream's, one without a delimiter, and a REQ that correlates.
    assert_eq!(answers(&[b"", &payload]), [b"".to_vec()]);
    assert_eq!(answers(&[&payload]), [] as [Vec<u8>; 0]);
    assert_eq!(
        answers(&[b"\0\0\0\x07", b"", &payload]),
        [b"\0\0\0\x07".to_vec(), vec![]]
    );
}

#[test]
fn a_req_socket_is_served() {
    let controller = Controller::start();
    let context = zmq::Context::new();
    let socket = context.socket(zmq::REQ).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(20_000).unwrap();
    let port = controller.addresses.ports.reply.unwrap();
    socket.connect(&format!("tcp://127.0.0.1:{port}")).unwrap();
    let worker = controller.worker("a", 0);
    let payload = worker.registration("10.0.0.1").encode_msgpack();
    socket.send(payload, 0).unwrap();
    let reply = Message::decode(&socket.recv_bytes(0).unwrap()).unwrap();
    assert!(matches!(reply, Message::RegisterRetMsg(_)));
}

#[test]
fn anything_unusable_is_answered_with_an_error() {
    let controller = Controller::start();
    let worker = controller.worker("a", 0);
    for payload in [
        &b""[..],
        b"\xc1",
        b"{",
        b"GET / HTTP/1.1",
        b"\x81\xa4type\xa4Nope",
    ] {
        assert!(!error(ask(&worker.reply, payload)).is_empty());
        assert!(!error(ask(&worker.heartbeat, payload)).is_empty());
    }
    let unexpected = worker.deregistration().encode_msgpack();
    assert!(error(ask(&worker.reply, &unexpected)).contains("DeRegisterMsg"));
    let registration = worker.registration("10.0.0.1").encode_msgpack();
    assert!(error(ask(&worker.heartbeat, &registration)).contains("expected HeartbeatMsg"));
    // And the sockets still serve.
    worker.register();
    let reply = ask(&worker.heartbeat, &heartbeat(&worker).encode_msgpack());
    assert!(matches!(reply, Message::HeartbeatRetMsg(_)));
}

#[test]
fn a_heartbeat_of_an_unknown_worker_registers_it_and_asks_for_its_keys() {
    let controller = Controller::start();
    let worker = controller.worker("a", 3);
    for socket in [&worker.heartbeat, &worker.reply] {
        let Message::HeartbeatRetMsg(reply) = ask(socket, &heartbeat(&worker).encode_msgpack())
        else {
            panic!("no heartbeat reply");
        };
        let reason = Some("worker_re_registered".to_owned());
        let wanted = [HeartbeatCommand::FullSync(CommandArgs {
            reason,
            args: None,
        })];
        assert_eq!(reply.commands, wanted);
    }
    let info = controller.get("/controller/workers?instance_id=a&worker_id=3");
    assert_eq!(info.json()["port"], 5000);
}

#[test]
fn registration_tells_where_heartbeats_go() {
    let url = |change: fn(&mut kvatlas_server::config::Config), ip: &str| {
        let controller = Controller::with(change);
        let worker = controller.worker("a", 0);
        let registered = worker.ask(&worker.registration(ip));
        let port = controller.addresses.ports.heartbeat.unwrap();
        let url = heartbeat_url(&registered).unwrap();
        let host = url.strip_suffix(&format!(":{port}")).unwrap();
        host.to_owned()
    };
    let open = |config: &mut kvatlas_server::config::Config| {
        config.controller_host = "0.0.0.0".into();
    };
    assert_eq!(url(|_| {}, "10.0.0.1"), "127.0.0.1");
    assert_eq!(url(open, "127.0.0.1"), "127.0.0.1");
    assert_ne!(url(open, "10.0.0.1"), "0.0.0.0");
    let advertised = |config: &mut kvatlas_server::config::Config| {
        config.controller_advertise_host = Some("kv.example".into());
    };
    assert_eq!(url(advertised, "10.0.0.1"), "kv.example");
}

#[test]
fn a_heartbeat_front_that_is_off_is_not_told() {
    let controller = Controller::with(|config| {
        config.controller_monitor_ports.heartbeat = None;
    });
    assert_eq!(controller.addresses.ports.heartbeat, None);
    let context = zmq::Context::new();
    let socket = context.socket(zmq::DEALER).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(20_000).unwrap();
    let port = controller.addresses.ports.reply.unwrap();
    socket.connect(&format!("tcp://127.0.0.1:{port}")).unwrap();
    let other = Controller::start();
    let payload = other
        .worker("a", 0)
        .registration("10.0.0.1")
        .encode_msgpack();
    assert_eq!(heartbeat_url(&ask(&socket, &payload)), None);
}

#[test]
fn a_taken_default_heartbeat_port_is_replaced_by_a_free_one() {
    // Whether this bind succeeds or somebody else has the port: it is taken.
    let _taken = TcpListener::bind(("127.0.0.1", 8500));
    let controller = Controller::with(|config| {
        let ports = MonitorPorts::read(r#"{"pull": 0, "reply": 0}"#);
        config.controller_monitor_ports = ports.unwrap();
    });
    let port = controller.addresses.ports.heartbeat.unwrap();
    assert!(port != 8500 && port != 0, "{port}");
}

#[test]
fn a_peer_lookup_gives_the_best_holder_or_upstreams_sentinel() {
    let controller = Controller::start();
    let mut holder = controller.worker("holder", 0);
    let asker = controller.worker("asker", 0);
    holder.register();
    asker.register();
    holder.admit(&[ChunkHash(1), ChunkHash(2)]);
    controller.wait_for_keys(2);
    let peers = |hashes: &[u64]| {
        let request = Message::BatchedP2PLookupMsg(BatchedP2PLookupMsg {
            hashes: hashes.iter().map(|hash| WireKey::unsigned(*hash)).collect(),
            instance_id: "asker".into(),
            worker_id: 0,
        });
        match asker.ask(&request) {
            Message::BatchedP2PLookupRetMsg(reply) => reply.layout_info,
            other => panic!("{other:?}"),
        }
    };
    let hit = ("holder".into(), LOCATION.into(), 2, "10.0.0.1:5001".into());
    assert_eq!(peers(&[1, 2, 3]), [hit]);
    let miss = (String::new(), String::new(), 0, String::new());
    assert_eq!(peers(&[9]), std::slice::from_ref(&miss));
    assert_eq!(peers(&[]), [miss]);
}

#[test]
fn full_sync_is_started_asked_about_and_refused() {
    let controller = Controller::start();
    let worker = controller.worker("a", 0);
    let start = |instance: &str| {
        let request = Message::FullSyncStartMsg(FullSyncStartMsg {
            instance_id: instance.into(),
            worker_id: 0,
            location: LOCATION.into(),
            sync_id: "s".into(),
            total_keys: 0,
            batch_count: 1,
        });
        match worker.ask(&request) {
            Message::FullSyncStartRetMsg(reply) => (reply.accepted, reply.error_msg),
            other => panic!("{other:?}"),
        }
    };
    worker.register();
    let (accepted, reason) = start("nobody");
    assert!(!accepted && reason.unwrap().contains("nobody"));
    assert_eq!(start("a"), (true, None));
    let request = Message::FullSyncStatusMsg(FullSyncStatusMsg {
        instance_id: "a".into(),
        worker_id: 0,
        sync_id: "s".into(),
    });
    let Message::FullSyncStatusRetMsg(status) = worker.ask(&request) else {
        panic!("no status");
    };
    assert!(!status.is_complete);
}

#[test]
fn numbers_that_nothing_can_have_are_refused_by_field() {
    let controller = Controller::start();
    let worker = controller.worker("a", 0);
    let register = |rank: &str| {
        let json = format!(
            r#"{{"type":"RegisterMsg","instance_id":"a","worker_id":{rank},"ip":"h","port":1,"peer_init_url":null}}"#
        );
        ask(&worker.reply, json.as_bytes())
    };
    for rank in [
        "9223372036854775808",
        "340282366920938463463374607431768211456",
    ] {
        let said = error(register(rank));
        assert!(said.contains("worker_id"), "{said}");
    }
    assert!(matches!(register("0"), Message::RegisterRetMsg(_)));
}

#[test]
fn an_empty_peer_url_is_none() {
    let controller = Controller::start();
    let mut holder = controller.worker("a", 0);
    let mut registration = holder.registration("10.0.0.1");
    if let Message::RegisterMsg(registration) = &mut registration {
        registration.peer_init_url = Some(String::new());
    }
    holder.ask(&registration);
    holder.admit(&[ChunkHash(1)]);
    controller.wait_for_keys(1);
    let worker = controller.get("/controller/workers?instance_id=a&worker_id=0");
    assert!(worker.json()["peer_init_url"].is_null(), "{worker:?}");
    let asker = controller.worker("b", 0);
    asker.register();
    let question = Message::BatchedP2PLookupMsg(BatchedP2PLookupMsg {
        hashes: vec![WireKey::unsigned(1)],
        instance_id: "b".into(),
        worker_id: 0,
    });
    let Message::BatchedP2PLookupRetMsg(answer) = asker.ask(&question) else {
        panic!("no answer to a peer lookup");
    };
    assert_eq!(answer.layout_info.len(), 1, "{answer:?}");
    assert_eq!(
        answer.layout_info[0].3, "",
        "nobody to fetch from: {answer:?}"
    );
}

#[test]
fn a_frame_over_the_limit_costs_its_connection_and_no_other() {
    let controller = Controller::with(|config| {
        config.set("max_message_bytes", "4096").unwrap().unwrap();
    });
    let mut good = controller.worker("a", 0);
    good.register();
    let large = controller.worker("b", 0);
    large.register();
    let hashes: Vec<ChunkHash> = (0..2000).map(ChunkHash).collect();
    let part = controller
        .worker("b", 0)
        .batch(OperationKind::Admit, &hashes);
    assert!(part.len() > 4096);
    large.push.send(part, 0).unwrap();
    good.admit(&[ChunkHash(1)]);
    controller.wait_for_keys(1);
}
