"""POST /lookup: who is credited with how much (COMPAT.md D12)."""

from lmcache.v1.cache_controller.message import OpType

from harness.prompts import CHUNK, chunk_hashes, prompt
from harness.raw_peer import CPU, DISK


def registered(peer, controller, *instances):
    peers = [peer(controller, *instance) if isinstance(instance, tuple) else peer(controller, instance) for instance in instances]
    for each in peers:
        each.register()
    return peers


def test_two_holders_with_holes(controller, peer):
    a, b = registered(peer, controller, "a", "b")
    tokens = prompt(1, 3 * CHUNK)
    hashes = chunk_hashes(tokens)
    a.admit([hashes[0], hashes[2]])
    b.admit(hashes[:2])
    a.fence(), b.fence()
    assert controller.lookup(tokens) == [("b", CPU, 2 * CHUNK), ("a", CPU, CHUNK)]


def test_longest_first_and_ties_in_registration_order(controller, peer):
    z, y, x, w = registered(peer, controller, "z", "y", "x", "w")
    tokens = prompt(2, 4 * CHUNK)
    hashes = chunk_hashes(tokens)
    for each, n in ((w, 2), (x, 4), (y, 2), (z, 2)):
        each.admit(hashes[:n])
        each.fence()
    assert controller.lookup(tokens) == [
        ("x", CPU, 4 * CHUNK), ("z", CPU, 2 * CHUNK), ("y", CPU, 2 * CHUNK), ("w", CPU, 2 * CHUNK),
    ]


def test_nobody_is_credited_beyond_a_missing_first_chunk(controller, peer):
    (a,) = registered(peer, controller, "a")
    tokens = prompt(3, 3 * CHUNK)
    a.admit(chunk_hashes(tokens)[1:])
    a.fence()
    assert controller.lookup(tokens) == []


def test_location_is_that_of_the_last_credited_chunk(controller, peer):
    (a,) = registered(peer, controller, "a")
    tokens = prompt(4, 4 * CHUNK)
    hashes = chunk_hashes(tokens)
    a.admit(hashes[:2], CPU)
    a.admit(hashes[2:3], DISK)
    a.fence()
    assert controller.lookup(tokens) == [("a", DISK, 3 * CHUNK)]
    assert controller.lookup(tokens[: 2 * CHUNK]) == [("a", CPU, 2 * CHUNK)]


def test_same_chunk_in_two_locations_survives_one_eviction(controller, peer):
    (a,) = registered(peer, controller, "a")
    tokens = prompt(5, 2 * CHUNK)
    hashes = chunk_hashes(tokens)
    a.admit(hashes, CPU)
    a.admit(hashes, DISK)
    a.fence()
    assert controller.key_count("a", 0) == 4
    a.evict(hashes, CPU)
    a.fence()
    assert controller.lookup(tokens) == [("a", DISK, 2 * CHUNK)]
    a.evict(hashes, DISK)
    a.fence()
    assert controller.lookup(tokens) == []
    assert controller.key_count("a", 0) == 0


def test_ranks_that_differ_credit_what_all_reporting_ranks_hold(controller, peer):
    first, second, silent = registered(peer, controller, ("a", 0), ("a", 1), ("a", 2))
    tokens = prompt(6, 4 * CHUNK)
    hashes = chunk_hashes(tokens)
    first.admit(hashes)
    second.admit(hashes[:3])
    first.fence(), second.fence()
    assert controller.lookup(tokens) == [("a", CPU, 3 * CHUNK)]

    silent.admit(hashes[:1])
    silent.fence()
    assert controller.lookup(tokens) == [("a", CPU, CHUNK)]


def test_admit_and_evict_are_idempotent(controller, peer):
    (a,) = registered(peer, controller, "a")
    tokens = prompt(7, CHUNK)
    hashes = chunk_hashes(tokens)
    a.evict(hashes)
    a.admit(hashes)
    a.admit(hashes)
    a.fence()
    assert controller.key_count("a", 0) == 1
    a.evict(hashes)
    a.evict(hashes)
    a.fence()
    assert controller.key_count("a", 0) == 0


def test_order_within_one_batch_is_kept(controller, peer):
    (a,) = registered(peer, controller, "a")
    a.push(a.batch([(OpType.ADMIT, 1), (OpType.EVICT, 1), (OpType.ADMIT, 2), (OpType.EVICT, 2), (OpType.ADMIT, 2)]))
    a.fence()
    assert controller.key_count("a", 0) == 1


def test_signed_and_unsigned_keys(controller, peer):
    holder, asker = peer(controller, "a", peer_url="10.0.0.1:1"), peer(controller, "b")
    holder.register(), asker.register()
    for key in (-1, -(2**63), 2**63 - 1, 0, 1 << 40, -(1 << 40)):
        holder.admit([key])
    for key in (2**64 - 7, 2**63 + 11, 2**63 + (1 << 50)):
        holder.admit([key])
    holder.fence()
    assert controller.key_count("a", 0) == 9
    for key in (-1, -(2**63), 2**63 - 1, 0, 1 << 40, -(1 << 40), 2**64 - 7, 2**63 + 11, 2**63 + (1 << 50)):
        assert asker.peer_lookup([key])[0] == ("a", CPU, 1, "10.0.0.1:1"), key
    assert asker.peer_lookup([1]) == [("", "", 0, "")]


def test_prompt_of_131072_tokens(controller, peer):
    whole, half = registered(peer, controller, "whole", "half")
    tokens = prompt(8, 131_072)
    hashes = chunk_hashes(tokens)
    assert len(hashes) == 512 and min(hashes) < 0 < max(hashes)
    whole.admit(hashes)
    half.admit(hashes[:256])
    whole.fence(), half.fence()
    assert controller.lookup(tokens) == [("whole", CPU, 131_072), ("half", CPU, 65_536)]
    whole.evict(hashes[100:101])
    whole.fence()
    assert controller.lookup(tokens) == [("half", CPU, 65_536), ("whole", CPU, 25_600)]


def test_empty_prompt(controller, peer):
    (a,) = registered(peer, controller, "a")
    a.admit([0])
    a.fence()
    assert controller.lookup([]) == []


def test_keys_of_unregistered_workers_are_not_indexed(controller, peer):
    a = peer(controller, "a")
    tokens = prompt(9, CHUNK)
    a.admit(chunk_hashes(tokens))
    a.fence()
    assert controller.lookup(tokens) == []
    assert controller.worker("a", 0) is None
