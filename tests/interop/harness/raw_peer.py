"""A worker spoken by hand: real ZeroMQ sockets and LMCache's own message classes, every frame under the test's control."""

import itertools

import msgspec
import zmq
from lmcache.v1.cache_controller.message import (
    BatchedKVOperationMsg,
    BatchedP2PLookupMsg,
    DeRegisterMsg,
    HeartbeatMsg,
    KVOpEvent,
    Msg,
    OpType,
    RegisterMsg,
)

from harness.eventually import eventually

TIMEOUT_MS = 15_000
CPU = "LocalCPUBackend"
DISK = "LocalDiskBackend"


class NoReply(AssertionError):
    """Nothing came back within the time given."""


class RawPeer:
    """One worker key on one controller, with its own PUSH and DEALER sockets."""

    def __init__(self, controller, instance, rank=0, *, ip="10.1.2.3", port=9700, peer_url=None):
        self.controller = controller
        self.instance, self.rank = instance, rank
        self.ip, self.port, self.peer_url = ip, port, peer_url
        self.context = zmq.Context()
        self.push_socket = self._connect(zmq.PUSH, controller.ports.pull)
        self.reply_socket = self._connect(zmq.DEALER, controller.ports.reply)
        self.heartbeat_socket = self._connect(zmq.DEALER, controller.ports.heartbeat)
        self.sequence = {}
        self.fences = itertools.count(1)
        self.fence_id = f"fence-{instance}-{rank}"
        self.fenced = False

    def _connect(self, role, port):
        socket = self.context.socket(role)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
        socket.setsockopt(zmq.SNDTIMEO, TIMEOUT_MS)
        socket.connect(f"tcp://127.0.0.1:{port}")
        return socket

    def close(self):
        self.context.destroy(linger=0)

    # Messages

    def register_message(self):
        return RegisterMsg(self.instance, self.rank, self.ip, self.port, self.peer_url)

    def heartbeat_message(self):
        return HeartbeatMsg(self.instance, self.rank, self.ip, self.port, self.peer_url)

    def deregister_message(self):
        return DeRegisterMsg(self.instance, self.rank, self.ip, self.port)

    def batch(self, operations, location=CPU):
        """A batch of (OpType, key) with this location's next sequence numbers."""
        events = []
        for op_type, key in operations:
            number = self.sequence.get(location, 0)
            self.sequence[location] = number + 1
            events.append(KVOpEvent(op_type=op_type, key=key, seq_num=number))
        return BatchedKVOperationMsg(self.instance, self.rank, location, events)

    def skip_sequence(self, n, location=CPU):
        """Loses `n` operations."""
        self.sequence[location] = self.sequence.get(location, 0) + n

    # Sockets

    def push(self, *messages):
        """One multipart, one part a message; bytes go out as they are."""
        self.push_socket.send_multipart([m if isinstance(m, bytes) else msgspec.msgpack.encode(m) for m in messages])

    def request(self, message, *, frames=None, on="reply", timeout_ms=TIMEOUT_MS):
        """Sends a request and returns the decoded reply. `frames` replaces the usual empty delimiter and payload."""
        socket = self.heartbeat_socket if on == "heartbeat" else self.reply_socket
        socket.send_multipart(frames if frames is not None else [b"", msgspec.msgpack.encode(message)])
        if not socket.poll(timeout_ms):
            raise NoReply(f"no reply to {message!r}")
        return msgspec.msgpack.decode(socket.recv_multipart()[-1], type=Msg)

    # Shorthand

    def register(self):
        self.sequence.clear()
        return self.request(self.register_message())

    def heartbeat(self):
        return self.request(self.heartbeat_message(), on="heartbeat")

    def admit(self, keys, location=CPU):
        self.push(self.batch([(OpType.ADMIT, key) for key in keys], location))

    def evict(self, keys, location=CPU):
        self.push(self.batch([(OpType.EVICT, key) for key in keys], location))

    def peer_lookup(self, hashes):
        reply = self.request(BatchedP2PLookupMsg(hashes=list(hashes), instance_id=self.instance, worker_id=self.rank))
        return [tuple(entry) for entry in reply.layout_info]

    def fence(self):
        """Returns when everything pushed before has been applied: the PULL socket keeps one peer's order, so a key
        pushed afterwards for a worker that does nothing else tells."""
        if not self.fenced:
            self.request(RegisterMsg(self.fence_id, 0, "10.9.9.9", 9999, None))
            self.fenced = True
        number = next(self.fences)
        operation = KVOpEvent(op_type=OpType.ADMIT, key=number, seq_num=number - 1)
        self.push(BatchedKVOperationMsg(self.fence_id, 0, "Fence", [operation]))
        eventually(lambda: self.controller.key_count(self.fence_id, 0), number)
