"""Fleets that hash differently are found without any configuration (COMPAT.md D38)."""

import pathlib

import pytest

from harness.eventually import eventually
from harness.prompts import prompt
from harness.raw_peer import CPU

STUBS = pathlib.Path(__file__).resolve().parent

SCHEMES = [
    # algorithm, chunk size, PYTHONHASHSEED of the fleet
    ("sha256_cbor", 16, "0"),
    ("sha256_cbor", 256, None),
    ("sha256", 64, "0"),
    ("builtin", 16, "0"),
]


def vllm_environment(seed):
    path = f"{STUBS / 'stubs'}:{STUBS / 'stubs_vllm'}"
    return {"PYTHONPATH": path} | ({} if seed is None else {"PYTHONHASHSEED": seed})


def start(fleet, controller, instance, algorithm, chunk_size, seed):
    return fleet.start(
        controller, instance, pre_caching_hash_algorithm=algorithm, chunk_size=chunk_size, env=vllm_environment(seed)
    )


@pytest.mark.parametrize(("algorithm", "chunk_size", "seed"), SCHEMES)
def test_scheme_is_found_out(controller, fleet, algorithm, chunk_size, seed):
    worker = start(fleet, controller, "engine-a", algorithm, chunk_size, seed)
    tokens = prompt(1, 10 * chunk_size + 3)
    assert len(worker.store(tokens)) == 10
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, 10 * chunk_size)])
    assert controller.lookup(tokens[: 4 * chunk_size]) == [("engine-a", CPU, 4 * chunk_size)]
    assert controller.lookup(prompt(2, 4 * chunk_size)) == []


def test_two_fleets_with_different_schemes(controller, fleet):
    first = start(fleet, controller, "engine-a", "sha256_cbor", 16, "0")
    second = fleet.start(controller, "engine-b")
    tokens = prompt(3, 1024)
    first.store(tokens[:800])
    second.store(tokens)
    eventually(lambda: controller.lookup(tokens), [("engine-b", CPU, 1024), ("engine-a", CPU, 800)])


def test_diagnose_says_what_matched(controller, fleet):
    worker = start(fleet, controller, "engine-a", "sha256_cbor", 16, "0")
    tokens = prompt(4, 160)
    worker.store(tokens)
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, 160)])
    said = controller.post("/diagnose", {"tokens": tokens})
    assert said.status_code == 200
    assert "sha256_cbor" in said.text and "engine-a" in said.text
    assert controller.get("/diagnose").status_code == 200


def test_diagnose_explains_an_empty_answer(controller, peer):
    nobody = controller.post("/diagnose", {"tokens": prompt(5, 300)})
    assert nobody.status_code == 200 and "worker" in nobody.text
    a = peer(controller, "a")
    a.register()
    a.admit(range(1, 400))
    a.fence()
    unmatched = controller.post("/diagnose", {"tokens": prompt(5, 300)})
    assert unmatched.status_code == 200 and "builtin" in unmatched.text
    assert unmatched.text != nobody.text
