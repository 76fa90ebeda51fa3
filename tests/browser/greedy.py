"""A worker that goes on after its limit, with LMCache's own messages: greedy.py PULL REPLY.

With a limit of three keys a worker, `greedy:0` is refused its second message, `modest:0` holds one key.
"""

import sys

import msgspec
import zmq
from lmcache.v1.cache_controller.message import BatchedKVOperationMsg, KVOpEvent, OpType, RegisterMsg

pull, reply = sys.argv[1:3]
encode = msgspec.msgpack.Encoder().encode
context = zmq.Context()
asking = context.socket(zmq.DEALER)
asking.setsockopt(zmq.RCVTIMEO, 30_000)
asking.connect(f"tcp://{reply}")
telling = context.socket(zmq.PUSH)
telling.connect(f"tcp://{pull}")
for instance in ("greedy", "modest"):
    asking.send_multipart([b"", encode(RegisterMsg(instance, 0, "10.0.0.1", 9000, None))])
    asking.recv_multipart()
for instance, first, n_keys in (("modest", 1, 1), ("greedy", 1, 4), ("greedy", 5, 4)):
    admits = [KVOpEvent(op_type=OpType.ADMIT, key=key, seq_num=key) for key in range(first, first + n_keys)]
    telling.send(encode(BatchedKVOperationMsg(instance, 0, "LocalCPUBackend", admits)))
telling.close(linger=30_000)
asking.close(linger=0)
context.term()
