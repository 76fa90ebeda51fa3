"""Fixtures: controllers, real workers and hand-spoken peers, all ended after each test; their logs on failure.

`INTEROP_UNDER_TEST=upstream` runs everything against LMCache's own controller instead: what fails then is a difference
that COMPAT.md must list.
"""

import os
import pathlib

import pytest

from harness.controllers import Launcher
from harness.raw_peer import RawPeer
from harness.real_worker import RealFleet

LOG_TAIL = 6000


@pytest.fixture
def launcher(tmp_path):
    """Starts controllers; stops them after the test."""
    opened = Launcher(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def controller(launcher):
    """A fresh `kvatlas` on free ports."""
    return launcher.start(os.environ.get("INTEROP_UNDER_TEST", "kvatlas"))


@pytest.fixture(scope="module")
def shared_controller(tmp_path_factory):
    """One `kvatlas` for all tests of a module that leave nothing behind."""
    opened = Launcher(tmp_path_factory.mktemp("shared"))
    yield opened.start(os.environ.get("INTEROP_UNDER_TEST", "kvatlas"))
    opened.close()


@pytest.fixture
def upstream(launcher):
    """A fresh LMCache controller on free ports."""
    return launcher.start("upstream")


@pytest.fixture
def fleet(tmp_path):
    """Starts real LMCache workers; ends them after the test."""
    opened = RealFleet(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def peer():
    """Opens hand-spoken workers: `peer(controller, instance, rank, ...)`; closes them after the test."""
    opened = []

    def open_peer(*arguments, **options):
        opened.append(RawPeer(*arguments, **options))
        return opened[-1]

    yield open_peer
    for each in opened:
        each.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds the tail of every process's log to a failing test."""
    report = yield
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and directory is not None:
        for log in sorted(pathlib.Path(directory).glob("*.log")):
            report.sections.append((log.name, log.read_text(errors="replace")[-LOG_TAIL:]))
    return report
