"""Commands to real LMCache workers: obeyed with the right arguments, and one bad worker costs only its own step
(COMPAT.md D31, D32, D33, D37)."""

import concurrent.futures
import time

import pytest

from harness.eventually import eventually
from harness.prompts import CHUNK, prompt
from harness.raw_peer import CPU, DISK


@pytest.fixture
def pair(controller, fleet):
    """One instance `a` of two ranks with peer URLs, both holding two chunks, and the prompt."""
    workers = [fleet.start(controller, "a", rank, world_size=2, peer_url=f"10.0.0.{rank + 1}:7100", wait=False) for rank in (0, 1)]
    fleet.wait_registered(controller, *workers)
    tokens = prompt(1, 2 * CHUNK)
    for worker in workers:
        worker.store(tokens)
    eventually(lambda: [controller.key_count("a", rank) for rank in (0, 1)], [2, 2])
    return workers, tokens


def test_four_workers_of_three_instances_obey_all_six_commands(controller, pair, fleet):
    """Each with its own arguments, and nobody else is asked."""
    workers, tokens = pair
    # One more instance of two ranks would be a pair again: these two are single.
    lone = fleet.start(controller, "lone", peer_url="10.0.2.1:7100")
    other = fleet.start(controller, "other", peer_url="10.0.3.1:7100")
    lone.store(tokens)
    eventually(lambda: controller.key_count("lone", 0), 2)
    whole = len(tokens)
    for instance, obeying in (("a", workers), ("lone", [lone])):
        where = {"instance_id": instance, "location": CPU}
        packed = {**where, "method": "cachegen", "tokens": tokens}
        orders = [
            ("/pin", {**where, "tokens": tokens[:CHUNK]}, CHUNK, {"call": "pin", "tokens": tokens[:CHUNK], "search_range": [CPU], "pin": True}),
            ("/compress", packed, whole, {"call": "compress", "tokens": tokens, "method": "cachegen", "location": CPU}),
            ("/decompress", packed, whole, {"call": "decompress", "tokens": tokens, "method": "cachegen", "location": CPU}),
            ("/clear", where, CHUNK, {"call": "clear", "locations": [CPU]}),
        ]
        for path, body, expected, call in orders:
            reply = controller.post(path, body)
            assert (reply.status_code, reply.json()["num_tokens"]) == (200, expected), path
            assert [worker.calls()[-1] for worker in obeying] == [call] * len(obeying)
        assert set(controller.post("/health", {"instance_id": instance}).json()["error_codes"].values()) == {0}
    body = {"old_position": ["lone", CPU], "new_position": ["other", CPU], "tokens": tokens, "should_copy": False}
    reply = controller.post("/move", body)
    assert (reply.status_code, reply.json().get("num_tokens")) == (200, whole), reply.text
    assert lone.calls("move") == [
        {"call": "move", "tokens": tokens, "old_position": CPU, "new_position": ["10.0.3.1:7100", CPU], "do_copy": False}
    ]
    assert other.calls("move") == [] and all(worker.calls("move") == [] for worker in workers)
    # LMCache's worker has reasons of its own to refuse, and they are passed on.
    refused = controller.post("/move", {**body, "new_position": ["other", DISK]})
    assert refused.status_code == 502 and "Only support moving to cpu" in refused.json()["detail"]
    # Two ranks do not fit into one.
    refused = controller.post("/move", {**body, "old_position": ["a", CPU]})
    assert refused.status_code == 409 and refused.json()["detail"]


def test_clear_is_obeyed_and_the_index_follows_the_evictions(controller, pair):
    workers, tokens = pair
    reply = controller.post("/clear", {"instance_id": "a", "location": CPU})
    assert (reply.status_code, reply.json()["num_tokens"]) == (200, 2 * CHUNK)
    for worker in workers:
        assert worker.calls("clear") == [{"call": "clear", "locations": [CPU]}]
        assert worker.held() == []
    eventually(lambda: controller.lookup(tokens), [])


