#!/usr/bin/env bash
# Runs the interop tests against $KVATLAS_BIN (default: the debug build). Arguments go to pytest.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
"$here/setup.sh"

binary="${KVATLAS_BIN:-$here/../../target/debug/kvatlas}"
if [ ! -x "$binary" ] && [ "${INTEROP_UNDER_TEST:-kvatlas}" = kvatlas ]; then
  echo "interop: no controller at $binary; run 'make build' or set KVATLAS_BIN" >&2
  exit 1
fi
KVATLAS_BIN="$(realpath -m "$binary")"
export KVATLAS_BIN

export PYTHONPATH="$here/stubs"       # stand-ins for torch and friends, also in child processes
export PYTHONDONTWRITEBYTECODE=1
export LMCACHE_TRACK_USAGE=false DO_NOT_TRACK=1
export LMCACHE_LOG_LEVEL="${LMCACHE_LOG_LEVEL:-INFO}"
unset PYTHONHASHSEED                   # LMCache's default; tests that need a seed set it for one process
cd "$here"
exec "$here/../../.cache/interop-venv/bin/python" -m pytest "$@"
