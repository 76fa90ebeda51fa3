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
# Every command that `kvatlas help` lists.
for page in $("$stage/kvatlas" help | awk '/^Commands:/ { on = 1; next } on && !NF { exit } on && $1 != "help" { print $1 }'); do
  "$stage/kvatlas" man "$page" > "$stage/man/kvatlas-$page.1"
done
cp LICENSE README.md CHANGELOG.md packaging/systemd/kvatlas.service "$stage/"
metadata="$(mktemp)"
trap 'rm -f "$metadata"' EXIT
cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu > "$metadata"
python3 -B packaging/sbom.py kvatlas-server < "$metadata" > "$stage/kvatlas.cdx.json"
python3 -B packaging/sbom.py kvatlas-server --licenses < "$metadata" > "$stage/LICENSES-THIRD-PARTY"
cp "$stage/kvatlas.cdx.json" "$out/$name.cdx.json"
# Equal inputs give an equal archive.
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$out" -c "$name" | gzip -n > "$stage.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" "$name.cdx.json" "$name/kvatlas" | tee "$name.sha256")
