#!/usr/bin/env bash
# What crates.io would get: packs the crates, builds each from its package as `cargo publish` does, and runs a program by
# the packed command, which has no source tree around it and carries its library.
#
# usage: packaging/crates.sh    (asks the registry for what the crates depend on)
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/crates")

cargo publish --workspace --dry-run --allow-dirty --quiet
cp "$CARGO_TARGET_DIR/debug/slabside" "$scratch/slabside"
export HOME=$scratch/home
unset XDG_CACHE_HOME LD_PRELOAD SLABSIDE_LIBRARY SLABSIDE_OPTIONS
said=$("$scratch/slabside" run --stats -- ls / 2>&1)
grep -q 'live at its peak' <<< "$said" || { echo "the packed command: $said" >&2; exit 1; }
[ "$(stat -c %a "$HOME/.cache/slabside")" = 700 ]
ls "$HOME"/.cache/slabside/libslabside-*.so > /dev/null
echo 'crates: packed, built, and the packed command runs programs'
