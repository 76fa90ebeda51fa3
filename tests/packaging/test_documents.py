"""docs/ says what the code does: routes, links, the systemd unit, the bill of materials."""
import json
import re
import shutil
import subprocess

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
