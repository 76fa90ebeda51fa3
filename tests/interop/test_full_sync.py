"""Full sync: rebuilding the index from the workers (COMPAT.md D20 to D25)."""

import signal

import pytest
from lmcache.v1.cache_controller.message import FullSyncBatchMsg, FullSyncEndMsg, FullSyncStartMsg, FullSyncStatusMsg

from harness.eventually import eventually
from harness.prompts import CHUNK, chunk_hashes, prompt
from harness.raw_peer import CPU, DISK

PREFIX = "lmcache:cache_controller_"
TOKENS = prompt(1, 6 * CHUNK)
HASHES = chunk_hashes(TOKENS)


class Sync:
    """One full-sync session, step by step."""

    def __init__(self, peer, sync_id="s1", location=CPU):
        self.peer, self.sync_id, self.location = peer, sync_id, location

    def start(self, n_keys, n_batches):
        p = self.peer
        return p.request(FullSyncStartMsg(p.instance, p.rank, self.location, self.sync_id, n_keys, n_batches))

    def batch(self, batch_id, keys):
        p = self.peer
        p.push(FullSyncBatchMsg(p.instance, p.rank, self.location, self.sync_id, batch_id, list(keys)))

    def end(self, n_keys):
        p = self.peer
        p.push(FullSyncEndMsg(p.instance, p.rank, self.location, self.sync_id, n_keys))

    def status(self):
        p = self.peer
        return p.request(FullSyncStatusMsg(p.instance, p.rank, self.sync_id))


@pytest.fixture
def a(controller, peer):
    opened = peer(controller, "a")
    opened.register()
    return opened


def test_a_whole_sync(controller, a):
    sync = Sync(a)
    reply = sync.start(6, 3)
    assert (reply.sync_id, reply.accepted, reply.error_msg) == ("s1", True, None)
    assert controller.metric(PREFIX + "full_sync_workers_syncing") == 1
    for batch_id in range(3):
        sync.batch(batch_id, HASHES[2 * batch_id : 2 * batch_id + 2])
    sync.end(6)
    a.fence()
    status = sync.status()
    assert (status.is_complete, status.can_exit_freeze, status.missing_batches) == (True, True, [])
    assert status.global_progress == 1.0
    assert controller.lookup(TOKENS) == [("a", CPU, 6 * CHUNK)]
    assert controller.key_count("a", 0) == 6
    assert controller.metric(PREFIX + "full_sync_workers_syncing") == 0
    assert controller.metric(PREFIX + "full_sync_workers_completed") == 1


def test_a_lost_batch_is_asked_for_and_completes_the_sync(controller, a):
    sync = Sync(a)
    sync.start(6, 3)
    sync.batch(0, HASHES[:2])
    sync.batch(2, HASHES[4:])
    sync.end(6)
    a.fence()
    status = sync.status()
    assert (status.is_complete, status.can_exit_freeze, status.missing_batches) == (False, False, [1])
    assert controller.metric(PREFIX + "full_sync_missing_batches_total") == 1

    sync.batch(1, HASHES[2:4])
    a.fence()
    status = sync.status()
    assert (status.is_complete, status.can_exit_freeze, status.missing_batches) == (True, True, [])
    assert controller.lookup(TOKENS) == [("a", CPU, 6 * CHUNK)]


def test_a_repeated_batch_is_harmless(controller, a):
    sync = Sync(a)
    sync.start(4, 2)
    for batch_id in (0, 0, 1, 0, 1):
        sync.batch(batch_id, HASHES[2 * batch_id : 2 * batch_id + 2])
    sync.end(4)
    sync.batch(1, HASHES[2:4])
    a.fence()
    assert sync.status().is_complete
    assert controller.key_count("a", 0) == 4


def test_a_second_sync_id_is_refused_while_one_runs(a):
    assert Sync(a, "first").start(2, 1).accepted
    refused = Sync(a, "second").start(2, 1)
    assert not refused.accepted and refused.error_msg
    assert Sync(a, "first").start(2, 1).accepted, "the same id may be sent again"
    assert not Sync(a, "second").status().is_complete


def test_unknown_workers_are_refused(controller, peer):
    reply = Sync(peer(controller, "nobody")).start(1, 1)
    assert not reply.accepted and reply.error_msg


def test_old_keys_stay_visible_until_the_new_set_is_complete(controller, a):
    a.admit(HASHES[:2])
    a.admit([777], DISK)
    a.fence()
    sync = Sync(a)
    sync.start(3, 2)
    sync.batch(0, [HASHES[0], HASHES[5]])
    a.fence()
    assert controller.lookup(TOKENS) == [("a", CPU, 2 * CHUNK)]
    sync.batch(1, [HASHES[4]])
    sync.end(3)
    a.fence()
    assert sync.status().is_complete
    assert controller.lookup(TOKENS) == [("a", CPU, CHUNK)]
    assert controller.key_count("a", 0) == 3 + 1, "the disk location is untouched"


