"""Registration, heartbeats, departure, expiry and sequence numbers (COMPAT.md D01, D02, D05, D10, D11, D14)."""

import msgspec
import zmq
from lmcache.v1.cache_controller.message import HeartbeatRetMsg, Msg, RegisterRetMsg

from harness.eventually import eventually
from harness.prompts import CHUNK, chunk_hashes, prompt
from harness.raw_peer import CPU

GAPS = "lmcache:cache_controller_kv_op_seq_discontinuity_count"


def reasons(reply):
    return [command.reason for command in reply.commands]


def test_register_tells_the_heartbeat_address(controller, peer):
    reply = peer(controller, "a").register()
    assert reply == RegisterRetMsg(extra_config={"heartbeat_url": f"127.0.0.1:{controller.ports.heartbeat}"})


def test_what_registration_said_is_shown(controller, peer):
    peer(controller, "a", 3, ip="10.4.5.6", port=7003, peer_url="10.4.5.6:7103").register()
    worker = controller.worker("a", 3)
    assert worker.pop("registration_time") > 1.7e9
    assert worker.pop("last_heartbeat_time") > 1.7e9
    assert worker == {
        "instance_id": "a", "worker_id": 3, "ip": "10.4.5.6", "port": 7003, "peer_init_url": "10.4.5.6:7103", "key_count": 0,
    }


def test_two_frame_requests_are_answered(controller, peer):
    a = peer(controller, "a")
    register, heartbeat = (msgspec.msgpack.encode(m) for m in (a.register_message(), a.heartbeat_message()))
    assert isinstance(a.request(None, frames=[register]), RegisterRetMsg)
    assert isinstance(a.request(None, frames=[heartbeat], on="heartbeat"), HeartbeatRetMsg)
    assert isinstance(a.request(None, frames=[b"", b"", register]), RegisterRetMsg)


def test_req_sockets_of_older_workers(controller, peer):
    a = peer(controller, "a")
    socket = a._connect(zmq.REQ, controller.ports.reply)
    for message, kind in ((a.register_message(), RegisterRetMsg), (a.heartbeat_message(), HeartbeatRetMsg)):
        socket.send(msgspec.msgpack.encode(message))
        assert isinstance(msgspec.msgpack.decode(socket.recv(), type=Msg), kind)


def test_registration_and_heartbeat_over_push(controller, peer):
    """LMCache 0.3.9 and 0.3.10."""
    a = peer(controller, "a", port=7001)
    tokens = prompt(1, 2 * CHUNK)
    a.push(a.register_message())
    a.admit(chunk_hashes(tokens))
    a.push(a.heartbeat_message())
    a.fence()
    assert controller.worker("a", 0)["port"] == 7001
    assert controller.lookup(tokens) == [("a", CPU, 2 * CHUNK)]


def test_heartbeat_on_the_reply_port(controller, peer):
    a = peer(controller, "a")
    a.register()
    before = controller.worker("a", 0)["last_heartbeat_time"]
    assert isinstance(a.request(a.heartbeat_message()), HeartbeatRetMsg)
    assert controller.worker("a", 0)["last_heartbeat_time"] > before


def test_heartbeat_of_an_unknown_worker_registers_it_and_asks_for_its_keys(controller, peer):
    a = peer(controller, "a", 1, port=7001, peer_url="a:1")
    reply = a.heartbeat()
    assert [(type(c).__name__, c.reason) for c in reply.commands] == [("FullSyncCommand", "worker_re_registered")]
    worker = controller.worker("a", 1)
    assert (worker["port"], worker["peer_init_url"]) == (7001, "a:1")
    assert "worker_re_registered" in reasons(a.heartbeat()) or reasons(a.heartbeat()), "asked again until it starts"


def test_registering_again_is_a_restart(controller, peer):
    a = peer(controller, "a", port=7001)
    tokens = prompt(2, 2 * CHUNK)
    a.register()
    a.admit(chunk_hashes(tokens))
    a.fence()
    assert controller.lookup(tokens) == [("a", CPU, 2 * CHUNK)]

    a.ip, a.port, a.peer_url = "10.7.7.7", 7002, "10.7.7.7:1"
    a.register()
    assert controller.lookup(tokens) == []
    worker = controller.worker("a", 0)
    assert (worker["ip"], worker["port"], worker["peer_init_url"], worker["key_count"]) == ("10.7.7.7", 7002, "10.7.7.7:1", 0)
    assert controller.post("/query_instance", {"event_id": "e", "ip": "10.7.7.7"}).json()["res"] == "a"

    a.admit(chunk_hashes(tokens)[:1])
    a.fence()
    assert controller.lookup(tokens) == [("a", CPU, CHUNK)]
    assert controller.metric(GAPS) == 0, "sequence numbers start over with the new process"


def test_deregistering_forgets_worker_keys_and_empty_instance(controller, peer):
    first, second = peer(controller, "a", 0), peer(controller, "a", 1)
    tokens = prompt(3, CHUNK)
    for each in (first, second):
        each.register()
        each.admit(chunk_hashes(tokens))
        each.fence()
    first.push(first.deregister_message())
    first.fence()
    assert controller.worker("a", 0) is None
    assert controller.lookup(tokens) == [("a", CPU, CHUNK)]
    second.push(second.deregister_message())
    second.fence()
    assert controller.lookup(tokens) == []
    assert controller.get("/controller/workers", params={"instance_id": "a"}).status_code == 404

    second.push(second.deregister_message())
    second.register()
    assert controller.lookup(tokens) == []


def test_silent_workers_expire_and_others_stay(launcher, peer):
    controller = launcher.start("kvatlas", "--health-check-interval", "1", "--lmcache-worker-timeout", "3")
    silent, never_beat, busy = peer(controller, "silent"), peer(controller, "never-beat"), peer(controller, "busy")
    tokens = prompt(4, CHUNK)
    for each in (silent, never_beat, busy):
        each.register()
    silent.heartbeat(), busy.heartbeat()
    silent.admit(chunk_hashes(tokens))
    silent.fence()
    assert controller.lookup(tokens) == [("silent", CPU, CHUNK)]

    def silent_is_gone():
        busy.admit([1])  # a report is a sign of life too
        return controller.worker("silent", 0) is None

    eventually(silent_is_gone)
    assert controller.lookup(tokens) == []
    busy.fence()
    assert controller.worker("busy", 0) is not None
    assert controller.worker("never-beat", 0) is not None


def test_a_sequence_gap_is_counted_and_repaired(controller, peer):
    a = peer(controller, "a")
    a.register()
    a.admit([1, 2, 3])
    a.fence()
    assert controller.metric(GAPS) == 0

    a.skip_sequence(5)
    a.admit([9])
    a.fence()
    assert controller.metric(GAPS) == 1
    assert controller.key_count("a", 0) == 4
    assert reasons(a.heartbeat()) == ["sequence_gap"]

    a.admit([10])
    a.fence()
    assert controller.metric(GAPS) == 1, "the new number was adopted"


def test_each_location_counts_its_own_sequence(controller, peer):
    a = peer(controller, "a")
    a.register()
    for location in ("LocalCPUBackend", "LocalDiskBackend", "LocalCPUBackend", "LocalDiskBackend"):
        a.admit([1, 2], location)
    a.fence()
    assert controller.metric(GAPS) == 0
