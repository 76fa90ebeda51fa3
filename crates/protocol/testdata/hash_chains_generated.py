"""Writes hash_chains_generated.jsonl and hash_roots_generated.jsonl beside itself: what LMCache's
vectors do not cover, namely the pickled algorithms, frames that split, chunk sizes and integers around
the encodings' limits, odd PYTHONHASHSEED texts.

Run: python3.11 hash_chains_generated.py
Needs xxhash and cbor2; the definition of each algorithm is that of compat.md, the oracle is CPython
(its `hash`, its C pickler, its hashlib).

Tokens are not stored but generated: token i = signed64(i * step + start) >> shift.
Stored are the number of chunks and the last hash, which depends on every chunk before it.
"""

import hashlib
import json
import os
import pickle
import subprocess
import sys

import cbor2
import xxhash


def head(digest):
    return int.from_bytes(digest[:8], "big")


ALGORITHMS = {
    "builtin": hash,
    "sha256_cbor": lambda x: head(hashlib.sha256(cbor2.dumps(x, canonical=True)).digest()),
    "xxhash_cbor": lambda x: head(xxhash.xxh3_128_digest(cbor2.dumps(x, canonical=True))),
    "sha256": lambda x: head(hashlib.sha256(pickle.dumps(x, protocol=5)).digest()),
    "xxhash": lambda x: head(xxhash.xxh3_128_digest(pickle.dumps(x, protocol=5))),
}
GOLDEN = 0x9E3779B97F4A7C15


def tokens(count, start, step, shift):
    values = []
    for i in range(count):
        bits = (i * step + start) % (1 << 64)
        values.append((bits - (1 << 64) if bits >> 63 else bits) >> shift)
    return values


def chain(algorithm, root, chunk_size, count, start, step, shift):
    hash_fn, previous, chunks = ALGORITHMS[algorithm], root, 0
    values = tokens(count, start, step, shift)
    for at in range(0, count, chunk_size):
        previous = hash_fn((previous, tuple(values[at : at + chunk_size]), ()))
        chunks += 1
    return {
        "algorithm": algorithm,
        "root": "absent" if root == 0 else "vllm-none-hash",
        "chunk_size": chunk_size,
        "count": count,
        "start": start,
        "step": step,
        "shift": shift,
        "chunks": chunks,
        "last": previous,
    }


def chains():
    for algorithm, hash_fn in ALGORITHMS.items():
        roots = [0]
        if algorithm.startswith("sha256"):
            roots.append(hash_fn("vllm-none-hash"))
        for root in roots:
            # Every integer width: 8, 16, 24, 31 and 32 bits, just above, 62 and 64 bits, both signs.
            for shift in (56, 48, 40, 33, 32, 31, 24, 2, 0):
                yield (chain(algorithm, root, 256, 600, 0, GOLDEN, shift))
            for chunk_size in (1, 2, 3, 4, 16, 23, 24, 255, 257, 1000, 20000):
                yield (chain(algorithm, root, chunk_size, min(3 * chunk_size + 1, 25000), 0, GOLDEN, 46))
        # Around each power of two where an encoding grows, on both sides of zero.
        for bits in (4, 5, 7, 8, 15, 16, 31, 32, 39, 40, 47, 48, 55, 56, 61, 62, 63):
            for sign in (1, -1):
                start = (sign * (1 << bits) - 4) % (1 << 64)
                yield (chain(algorithm, 0, 3, 9, start, 1, 0))
    # Frames of 64 KiB: two-byte, three-byte and five-byte tokens around every way to end one.
    for algorithm in ("sha256", "xxhash"):
        for count in list(range(32750, 32775)) + [65520, 65530, 65540]:
            yield (chain(algorithm, 0, 1 << 20, count, 7, 0, 0))
        for start, first in ((300, 21835), (70000, 13100), (1 << 40, 8185)):
            for count in range(first, first + 14):
                yield (chain(algorithm, 0, 1 << 20, count, start, 0, 0))


def roots():
    """NONE_HASH by PYTHONHASHSEED; for builtin each in a process of its own, with that seed."""
    for seed in ("0", "1", "2", "7", "42", "123", "2024", "65536", "2147483648", "4294967295", "007", "+5", " 9", "-0", "random", ""):
        for algorithm, hash_fn in ALGORITHMS.items():
            if algorithm == "builtin":
                if seed == "random":
                    continue
                out = subprocess.run(
                    [sys.executable, "-c", "import os; print(hash(os.environ['PYTHONHASHSEED']))"],
                    env=dict(os.environ, PYTHONHASHSEED=seed), capture_output=True, check=True,
                )
                value = int(out.stdout)
            else:
                value = hash_fn(seed)
            yield ({"algorithm": algorithm, "seed": seed, "none_hash": value})


for name, rows in (("hash_chains_generated", chains()), ("hash_roots_generated", roots())):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".jsonl"), "w") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
