"""`kvatlas` client commands as a person sees them, on a terminal, with real LMCache workers."""

import os
import pty
import select
import subprocess
import time

import pytest

from harness.controllers import clean_environment, kvatlas_command
from harness.prompts import CHUNK, prompt
from harness.raw_peer import CPU


def on_a_terminal(controller, *arguments):
    """Exit code, standard output, and what standard error showed on its terminal."""
    watching, terminal = pty.openpty()
    process = subprocess.Popen(
        kvatlas_command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal,
        env=clean_environment(KVATLAS_URL=controller.url, TERM="xterm"), text=True,
    )
    os.close(terminal)
    shown, end = b"", time.monotonic() + 30
    while time.monotonic() < end:
        ready, _, _ = select.select([watching], [], [], 0.1)
        try:
            part = os.read(watching, 4096) if ready else None
        except OSError:  # the other side is closed
            break
        if part == b"":
            break
        shown += part or b""
    os.close(watching)
    out, _ = process.communicate(timeout=20)
    return process.returncode, out, shown.decode(errors="replace")


@pytest.fixture
def two_instances(controller, fleet):
    """`a` and `b`, two ranks each; `a` moves in two seconds."""
    started = {
        (instance, rank): fleet.start(controller, instance, rank, world_size=2, peer_url=f"10.0.0.{rank + 1}:7100", wait=False)
        for instance in "ab" for rank in (0, 1)
    }
    fleet.wait_registered(controller, *started.values())
    return started


def test_a_long_move_shows_how_far_it_is(controller, two_instances):
    tokens = prompt(1, 2 * CHUNK)
    two_instances["a", 0].behave("move", answer=len(tokens))
    two_instances["a", 1].behave("move", sleep_s=2, answer=len(tokens))
    arguments = ["move", "a", "b", "--copy", *map(str, tokens)]
    code, out, shown = on_a_terminal(controller, *arguments)
    assert code == 0, out
    assert "1/2 workers" in shown, "one rank is done and one is not"
    # At the end the steps, as `events ID` shows them.
    assert out.startswith("Move") and "finished" in out.splitlines()[0]
    assert "a:0" in out and "a:1" in out and str(len(tokens)) in out
    # A script sees none of it.
    two_instances["a", 1].behave("move", answer=len(tokens))
    done = subprocess.run(
        kvatlas_command(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
        env=clean_environment(KVATLAS_URL=controller.url),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(tokens)} tokens\n", "")


def test_a_move_that_fails_on_a_terminal_says_where(controller, two_instances):
    two_instances["a", 0].behave("move", answer=0)
    two_instances["a", 1].behave("move", sleep_s=1, raises="the link is down")
    code, out, _ = on_a_terminal(controller, "move", "a", "b", "1", "2")
    assert code == 1 and "the link is down" in out, out
    moved = [worker.calls("move") for worker in two_instances.values()]
    assert [len(calls) for calls in moved] == [1, 1, 0, 0] and moved[0][0]["old_position"] == CPU
