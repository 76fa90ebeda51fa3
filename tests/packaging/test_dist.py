"""The release archive, made by packaging/dist.sh from the debug binary."""
import json
import os
import pathlib
import re
import subprocess
import tarfile

import pytest

from conftest import ROOT

NAME = "kvatlas-test-x86_64-linux"


@pytest.fixture(scope="module")
def dist(binary, tmp_path_factory):
    """Where everything was put."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([ROOT / "packaging/dist.sh", binary, out, NAME], cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def unpacked(dist, tmp_path_factory):
    directory = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        archive.extractall(directory, filter="data")
    return directory / NAME


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def test_checksums_are_right_and_notice_a_change(dist):
    check = ["sha256sum", "--check", "--strict", f"{NAME}.sha256"]
    assert run(*check, cwd=dist).count(": OK") == 3
    bill = dist / f"{NAME}.cdx.json"
    text = bill.read_text()
    bill.write_text(text + " ")
    assert subprocess.run(check, cwd=dist, capture_output=True).returncode != 0
    bill.write_text(text)


def test_the_binary_is_stripped_and_runs(unpacked, binary):
    sections = run("readelf", "--sections", "--wide", unpacked / "kvatlas")
    assert ".symtab" not in sections and ".debug_info" not in sections
    assert ".symtab" in run("readelf", "--sections", "--wide", binary), "nothing to strip proves nothing"
    assert run(unpacked / "kvatlas", "--version") == run(binary, "--version")
    # The usual system libraries and nothing else; libzmq is inside.
    needed = re.findall(r"\(NEEDED\).*\[(\S+?)\.so", run("readelf", "--dynamic", unpacked / "kvatlas"))
    assert set(needed) <= {"libc", "libm", "libgcc_s", "libstdc++", "ld-linux-x86-64"}


def test_every_command_has_a_page_of_the_manual(unpacked, binary):
    listed = run(binary, "help").partition("Commands:")[2].strip().split("\n\n")[0]
    commands = {line.split()[0] for line in listed.splitlines()} - {"help"}
    assert {"serve", "top", "sync", "move", "bench"} <= commands
    pages = {path.name for path in (unpacked / "man").iterdir()}
    assert pages == {"kvatlas.1"} | {f"kvatlas-{command}.1" for command in commands}
    for page in pages:
        assert (unpacked / "man" / page).read_text().count(".SH") >= 2, page


def test_completions_are_those_of_each_shell(unpacked):
    for file, shell in [("kvatlas.bash", "bash"), ("_kvatlas", "zsh"), ("kvatlas.fish", "fish")]:
        text = (unpacked / "completions" / file).read_text()
        assert "diagnose" in text and "max-index-bytes" in text, file
        if shell == "bash":
            run("bash", "-n", unpacked / "completions" / file)


def test_the_bill_of_materials_names_what_is_linked(unpacked, dist):
    bill = json.loads((unpacked / "kvatlas.cdx.json").read_text())
    assert (dist / f"{NAME}.cdx.json").read_text() == (unpacked / "kvatlas.cdx.json").read_text()
    assert bill["bomFormat"] == "CycloneDX"
    components = {component["name"]: component for component in bill["components"]}
    assert {"axum", "tokio", "rustls", "ring", "zmq", "kvatlas-controller", "zeromq-src"} <= components.keys()
    assert not {"proptest", "rcgen", "criterion"} & components.keys(), "tests are not shipped"
    (library,) = components["zeromq-src"]["components"]
    assert library["name"] == "libzmq" and re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
    for component in components.values():
        assert component["licenses"], component["name"]
        assert component["name"].startswith("kvatlas-") or len(component["hashes"][0]["content"]) == 64, component["name"]
    references = {bill["metadata"]["component"]["bom-ref"]} | {component["bom-ref"] for component in bill["components"]}
    for dependency in bill["dependencies"]:
        assert {dependency["ref"], *dependency["dependsOn"]} <= references


def test_licenses_come_along(unpacked):
    assert (unpacked / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    texts = (unpacked / "LICENSES-THIRD-PARTY").read_text()
    for component in json.loads((unpacked / "kvatlas.cdx.json").read_text())["components"]:
        if not component["name"].startswith("kvatlas-"):
            assert f"{component['name']} {component['version']} (" in texts, component["name"]
    assert "libzmq" in texts and "SPECIAL EXCEPTION" in texts
    assert "Permission is hereby granted, free of charge" in texts


def test_the_unit_starts_and_reloads_what_is_shipped(unpacked):
    unit = (unpacked / "kvatlas.service").read_text()
    assert unit == pathlib.Path(ROOT / "packaging/systemd/kvatlas.service").read_text()
    assert "ExecStart=/usr/local/bin/kvatlas\n" in unit
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in unit


def test_equal_inputs_give_an_equal_archive(dist, binary, tmp_path):
    subprocess.run([ROOT / "packaging/dist.sh", binary, tmp_path, NAME], cwd=ROOT, check=True, capture_output=True)
    for file in os.listdir(tmp_path):
        if not (tmp_path / file).is_dir():
            assert (tmp_path / file).read_bytes() == (dist / file).read_bytes(), file
