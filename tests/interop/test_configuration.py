"""Command line over environment over file over default; LMCache's flags; refusals that say what is wrong (COMPAT.md D39)."""

import json
import re
import subprocess

import pytest

from harness.controllers import Ports, clean_environment, kvatlas_command
from harness.eventually import eventually


def monitor(ports):
    return json.dumps({"pull": ports.pull, "reply": ports.reply, "heartbeat": ports.heartbeat})


def base_environment(ports):
    return {"LMCACHE_CONTROLLER_CONTROLLER_HOST": "127.0.0.1", "LMCACHE_CONTROLLER_CONTROLLER_MONITOR_PORTS": monitor(ports)}


@pytest.fixture
def listening_http_port(launcher, tmp_path):
    """Starts `kvatlas` with layers of `controller_port` and returns the layer that won."""

    def start(**layers):
        ports = {layer: Ports() for layer in layers}
        chosen = ports[next(iter(layers))]
        environment, arguments = base_environment(chosen), []
        if "file" in layers or "file_env" in layers:
            layer = "file" if "file" in layers else "file_env"
            path = tmp_path / "controller.yaml"
            path.write_text(f"controller_port: {ports[layer].http}\n")
            if layer == "file":
                arguments += ["--config", str(path)]
            else:
                environment["LMCACHE_CONTROLLER_CONFIG_FILE"] = str(path)
        if "env" in layers:
            environment["LMCACHE_CONTROLLER_CONTROLLER_PORT"] = str(ports["env"].http)
        if "pair" in layers:
            arguments.append(f"controller_port={ports['pair'].http}")
        if "flag" in layers:
            arguments += ["--port", str(ports["flag"].http)]

        running = {layer: launcher.spawn("kvatlas", arguments, ports[layer], env=environment) for layer in list(layers)[:1]}
        process = next(iter(running.values()))

        def winner():
            assert process.running(), process.log.read_text()
            for layer, candidate in ports.items():
                process.ports = candidate
                try:
                    if process.get("/controller/key-stats").status_code == 200:
                        return layer
                except OSError:
                    continue
            return None

        return eventually(winner)

    return start


def test_file(listening_http_port):
    assert listening_http_port(file=1) == "file"


def test_file_named_by_the_environment(listening_http_port):
    assert listening_http_port(file_env=1) == "file_env"


def test_environment_over_file(listening_http_port):
    assert listening_http_port(file=1, env=1) == "env"


def test_flag_over_environment_and_file(listening_http_port):
    assert listening_http_port(file=1, env=1, flag=1) == "flag"


def test_key_value_over_environment_and_file(listening_http_port):
    assert listening_http_port(file=1, env=1, pair=1) == "pair"


def test_monitor_port_is_the_pull_port(launcher, peer):
    ports, other = Ports(), Ports()
    environment = base_environment(other)
    controller = launcher.spawn("kvatlas", ["--port", str(ports.http), "--monitor-port", str(ports.pull)], ports, env=environment)
    launcher.wait_ready(controller)
    ports.reply, ports.heartbeat = other.reply, other.heartbeat
    a = peer(controller, "a")
    a.register()
    a.admit([1])
    a.fence()
    assert controller.key_count("a", 0) == 1


def test_heartbeat_can_be_switched_off(launcher, peer):
    ports = Ports()
    arguments = ["--host", "127.0.0.1", "--port", str(ports.http), "--monitor-ports", json.dumps({"pull": ports.pull, "reply": ports.reply, "heartbeat": None})]
    controller = launcher.spawn("kvatlas", arguments, ports)
    launcher.wait_ready(controller)
    assert peer(controller, "a").register().extra_config == {}


def test_advertised_host(launcher, peer):
    controller = launcher.start("kvatlas", "controller_advertise_host=kv.example.net")
    assert peer(controller, "a").register().extra_config == {"heartbeat_url": f"kv.example.net:{controller.ports.heartbeat}"}


@pytest.mark.parametrize(
    ("arguments", "key", "given"),
    [
        (["--port", "seventy"], "controller_port", "seventy"),
        (["--monitor-ports", "{pull: 1}"], "controller_monitor_ports", "{pull: 1}"),
        (["--health-check-interval", "-7"], "health_check_interval", "-7"),
        (["full_sync_completion_threshold=1.5"], "full_sync_completion_threshold", "1.5"),
    ],
)
def test_wrong_values_are_refused_by_name(tmp_path, arguments, key, given):
    ended = subprocess.run(
        kvatlas_command(*arguments), capture_output=True, text=True, timeout=30, env=clean_environment(), cwd=tmp_path, check=False
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0, said
    assert key in said and given in said and "expected" in said, said


def test_taken_port_is_named(launcher, controller, tmp_path):
    ended = subprocess.run(
        kvatlas_command(*controller.ports.arguments()), capture_output=True, text=True, timeout=30, env=clean_environment(), cwd=tmp_path, check=False
    )
    assert ended.returncode != 0
    said = ended.stdout + ended.stderr
    assert any(str(port) in said for port in vars(controller.ports).values()), said


def test_port_zero_prints_the_ports_taken(launcher, tmp_path):
    ports = Ports()
    zero = json.dumps({"pull": 0, "reply": 0, "heartbeat": 0})
    controller = launcher.spawn("kvatlas", ["--host", "127.0.0.1", "--port", "0", "--monitor-ports", zero], ports)

    def http_port():
        assert controller.running()
        found = re.search(r"http=127\.0\.0\.1:([1-9]\d*)", controller.log.read_text())
        return found and int(found[1])

    ports.http = eventually(http_port)
    assert controller.get("/controller/key-stats").status_code == 200
