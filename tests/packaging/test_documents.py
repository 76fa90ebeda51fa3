"""docs/ says what the code does: routes, links, the systemd unit, the bill of materials."""
import json
import os
import pathlib
import re
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request

import pytest

from conftest import ROOT


def test_every_route_is_in_the_http_reference():
    # A Rust test holds the description equal to what the code says.
    found = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    page = (ROOT / "docs/http.md").read_text()
    assert {"/lookup", "/move", "/metrics"} <= set(found)
    assert [route for route in sorted(found) if not re.search(re.escape(route) + r"(?![\w/])", page)] == []


def test_every_link_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if target != "benchmarks.md":  # written by `make bench`
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_configuration_reference_is_what_the_binary_prints(binary):
    printed = subprocess.run([binary, "config-reference"], check=True, capture_output=True, text=True).stdout
    assert (ROOT / "docs/configuration.md").read_text() == printed, "run `make docs`"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path, binary):
    unit = tmp_path / "kvatlas.service"
    text = (ROOT / "packaging/systemd/kvatlas.service").read_text().replace("/usr/local/bin/kvatlas", binary)
    unit.write_text(text.replace("Documentation=man:kvatlas(1)\n", ""))  # not installed here
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert done.returncode == 0 and "kvatlas.service" not in done.stderr, done.stderr


def system_calls(group):
    """Names in one of systemd's groups, those of the groups inside it among them."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter", group], check=True, capture_output=True, text=True).stdout
    names = {line.strip() for line in listed.splitlines()[1:]} - {""}
    inner = {name for name in names if name.startswith("@")}
    return {name for name in names - inner if not name.startswith("#")}.union(*map(system_calls, inner))


def allowed_calls(unit):
    """What SystemCallFilter leaves, line by line as systemd reads it."""
    allowed = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.M):
        names = set().union(*(system_calls(name) if name.startswith("@") else {name} for name in line.lstrip("~").split()))
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


@pytest.mark.skipif(not shutil.which("systemd-analyze") or not shutil.which("strace"), reason="systemd or strace is not installed")
def test_the_units_filter_leaves_the_process_its_system_calls(tmp_path, binary, certificate):
    """Traced from start to end, with TLS, state, an engine, a command, and a signal to read files again."""
    allowed = allowed_calls((ROOT / "packaging/systemd/kvatlas.service").read_text())
    assert "openat" in allowed and not {"mount", "reboot", "setpriority", "ptrace"} & allowed
    traced, log = tmp_path / "calls", tmp_path / "log"
    with log.open("w") as to:
        process = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", traced, binary, "--host", "127.0.0.1", "--port", "0",
             "--monitor-ports", json.dumps({"pull": 0, "reply": 0, "heartbeat": 0}), "--state-dir", tmp_path / "state",
             "--snapshot-interval-s", "0.2", "--tls-cert", certificate / "tls.crt", "--tls-key", certificate / "tls.key"],
            stdout=subprocess.PIPE, stderr=to, text=True)
    engine = None
    try:
        line = next(line for line in process.stdout if line.startswith("listening "))
        http, pull, reply = (re.search(rf"{name}=(?:https://)?(\S+)", line)[1] for name in ("http", "pull", "reply"))
        engine = subprocess.Popen([binary, "worker", "--instance-id", "e", "--pull-url", pull, "--reply-url", reply, "--worker-ports", "0",
                                   "--advertise-ip", "127.0.0.1", "--warm-up", "5"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        def ask(path, body=None):
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(f"https://{http}{path}", data, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return json.load(answer)

        def eventually(question):
            deadline = time.monotonic() + 60
            while not question():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "never happened"
                time.sleep(0.05)

        eventually(lambda: ask("/controller/workers")["total_count"] == 1)
        assert ask("/health", {"instance_id": "e"})["error_codes"] == {"0": 0}
        eventually(lambda: ask("/sync")["persistence"]["last_snapshot"])
        (child,) = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (certificate / "tls.crt").write_text((certificate / "tls.crt").read_text() + "\n")
        os.kill(int(child), signal.SIGHUP)
        eventually(lambda: "new TLS certificate in use" in log.read_text())
        os.kill(int(child), signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        if engine:
            engine.kill()
            engine.wait()
        process.kill()
        process.wait()
    used = set(re.findall(r"^\d+ +(\w+)\(", traced.read_text(), re.M))
    assert {"openat", "epoll_wait", "fdatasync"} <= used
    assert used - allowed == set()


def test_the_bill_of_materials_lists_what_is_linked():
    metadata = subprocess.run(["cargo", "metadata", "--locked", "--format-version", "1", "--offline",
                               "--filter-platform", "x86_64-unknown-linux-gnu"],
                              cwd=ROOT, check=True, capture_output=True, text=True).stdout
    made = subprocess.run(["python3", "packaging/sbom.py", "kvatlas-server"], cwd=ROOT, input=metadata,
                          check=True, capture_output=True, text=True).stdout
    bill = json.loads(made)
    names = {part["name"] for part in bill["components"]}
    assert {"zmq", "axum", "kvatlas-controller"} <= names
    assert not {"proptest", "criterion", "kvatlas-house"} & names, "only what is linked"
    for part in bill["components"]:
        assert part["licenses"] and (part["name"].startswith("kvatlas-") or part["hashes"]), part["name"]
