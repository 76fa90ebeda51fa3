"""A real LMCache worker in its own process. Reads one JSON request a line, answers one JSON line each.

The first line holds the options for `open_engine`. Closing standard input ends the process without deregistering,
as a crash of the engine would.
"""

import asyncio
import json
import os
import sys

answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # whatever LMCache prints belongs to the log, not among the answers

from engine import open_engine  # noqa: E402
from lmcache.v1.cache_controller.message import BatchedP2PLookupMsg  # noqa: E402


def perform(engine, request):
    """One request of the harness."""
    match request.pop("do"):
        case "store":
            return engine.store(request["tokens"], request["location"])
        case "store_hashes":
            return engine.store_hashes(request["hashes"], request["location"])
        case "store_unreported":
            return engine.store_unreported(request["tokens"])
        case "evict":
            return engine.evict(request["hashes"], request["location"])
        case "held":
            return engine.held(request["location"])
        case "calls":
            return engine.calls
        case "behave":
            engine.behavior[request["call"]] = request["behavior"]
            return None
        case "peer_lookup":
            message = BatchedP2PLookupMsg(
                hashes=request["hashes"], instance_id=engine.config.lmcache_instance_id, worker_id=engine.metadata.worker_id
            )
            waiting = asyncio.run_coroutine_threadsafe(engine.worker.async_put_and_wait_msg(message), engine.worker.loop)
            return [list(entry) for entry in waiting.result(20).layout_info]
        case "heartbeat_url":
            return engine.worker.controller_heartbeat_url
        case "deregister":
            return engine.worker.deregister()
        case "close":
            return engine.worker.close()
        case unknown:
            raise ValueError(f"unknown request {unknown!r}")


def main():
    engine = open_engine(json.loads(sys.stdin.readline()))
    answers.write(json.dumps({"answer": "open"}) + "\n")
    for line in sys.stdin:
        try:
            answers.write(json.dumps({"answer": perform(engine, json.loads(line))}) + "\n")
        except Exception as error:  # the harness shows it in the failing test
            answers.write(json.dumps({"error": repr(error)}) + "\n")
    answers.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
