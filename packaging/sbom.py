#!/usr/bin/env python3
"""What is linked into one binary, from `cargo metadata` on standard input.

    cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu > metadata.json
    sbom.py kvatlas-server < metadata.json              CycloneDX 1.5 software bill of materials
    sbom.py kvatlas-server --licenses < metadata.json   the text of every license

Crates reached from the package by normal dependencies, and by build dependencies those that bring C or C++
sources along (`*-src`): what they build is linked as well. Checksums come from Cargo.lock.
"""
import json
import pathlib
import re
import sys
import tomllib

TEXTS = re.compile(r"(LICEN[SC]E|COPYING|NOTICE|UNLICENSE|COPYRIGHT)", re.IGNORECASE)
# Libraries that are not crates, by the crate that has their sources. Its version names theirs after a plus.
NATIVE = {
    "zeromq-src": {
        "name": "libzmq",
        "purl": "pkg:github/zeromq/libzmq@v{version}",
        "license": "LGPL-3.0-or-later with the static linking exception of libzmq",
        "texts": "vendor",
    },
}


class Linked:
    """The crates, by their identifiers, with those each depends on."""

    def __init__(self, metadata, root_name, lock_path="Cargo.lock"):
        self.packages = {package["id"]: package for package in metadata["packages"]}
        with open(lock_path, "rb") as file:
            self.locked = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(file)["package"]}
        nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
        (self.root,) = [p["id"] for p in metadata["packages"] if p["name"] == root_name]
        self.edges, todo = {}, [self.root]
        while todo:
            package = todo.pop()
            if package not in self.edges:
                self.edges[package] = sorted(d["pkg"] for d in nodes[package]["deps"] if self.is_linked(d))
                todo.extend(self.edges[package])

    def is_linked(self, dependency):
        kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
        return None in kinds or ("build" in kinds and self.packages[dependency["pkg"]]["name"].endswith("-src"))

    def ref(self, package_id):
        package = self.packages[package_id]
        return f"pkg:cargo/{package['name']}@{package['version']}"

    def sorted(self):
        return sorted(self.edges, key=self.ref)

    def native(self, package_id):
        """The library whose sources a crate has, with its version; or nothing."""
        package = self.packages[package_id]
        found = NATIVE.get(package["name"])
        return found and {**found, "version": package["version"].partition("+")[2]}


def component(linked, package_id):
    package = linked.packages[package_id]
    ref = linked.ref(package_id)
    entry = {"type": "library", "bom-ref": ref, "name": package["name"], "version": package["version"], "purl": ref}
    if package["license"]:
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = linked.locked.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    native = linked.native(package_id)
    if native:
        entry["components"] = [{"type": "library", "name": native["name"], "version": native["version"],
                                "purl": native["purl"].format(**native), "licenses": [{"license": {"name": native["license"]}}]}]
    return entry


def bill(linked):
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {**component(linked, linked.root), "type": "application"}},
        "components": [component(linked, package) for package in linked.sorted() if package != linked.root],
        "dependencies": [{"ref": linked.ref(package), "dependsOn": [linked.ref(to) for to in linked.edges[package]]}
                         for package in linked.sorted()],
    }


def licenses(linked):
    """Every text once, with whose it is; then those that brought none."""
    texts, silent = {}, []
    for package_id in linked.sorted():
        package = linked.packages[package_id]
        if package["source"] is None:
            continue  # ours: LICENSE
        home = pathlib.Path(package["manifest_path"]).parent
        names = [f"{package['name']} {package['version']} ({package['license']})"]
        places = [(home, names[0])]
        native = linked.native(package_id)
        if native:
            places.append((home / native["texts"], f"{native['name']} {native['version']} ({native['license']})"))
        for place, name in places:
            found = sorted(path for path in place.iterdir() if path.is_file() and TEXTS.match(path.name))
            if not found:
                silent.append(name)
            for path in found:
                texts.setdefault(path.read_text(errors="replace").strip(), []).append(name)
    parts = [f"{'=' * 78}\n" + "\n".join(dict.fromkeys(names)) + f"\n{'=' * 78}\n{text}\n" for text, names in texts.items()]
    if silent:
        parts.append(f"{'=' * 78}\nWithout a text of their own, under the license named:\n" + "\n".join(silent) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    crates = Linked(json.load(sys.stdin), sys.argv[1])
    print(licenses(crates) if "--licenses" in sys.argv else json.dumps(bill(crates), indent=1))