def test_batches_show_as_they_arrive_where_nothing_was_known(controller, a):
    sync = Sync(a)
    sync.start(4, 2)
    sync.batch(0, HASHES[:2])
    a.fence()
    assert controller.lookup(TOKENS) == [("a", CPU, 2 * CHUNK)]


def test_operations_during_a_sync_count(controller, a):
    a.admit(HASHES[:1])
    a.fence()
    sync = Sync(a)
    sync.start(4, 2)
    sync.batch(0, HASHES[:2])
    a.admit(HASHES[4:5])
    a.evict(HASHES[3:4])
    sync.batch(1, HASHES[2:4])
    sync.end(4)
    a.fence()
    assert sync.status().is_complete
    assert controller.key_count("a", 0) == 4, "batches 0 and 1 without the evicted key, plus the admitted one"
    assert controller.lookup(TOKENS) == [("a", CPU, 3 * CHUNK)]
    a.admit(HASHES[3:4])
    a.fence()
    assert controller.lookup(TOKENS) == [("a", CPU, 5 * CHUNK)]
    assert controller.metric(PREFIX + "kv_op_seq_discontinuity_count") == 0


def test_registering_again_ends_an_abandoned_sync(controller, a):
    Sync(a, "abandoned").start(4, 2)
    a.register()
    sync = Sync(a, "fresh")
    assert sync.start(2, 1).accepted
    sync.batch(0, HASHES[:2])
    Sync(a, "abandoned").batch(1, [5, 6])
    sync.end(2)
    a.fence()
    assert sync.status().is_complete
    assert controller.key_count("a", 0) == 2


def test_an_idle_sync_fails_and_is_asked_for_again(launcher, peer):
    controller = launcher.start("kvatlas", "full_sync_timeout_s=1")
    a = peer(controller, "a")
    a.register()
    assert Sync(a, "abandoned").start(4, 2).accepted
    eventually(lambda: [command.reason for command in a.heartbeat().commands], ["sync_failed_retry"])
    assert Sync(a, "fresh").start(2, 1).accepted


def test_the_command_is_repeated_until_the_worker_obeys(controller, peer):
    a = peer(controller, "a")
    for _ in range(3):
        assert [command.reason for command in a.heartbeat().commands] == ["worker_re_registered"]
    sync = Sync(a)
    sync.start(1, 1)
    assert a.heartbeat().commands == []
    sync.batch(0, [1])
    sync.end(1)
    a.fence()
    assert sync.status().is_complete
    assert a.heartbeat().commands == []


def test_freeze_is_lifted_for_all_at_the_threshold(controller, peer):
    peers = [peer(controller, f"w{n}") for n in range(5)]
    for each in peers:
        each.register()
    syncs = [Sync(each, f"s{n}") for n, each in enumerate(peers)]
    for sync in syncs:
        sync.start(1, 1)
    assert not syncs[4].status().can_exit_freeze
    for n, sync in enumerate(syncs[:4]):
        sync.batch(0, [n])
        sync.end(1)
        eventually(lambda sync=sync: sync.status().is_complete)
    status = syncs[4].status()
    assert (status.is_complete, status.global_progress, status.can_exit_freeze) == (False, 0.8, True)


@pytest.mark.parametrize("signal_sent", [signal.SIGKILL, signal.SIGTERM])
def test_real_workers_after_a_controller_restart(launcher, fleet, signal_sent):
    controller = launcher.start("kvatlas")
    patience = {"worker_socket_recv_timeout_ms": 5000}  # a heartbeat in flight when the controller dies waits that long
    first = fleet.start(controller, "engine-a", 0, world_size=2, extra=patience)
    second = fleet.start(controller, "engine-a", 1, world_size=2, extra=patience)
    tokens = prompt(2, 130 * CHUNK)
    for worker in (first, second):
        worker.store(tokens)
    eventually(lambda: controller.lookup(tokens), [("engine-a", CPU, 130 * CHUNK)])
    controller.stop(signal_sent)

    first.store(tokens[:CHUNK] + prompt(3, 2 * CHUNK))
    again = launcher.start("kvatlas", ports=controller.ports)
    eventually(lambda: again.lookup(tokens), [("engine-a", CPU, 130 * CHUNK)], deadline_s=30)
    eventually(lambda: [again.key_count("engine-a", rank) for rank in (0, 1)], [132, 130], deadline_s=30)
    for worker in (first, second):
        eventually(lambda w=worker: (w.calls("freeze") or [{"enabled": False}])[-1]["enabled"] is False)
    first.store(prompt(4, CHUNK))
    eventually(lambda: again.key_count("engine-a", 0), 133)


