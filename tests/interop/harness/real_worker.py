"""Real LMCache workers as child processes, asked over a pipe. See engine.py for what is real in them."""

import json
import pathlib
import select
import subprocess
import sys

from harness.controllers import clean_environment
from harness.eventually import eventually
from harness.ports import free_ports
from harness.raw_peer import CPU

HERE = pathlib.Path(__file__).resolve().parent
ANSWER_DEADLINE_S = 30.0


class RealWorker:
    """One worker process. Created by `RealFleet`."""

    def __init__(self, process, log, instance, rank, port):
        self.process, self.log = process, log
        self.instance, self.rank, self.port = instance, rank, port

    def ask(self, do, **arguments):
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        return self.read_answer()

    def read_answer(self):
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_DEADLINE_S)
        line = self.process.stdout.readline() if ready else ""
        assert line, f"worker {self.instance}/{self.rank} did not answer:\n" + self.log.read_text(errors="replace")[-2000:]
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["answer"]

    def store(self, tokens, location=CPU):
        """Stores a prompt's chunks through LMCache's own hashing and batching; returns the chunk hashes."""
        return self.ask("store", tokens=tokens, location=location)

    def store_hashes(self, hashes, location=CPU):
        self.ask("store_hashes", hashes=hashes, location=location)

    def store_unreported(self, tokens):
        """Stores chunks whose reports are lost on their way."""
        return self.ask("store_unreported", tokens=tokens)

    def evict(self, hashes, location=CPU):
        self.ask("evict", hashes=hashes, location=location)

    def held(self, location=CPU):
        return self.ask("held", location=location)

    def calls(self, name=None):
        return [call for call in self.ask("calls") if name in (None, call["call"])]

    def behave(self, call, **behavior):
        """The engine's next `call`s answer, sleep_s or raise as told."""
        self.ask("behave", call=call, behavior=behavior)

    def deregister(self):
        self.ask("deregister")

    def kill(self):
        self.process.kill()
        self.process.wait(15)


class RealFleet:
    """Starts real workers for a test and ends them after it."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.workers = []

    def start(
        self, controller, instance, rank=0, *, world_size=1, port=None, peer_url=None, wait=True, env=None, extra=None, heartbeat_every_s=0.1, **config
    ):
        """Starts one worker; `config` are LMCache configuration keys, `extra` goes into extra_config."""
        ports = list(free_ports(world_size))
        if port is not None:
            ports[rank] = port
        settings = {
            "enable_controller": True,
            "lmcache_instance_id": instance,
            "controller_pull_url": f"127.0.0.1:{controller.ports.pull}",
            "controller_reply_url": f"127.0.0.1:{controller.ports.reply}",
            "lmcache_worker_ports": ports,
            "extra_config": {
                "full_sync_startup_delay_s": 0.0,
                "full_sync_status_poll_interval_s": 0.05,
                "full_sync_retry_delay_s": 0.05,
                "full_sync_batch_interval_ms": 0,
                "full_sync_batch_size": 50,
                **(extra or {}),
            },
            **config,
        }
        if peer_url is not None:
            host, _, init_port = peer_url.rpartition(":")
            settings |= {"enable_p2p": True, "p2p_host": host, "p2p_init_ports": [int(init_port)] * world_size}
        log = self.directory / f"worker-{len(self.workers):02}-{instance}-{rank}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, str(HERE / "worker_process.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=sink, text=True, bufsize=1, env=clean_environment(**(env or {})), cwd=self.directory, start_new_session=True,
            )
        worker = RealWorker(process, log, instance, rank, ports[rank])
        self.workers.append(worker)
        options = {
            "config": settings, "rank": rank, "world_size": world_size, "heartbeat_every_s": heartbeat_every_s,
            "disk": str(log.with_suffix(".disk")),
        }
        process.stdin.write(json.dumps(options) + "\n")
        if wait:
            self.wait_registered(controller, worker)
        return worker

    @staticmethod
    def wait_registered(controller, *workers):
        for worker in workers:
            if worker.read_answer() != "open":
                raise AssertionError("worker spoke out of turn")
        for worker in workers:
            eventually(lambda w=worker: controller.worker(w.instance, w.rank))

    def close(self):
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.wait(15)
            worker.process.stdin.close()
            worker.process.stdout.close()
