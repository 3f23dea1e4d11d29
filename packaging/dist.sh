#!/usr/bin/env bash
# Packs a tree that runs where it is unpacked: bin/slabside finds ../lib/libslabside.so.0, and slabside.pc and the CMake
# package name the tree by their own place.
#
# usage: packaging/dist.sh [DIRECTORY]    (target/packages)
set -euo pipefail
cd "$(dirname "$0")/.."
to=$(realpath -m "${1:-${CARGO_TARGET_DIR:-target}/packages}")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=slabside-$version-$(uname -m)-linux-gnu
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
# shellcheck disable=SC2016 # pkg-config replaces it
make --no-print-directory -s install DESTDIR="$stage/$name" PREFIX= PC_PREFIX='$${pcfiledir}/../..'
cp LICENSE "$stage/$name"
# What the first page links to lies with the other pages.
sed -E 's#\]\(([^):]+)\)#](share/doc/slabside/\1)#g' README.md > "$stage/$name/README.md"
mkdir -p "$to"
tar -C "$stage" --owner=0 --group=0 --sort=name -czf "$to/$name.tar.gz" "$name"
echo "$to/$name.tar.gz"
