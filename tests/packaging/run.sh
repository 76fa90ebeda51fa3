#!/usr/bin/env bash
# Checks packaging/ and docs/ against $KVATLAS_BIN (default: the debug build). Arguments go to pytest.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="$(realpath -m "$here/../../.cache")"
venv="$cache/packaging-venv"

if ! cmp -s "$here/requirements.txt" "$venv/.requirements"; then
  echo "packaging: installing Helm's engine, Kubernetes' schemas and a PromQL parser into .cache/packaging-venv"
  rm -rf "$venv"
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/.requirements"
fi

# Debian's promtool, unpacked and not installed: its package would start a Prometheus.
if ! command -v promtool >/dev/null && [ ! -x "$cache/prometheus/usr/bin/promtool" ] && command -v apt-get >/dev/null; then
  mkdir -p "$cache/prometheus"
  (cd "$cache/prometheus" \
    && { apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; } } \
    && dpkg -x prometheus_*.deb . && rm -f prometheus_*.deb) || echo "packaging: no promtool to be had" >&2
fi
export PATH="$PATH:$cache/prometheus/usr/bin"

# Which system calls the unit must leave to the process.
if ! command -v strace >/dev/null && command -v apt-get >/dev/null; then
  as_root=""
  if [ "$(id -u)" != 0 ]; then as_root="sudo -n"; fi
  { $as_root apt-get install -y -qq strace || { $as_root apt-get update -qq && $as_root apt-get install -y -qq strace; }; } >/dev/null 2>&1 \
    || echo "packaging: no strace to be had" >&2
fi

KVATLAS_BIN="$(realpath -m "${KVATLAS_BIN:-$here/../../target/debug/kvatlas}")"
export KVATLAS_BIN PYTHONDONTWRITEBYTECODE=1
cd "$here"
exec "$venv/bin/python" -m pytest -p no:cacheprovider "$@"
