"""Prompts and their chunk hashes, the latter from LMCache's own token database."""

import random

from lmcache.v1.token_database import ChunkedTokenDatabase

CHUNK = 256
_database = ChunkedTokenDatabase()


def prompt(seed, n_tokens):
    """A reproducible prompt."""
    return random.Random(seed).choices(range(128_000), k=n_tokens)


def chunk_hashes(tokens):
    """Hashes under LMCache's defaults (builtin, 256, root 0), the unfull last chunk included."""
    return [chunk_hash for _, _, chunk_hash in _database.process_tokens(tokens, make_key=False)]
