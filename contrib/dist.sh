#!/bin/sh
# make dist: a source archive of the last commit with all crates, which builds without a network, and its checksum.
# Usage: dist.sh FOLDER. The archive depends on the commit alone.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=socks5d-$version
rm -rf "$1"
mkdir -p "$1"
folder=$(cd "$1" && pwd)
tree=$folder/$name

[ -z "$(git status --porcelain)" ] || echo "make dist: what is not committed is left out" >&2
git archive --prefix="$name/" HEAD | tar -x -C "$folder"
mkdir "$tree/.cargo"
(cd "$tree" && "${CARGO:-cargo}" vendor --quiet --locked --versioned-dirs vendor)
cat >"$tree/.cargo/config.toml" <<'END'
[source.crates-io]
replace-with = "vendored-sources"

[source.vendored-sources]
directory = "vendor"
END

# Files in the order of their names, with the time of the commit, owned by root: equal bytes each time.
tar -C "$folder" --sort=name --mtime="@$(git log -1 --format=%ct)" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
	--format=gnu -cf - "$name" | xz -6 -T4 >"$folder/$name.tar.xz"
rm -rf "$tree"
cd "$folder"
sha256sum "$name.tar.xz" >SHA256SUMS
cat SHA256SUMS
