"""The same scripts against LMCache's own controller and ours: equal, but for the listed lines of COMPAT.md."""

import msgspec
import pytest
from lmcache.v1.cache_controller.message import (
    ClearMsg,
    FullSyncBatchMsg,
    FullSyncEndMsg,
    FullSyncStartMsg,
    FullSyncStatusMsg,
    KVAdmitMsg,
    LookupMsg,
)

from harness.differential import (
    admit,
    again,
    answer,
    asked,
    asked_ids,
    compare,
    evict,
    get,
    heartbeat,
    lookup,
    metric,
    peer_lookup,
    play,
    post,
    push,
    register,
    request,
    skip_sequence,
)
from harness.prompts import CHUNK, chunk_hashes, prompt
from harness.raw_peer import CPU, DISK

TOKENS = prompt(1, 4 * CHUNK + 100)
HASHES = chunk_hashes(TOKENS)
OTHER = prompt(2, 3 * CHUNK)
OTHER_HASHES = chunk_hashes(OTHER)


def worker_views(*workers):
    return [get(f"/controller/workers?instance_id={instance}&worker_id={rank}") for instance, rank in workers]


REGISTRY = [
    get("/controller/key-stats"),
    register("a", 0, ip="10.0.0.1", port=7000, peer_url="10.0.0.1:7100"),
    register("a", 1, ip="10.0.0.1", port=7001),
    register("b", 0, ip="10.0.0.2", port=7000),
    admit("a", [1, 2, 3]),
    admit("a", [1, 2], rank=1),
    *worker_views(("a", 0), ("a", 1), ("b", 0), ("b", 7), ("nobody", 0)),
    get("/controller/workers?instance_id=a"),
    get("/controller/workers?instance_id=nobody"),
    get("/controller/key-stats"),
    get("/controller/workers"),
    get("/controller/workers?worker_id=0"),
    post("/query_worker_info", {"instance_id": "a"}),
    post("/query_worker_info", {"instance_id": "a", "worker_ids": [1, 0, 9]}),
    post("/query_worker_info", {"instance_id": "a", "worker_ids": []}),
    post("/query_worker_info", {"instance_id": "all"}),
    post("/query_worker_info", {"instance_id": "all", "worker_ids": [1]}),
    post("/query_worker_info", {"instance_id": "nobody"}),
    post("/query_instance", {"event_id": "e", "ip": "10.0.0.2"}, differs="D34"),
    post("/query_instance", {"event_id": "e", "ip": "10.9.9.8"}, differs="D34"),
    metric("kv_pool_keys_count"),
    metric("registered_workers_count"),
    again("a", 1),
    get("/controller/workers?instance_id=a&worker_id=1"),
    again("a", 0, ip="10.0.0.9", port=7009),
    get("/controller/workers?instance_id=a&worker_id=0", differs="D10"),
    push("a", lambda peer: peer.deregister_message(), rank=1, name="deregister"),
    get("/controller/workers?instance_id=a", differs="D10"),
    push("a", lambda peer: peer.deregister_message(), rank=1, name="deregister again"),
    push("b", lambda peer: peer.deregister_message(), name="deregister"),
    get("/controller/workers?instance_id=b"),
    get("/controller/key-stats"),
    register("b", 0, ip="10.0.0.2", port=7000),
    push("b", lambda peer: peer.deregister_message(), name="deregister"),
    heartbeat("b"),
    get("/controller/workers?instance_id=b&worker_id=0"),
]

