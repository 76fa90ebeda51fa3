"""A worker that goes on after its limit, with LMCache's own messages: greedy.py PULL REPLY.

With a limit of three keys a worker, `greedy:0` is refused its second message, `modest:0` holds one key.
"""

from lmcache.v1.cache_controller.message import BatchedKVOperationMsg, KVOpEvent, OpType, RegisterMsg
from wire import ask, close, tell

for instance in ("greedy", "modest"):
    ask(RegisterMsg(instance, 0, "10.0.0.1", 9000, None))
for instance, first, n_keys in (("modest", 1, 1), ("greedy", 1, 4), ("greedy", 5, 4)):
    admits = [KVOpEvent(op_type=OpType.ADMIT, key=key, seq_num=key) for key in range(first, first + n_keys)]
    tell(BatchedKVOperationMsg(instance, 0, "LocalCPUBackend", admits))
close()
