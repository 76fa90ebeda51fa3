#!/usr/bin/env bash
# schemathesis against $KVATLAS_BIN (default: the debug build). Arguments go to pytest.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$(realpath -m "$here/../../.cache/schemathesis-venv")"

if ! cmp -s "$here/requirements.txt" "$venv/.requirements"; then
  echo "api: installing schemathesis into .cache/schemathesis-venv"
  rm -rf "$venv"
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/.requirements"
fi

KVATLAS_BIN="$(realpath -m "${KVATLAS_BIN:-$here/../../target/debug/kvatlas}")"
export KVATLAS_BIN PYTHONDONTWRITEBYTECODE=1
cd "$here"
exec "$venv/bin/python" -m pytest -p no:cacheprovider "$@"
