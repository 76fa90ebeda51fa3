"""The hash functions that vLLM offers by name: SHA-256 over canonical CBOR or over pickle protocol 5."""

import hashlib
import pickle

import cbor2


def sha256_cbor(value):
    return hashlib.sha256(cbor2.dumps(value, canonical=True)).digest()


def sha256(value):
    return hashlib.sha256(pickle.dumps(value, protocol=5)).digest()


def get_hash_fn_by_name(name):
    return {"sha256_cbor": sha256_cbor, "sha256": sha256, "builtin": hash}[name]