def test_pin_holds_chunks_through_a_clear(controller, pair):
    workers, tokens = pair
    reply = controller.post("/pin", {"instance_id": "a", "location": CPU, "tokens": tokens[: CHUNK]})
    assert (reply.status_code, reply.json()["num_tokens"]) == (200, CHUNK)
    assert workers[1].calls("pin") == [{"call": "pin", "tokens": tokens[:CHUNK], "search_range": [CPU], "pin": True}]
    assert controller.post("/clear", {"instance_id": "a", "location": CPU}).json()["num_tokens"] == CHUNK
    eventually(lambda: controller.lookup(tokens), [("a", CPU, CHUNK)])


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_compress_and_decompress(controller, pair, command):
    workers, tokens = pair
    reply = controller.post(f"/{command}", {"instance_id": "a", "method": "cachegen", "location": CPU, "tokens": tokens})
    assert (reply.status_code, reply.json()["num_tokens"]) == (200, len(tokens))
    for worker in workers:
        assert worker.calls(command) == [{"call": command, "tokens": tokens, "method": "cachegen", "location": CPU}]


def test_move_pairs_ranks_and_resolves_peer_urls(controller, pair, fleet):
    sources, tokens = pair
    targets = [fleet.start(controller, "b", rank, world_size=2, peer_url=f"10.0.1.{rank + 1}:7100") for rank in (0, 1)]
    body = {"old_position": ["a", CPU], "new_position": ["b", CPU], "tokens": tokens, "should_copy": True}
    reply = controller.post("/move", body)
    assert (reply.status_code, reply.json()["num_tokens"]) == (200, len(tokens))
    for rank, worker in enumerate(sources):
        assert worker.calls("move") == [
            {"call": "move", "tokens": tokens, "old_position": CPU, "new_position": [f"10.0.1.{rank + 1}:7100", CPU], "do_copy": True}
        ]
    for worker in targets:
        assert worker.calls("move") == []


def test_health(controller, pair):
    workers, _ = pair
    assert controller.post("/health", {"instance_id": "a"}).json()["error_codes"] == {"0": 0, "1": 0}
    workers[1].behave("health", answer=7)
    assert controller.post("/health", {"instance_id": "a"}).json()["error_codes"] == {"0": 0, "1": 7}
    workers[1].behave("health", raises="out of memory")
    assert controller.post("/health", {"instance_id": "a"}).json()["error_codes"] == {"0": 0, "1": -1001}


def test_an_engine_that_raises_is_named_with_its_text(controller, pair):
    workers, _ = pair
    workers[1].behave("clear", raises="the disk is on fire")
    reply = controller.post("/clear", {"instance_id": "a", "location": CPU})
    assert reply.status_code == 502 and "the disk is on fire" in reply.json()["detail"]


def test_ranks_that_disagree_are_each_named(controller, pair):
    workers, _ = pair
    workers[0].behave("clear", answer=512)
    workers[1].behave("clear", answer=511)
    reply = controller.post("/clear", {"instance_id": "a", "location": DISK})
    assert reply.status_code == 502
    assert "512" in reply.json()["detail"] and "511" in reply.json()["detail"]


def test_a_slow_engine_costs_only_its_own_command(controller, pair, fleet):
    workers, _ = pair
    fleet.start(controller, "b")
    workers[1].behave("clear", sleep_s=4)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(controller.post, "/clear?timeout_s=1", {"instance_id": "a", "location": CPU})
        begun = time.monotonic()
        other = controller.post("/clear", {"instance_id": "b", "location": CPU})
        assert other.status_code == 200 and time.monotonic() - begun < 3
        assert slow.result().status_code == 504
    workers[1].behave("clear")
    eventually(lambda: controller.post("/health", {"instance_id": "a"}).json()["error_codes"], {"0": 0, "1": 0})
    reply = controller.post("/clear", {"instance_id": "a", "location": DISK})
    assert (reply.status_code, reply.json()["num_tokens"]) == (200, 0), "a late answer is not taken for this command's"


