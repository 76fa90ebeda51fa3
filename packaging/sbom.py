#!/usr/bin/env python3
"""CycloneDX 1.5 software bill of materials of one binary, from `cargo metadata` on standard input.

    cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu | sbom.py kvatlas-server

Only what is linked: crates reached from the package by normal dependencies. Checksums come from Cargo.lock.
"""
import json
import sys
import tomllib


def main(root_name, lock_path="Cargo.lock"):
    metadata = json.load(sys.stdin)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    with open(lock_path, "rb") as file:
        locked = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(file)["package"]}

    (root,) = [p["id"] for p in metadata["packages"] if p["name"] == root_name]
    edges, todo = {}, [root]
    while todo:
        package = todo.pop()
        if package in edges:
            continue
        linked = [d["pkg"] for d in nodes[package]["deps"] if any(k["kind"] is None for k in d["dep_kinds"])]
        edges[package] = sorted(linked)
        todo.extend(linked)

    def ref(package):
        package = packages[package]
        return f"pkg:cargo/{package['name']}@{package['version']}"

    def component(package_id):
        package = packages[package_id]
        entry = {"type": "library", "bom-ref": ref(package_id), "name": package["name"], "version": package["version"],
                 "purl": ref(package_id)}
        if package["license"]:
            entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        checksum = locked.get((package["name"], package["version"]))
        if checksum:
            entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return entry

    subject = {**component(root), "type": "application"}
    print(json.dumps({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": subject},
        "components": [component(package) for package in sorted(edges, key=ref) if package != root],
        "dependencies": [{"ref": ref(package), "dependsOn": [ref(to) for to in on]}
                         for package, on in sorted(edges.items(), key=lambda item: ref(item[0]))],
    }, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
