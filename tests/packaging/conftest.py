"""A live controller and what it exports, once for all tests."""
import json
import os
import pathlib
import re
import subprocess
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@pytest.fixture(scope="session")
def binary():
    path = os.environ["KVATLAS_BIN"]
    assert os.access(path, os.X_OK), f"no binary at {path}: run `make build`"
    return path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A directory with the files of a Secret of type kubernetes.io/tls; the certificate signs itself."""
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                    "/CN=kvatlas", "-keyout", directory / "tls.key", "-out", directory / "tls.crt"], check=True, capture_output=True)
    (directory / "ca.crt").write_bytes((directory / "tls.crt").read_bytes())
    return directory


@pytest.fixture(scope="session")
def controller(binary, tmp_path_factory):
    """Base URL of a running controller that keeps state."""
    ports = json.dumps({"pull": 0, "reply": 0, "heartbeat": 0})
    state = tmp_path_factory.mktemp("state")
    process = subprocess.Popen(
        [binary, "serve", "--host", "127.0.0.1", "--port", "0", "--monitor-ports", ports, "--state-dir", state],
        stdout=subprocess.PIPE, text=True)
    try:
        lines = (re.search(r"^listening http=(\S+)", line) for line in process.stdout)
        found = next((match for match in lines if match), None)
        assert found, "the controller ended without saying where it listens"
        deadline = time.monotonic() + 60
        while not is_ready(f"http://{found[1]}"):
            assert time.monotonic() < deadline, "the controller did not become ready"
            time.sleep(0.05)
        yield f"http://{found[1]}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def is_ready(url):
    try:
        return fetch(f"{url}/readyz") == "ready\n"
    except OSError:
        return False


def fetch(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


@pytest.fixture(scope="session")
def exported(controller):
    """Every series: (name, labels)."""
    series = []
    for line in fetch(f"{controller}/metrics").splitlines():
        if line and not line.startswith("#"):
            name, labels = SAMPLE.match(line).groups()
            series.append((name, dict(LABEL.findall(labels or ""))))
    assert series
    return series
