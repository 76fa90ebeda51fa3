"""`kvatlas worker`, our library and simulated engine, under LMCache's own controller and under ours: one file drives both."""

import json
import signal
import subprocess

import pytest
import yaml

from harness.controllers import clean_environment, kvatlas_command
from harness.eventually import eventually
from harness.ports import free_ports
from harness.prompts import CHUNK
from harness.raw_peer import CPU, DISK

CPU_CHUNKS, DISK_CHUNKS = 40, 90
RANKS = 2


class SimulatedWorkers:
    """`kvatlas worker` processes, one an instance of two ranks, and the prompt they all hold."""

    def __init__(self, directory):
        self.directory = directory
        self.processes = {}
        self.tokens = None

    def config(self, controller, instance):
        """A worker file as LMCache documents it."""
        ports = free_ports(2 * RANKS)
        path = self.directory / f"{instance}.yaml"
        path.write_text(yaml.safe_dump({
            "chunk_size": CHUNK,
            "local_cpu": True,
            "enable_controller": True,
            "lmcache_instance_id": instance,
            "controller_pull_url": f"127.0.0.1:{controller.ports.pull}",
            "controller_reply_url": f"127.0.0.1:{controller.ports.reply}",
            "lmcache_worker_ports": ports[:RANKS],
            "lmcache_worker_heartbeat_time": 1,
            "lmcache_worker_heartbeat_delay_time": 0,
            "enable_p2p": True,
            "p2p_host": "127.0.0.1",
            "p2p_init_ports": ports[RANKS:],
            "p2p_lookup_ports": ports[RANKS:],
            "transfer_channel": "nixl",
            "extra_config": {"full_sync_startup_delay_s": 0.1, "full_sync_status_poll_interval_s": 0.3},
        }))
        return path

    def start(self, controller, instance, *, config=None, seed=5):
        config = config or self.config(controller, instance)
        prompt = self.directory / "prompt.json"
        with (self.directory / f"{instance}.log").open("ab") as sink:
            self.processes[instance] = subprocess.Popen(
                kvatlas_command(
                    "worker", "--config", str(config), "--seed", str(seed), "--warm-up", "40", "--requests-per-second", "0",
                    "--cpu-chunks", str(CPU_CHUNKS), "--disk-chunks", str(DISK_CHUNKS), "--write-prompt", str(prompt),
                ),
                stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
                env={k: v for k, v in clean_environment().items() if not k.startswith("LMCACHE_")},
            )
        eventually(lambda: [controller.key_count(instance, rank) for rank in range(RANKS)], [CPU_CHUNKS + DISK_CHUNKS] * RANKS)
        tokens = json.loads(prompt.read_text())["tokens"]
        self.tokens = tokens[: len(tokens) // CHUNK * CHUNK]

    def lines(self, instance):
        return (self.directory / f"{instance}.log").read_text(errors="replace").splitlines()

    def is_warm(self, instance):
        """Whether all requests of the warm-up are served."""
        return any("warm-up done" in line for line in self.lines(instance))

    def is_settled(self, instance, rank):
        """Whether every sync that this worker was asked for is complete in every location."""
        mine = [line for line in self.lines(instance) if f"worker={instance}:{rank} " in line]
        asked = max((at for at, line in enumerate(mine) if "full sync asked" in line), default=-1)
        since = [line for line in mine[asked + 1 :] if "full sync complete" in line]
        return asked < 0 or all(any(f"location={location}" in line for line in since) for location in (CPU, DISK))

    def stop(self, instance, how=signal.SIGTERM):
        process = self.processes.pop(instance)
        process.send_signal(how)
        try:
            return process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(15)

    def close(self):
        for instance in list(self.processes):
            self.stop(instance, signal.SIGKILL)


@pytest.fixture
def simulated(tmp_path):
    opened = SimulatedWorkers(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(params=["upstream", "kvatlas"])
def either(request, launcher):
    return launcher.start(request.param)


def test_registers_is_found_and_says_goodbye(either, simulated):
    simulated.start(either, "sim-a")
    worker = either.worker("sim-a", 1)
    assert worker["peer_init_url"].startswith("127.0.0.1:")
    first = worker["last_heartbeat_time"]
    eventually(lambda: either.worker("sim-a", 1)["last_heartbeat_time"] > first)
    [(instance, location, found)] = either.lookup(simulated.tokens)
    assert (instance, found) == ("sim-a", len(simulated.tokens)) and location in (CPU, DISK)
    assert either.metric("lmcache:cache_controller_kv_op_seq_discontinuity_count") == 0
    assert simulated.stop("sim-a") == 0
    eventually(lambda: either.worker("sim-a", 0) is None)
    assert either.lookup(simulated.tokens) == []


def command(controller, path, **body):
    reply = controller.post(path, body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_obeys_every_command(either, simulated):
    simulated.start(either, "sim-a")
    tokens, whole = simulated.tokens, len(simulated.tokens)
    assert command(either, "/health", instance_id="sim-a")["error_codes"] == {"0": 0, "1": 0}
    where = {"instance_id": "sim-a", "location": DISK, "tokens": tokens}
    assert command(either, "/pin", **where)["num_tokens"] == whole
    assert command(either, "/compress", method="cachegen", **where)["num_tokens"] == whole
    assert command(either, "/decompress", method="cachegen", **where)["num_tokens"] == whole
    cleared = command(either, "/clear", instance_id="sim-a", location=CPU)["num_tokens"]
    assert cleared == CPU_CHUNKS * CHUNK
    eventually(lambda: [either.key_count("sim-a", rank) for rank in range(RANKS)], [DISK_CHUNKS] * RANKS)
    # A pin outlasts clear.
    cleared = command(either, "/clear", instance_id="sim-a", location=DISK)["num_tokens"]
    assert cleared == DISK_CHUNKS * CHUNK - whole
    eventually(lambda: either.lookup(tokens), [("sim-a", DISK, whole)])


def test_move_really_copies_chunks(either, simulated):
    simulated.start(either, "sim-a")
    simulated.start(either, "sim-b", seed=6)
    simulated.start(either, "sim-a2")  # the same seed again, only for its prompt
    simulated.stop("sim-a2")
    eventually(lambda: either.worker("sim-a2", 0) is None)
    tokens, whole = simulated.tokens, len(simulated.tokens)
    for location in (CPU, DISK):
        command(either, "/clear", instance_id="sim-b", location=location)
    eventually(lambda: either.key_count("sim-b", 1), 0)
    moved = command(either, "/move", old_position=["sim-a", DISK], new_position=["sim-b", CPU], tokens=tokens, should_copy=True)
    assert moved["num_tokens"] == whole
    eventually(lambda: [either.key_count("sim-b", rank) for rank in range(RANKS)], [whole // CHUNK] * RANKS)
    assert either.key_count("sim-a", 0) == CPU_CHUNKS + DISK_CHUNKS, "a copy leaves the source alone"
    for location in (CPU, DISK):
        command(either, "/clear", instance_id="sim-a", location=location)
    eventually(lambda: either.lookup(tokens), [("sim-b", CPU, whole)])
    back = command(either, "/move", old_position=["sim-b", CPU], new_position=["sim-a", CPU], tokens=tokens, should_copy=False)
    assert back["num_tokens"] == whole
    eventually(lambda: either.lookup(tokens), [("sim-a", CPU, whole)])


@pytest.mark.parametrize("is_settled", [True, False])
@pytest.mark.parametrize("name", ["upstream", "kvatlas"])
def test_full_sync_of_every_location_after_the_controller_restarts(name, is_settled, launcher, simulated):
    first = launcher.start(name)
    simulated.start(first, "sim-a")
    simulated.start(first, "sim-b", seed=6)
    # LMCache's controller has asked them to sync as they came, so some may be in the middle of it, and
    # asks only once more after the restart: what is lost with it the workers begin anew themselves.
    if is_settled:
        eventually(lambda: all(simulated.is_settled(instance, rank) for instance in ("sim-a", "sim-b") for rank in range(RANKS)))
    expected = {(i, r): CPU_CHUNKS + DISK_CHUNKS for i in ("sim-a", "sim-b") for r in range(RANKS)}
    first.stop(signal.SIGKILL)
    second = launcher.start(name, ports=first.ports)
    eventually(lambda: {who: second.key_count(*who) for who in expected}, expected, deadline_s=40)
    # The warm-up stands still while the engine is frozen: only at its end is the prompt held for certain.
    eventually(lambda: simulated.is_warm("sim-a") and simulated.is_warm("sim-b"), deadline_s=40)
    # LMCache's controller forgets a location while it is told anew, and some are told twice.
    eventually(lambda: [found for *_, found in second.lookup(simulated.tokens)][:1], [len(simulated.tokens)])
    # It obeys the new controller too, and its stream goes on.
    assert command(second, "/clear", instance_id="sim-b", location=CPU)["num_tokens"] == CPU_CHUNKS * CHUNK
    eventually(lambda: second.key_count("sim-b", 1), DISK_CHUNKS)


def test_waits_for_its_controller(launcher, simulated, tmp_path):
    first = launcher.start("upstream")
    config = simulated.config(first, "sim-a")
    first.stop()
    process = subprocess.Popen(
        kvatlas_command("worker", "--config", str(config), "--seed", "5", "--warm-up", "10", "--requests-per-second", "0"),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )
    simulated.processes["sim-a"] = process
    second = launcher.start("upstream", ports=first.ports)
    eventually(lambda: (second.key_count("sim-a", 1) or 0) > 0)


def test_lmcache_reads_the_same_file(simulated):
    from lmcache.v1.config import LMCacheEngineConfig

    class Anywhere:
        class ports:
            pull, reply = 8300, 8400

    config = LMCacheEngineConfig.from_file(str(simulated.config(Anywhere, "sim-a")))
    assert (config.enable_controller, config.lmcache_instance_id) == (True, "sim-a")
    assert len(config.lmcache_worker_ports) == RANKS
