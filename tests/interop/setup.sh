#!/usr/bin/env bash
# Creates .cache/interop-venv with LMCache's control plane; returns at once when it is already there and current.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$here/../../.cache/interop-venv"
stamp="$venv/.requirements"

if cmp -s "$here/requirements.txt" "$stamp" && "$venv/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

# LMCache ships wheels for CPython 3.10 to 3.13; engine.py needs 3.10's `match`.
for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.10 python3}; do
  if "$candidate" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    python="$candidate"
    break
  fi
done
if [ -z "${python:-}" ]; then
  echo "interop: needs CPython 3.10 to 3.13 with venv; set PYTHON to one" >&2
  exit 1
fi

echo "interop: installing LMCache 0.5.6's control plane into .cache/interop-venv ($("$python" --version))"
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$here/requirements.txt"
cp "$here/requirements.txt" "$stamp"
