#!/usr/bin/env bash
# dist.sh BINARY DIRECTORY NAME: a release archive of BINARY, its bill of materials and checksums.
set -euo pipefail
binary="$1" out="$2" name="$3"
stage="$out/$name"
rm -rf "$stage" "$stage.tar.gz"
mkdir -p "$stage"/{completions,man}
install -m 755 "$binary" "$stage/kvatlas"
strip "$stage/kvatlas"
"$stage/kvatlas" completions bash > "$stage/completions/kvatlas.bash"
"$stage/kvatlas" completions zsh > "$stage/completions/_kvatlas"
"$stage/kvatlas" completions fish > "$stage/completions/kvatlas.fish"
"$stage/kvatlas" man > "$stage/man/kvatlas.1"
for page in serve lookup workers instances stats pin clear move compress decompress health check events diagnose demo worker bench; do
  "$stage/kvatlas" man "$page" > "$stage/man/kvatlas-$page.1"
done
cp LICENSE README.md CHANGELOG.md packaging/systemd/kvatlas.service "$stage/"
cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu \
  | python3 packaging/sbom.py kvatlas-server > "$stage/kvatlas.cdx.json"
cp "$stage/kvatlas.cdx.json" "$out/$name.cdx.json"
# Equal inputs give an equal archive.
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$out" -c "$name" | gzip -n > "$stage.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" "$name.cdx.json" "$name/kvatlas" | tee "$name.sha256")
