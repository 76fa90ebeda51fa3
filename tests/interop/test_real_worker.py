"""Unmodified LMCache 0.5.6 workers: they register, report through their own batching, and are found."""

import signal

from harness.controllers import Controller, Ports
from harness.eventually import eventually
from harness.prompts import CHUNK, prompt
from harness.raw_peer import CPU, DISK


def test_stored_prompt_is_found_by_its_tokens(controller, fleet):
    worker = fleet.start(controller, "engine-a")
    tokens = prompt(1, 5 * CHUNK + 17)
    hashes = worker.store(tokens)
    assert len(hashes) == 5, "LMCache drops the unfull chunk by default"

    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, 5 * CHUNK)])
    assert controller.key_count("engine-a", 0) == 5
    assert controller.lookup(tokens[: 2 * CHUNK]) == [("engine-a", CPU, 2 * CHUNK)]
    assert controller.lookup(tokens[: 3 * CHUNK] + [7] * CHUNK) == [("engine-a", CPU, 3 * CHUNK)]
    assert controller.lookup(prompt(2, 2 * CHUNK)) == []


def test_unfull_last_chunk_is_credited_where_the_fleet_saves_it(controller, fleet):
    worker = fleet.start(controller, "engine-a", save_unfull_chunk=True)
    tokens = prompt(10, 5 * CHUNK + 17)
    worker.store(tokens)
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, len(tokens))])
    assert controller.lookup(tokens + [5]) == [("engine-a", CPU, 5 * CHUNK)]
    assert controller.lookup(tokens[:5]) == []


def test_eviction_shortens_the_prefix(controller, fleet):
    worker = fleet.start(controller, "engine-a")
    tokens = prompt(3, 4 * CHUNK)
    hashes = worker.store(tokens)
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, 4 * CHUNK)])

    worker.evict(hashes[2:3])
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, 2 * CHUNK)])
    worker.store(tokens)
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, 4 * CHUNK)])
    worker.evict(hashes[:1])
    eventually(lambda: controller.lookup(tokens), [])
    assert controller.key_count("engine-a", 0) == 3


def test_many_batches_arrive_whole_and_without_a_gap(controller, fleet):
    worker = fleet.start(controller, "engine-a")
    keys = list(range(10_000, 14_000))
    worker.store_hashes(keys)
    worker.evict(keys[:1500])
    worker.store_hashes(keys[:500])
    eventually(lambda: controller.key_count("engine-a", 0), 3000)
    assert controller.metric("lmcache:cache_controller_kv_op_seq_discontinuity_count") == 0


def test_heartbeats_arrive(controller, fleet):
    fleet.start(controller, "engine-a")
    first = eventually(lambda: controller.worker("engine-a", 0)["last_heartbeat_time"])
    eventually(lambda: controller.worker("engine-a", 0)["last_heartbeat_time"] > first)


def test_same_chunk_on_cpu_and_disk(controller, fleet):
    worker = fleet.start(controller, "engine-a")
    tokens = prompt(4, 3 * CHUNK)
    hashes = worker.store(tokens, CPU)
    worker.store(tokens, DISK)
    eventually(lambda: controller.key_count("engine-a", 0), 6)
    assert controller.lookup(tokens)[0][2] == 3 * CHUNK

    worker.evict(hashes, CPU)
    eventually(lambda: controller.lookup(tokens), [("engine-a", DISK, 3 * CHUNK)])
    worker.evict(hashes, DISK)
    eventually(lambda: controller.lookup(tokens), [])


def test_peer_lookup_between_real_workers(controller, fleet):
    holder = fleet.start(controller, "engine-a", peer_url="10.0.0.7:7100")
    asker = fleet.start(controller, "engine-b", peer_url="10.0.0.8:7100")
    hashes = holder.store(prompt(5, 4 * CHUNK))
    eventually(lambda: controller.key_count("engine-a", 0), 4)

    assert asker.ask("peer_lookup", hashes=hashes)[0] == ["engine-a", CPU, 4, "10.0.0.7:7100"]
    assert asker.ask("peer_lookup", hashes=hashes[:2] + [12345])[0] == ["engine-a", CPU, 2, "10.0.0.7:7100"]
    assert asker.ask("peer_lookup", hashes=[12345]) == [["", "", 0, ""]]
    assert holder.ask("peer_lookup", hashes=hashes) == [["", "", 0, ""]]


def test_deregistered_worker_is_forgotten(controller, fleet):
    worker = fleet.start(controller, "engine-a", heartbeat_every_s=None)
    tokens = prompt(6, 2 * CHUNK)
    worker.store(tokens)
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, 2 * CHUNK)])

    worker.deregister()
    eventually(lambda: controller.worker("engine-a", 0) is None)
    assert controller.lookup(tokens) == []
    assert controller.get("/controller/key-stats").json()["total_instance_count"] == 0


def test_controller_that_starts_after_the_worker(launcher, fleet):
    ports = Ports()
    absent = Controller("absent", None, ports, None)
    worker = fleet.start(absent, "engine-a", wait=False)
    assert worker.read_answer() == "open"
    tokens = prompt(7, 2 * CHUNK)
    worker.store(tokens)

    controller = launcher.start("kvatlas", ports=ports)
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, 2 * CHUNK)])


def test_restarted_worker_at_a_new_port(controller, fleet):
    old = fleet.start(controller, "engine-a")
    tokens = prompt(8, 2 * CHUNK)
    old.store(tokens)
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, 2 * CHUNK)])
    old.kill()

    new = fleet.start(controller, "engine-a")
    assert new.port != old.port
    eventually(lambda: controller.worker("engine-a", 0)["port"], new.port)
    assert controller.lookup(tokens) == []
    new.store(tokens[:CHUNK])
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, CHUNK)])


def test_tensor_parallel_instance_is_credited_with_what_both_ranks_hold(controller, fleet):
    first = fleet.start(controller, "engine-a", 0, world_size=2)
    second = fleet.start(controller, "engine-a", 1, world_size=2)
    tokens = prompt(9, 4 * CHUNK)
    first.store(tokens)
    second.store(tokens[: 3 * CHUNK])
    eventually(lambda: [controller.key_count("engine-a", rank) for rank in (0, 1)], [4, 3])
    assert controller.lookup(tokens) == [("engine-a", CPU, 3 * CHUNK)]


def test_controller_stops_on_sigterm(controller, fleet):
    fleet.start(controller, "engine-a")
    assert controller.stop(signal.SIGTERM) == 0
