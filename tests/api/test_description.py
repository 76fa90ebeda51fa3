"""The description against the running controller: its examples fit its schemas, schemathesis finds nothing."""
import json
import os
import pathlib
import subprocess
import sys

import jsonschema_rs

from conftest import ADMIN_TOKEN

HERE = pathlib.Path(__file__).parent
# Together with starting the fleet about a minute on two cores.
MAX_EXAMPLES = os.environ.get("KVATLAS_API_EXAMPLES", "25")


def contents(operation):
    """Every (where, schema, example) of an operation."""
    bodies = {"body": operation.get("requestBody", {}), **operation["responses"]}
    for where, body in bodies.items():
        for kind, content in body.get("content", {}).items():
            examples = [one["value"] for one in content.get("examples", {}).values()]
            examples += [content["example"]] if "example" in content else []
            # An example of a stream is its text, the schema that of one event.
            if kind != "text/event-stream":
                yield from ((where, content["schema"], example) for example in examples)


def test_examples_fit_their_schemas(fleet):
    description = fleet.ask("/openapi.json")
    components = description["components"]
    seen = 0
    operations = [(path, one) for path, item in description["paths"].items() for one in item.values()]
    shared = {"responses": components["responses"]}
    for path, operation in [*operations, ("components", shared)]:
        for where, schema, example in contents(operation):
            validator = jsonschema_rs.validator_for({**schema, "components": components})
            errors = [error.message for error in validator.iter_errors(example)]
            assert not errors, f"{path} {where}: {errors}"
            seen += 1
    assert seen > 2 * len(operations)


def test_schemathesis_finds_nothing(fleet, tmp_path):
    prompt = fleet.prompt()
    pinned = fleet.ask("/pin", {"instance_id": "demo-1", "location": "LocalCPUBackend", **prompt})
    done = subprocess.run(
        [
            pathlib.Path(sys.executable).with_name("st"), "--config-file", HERE / "schemathesis.toml",
            "run", f"{fleet.url}/openapi.json", "--max-examples", MAX_EXAMPLES, "--no-color",
        ],
        cwd=HERE, capture_output=True, text=True, timeout=600,
        env={
            **os.environ, "KVATLAS_ADMIN_TOKEN": ADMIN_TOKEN, "KVATLAS_PROMPT": json.dumps(prompt),
            "KVATLAS_EVENT": pinned["event_id"],
        },
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    print(done.stdout[done.stdout.find("SUMMARY"):])
