"""BatchedP2PLookupMsg: whom an engine should fetch from (COMPAT.md D13)."""

from harness.raw_peer import CPU, DISK

MISS = [("", "", 0, "")]
KEYS = [11, -22, 33, 44]


def test_best_run_first(controller, peer):
    short, long, asker = (peer(controller, name, peer_url=f"{name}:1") for name in ("short", "long", "asker"))
    for each in (short, long, asker):
        each.register()
    short.admit(KEYS[:1])
    long.admit(KEYS[:3])
    short.fence(), long.fence()
    answer = asker.peer_lookup(KEYS)
    assert answer[0] == ("long", CPU, 3, "long:1")
    assert answer[1:] in ([], [("short", CPU, 1, "short:1")])


def test_holes_end_a_run(controller, peer):
    holder, asker = peer(controller, "holder", peer_url="h:1"), peer(controller, "asker")
    holder.register(), asker.register()
    holder.admit([KEYS[0], KEYS[2]])
    holder.fence()
    assert asker.peer_lookup(KEYS) == [("holder", CPU, 1, "h:1")]
    assert asker.peer_lookup(KEYS[1:]) == MISS


def test_holders_without_a_peer_url_are_left_out(controller, peer):
    mute, holder, asker = peer(controller, "mute"), peer(controller, "holder", peer_url="h:1"), peer(controller, "asker")
    for each in (mute, holder, asker):
        each.register()
    mute.admit(KEYS)
    holder.admit(KEYS[:2])
    mute.fence(), holder.fence()
    assert asker.peer_lookup(KEYS) == [("holder", CPU, 2, "h:1")]


def test_own_instance_is_excluded(controller, peer):
    mine, other_rank = peer(controller, "a", 0, peer_url="a0:1"), peer(controller, "a", 1, peer_url="a1:1")
    mine.register(), other_rank.register()
    mine.admit(KEYS), other_rank.admit(KEYS)
    mine.fence(), other_rank.fence()
    assert mine.peer_lookup(KEYS) == MISS
    assert other_rank.peer_lookup(KEYS) == MISS


def test_the_askers_rank_is_preferred(controller, peer):
    ranks = [peer(controller, "tp", rank, peer_url=f"tp{rank}:1") for rank in range(2)]
    askers = [peer(controller, "asker", rank, peer_url=f"asker{rank}:1") for rank in range(2)]
    for each in ranks + askers:
        each.register()
    for each in ranks:
        each.admit(KEYS)
        each.fence()
    for rank, asker in enumerate(askers):
        assert asker.peer_lookup(KEYS)[0] == ("tp", CPU, 4, f"tp{rank}:1")


def test_another_rank_answers_where_the_askers_rank_holds_nothing(controller, peer):
    holder, empty = peer(controller, "tp", 0, peer_url="tp0:1"), peer(controller, "tp", 1, peer_url="tp1:1")
    asker = peer(controller, "asker", 1)
    for each in (holder, empty, asker):
        each.register()
    holder.admit(KEYS)
    holder.fence()
    assert asker.peer_lookup(KEYS)[0] == ("tp", CPU, 4, "tp0:1")


def test_location_is_told(controller, peer):
    holder, asker = peer(controller, "holder", peer_url="h:1"), peer(controller, "asker")
    holder.register(), asker.register()
    holder.admit(KEYS, DISK)
    holder.fence()
    assert asker.peer_lookup(KEYS) == [("holder", DISK, 4, "h:1")]


def test_a_run_stays_in_one_location(controller, peer):
    """A peer serves LocalCPUBackend only, and the answer has room for one location."""
    holder, asker = peer(controller, "holder", peer_url="h:1"), peer(controller, "asker")
    holder.register(), asker.register()
    holder.admit(KEYS[:2], CPU)
    holder.admit(KEYS[2:], DISK)
    holder.fence()
    assert asker.peer_lookup(KEYS) == [("holder", CPU, 2, "h:1")]


def test_no_hashes_and_unknown_askers(controller, peer):
    holder, stranger = peer(controller, "holder", peer_url="h:1"), peer(controller, "stranger")
    holder.register()
    holder.admit(KEYS)
    holder.fence()
    assert stranger.peer_lookup([]) == MISS
    assert stranger.peer_lookup([99]) == MISS
    assert stranger.peer_lookup(KEYS) == [("holder", CPU, 4, "h:1")]