INDEX = [
    register("mute", 0),
    register("a", 0, peer_url="a:1"),
    register("b", 0, peer_url="b:1"),
    lookup([]),
    lookup(TOKENS),
    admit("a", HASHES),
    lookup(TOKENS),
    lookup(TOKENS[: 4 * CHUNK]),
    lookup(TOKENS[: 2 * CHUNK + 1]),
    lookup(TOKENS[:1]),
    lookup([*TOKENS[: 3 * CHUNK], 7, 7]),
    lookup(OTHER),
    admit("a", HASHES),
    evict("a", HASHES[3:4]),
    lookup(TOKENS),
    evict("a", HASHES[3:4]),
    evict("a", [123456789]),
    admit("a", HASHES[3:4], location=DISK),
    lookup(TOKENS[: 4 * CHUNK]),
    metric("kv_op_seq_discontinuity_count"),
    skip_sequence("a", 3),
    admit("a", [5]),
    metric("kv_op_seq_discontinuity_count"),
    admit("a", [6]),
    metric("kv_op_seq_discontinuity_count"),
    peer_lookup("b", HASHES),
    peer_lookup("b", HASHES[:3]),
    peer_lookup("b", [HASHES[0], 424242]),
    peer_lookup("b", [424242]),
    peer_lookup("b", []),
    peer_lookup("a", HASHES),
    admit("b", HASHES[:1]),
    lookup(TOKENS[:CHUNK], differs="D12", name="lookup of a chunk with two holders"),
    peer_lookup("mute", HASHES[:2], differs="D13"),
    admit("mute", OTHER_HASHES),
    lookup(OTHER),
    peer_lookup("b", OTHER_HASHES),
    admit("b", OTHER_HASHES[:2]),
    peer_lookup("a", OTHER_HASHES, differs="D13"),
    admit("a", [-(2**63), -1, 2**63 - 1]),
    peer_lookup("b", [-(2**63), -1, 2**63 - 1]),
    admit("a", [2**63 + 5, 2**64 - 2]),
    peer_lookup("b", [2**63 + 5, 2**64 - 2]),
    peer_lookup("b", [2**64 - 1], differs="D16"),
    push("a", lambda peer: peer.batch([]), name="empty batch"),
    push("a", lambda peer: LookupMsg(event_id="e", tokens=[1]), name="orchestrator message"),
    push("a", lambda peer: msgspec.json.encode(peer.batch([])), name="JSON batch"),
    get("/controller/key-stats"),
    push("a", lambda peer: KVAdmitMsg(instance_id="a", worker_id=0, key=99, location=CPU, seq_num=7), name="single admit", differs="D04"),
]


def start(instance, n_keys, n_batches, sync_id="s1", location=CPU, differs=None):
    return request(instance, lambda p: FullSyncStartMsg(p.instance, p.rank, location, sync_id, n_keys, n_batches), name="sync start", differs=differs)


def batch(instance, batch_id, keys, sync_id="s1", location=CPU, differs=None):
    return push(instance, lambda p: FullSyncBatchMsg(p.instance, p.rank, location, sync_id, batch_id, keys), name=f"sync batch {batch_id}", differs=differs)


def end(instance, n_keys, sync_id="s1", location=CPU, differs=None):
    return push(instance, lambda p: FullSyncEndMsg(p.instance, p.rank, location, sync_id, n_keys), name="sync end", differs=differs)


def status(instance, sync_id="s1", differs=None):
    return request(instance, lambda p: FullSyncStatusMsg(p.instance, p.rank, sync_id), name="sync status", differs=differs)


FULL_SYNC = [
    register("a", 0),
    admit("a", [1]),
    evict("a", [1]),
    status("a"),
    start("a", 4, 2),
    start("a", 4, 2, sync_id="s2"),
    batch("a", 0, HASHES[:2]),
    batch("a", 0, HASHES[:2]),
    batch("a", 1, [1], sync_id="another"),
    status("a", sync_id="another"),
    batch("a", 1, HASHES[2:4]),
    end("a", 4),
    status("a"),
    lookup(TOKENS[: 4 * CHUNK]),
    batch("a", 1, [1, 2]),
    heartbeat("a"),
    admit("a", HASHES[4:]),
    lookup(TOKENS),
    # A second sync, over keys that are there already.
    start("a", 2, 2, sync_id="s3"),
    lookup(TOKENS, differs="D20"),
    admit("a", [77], differs="D20"),
    batch("a", 0, HASHES[:1], sync_id="s3", differs="D20"),
    end("a", 2, sync_id="s3", differs="D20"),
    status("a", sync_id="s3", differs="D21"),
    batch("a", 1, HASHES[1:2], sync_id="s3", differs="D21"),
    lookup(TOKENS, differs="D21"),
]

FIRST_HEARTBEATS = [
    register("a", 0),
    heartbeat("a", differs="D25"),
    register("b", 0),
    push("b", lambda peer: peer.deregister_message(), name="deregister"),
    heartbeat("b"),
    heartbeat("b", on="reply", differs="D25"),
]

HTTP = [
    post("/lookup", {}),
    post("/lookup", {"tokens": "x"}),
    post("/lookup", {"tokens": [1, "x", 2.5, None, [], {}]}),
    post("/lookup", {"tokens": {"a": 1}}),
    post("/lookup", {"tokens": None}),
    post("/lookup", [1]),
    post("/lookup", "text"),
    post("/lookup", {"tokens": ["5", 5.0, True]}),
    post("/lookup", {"tokens": [], "extra": 1}),
    post("/query_instance", {"event_id": 5, "ip": None}),
    post("/query_worker_info", {"instance_id": "a", "worker_ids": ["x"]}),
    post("/clear", {"instance_id": "a"}),
    post("/pin", {"instance_id": "a", "location": CPU}),
    post("/compress", {"instance_id": "a", "location": CPU}),
    post("/move", {"old_position": ["a"], "new_position": ["b", CPU]}),
    post("/move", {"old_position": "a", "new_position": ["b", 5]}),
    post("/health", {}),
    post("/check_finish", {}),
    post("/health", {"instance_id": "nobody"}),
    post("/clear", {"instance_id": "nobody", "location": CPU}, differs="D30"),
    post("/check_finish", {"event_id": "nothing"}, differs="D33"),
    get("/controller/workers?worker_id=x"),
    get("/controller/workers?instance_id=a&worker_id=1.5"),
    get("/lookup"),
    get("/nope"),
]

