"""`kvatlas worker`, the simulated engine over our worker library, under LMCache's own controller and under ours."""

import signal
import subprocess

import pytest
import yaml

from harness.controllers import clean_environment, kvatlas_command
from harness.eventually import eventually
from harness.raw_peer import CPU

WARM_UP = 20


@pytest.fixture
def start_worker(tmp_path):
    """Starts `kvatlas worker` with two ranks, a fixed seed and LMCache's own YAML; ends it after the test."""
    started = []

    def start(controller, heartbeat_delay_s=0, instance="sim"):
        path = tmp_path / f"worker-{len(started)}.yaml"
        settings = {
            "enable_controller": True,
            "lmcache_instance_id": instance,
            "controller_pull_url": f"127.0.0.1:{controller.ports.pull}",
            "controller_reply_url": f"127.0.0.1:{controller.ports.reply}",
            "lmcache_worker_ports": [0, 0],
            "lmcache_worker_heartbeat_time": 1,
            "lmcache_worker_heartbeat_delay_time": heartbeat_delay_s,
            "extra_config": {"full_sync_startup_delay_s": 0, "full_sync_status_poll_interval_s": 0.1},
        }
        path.write_text(yaml.safe_dump(settings))
        command = kvatlas_command("worker", "--config", str(path), "--warm-up", str(WARM_UP), "--requests-per-second", "0")
        with (tmp_path / f"kvatlas-worker-{len(started)}.log").open("wb") as sink:
            started.append(subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=clean_environment(), start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(15)


def key_counts(controller, instance="sim"):
    return [controller.key_count(instance, rank) for rank in (0, 1)]


def keys_of_the_warm_up(launcher, start_worker):
    """What the seeded warm-up stores, as our own controller counts it once all requests are in."""
    reference = launcher.start("kvatlas")
    process = start_worker(reference)
    seen = []

    def settled():
        seen.append((key_counts(reference), reference.metric("lmcache:cache_controller_pull_socket_message_count")))
        return len(seen) > 20 and all(each == seen[-1] for each in seen[-20:]) and all(seen[-1][0])

    eventually(settled)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    eventually(lambda: key_counts(reference), [None, None])
    return seen[-1][0]


def test_under_upstreams_controller(launcher, start_worker):
    expected = keys_of_the_warm_up(launcher, start_worker)
    controller = launcher.start("upstream")
    # That controller answers a first heartbeat with a full sync and drops what is reported meanwhile: beat after the warm-up.
    process = start_worker(controller, heartbeat_delay_s=4)
    eventually(lambda: key_counts(controller), expected, deadline_s=30)
    assert controller.post("/health", {"instance_id": "sim"}).json()["error_codes"] == {"0": 0, "1": 0}
    assert controller.post("/pin", {"instance_id": "sim", "location": CPU, "tokens": [1, 2, 3]}).json()["num_tokens"] == 0

    controller.stop(signal.SIGKILL)
    again = launcher.start("upstream", ports=controller.ports)
    eventually(lambda: key_counts(again), expected, deadline_s=30)
    reply = again.post("/clear", {"instance_id": "sim", "location": CPU})
    assert reply.status_code == 200 and reply.json()["num_tokens"] > 0, reply.text
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    eventually(lambda: key_counts(again), [None, None])


def test_under_our_controller_after_a_restart(launcher, start_worker):
    expected = keys_of_the_warm_up(launcher, start_worker)
    controller = launcher.start("kvatlas")
    start_worker(controller)
    eventually(lambda: key_counts(controller), expected)
    controller.stop(signal.SIGKILL)
    again = launcher.start("kvatlas", ports=controller.ports)
    eventually(lambda: key_counts(again), expected, deadline_s=30)
