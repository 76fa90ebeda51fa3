"""LMCache's own load tool, unmodified."""

import json
import re
import subprocess
import sys

from harness.controllers import clean_environment

OPERATIONS = "admit:35,evict:29,heartbeat:1,p2p_lookup:35"


def test_controller_benchmark_runs_without_errors(controller, tmp_path):
    monitor = json.dumps({"pull": controller.ports.pull, "reply": controller.ports.reply})
    ended = subprocess.run(
        [sys.executable, "-m", "lmcache.tools.controller_benchmark", "--controller-host", "127.0.0.1", "--monitor-ports", monitor,
         "--operations", OPERATIONS, "--duration", "4", "--num-instances", "10", "--num-workers", "2", "--num-locations", "2"],
        capture_output=True, text=True, timeout=80, env=clean_environment(), cwd=tmp_path, check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said[-3000:]
    errors = dict(re.findall(r"^  (\w+):\n.*\n.*\n.*\n    Errors: (\d+)", ended.stdout, re.MULTILINE))
    assert errors == {operation.split(":")[0]: "0" for operation in OPERATIONS.split(",")}, ended.stdout
    assert int(re.search(r"Total Requests: (\d+)", ended.stdout)[1]) > 100
    assert " ERROR" not in said, said[-3000:]
    assert controller.metric("lmcache:cache_controller_kv_op_seq_discontinuity_count") == 0
    assert controller.metric("lmcache:cache_controller_pull_socket_message_count") > 50
