"""A controller with tokens and a simulated fleet behind it, once for all tests."""
import contextlib
import json
import os
import pathlib
import re
import subprocess
import threading
import time
import urllib.request

import pytest

ADMIN_TOKEN = "admin-of-the-tests"
READ_TOKEN = "reader-of-the-tests"


@contextlib.contextmanager
def running(arguments, output):
    """A process that is ended with the test."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=output, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


class Fleet:
    """Where the controller listens, and who may ask it what."""

    def __init__(self, url, log, prompt):
        self.url = url
        self._log = log
        self._prompt = prompt

    def log(self):
        """What the controller has logged, line by line."""
        lines = self._log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def prompt(self):
        """The prompt asked for most, as the body of a lookup."""
        return json.loads(self._prompt.read_text())

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"authorization": f"Bearer {ADMIN_TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    binary = os.environ["KVATLAS_BIN"]
    assert os.access(binary, os.X_OK), f"no binary at {binary}: run `make build`"
    directory = tmp_path_factory.mktemp("fleet")
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((directory / "log").open("w"))
        workers_log = stack.enter_context((directory / "workers.log").open("w"))
        controller = stack.enter_context(running([
            binary, "serve", "--no-state", "--host", "127.0.0.1", "--port", "0",
            "--monitor-ports", json.dumps({"pull": 0, "reply": 0, "heartbeat": 0}),
            "--admin-token", ADMIN_TOKEN, "--read-token", READ_TOKEN,
            "--debug-env", "true", "--log-format", "json", "--log-level", "debug", "--full-sync-jitter-s", "0.2",
        ], log))
        lines = (re.search(r"^listening http=(\S+) pull=(\S+) reply=(\S+)", line) for line in controller.stdout)
        found = next((match for match in lines if match), None)
        assert found, "the controller ended without saying where it listens: " + (directory / "log").read_text()
        drain(controller)
        http, pull, reply = found.groups()
        for name in ("demo-1", "demo-2"):
            configuration = directory / f"{name}.yaml"
            configuration.write_text(
                "enable_controller: true\nenable_p2p: true\np2p_host: 127.0.0.1\np2p_init_ports: [0, 0]\n"
                "lmcache_worker_ports: [0, 0]\nlmcache_worker_heartbeat_time: 2\n")
            drain(stack.enter_context(running([
                binary, "worker", "--config", configuration, "--instance-id", name, "--pull-url", pull,
                "--reply-url", reply, "--advertise-ip", "127.0.0.1", "--warm-up", "20", "--cpu-chunks", "600",
                "--disk-chunks", "600", "--write-prompt", directory / "prompt.json", "--log-level", "warn",
            ], workers_log)))
        prompt = directory / "prompt.json"
        fleet = Fleet(f"http://{http}", directory / "log", prompt)
        eventually(lambda: len(fleet.ask("/controller/workers")["workers"]) == 4)
        eventually(lambda: prompt.exists() and fleet.ask("/lookup", fleet.prompt())["layout_info"])
        yield fleet


def drain(process):
    threading.Thread(target=lambda: process.stdout.read(), daemon=True).start()


def eventually(question):
    deadline = time.monotonic() + 60
    while not question():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.05)
