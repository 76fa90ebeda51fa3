"""Plays one script of steps against two controllers and compares what a client could see.

A step returns an observation. Event ids, times, ports and free text are normalized; everything else must be equal,
except for steps that name a line of COMPAT.md: those must differ, or the line is stale.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import msgspec
from lmcache.v1.cache_controller.message import ErrorMsg, FullSyncStartRetMsg

from harness.controllers import REPOSITORY
from harness.raw_peer import CPU, TIMEOUT_MS, NoReply, RawPeer
from harness.scripted_worker import ScriptedWorker

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIMES = ("registration_time", "last_heartbeat_time")
SILENCE_MS = 700  # how long LMCache's controller is given to answer what it is known to drop


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing a client does. `differs` names the COMPAT.md line that lets the answers differ."""

    name: str
    act: Callable[["Stage"], Any]
    differs: str | None = None


class Stage:
    """A controller with the peers that a script opened on it."""

    def __init__(self, controller):
        self.controller = controller
        self.peers = {}
        self.workers = {}

    def peer(self, instance, rank=0):
        return self.peers[instance, rank]

    def open_peer(self, instance, rank=0, *, answers_commands=False, **options):
        if answers_commands:
            worker = self.workers[instance, rank] = ScriptedWorker()
            options |= {"ip": "127.0.0.1", "port": worker.port}
        opened = self.peers[instance, rank] = RawPeer(self.controller, instance, rank, **options)
        return opened

    def ports(self):
        """Numbers that differ between two runs, and the names they are compared under."""
        named = {str(port): f"<{name} port>" for name, port in vars(self.controller.ports).items()}
        return named | {str(worker.port): f"<port of {key[0]}/{key[1]}>" for key, worker in self.workers.items()}

    def close(self):
        for each in (*self.peers.values(), *self.workers.values()):
            each.close()


def play(controller, script):
    """The normalized observation of every step."""
    stage = Stage(controller)
    try:
        return [normalized(observe(step, stage), stage) for step in script]
    finally:
        stage.close()


def observe(step, stage):
    try:
        return step.act(stage)
    except NoReply:
        return "no reply"


def compare(script, upstream, ours):
    """What is wrong, one text a step; empty when all is as COMPAT.md says."""
    listed = set(re.findall(r"^\| (D\d+) \|", (REPOSITORY / "COMPAT.md").read_text(), re.MULTILINE))
    wrong = []
    for step, theirs, mine in zip(script, upstream, ours, strict=True):
        if step.differs is not None and step.differs not in listed:
            wrong.append(f"{step.name}: {step.differs} is not a line of COMPAT.md")
        elif step.differs is None and theirs != mine:
            wrong.append(f"{step.name}: differs\n    upstream {theirs!r}\n    kvatlas  {mine!r}")
        elif step.differs is not None and theirs == mine:
            wrong.append(f"{step.name}: listed as {step.differs} and yet equal\n    both     {mine!r}")
    return wrong


def normalized(value, stage):
    """`value` without what no two runs share."""
    if isinstance(value, ErrorMsg):
        return "ErrorMsg(<text>)" if value.error else "ErrorMsg without text"
    if isinstance(value, FullSyncStartRetMsg) and value.error_msg:
        value = msgspec.structs.replace(value, error_msg="<text>")
    if isinstance(value, msgspec.Struct):
        return {"type": type(value).__name__, **normalized(msgspec.structs.asdict(value), stage)}
    if isinstance(value, dict):
        return {key: normalized_field(key, each, stage) for key, each in value.items() if key != "ctx"}
    if isinstance(value, list | tuple):
        return [normalized(each, stage) for each in value]
    if isinstance(value, str):
        value = UUID.sub("<uuid>", value)
        for port, name in stage.ports().items():
            value = re.sub(rf"\b{port}\b", name, value)
        return value
    if isinstance(value, int) and str(value) in stage.ports():
        return stage.ports()[str(value)]
    return value


def normalized_field(key, value, stage):
    if key in TIMES:
        return "<time>" if isinstance(value, float) and value > 1.7e9 else value
    if key == "detail" and isinstance(value, str):
        return "<text>" if value else "no text"
    return normalized(value, stage)


# The vocabulary of scripts.


def register(instance, rank=0, *, differs=None, **options):
    def act(stage):
        peer = stage.peers.get((instance, rank)) or stage.open_peer(instance, rank, **options)
        for name, value in options.items():
            setattr(peer, name, value)
        return peer.register()

    return Step(f"register {instance}/{rank}", act, differs)


