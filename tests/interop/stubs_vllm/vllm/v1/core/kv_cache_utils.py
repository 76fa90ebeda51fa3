"""The root of the chain: the hash of PYTHONHASHSEED where it is set, else vLLM 0.33's constant."""

import os

NONE_HASH = None


def init_none_hash(hash_function):
    global NONE_HASH
    NONE_HASH = hash_function(os.environ.get("PYTHONHASHSEED", "vllm-none-hash"))
