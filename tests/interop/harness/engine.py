"""The engine side of a real LMCache worker, without tensors.

Real, imported from the LMCache wheel: LMCacheWorker, FullSyncSender, BatchedMessageSender, LocalCPUBackend (with its hot
cache, eviction policy and key listing), LocalDiskBackend (it writes a file a chunk), ChunkedTokenDatabase, CacheEngineKey,
LMCacheEngineConfig, LMCacheMetadata.
Stand-ins: the memory objects (a few bytes, no tensors), the storage manager (it only holds the backends) and LMCacheEngine
itself, whose own class needs native code.
"""

import asyncio
import os
import sys
import threading
import time
import types

import lmcache
import lmcache.utils
import lmcache.v1


def _open_without_init(name):
    """Lets single files of a package be imported whose `__init__` would pull in native code."""
    package = types.ModuleType(name)
    package.__path__ = [os.path.join(os.path.dirname(lmcache.__file__), *name.split(".")[1:])]
    sys.modules[name] = package


_open_without_init("lmcache.v1.storage_backend")
_vllm_utils = types.ModuleType("lmcache.integration.vllm.utils")
_vllm_utils.get_size_bytes = lmcache.utils.get_size_bytes
sys.modules[_vllm_utils.__name__] = _vllm_utils

import torch  # noqa: E402
from lmcache.utils import CacheEngineKey  # noqa: E402
from lmcache.v1.cache_controller.worker import LMCacheWorker  # noqa: E402
from lmcache.v1.config import LMCacheEngineConfig  # noqa: E402
from lmcache.v1.metadata import LMCacheMetadata  # noqa: E402
from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend  # noqa: E402
from lmcache.v1.storage_backend.local_disk_backend import LocalDiskBackend  # noqa: E402
from lmcache.v1.token_database import ChunkedTokenDatabase  # noqa: E402


WRITTEN_WITHIN_S = 20.0


class Chunk:
    """A memory object that counts references and pins and has no tensor behind it."""

    tensor = "none, but not None"
    byte_array = b"chunk"
    metadata = types.SimpleNamespace(shape=None, dtype=None, fmt=None, cached_positions=None)

    def __init__(self, n_tokens):
        self.n_tokens = n_tokens
        self.references = 0
        self.pins = 0

    def ref_count_up(self):
        self.references += 1

    def ref_count_down(self):
        self.references -= 1

    def pin(self):
        self.pins += 1

    def unpin(self):
        self.pins -= 1

    @property
    def is_pinned(self):
        return self.pins > 0

    @property
    def can_evict(self):
        return not self.is_pinned

    def get_num_tokens(self):
        return self.n_tokens

    def get_physical_size(self):
        return len(self.byte_array)


class _NoAllocator:
    """LocalCPUBackend wants an allocator to close; nothing is ever allocated."""

    def close(self):
        pass


