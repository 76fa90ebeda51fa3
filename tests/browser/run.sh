#!/usr/bin/env bash
# The dashboard in Chromium against the debug binary (or $KVATLAS_BIN). Installs what is missing:
# Chromium and Node.js from the distribution, playwright-core and axe-core under .cache/browser; and, if the
# distribution's Node.js is older than playwright-core wants, one from npm under .cache/node.
# With KVATLAS_SCREENSHOTS=1 the pictures that are committed are written to docs/screenshots/ too.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
modules="$root/.cache/browser"

binary="${KVATLAS_BIN:-$root/target/debug/kvatlas}"
if [ ! -x "$binary" ]; then
  echo "browser: no controller at $binary; run 'make build' or set KVATLAS_BIN" >&2
  exit 1
fi
missing=()
# The page asks for Inter first; pictures should look as it was meant.
if [ -n "${KVATLAS_SCREENSHOTS:-}" ] && ! fc-list | grep -q Inter; then missing+=(fontconfig fonts-inter); fi
if ! command -v node >/dev/null; then missing+=(nodejs npm); fi
if ! command -v "${CHROMIUM:-chromium}" >/dev/null; then missing+=(chromium fonts-dejavu-core); fi
if [ "${#missing[@]}" -gt 0 ]; then
  echo "browser: installing ${missing[*]}"
  as_root=""
  if [ "$(id -u)" != 0 ]; then as_root="sudo -n"; fi
  $as_root apt-get update -qq
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
is_recent() { [ "$(node -p 'parseInt(process.versions.node)')" -ge "$1" ]; }
node_wanted=20
if ! is_recent "$node_wanted"; then
  node_home="$root/.cache/node"
  if [ ! -x "$node_home/node_modules/.bin/node" ]; then
    echo "browser: installing Node.js $node_wanted, this one is $(node --version)"
    mkdir -p "$node_home"
    (cd "$node_home" && npm install --no-save --no-package-lock --no-audit --no-fund --loglevel=error "node@$node_wanted")
  fi
  PATH="$node_home/node_modules/.bin:$PATH"
  is_recent "$node_wanted"
fi
if ! cmp -s "$here/package.json" "$modules/package.json"; then
  echo "browser: installing playwright-core and axe-core"
  rm -rf "$modules"
  mkdir -p "$modules"
  packages=$(node -p 'Object.entries(require(process.argv[1]).devDependencies).map(([name, version]) => `${name}@${version}`).join(" ")' "$here/package.json")
  # shellcheck disable=SC2086 # one word per package
  (cd "$modules" && npm install --no-save --no-package-lock --no-audit --no-fund --loglevel=error $packages)
  cp "$here/package.json" "$modules/package.json"
fi
"$root/tests/interop/setup.sh" # brings upstream's dashboard files

export KVATLAS_BIN="$binary" BROWSER_MODULES="$modules"
exec node "$here/main.js" "$@"
