"""Starting and asking a controller: `kvatlas` or LMCache's own, as child processes."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import requests

from harness.eventually import eventually
from harness.ports import free_ports

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
START_DEADLINE_S = 30.0


def kvatlas_binary():
    """The binary under test: `KVATLAS_BIN`, else the debug build."""
    return os.environ.get("KVATLAS_BIN") or str(REPOSITORY / "target" / "debug" / "kvatlas")


def kvatlas_command(*arguments):
    return [kvatlas_binary(), *arguments]


def upstream_command(*arguments):
    return [sys.executable, "-m", "lmcache.v1.api_server", *arguments]


def clean_environment(**extra):
    """Ours without any configuration that the developer's shell may carry; nothing is kept on disk unless asked for."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LMCACHE_CONTROLLER_", "KVATLAS_"))}
    return {**kept, "LMCACHE_CONTROLLER_NO_STATE": "true", **extra}


class Ports:
    """The four ports of a controller."""

    def __init__(self):
        self.http, self.pull, self.reply, self.heartbeat = free_ports(4)

    def arguments(self):
        monitor = {"pull": self.pull, "reply": self.reply, "heartbeat": self.heartbeat}
        return ["--host", "127.0.0.1", "--port", str(self.http), "--monitor-ports", json.dumps(monitor)]


class Controller:
    """A running controller process."""

    def __init__(self, name, process, ports, log):
        self.name = name
        self.process = process
        self.ports = ports
        self.log = log
        self.http = requests.Session()
        self.http.trust_env = False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.ports.http}"

    def get(self, path, **options):
        return self.http.get(self.url + path, timeout=20, **options)

    def post(self, path, body=None, **options):
        return self.http.post(self.url + path, json=body, timeout=40, **options)

    def lookup(self, tokens):
        """`layout_info` in the order of the answer: [(instance, location, tokens)]."""
        reply = self.post("/lookup", {"tokens": tokens})
        assert reply.status_code == 200, reply.text
        return [(instance, *entry) for instance, entry in reply.json()["layout_info"].items()]

    def worker(self, instance, rank):
        """What `/controller/workers` says of one worker; None when it is not registered."""
        reply = self.get("/controller/workers", params={"instance_id": instance, "worker_id": rank})
        if reply.status_code == 404:
            return None
        assert reply.status_code == 200, reply.text
        return reply.json()

    def key_count(self, instance, rank):
        worker = self.worker(instance, rank)
        return None if worker is None else worker["key_count"]

    def metric(self, name):
        """The value of one sample without labels other than `role`."""
        for line in self.get("/metrics").text.splitlines():
            if line.startswith((name + "{", name + " ")):
                return float(line.rsplit(" ", 1)[1])
        return None

    def running(self):
        return self.process.poll() is None

    def stop(self, how=signal.SIGTERM):
        """Ends the process and returns its exit code."""
        self.http.close()
        if self.running():
            self.process.send_signal(how)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(15)
        return self.process.returncode


class Launcher:
    """Starts controllers for a test and stops them after it."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.started = []

    def start(self, name, *extra, ports=None, env=None):
        """Starts `kvatlas` or `upstream` on `ports`, or on free ones, and waits until it answers HTTP."""
        for attempt in range(5):
            chosen = ports or Ports()
            controller = self.spawn(name, [*chosen.arguments(), *extra], chosen, env=env)
            try:
                self.wait_ready(controller)
                return controller
            except AssertionError:
                taken = not controller.running() and "ddress" in controller.log.read_text(errors="replace")
                if ports is not None or attempt == 4 or not taken:
                    raise

    def spawn(self, name, arguments, ports, env=None):
        """Starts a process with exactly these arguments and does not wait."""
        log = self.directory / f"{len(self.started):02}-{name}.log"
        command = kvatlas_command(*arguments) if name == "kvatlas" else upstream_command(*arguments)
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
                env=clean_environment(**(env or {})), cwd=self.directory, start_new_session=True,
            )
        controller = Controller(name, process, ports, log)
        self.started.append(controller)
        return controller

    @staticmethod
    def wait_ready(controller):
        def ready():
            if not controller.running():
                return "exited"
            return controller.get("/controller/key-stats").status_code == 200 and "ready"

        state = eventually(ready, deadline_s=START_DEADLINE_S)
        assert state == "ready", f"{controller.name} exited with {controller.process.returncode} at start:\n" + controller.log.read_text(errors="replace")[-2000:]

    def close(self):
        for controller in self.started:
            controller.stop()