class Engine:
    """What LMCacheWorker and FullSyncSender call on an engine, recorded, with misbehavior on request."""

    def __init__(self, config, metadata):
        self.config = config
        self.metadata = metadata
        self.calls = []
        self.frozen = False
        self.behavior = {}
        self._lock = threading.Lock()
        self.database = ChunkedTokenDatabase(config, metadata)
        self.worker = LMCacheWorker(config, metadata, self)
        self.cpu = LocalCPUBackend(config, metadata, lmcache_worker=self.worker, memory_allocator=_NoAllocator())
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        self.disk = LocalDiskBackend(config, loop, self.cpu, "cpu", self.worker, metadata)
        self.storage_manager = types.SimpleNamespace(local_cpu_backend=self.cpu, local_disk_backend=self.disk)

    def keys_of(self, tokens):
        """(key, tokens in the chunk) for each chunk, from LMCache's own token database."""
        return [(key, end - start) for start, end, key in self.database.process_tokens(tokens)]

    def key_of_hash(self, chunk_hash):
        return CacheEngineKey(
            self.metadata.model_name, self.metadata.world_size, self.metadata.worker_id, chunk_hash, self.metadata.kv_dtype
        )

    def store(self, tokens, location):
        chunks = self.keys_of(tokens)
        self._put([key for key, _ in chunks], [n for _, n in chunks], location)
        return [key.chunk_hash for key, _ in chunks]

    def store_hashes(self, hashes, location):
        self._put([self.key_of_hash(h) for h in hashes], [self.config.chunk_size] * len(hashes), location)

    def _put(self, keys, n_tokens, location):
        if location == "LocalDiskBackend":
            new = {key: Chunk(n) for key, n in zip(keys, n_tokens, strict=True) if not self.disk.contains(key)}
            written = threading.Semaphore(0)
            self.disk.batched_submit_put_task(list(new), list(new.values()), on_complete_callback=lambda _key: written.release())
            for key in new:
                assert written.acquire(timeout=WRITTEN_WITHIN_S), f"{key} was not written to disk"
        else:
            self.cpu.batched_submit_put_task(keys, [Chunk(n) for n in n_tokens])

    def store_unreported(self, tokens):
        """Stores on the CPU and loses the reports on their way: sequence numbers are spent, nothing is sent."""
        sender = self.cpu.batched_msg_sender
        sender.flush()
        self.cpu.batched_msg_sender = None
        hashes = self.store(tokens, "LocalCPUBackend")
        self.cpu.batched_msg_sender = sender
        with sender.sequence_lock:
            sender.sequence_number += len(hashes)
        return hashes

    def evict(self, hashes, location):
        backend = self.disk if location == "LocalDiskBackend" else self.cpu
        for chunk_hash in hashes:
            backend.remove(self.key_of_hash(chunk_hash))

    def held(self, location):
        if location == "LocalDiskBackend":
            return sorted(key.chunk_hash for key in self.disk.dict)
        return sorted(key.chunk_hash for key in self.cpu.get_keys())

    # What LMCacheWorker calls.

    def _called(self, name, **arguments):
        with self._lock:
            self.calls.append({"call": name, **arguments})
        behavior = self.behavior.get(name, {})
        if behavior.get("sleep_s"):
            time.sleep(behavior["sleep_s"])
        if behavior.get("raises"):
            raise RuntimeError(behavior["raises"])
        return behavior.get("answer")

    def freeze(self, enabled):
        self._called("freeze", enabled=enabled)
        self.frozen = enabled

    def lookup(self, tokens, search_range, lookup_id, pin):
        answer = self._called("pin", tokens=tokens, search_range=search_range, pin=pin)
        if answer is not None:
            return answer
        end = 0
        for key, n_tokens in self.keys_of(tokens):
            if not self.cpu.contains(key, pin=pin):
                break
            end += n_tokens
        return end

    def clear(self, locations):
        answer = self._called("clear", locations=locations)
        if answer is not None:
            return answer
        if locations == ["LocalDiskBackend"]:
            return sum(self.config.chunk_size for key in list(self.disk.dict) if self.disk.remove(key))
        n_tokens = 0
        for key in self.cpu.get_keys():
            chunk = self.cpu.hot_cache[key]
            if chunk.can_evict:
                n_tokens += chunk.n_tokens
                self.cpu.remove(key)
        return n_tokens

    def compress(self, tokens, method, location, event_id):
        answer = self._called("compress", tokens=tokens, method=method, location=location)
        return len(tokens or []) if answer is None else answer

    def decompress(self, tokens, method, location, event_id):
        answer = self._called("decompress", tokens=tokens, method=method, location=location)
        return len(tokens or []) if answer is None else answer

    def move(self, tokens, old_position, new_position, event_id, do_copy):
        answer = self._called(
            "move", tokens=tokens, old_position=old_position, new_position=list(new_position), do_copy=do_copy
        )
        return len(tokens or []) if answer is None else answer

    def health(self):
        answer = self._called("health")
        return 0 if answer is None else answer


def open_engine(options):
    """Builds the engine from the harness's options: LMCache's own configuration keys plus `rank` and `world_size`."""
    config = LMCacheEngineConfig.from_defaults(**options["config"])
    config.local_disk = options["disk"]
    config.max_local_disk_size = 1.0
    config.lmcache_worker_heartbeat_delay_time = 0
    config.lmcache_worker_heartbeat_time = options["heartbeat_every_s"]  # set here: the loader rounds to whole seconds
    shape = (1, 2, config.chunk_size, 1, 8)
    metadata = LMCacheMetadata(
        model_name="interop",
        world_size=options["world_size"],
        local_world_size=options["world_size"],
        worker_id=options["rank"],
        local_worker_id=options["rank"],
        kv_dtype=torch.bfloat16,
        kv_shape=shape,
    )
    return Engine(config, metadata)
