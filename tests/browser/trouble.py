"""Two workers in trouble, with LMCache's own messages: trouble.py PULL REPLY.

`losing:0` lost reports (a gap in its sequence numbers), `syncing:0` has sent one batch of four of its full sync.
"""

import sys

import msgspec
import zmq
from lmcache.v1.cache_controller.message import (
    BatchedKVOperationMsg,
    FullSyncBatchMsg,
    FullSyncStartMsg,
    KVOpEvent,
    OpType,
    RegisterMsg,
)

pull, reply = sys.argv[1:3]
encode = msgspec.msgpack.Encoder().encode
context = zmq.Context()
asking = context.socket(zmq.DEALER)
asking.setsockopt(zmq.RCVTIMEO, 30_000)
asking.connect(f"tcp://{reply}")
telling = context.socket(zmq.PUSH)
telling.connect(f"tcp://{pull}")


def ask(message):
    asking.send_multipart([b"", encode(message)])
    asking.recv_multipart()


for instance in ("losing", "syncing"):
    ask(RegisterMsg(instance, 0, "10.0.0.1", 9000, None))
admits = [KVOpEvent(op_type=OpType.ADMIT, key=number, seq_num=number) for number in (0, 1, 2, 7, 8)]
telling.send(encode(BatchedKVOperationMsg("losing", 0, "LocalCPUBackend", admits)))
ask(FullSyncStartMsg("syncing", 0, "LocalCPUBackend", "half", 400, 4))
telling.send(encode(FullSyncBatchMsg("syncing", 0, "LocalCPUBackend", "half", 0, list(range(100)))))
telling.close(linger=30_000)
asking.close(linger=0)
context.term()
