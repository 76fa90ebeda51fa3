"""Registers many workers at a controller, over real sockets with LMCache's own messages, and admits keys of each.

register.py PULL REPLY INSTANCES RANKS: the worker `engine-IIII:R` holds I % 50 + 1 keys.
"""

import sys

import msgspec
import zmq
from lmcache.v1.cache_controller.message import BatchedKVOperationMsg, KVOpEvent, OpType, RegisterMsg

pull, reply, instances, ranks = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
encode = msgspec.msgpack.Encoder().encode
context = zmq.Context()
asking = context.socket(zmq.DEALER)
asking.setsockopt(zmq.RCVTIMEO, 30_000)
asking.connect(f"tcp://{reply}")
workers = [(number, f"engine-{number:04}", rank) for number in range(instances) for rank in range(ranks)]
for number, instance, rank in workers:
    address = f"10.0.{number // 250}.{number % 250 + 1}"
    asking.send_multipart([b"", encode(RegisterMsg(instance, rank, address, 9000 + rank, None))])
    asking.recv_multipart()
telling = context.socket(zmq.PUSH)
telling.connect(f"tcp://{pull}")
for number, instance, rank in workers:
    keys = [KVOpEvent(op_type=OpType.ADMIT, key=number * 1000 + key, seq_num=key) for key in range(number % 50 + 1)]
    telling.send(encode(BatchedKVOperationMsg(instance, rank, "LocalCPUBackend", keys)))
telling.close(linger=30_000)
asking.close(linger=0)
context.term()