def again(instance, rank=0, *, differs=None, **changed):
    """Registers once more, with other addresses."""

    def act(stage):
        for name, value in changed.items():
            setattr(stage.peer(instance, rank), name, value)
        return stage.peer(instance, rank).register()

    return Step(f"register {instance}/{rank} again", act, differs)


def _pushed(name, push, differs):
    def act(stage):
        peer = push(stage)
        peer.fence()
        return stage.controller.key_count(peer.instance, peer.rank)

    return Step(name, act, differs)


def admit(instance, keys, rank=0, location=CPU, differs=None):
    def push(stage):
        stage.peer(instance, rank).admit(keys, location)
        return stage.peer(instance, rank)

    return _pushed(f"admit {len(keys)} keys of {instance}/{rank} at {location}", push, differs)


def evict(instance, keys, rank=0, location=CPU, differs=None):
    def push(stage):
        stage.peer(instance, rank).evict(keys, location)
        return stage.peer(instance, rank)

    return _pushed(f"evict {len(keys)} keys of {instance}/{rank} at {location}", push, differs)


def skip_sequence(instance, n, rank=0, location=CPU):
    return Step(f"lose {n} operations of {instance}/{rank}", lambda stage: stage.peer(instance, rank).skip_sequence(n, location))


def push(instance, make, rank=0, name="push", differs=None):
    """Pushes what `make(peer)` returns: one message, bytes, or a list of them."""

    def send(stage):
        peer = stage.peer(instance, rank)
        made = make(peer)
        peer.push(*(made if isinstance(made, list) else [made]))
        return peer

    return _pushed(f"{name} of {instance}/{rank}", send, differs)


def request(instance, make, rank=0, on="reply", name="request", frames=None, differs=None):
    """Sends what `make(peer)` returns as a request; `frames(payload)` lays it out otherwise."""

    def act(stage):
        peer = stage.peer(instance, rank)
        made = make(peer)
        payload = made if isinstance(made, bytes) else msgspec.msgpack.encode(made)
        dropped = frames is not None and stage.controller.name == "upstream"
        laid_out = frames(payload) if frames else [b"", payload]
        return peer.request(None, frames=laid_out, on=on, timeout_ms=SILENCE_MS if dropped else TIMEOUT_MS)

    return Step(f"{name} of {instance}/{rank} on {on}", act, differs)


def heartbeat(instance, rank=0, on="heartbeat", differs=None):
    return request(instance, lambda peer: peer.heartbeat_message(), rank, on, "heartbeat", differs=differs)


def peer_lookup(instance, hashes, rank=0, differs=None):
    return Step(f"peer lookup by {instance}/{rank}", lambda stage: stage.peer(instance, rank).peer_lookup(hashes), differs)


def get(path, differs=None):
    def act(stage):
        reply = stage.controller.get(path)
        return {"status": reply.status_code, "body": reply.json()}

    return Step(f"GET {path}", act, differs)


def post(path, body, differs=None, name=None):
    def act(stage):
        reply = stage.controller.post(path, body)
        return {"status": reply.status_code, "body": reply.json()}

    return Step(name or f"POST {path} {str(body)[:60]}", act, differs)


def lookup(tokens, differs=None, name=None):
    def act(stage):
        return stage.controller.lookup(tokens)

    return Step(name or f"lookup of {len(tokens)} tokens", act, differs)


def metric(name, differs=None):
    return Step(f"metric {name}", lambda stage: stage.controller.metric(f"lmcache:cache_controller_{name}"), differs)


def asked(instance, rank=0, differs=None):
    """What the commands since the last look made of this worker, but for their ids."""

    def act(stage):
        worker = stage.workers[instance, rank]
        seen, worker.asked = worker.asked, []
        return [msgspec.structs.replace(message, worker_event_id="") for message in seen]

    return Step(f"what {instance}/{rank} was asked", act, differs)


def asked_ids(instance, rank=0, differs=None):
    """The ids of the commands since the last look, which goes on."""

    def act(stage):
        return [message.worker_event_id for message in stage.workers[instance, rank].asked]

    return Step(f"ids of what {instance}/{rank} was asked", act, differs)


def answer(instance, rank=0, **how):
    """Changes how a scripted worker answers: n_tokens, error."""

    def act(stage):
        for name, value in how.items():
            setattr(stage.workers[instance, rank], name, value)

    return Step(f"{instance}/{rank} answers {how}", act)
