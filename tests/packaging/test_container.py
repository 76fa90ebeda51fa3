"""The Containerfile: what a linter says, whether what it copies is enough, and who runs what in it."""
import json
import pathlib
import re
import shutil
import subprocess
import sys

from conftest import ROOT
from test_kubernetes import PORTS

FILE = ROOT / "packaging/container/Containerfile"
HADOLINT = pathlib.Path(sys.executable).with_name("hadolint")


def instructions(name):
    return re.findall(rf"^{name} (.+)$", FILE.read_text(), re.M)


def test_the_linter_finds_nothing_and_would_find_something(tmp_path):
    done = subprocess.run([HADOLINT, FILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    careless = tmp_path / "Containerfile"
    careless.write_text(FILE.read_text() + "USER root\nRUN cd /tmp && sudo true\n")
    assert subprocess.run([HADOLINT, careless], capture_output=True).returncode == 1


def test_what_is_copied_is_a_workspace(tmp_path):
    for sources in instructions("COPY"):
        *sources, target = sources.split()
        if sources[0].startswith("--"):
            continue
        for source in sources:
            to = tmp_path / target if target != "./" else tmp_path / source
            to.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, to)
    done = subprocess.run(["cargo", "metadata", "--locked", "--offline", "--format-version", "1"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    targets = [target for package in json.loads(done.stdout)["packages"] if package["source"] is None for target in package["targets"]]
    assert "kvatlas" in {target["name"] for target in targets if "bin" in target["kind"]}
    # Nothing it is made from lies outside of what was copied.
    for target in targets:
        assert pathlib.Path(target["src_path"]).exists(), target["src_path"]
    for file in (tmp_path / "crates").rglob("src/**/*.rs"):
        for named in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', file.read_text()):
            assert (file.parent / named).resolve().is_relative_to(tmp_path) and (file.parent / named).exists(), f"{file}: {named}"


def test_it_runs_unprivileged_without_a_shell():
    assert [line.split()[0] for line in instructions("FROM")][-1].startswith("gcr.io/distroless/cc")
    (user,) = instructions("USER")
    assert user.split(":")[0] not in ("0", "root")
    (ports,) = instructions("EXPOSE")
    assert {int(port) for port in ports.split()} == set(PORTS.values())
    (command,) = instructions("ENTRYPOINT")
    assert json.loads(command) == ["/usr/local/bin/kvatlas"]
    state = dict(line.split("=") for line in instructions("ENV"))["LMCACHE_CONTROLLER_STATE_DIR"]
    assert instructions("VOLUME") == [state]
