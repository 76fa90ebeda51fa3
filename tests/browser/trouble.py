"""Two workers in trouble, with LMCache's own messages: trouble.py PULL REPLY.

`losing:0` lost reports (a gap in its sequence numbers), `syncing:0` has sent one batch of four of its full sync.
"""

from lmcache.v1.cache_controller.message import (
    BatchedKVOperationMsg,
    FullSyncBatchMsg,
    FullSyncStartMsg,
    KVOpEvent,
    OpType,
    RegisterMsg,
)
from wire import ask, close, tell

for instance in ("losing", "syncing"):
    ask(RegisterMsg(instance, 0, "10.0.0.1", 9000, None))
admits = [KVOpEvent(op_type=OpType.ADMIT, key=number, seq_num=number) for number in (0, 1, 2, 7, 8)]
tell(BatchedKVOperationMsg("losing", 0, "LocalCPUBackend", admits))
ask(FullSyncStartMsg("syncing", 0, "LocalCPUBackend", "half", 400, 4))
tell(FullSyncBatchMsg("syncing", 0, "LocalCPUBackend", "half", 0, list(range(100))))
close()