@pytest.mark.parametrize("signal_sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_with_state_is_not_noticed_by_real_workers(launcher, fleet, tmp_path, signal_sent):
    kept = ["--no-state=false", f"--state-dir={tmp_path / 'state'}", "--full-sync-jitter-s=0", "--restart-grace-s=600"]
    controller = launcher.start("kvatlas", *kept)
    patience = {"worker_socket_recv_timeout_ms": 5000}
    worker = fleet.start(controller, "engine-a", extra=patience)
    tokens = prompt(2, 130 * CHUNK)
    on_disk = prompt(5, 4 * CHUNK)
    worker.store(tokens)
    worker.store(tokens[: 5 * CHUNK], DISK)
    worker.store(on_disk, DISK)
    eventually(lambda: controller.key_count("engine-a", 0), 139)
    eventually(lambda: controller.get("/sync").json()["persistence"]["records_unsaved"], 0)
    controller.stop(signal_sent)

    again = launcher.start("kvatlas", *kept, ports=controller.ports)
    assert again.lookup(tokens) == [("engine-a", CPU, 130 * CHUNK)]
    assert again.lookup(on_disk) == [("engine-a", DISK, 4 * CHUNK)]
    # Commands find their way at once: the address is from the disk, the link is opened anew.
    assert again.post("/health", {"instance_id": "engine-a"}).json()["error_codes"] == {"0": 0}
    pinned = again.post("/pin", {"instance_id": "engine-a", "location": CPU, "tokens": tokens[: 3 * CHUNK]})
    assert pinned.json()["num_tokens"] == 3 * CHUNK
    restored = again.get("/sync").json()
    assert restored["persistence"]["restored"]["clean"] == (signal_sent == signal.SIGTERM)
    worker.store(prompt(3, CHUNK))
    worker.store(prompt(4, CHUNK), DISK)
    eventually(lambda: {row["state"] for row in again.get("/sync").json()["workers"][0]["locations"]}, {"in sync"}, deadline_s=30)
    assert again.key_count("engine-a", 0) == 141 == len(worker.held(CPU)) + len(worker.held(DISK))
    assert worker.calls("freeze") == []


@pytest.mark.parametrize("signal_sent", [signal.SIGKILL, signal.SIGTERM])
def test_after_a_restart_without_state_a_real_worker_lists_what_its_version_lists(launcher, fleet, signal_sent):
    controller = launcher.start("kvatlas")
    worker = fleet.start(controller, "engine-a", extra={"worker_socket_recv_timeout_ms": 5000})
    worker.store(TOKENS)
    on_disk = prompt(5, 4 * CHUNK)
    worker.store(on_disk, DISK)
    eventually(lambda: controller.lookup(on_disk), [("engine-a", DISK, 4 * CHUNK)])
    controller.stop(signal_sent)
    again = launcher.start("kvatlas", "--full-sync-jitter-s=0", "--gap-sync-interval-s=0", ports=controller.ports)
    eventually(lambda: again.lookup(TOKENS), [("engine-a", CPU, 6 * CHUNK)], deadline_s=30)
    # LMCache 0.5.6 lists its CPU tier only; what the disk tier reports from now on counts.
    more = prompt(6, 2 * CHUNK)
    worker.store(more, DISK)
    eventually(lambda: again.lookup(more), [("engine-a", DISK, 2 * CHUNK)])
    assert again.lookup(on_disk) == []
    # It is asked for the rest, cannot list it, and that is shown instead of asked for ever.
    states = lambda: {row["location"]: row["state"] for row in again.get("/sync").json()["workers"][0]["locations"]}
    eventually(states, {CPU: "in sync", DISK: "unrepairable"}, deadline_s=30)
    assert again.key_count("engine-a", 0) == len(worker.held(CPU)) + 2
    eventually(lambda: [call["enabled"] for call in worker.calls("freeze")][-1:], [False])
    assert len(worker.calls("freeze")) == 2 * 2, "one sync of everything, one for the disk"


def test_lost_reports_of_a_real_worker_are_mended(controller, fleet):
    worker = fleet.start(controller, "engine-a")
    worker.store(TOKENS[: 2 * CHUNK])
    worker.store(TOKENS, DISK)
    eventually(lambda: controller.key_count("engine-a", 0), 2 + 6)
    worker.store_unreported(TOKENS[: 4 * CHUNK])
    worker.evict(HASHES, DISK)
    eventually(lambda: controller.lookup(TOKENS), [("engine-a", CPU, 2 * CHUNK)])
    assert worker.calls("freeze") == []

    worker.store(TOKENS[: 5 * CHUNK])
    eventually(lambda: controller.lookup(TOKENS), [("engine-a", CPU, 5 * CHUNK)])
    assert controller.metric(PREFIX + "kv_op_seq_discontinuity_count") == 1
    eventually(lambda: [call["enabled"] for call in worker.calls("freeze")], [True, False])
    assert controller.key_count("engine-a", 0) == 5
