#!/usr/bin/env bash
# What crates.io would get: packs the crates and builds each from its package, as `cargo publish` does. Then installs the
# command from the packages alone, unpacked in a scratch directory, and runs a program by it: the command has no source
# tree around it, and carries its library.
#
# usage: packaging/crates.sh    (asks the registry for what the crates depend on)
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/crates")
export CARGO_TARGET_DIR

cargo publish --workspace --dry-run --allow-dirty --quiet
# The registry has no slabside yet: cargo takes the unpacked ones in its place.
patches=()
for package in "$CARGO_TARGET_DIR"/package/*.crate; do
    tar -C "$scratch" -xzf "$package"
    name=$(basename "$package" .crate)
    [ "${name%-[0-9]*}" = slabside-cli ] ||
        patches+=(--config "patch.crates-io.${name%-[0-9]*}.path='$scratch/$name'")
done
(cd "$scratch" && cargo install --quiet --debug --root "$scratch/root" "${patches[@]}" --path slabside-cli-[0-9]*)
export HOME=$scratch/home
unset XDG_CACHE_HOME LD_PRELOAD SLABSIDE_LIBRARY SLABSIDE_OPTIONS
said=$("$scratch/root/bin/slabside" run --stats -- ls / 2>&1)
grep -q 'live at its peak' <<< "$said" || { echo "the packed command: $said" >&2; exit 1; }
[ "$(stat -c %a "$HOME/.cache/slabside")" = 700 ]
ls "$HOME"/.cache/slabside/libslabside-*.so > /dev/null
echo 'crates: packed and built; the command that cargo installs from the packages runs programs'