def test_an_engine_that_sleeps_12_seconds_is_waited_for_and_holds_up_nobody(controller, pair, fleet):
    workers, _ = pair
    fleet.start(controller, "b")
    workers[0].behave("clear", answer=3)
    workers[1].behave("clear", sleep_s=12, answer=3)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        begun = time.monotonic()
        slow = pool.submit(controller.post, "/clear", {"instance_id": "a", "location": CPU})
        eventually(lambda: len(controller.get("/events?state=running").json()["events"]), 1)
        n_others = 0
        while not slow.done():
            at = time.monotonic()
            assert controller.post("/clear", {"instance_id": "b", "location": CPU}).status_code == 200
            assert controller.post("/health", {"instance_id": "b"}).json()["error_codes"] == {"0": 0}
            assert time.monotonic() - at < 8, "another instance's commands wait for the sleeper"
            n_others += 1
        reply = slow.result()
    assert (reply.status_code, reply.json()["num_tokens"]) == (200, 3), "30 s is the default deadline"
    assert time.monotonic() - begun >= 12 and n_others >= 3


def test_a_dead_worker_and_its_return_on_the_same_port(controller, fleet):
    worker = fleet.start(controller, "a")
    fleet.start(controller, "b")
    worker.kill()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        begun = time.monotonic()
        dead = pool.submit(lambda: (controller.post("/clear?timeout_s=2", {"instance_id": "a", "location": CPU}), time.monotonic() - begun))
        eventually(lambda: len(controller.get("/events?state=running").json()["events"]), 1)
        assert controller.post("/clear", {"instance_id": "b", "location": CPU}).status_code == 200
        assert not dead.done(), "the other instance's command was not held up"
        reply, took = dead.result()
    assert reply.status_code == 504 and "a:0" in reply.json()["detail"]
    assert 2 <= took < 10, "within its deadline, on a loaded machine"

    back = fleet.start(controller, "a", port=worker.port, wait=False)
    assert back.read_answer() == "open"
    eventually(lambda: back.ask("heartbeat_url"))
    reply = controller.post("/clear?timeout_s=10", {"instance_id": "a", "location": CPU})
    assert (reply.status_code, reply.json()["num_tokens"]) == (200, 0)


def test_a_command_to_a_worker_that_is_late_is_obeyed_when_it_comes(controller, fleet):
    worker = fleet.start(controller, "a")
    worker.kill()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        early = pool.submit(controller.post, "/clear?timeout_s=60", {"instance_id": "a", "location": CPU})
        eventually(lambda: len(controller.get("/events?state=running").json()["events"]), 1)
        back = fleet.start(controller, "a", port=worker.port, wait=False)
        assert back.read_answer() == "open"
        reply = early.result()
    assert (reply.status_code, reply.json()["num_tokens"]) == (200, 0)
    assert back.calls("clear") == [{"call": "clear", "locations": [CPU]}]


def test_an_event_is_followed_while_an_engine_takes_its_time(controller, pair):
    workers, _ = pair
    workers[1].behave("clear", sleep_s=2, answer=5)
    workers[0].behave("clear", answer=5)
    reply = controller.post("/clear?wait=false", {"instance_id": "a", "location": CPU})
    assert reply.status_code == 202
    event_id = reply.json()["event_id"]
    status = lambda: controller.post("/check_finish", {"event_id": event_id}).json()["status"]
    steps = lambda: [step["state"] for step in controller.get(f"/events/{event_id}").json()["steps"]]
    assert status() == "running"
    eventually(steps, ["finished", "running"])
    eventually(status, "finished")
    event = controller.get(f"/events/{event_id}").json()
    assert event["num_tokens"] == 5 and event["steps"][1]["duration"] >= 2 > event["steps"][0]["duration"]


def test_move_without_peer_urls_is_refused(controller, fleet, pair):
    fleet.start(controller, "c", 0, world_size=2), fleet.start(controller, "c", 1, world_size=2)
    reply = controller.post("/move", {"old_position": ["a", CPU], "new_position": ["c", CPU], "tokens": [1]})
    assert reply.status_code == 409 and reply.json()["detail"]


def test_check_finish_knows_the_event(controller, pair):
    event_id = controller.post("/clear", {"instance_id": "a", "location": CPU}).json()["event_id"]
    reply = controller.post("/check_finish", {"event_id": event_id})
    assert (reply.status_code, reply.json()) == (200, {"status": "finished"})
    unknown = controller.post("/check_finish", {"event_id": "Clear-nothing"})
    assert unknown.status_code == 404 and unknown.json()["detail"]
