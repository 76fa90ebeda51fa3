"""Input that must not hurt: it costs itself and nothing else (COMPAT.md D03, D04)."""

import json
import resource
import socket
import struct

import msgspec
import pytest
from lmcache.v1.cache_controller.message import ErrorMsg, KVAdmitMsg, KVEvictMsg, LookupMsg, OpType, RegisterRetMsg

from harness.eventually import eventually
from harness.prompts import CHUNK, chunk_hashes, prompt
from harness.raw_peer import CPU

PROBE = (
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kube-probe/1.30\r\nAccept: */*\r\nX-Padding: "
    + b"a" * 600 + b"\r\nConnection: close\r\n\r\n"
)  # long enough for ZeroMQ to take it for frames of an old peer

BATCH_HEADER = b"\x85\xa4type\xb5BatchedKVOperationMsg\xabinstance_id\xa1a\xa9worker_id\x00\xa8location\xa3CPU\xaaoperations"



def bad_frames(controller, front):
    """How many messages a front counted as bad, whatever the reason."""
    sample = f'kvatlas_bad_frames_total{{front="{front}"'
    return sum(float(line.rsplit(" ", 1)[1]) for line in controller.get("/metrics").text.splitlines() if line.startswith(sample))


BAD_PARTS = {
    "garbage": b"\xc1\xff\x00 not a message",
    "empty": b"",
    "text": b"hello",
    "truncated map": b"\x85\xa4type",
    "unknown tag": msgspec.msgpack.encode({"type": "SelfDestructMsg", "instance_id": "a"}),
    "no tag": msgspec.msgpack.encode({"instance_id": "a", "worker_id": 0}),
    "not a map": msgspec.msgpack.encode([1, 2, 3]),
    "wrong field type": msgspec.msgpack.encode({"type": "RegisterMsg", "instance_id": 5, "worker_id": "zero"}),
    "missing fields": msgspec.msgpack.encode({"type": "DeRegisterMsg"}),
    "array of 4 billion": BATCH_HEADER + b"\xdd\xff\xff\xff\xff",
    "string of 4 GB": b"\x81\xa4type\xdb\xff\xff\xff\xff",
    "nested 100,000 deep": b"\x82\xa4type\xabRegisterMsg\xa1x" + b"\x91" * 100_000,
    "map nested 100,000 deep": b"\x82\xa4type\xabRegisterMsg\xa1x" + b"\x81\xa1k" * 100_000,
    "JSON garbage": b"{not json",
    "JSON unknown tag": b'{"type": "SelfDestructMsg"}',
    "JSON nested 100,000 deep": b'{"type":' + b"[" * 100_000,
    "JSON key without hex": json.dumps(
        {"type": "KVAdmitMsg", "instance_id": "a", "worker_id": 0, "key": "model@vllm@1@0@zzz", "location": CPU, "seq_num": 0}
    ).encode(),
}


@pytest.mark.parametrize("name", BAD_PARTS)
def test_a_bad_part_between_two_good_parts(controller, peer, name):
    a = peer(controller, "a")
    a.register()
    tokens = prompt(1, 2 * CHUNK)
    hashes = chunk_hashes(tokens)
    good = [a.batch([(OpType.ADMIT, key)]) for key in hashes]
    a.push(good[0], BAD_PARTS[name], good[1])
    a.fence()
    assert controller.lookup(tokens) == [("a", CPU, 2 * CHUNK)]
    assert controller.key_count("a", 0) == 2


@pytest.mark.parametrize("name", BAD_PARTS)
@pytest.mark.parametrize("on", ["reply", "heartbeat"])
def test_a_bad_request_gets_an_error_and_the_next_an_answer(shared_controller, peer, name, on):
    a = peer(shared_controller, "a")
    reply = a.request(None, frames=[b"", BAD_PARTS[name]], on=on)
    assert isinstance(reply, ErrorMsg) and reply.error
    assert a.request(a.heartbeat_message(), on=on).commands is not None
    assert isinstance(a.register(), RegisterRetMsg)


def test_messages_that_are_no_requests_get_an_error(shared_controller, peer):
    a = peer(shared_controller, "a")
    for message in (a.batch([]), LookupMsg(event_id="e", tokens=[1]), a.deregister_message()):
        assert isinstance(a.request(message), ErrorMsg), message


@pytest.mark.parametrize("port", ["pull", "reply", "heartbeat"])
def test_http_probe_then_good_traffic(controller, peer, port):
    a = peer(controller, "a")
    a.register()
    for n in range(1, 4):
        with socket.create_connection(("127.0.0.1", getattr(controller.ports, port)), timeout=10) as probe:
            probe.sendall(PROBE)
            probe.shutdown(socket.SHUT_WR)
            eventually(lambda n=n: bad_frames(controller, port), n)
    tokens = prompt(2, CHUNK)
    a.admit(chunk_hashes(tokens))
    a.fence()
    assert controller.lookup(tokens) == [("a", CPU, CHUNK)]
    assert a.heartbeat() is not None


@pytest.mark.parametrize("port", ["pull", "reply", "heartbeat"])
def test_announced_frame_of_two_to_the_63(controller, peer, port):
    """A peer that greets properly and then announces a frame nobody could hold."""
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" * 32
    role = b"PUSH" if port == "pull" else b"DEALER"
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(role)) + role
    with socket.create_connection(("127.0.0.1", getattr(controller.ports, port)), timeout=10) as attacker:
        attacker.sendall(greeting + b"\x04" + bytes([len(ready)]) + ready)
        attacker.sendall(b"\x02" + struct.pack(">Q", 2**63 - 1) + b"x" * 1000)
        a = peer(controller, "a")
        a.register()
        a.admit([1])
        a.fence()
    assert controller.key_count("a", 0) == 1
    assert controller.running()


def test_ten_megabyte_part(controller, peer):
    a = peer(controller, "a")
    a.register()
    a.push(b"\x00" * 10_000_000)
    a.admit(range(200_000))
    a.fence()
    assert controller.key_count("a", 0) == 200_000


def test_half_open_connections(controller, peer):
    idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for port in (
        controller.ports.pull, controller.ports.reply, controller.ports.heartbeat, controller.ports.http) for _ in range(25)]
    a = peer(controller, "a")
    a.register()
    a.admit([1])
    a.fence()
    assert controller.key_count("a", 0) == 1
    for each in idle:
        each.close()


def test_two_thousand_connections(controller, peer):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    early, opened = peer(controller, "early"), []
    early.register()
    early.admit([1])
    early.fence()
    try:
        for n in range(2000):
            front = ("pull", "reply", "heartbeat", "http")[n % 4]
            opened.append(socket.create_connection(("127.0.0.1", getattr(controller.ports, front)), timeout=10))
        early.admit([2])
        assert early.heartbeat() is not None
        early.fence()
        assert controller.key_count("early", 0) == 2
    finally:
        for each in opened:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    late = peer(controller, "late")
    late.register()
    late.admit([1])
    late.fence()
    assert controller.key_count("late", 0) == 1


def test_single_operations_and_mooncake_keys(controller, peer):
    """LMCache dropped these messages; Mooncake documents them as JSON with a string key."""
    holder, asker = peer(controller, "a", peer_url="a:1"), peer(controller, "b")
    holder.register(), asker.register()
    holder.push(KVAdmitMsg(instance_id="a", worker_id=0, key=77, location=CPU, seq_num=0))
    fields = {"instance_id": "a", "worker_id": 0, "location": CPU}
    for n, key in enumerate(("model@vllm@1@0@1f", "org/model@vllm@2@1@ffffffffffffffff")):
        holder.push(json.dumps({"type": "KVAdmitMsg", **fields, "key": key, "seq_num": n + 1}).encode())
    holder.push(json.dumps({"type": "KVAdmitMsg", **fields, "key": 88, "seq_num": 3}).encode())
    holder.fence()
    assert controller.key_count("a", 0) == 4
    for key in (77, 0x1F, 2**64 - 1, 88):
        assert asker.peer_lookup([key]) == [("a", CPU, 1, "a:1")], key

    holder.push(KVEvictMsg(instance_id="a", worker_id=0, key=77, location=CPU, seq_num=4))
    holder.push(json.dumps({"type": "KVEvictMsg", **fields, "key": "model@vllm@1@0@1f", "seq_num": 5}).encode())
    holder.fence()
    assert controller.key_count("a", 0) == 2
    assert controller.metric("lmcache:cache_controller_kv_op_seq_discontinuity_count") == 0


def test_batches_and_requests_as_json(controller, peer):
    a = peer(controller, "a")
    a.request(None, frames=[b"", msgspec.json.encode(a.register_message())])
    tokens = prompt(3, 2 * CHUNK)
    a.push(msgspec.json.encode(a.batch([(OpType.ADMIT, key) for key in chunk_hashes(tokens)])))
    a.fence()
    assert controller.lookup(tokens) == [("a", CPU, 2 * CHUNK)]


def test_bad_parts_are_counted(controller, peer):
    a = peer(controller, "a")
    a.register()
    a.push(b"hello", b"{nonsense")
    a.fence()
    assert bad_frames(controller, "pull") == 2