REQUESTS = [
    register("a", 0),
    request("a", lambda peer: peer.register_message(), frames=lambda payload: [payload], name="two-frame register", differs="D01"),
    request("a", lambda peer: peer.heartbeat_message(), frames=lambda payload: [payload], on="heartbeat", name="two-frame heartbeat", differs="D01"),
    request("a", lambda peer: b"hello", name="garbage"),
    request("a", lambda peer: b"", name="nothing"),
    request("a", lambda peer: b"{nonsense", name="broken JSON"),
    request("a", lambda peer: msgspec.msgpack.encode({"type": "SelfDestructMsg"}), name="unknown tag"),
    request("a", lambda peer: msgspec.msgpack.encode({"type": "RegisterMsg", "instance_id": 5}), name="wrong field"),
    request("a", lambda peer: peer.deregister_message(), name="deregister as a request"),
    request("a", lambda peer: peer.register_message(), on="heartbeat", name="register"),
    request("a", lambda peer: b"hello", on="heartbeat", name="garbage"),
    request("a", lambda peer: msgspec.json.encode(peer.register_message()), name="JSON register"),
    get("/controller/workers?instance_id=a&worker_id=0"),
]

COMMANDS = [
    register("a", 0, answers_commands=True, peer_url="a0:1"),
    register("a", 1, answers_commands=True, peer_url="a1:1"),
    register("b", 0, answers_commands=True, peer_url="b0:1"),
    register("b", 1, answers_commands=True, peer_url="b1:1"),
    register("deaf", 0, answers_commands=True),
    post("/health", {"instance_id": "a"}),
    asked_ids("a", 0, differs="D40"),
    asked("a", 0),
    post("/clear", {"instance_id": "a", "location": CPU}),
    asked_ids("a", 0),
    asked("a", 0),
    asked("a", 1),
    post("/pin", {"instance_id": "a", "location": CPU, "tokens": [1, 2, 3]}),
    asked_ids("a", 1),
    asked("a", 0),
    asked("a", 1),
    post("/compress", {"instance_id": "a", "method": "cachegen", "location": CPU, "tokens": [1, 2, 3]}),
    post("/compress", {"instance_id": "a", "method": "cachegen", "location": CPU}),
    post("/compress", {"instance_id": "a", "method": "cachegen", "location": CPU, "tokens": None}),
    asked_ids("a", 0, differs="D40"),
    asked("a", 0),
    post("/decompress", {"instance_id": "a", "method": "cachegen", "location": DISK, "tokens": [4]}),
    asked("a", 0),
    post("/move", {"old_position": ["a", CPU], "new_position": ["b", DISK], "tokens": [1, 2], "should_copy": True}),
    post("/move", {"old_position": ["a", CPU], "new_position": ["b", CPU]}),
    asked_ids("a", 0, differs="D40"),
    asked("a", 0),
    asked("a", 1),
    asked("b", 0),
    post("/move", {"old_position": ["a", CPU], "new_position": ["b", CPU], "tokens": None, "should_copy": None}),
    asked("a", 0, differs="D41"),
    push("a", lambda peer: ClearMsg(event_id="e", instance_id="a", location=CPU), name="a command"),
    asked("a", 0, differs="D42"),
    post("/move", {"old_position": ["b", CPU], "new_position": ["deaf", CPU], "tokens": [1]}, differs="D37"),
    answer("a", 1, n_tokens=255),
    post("/clear", {"instance_id": "a", "location": CPU}, differs="D31"),
    answer("a", 1, error="out of order"),
    post("/health", {"instance_id": "a"}),
    asked("a", 0),
]

SCRIPTS = {
    "registry": REGISTRY,
    "index": INDEX,
    "full sync": FULL_SYNC,
    "first heartbeats": FIRST_HEARTBEATS,
    "http": HTTP,
    "requests": REQUESTS,
    "commands": COMMANDS,
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_same_as_upstream(controller, upstream, script):
    steps = SCRIPTS[script]
    wrong = compare(steps, play(upstream, steps), play(controller, steps))
    assert not wrong, "\n" + "\n".join(wrong)
