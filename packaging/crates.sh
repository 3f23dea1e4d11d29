#!/usr/bin/env bash
# What crates.io would get: packs the crates, unpacks them in a scratch directory, and installs the command from there by
# cargo. So each crate is built from its package alone, as `cargo publish` does, and the command, which has no source tree
# around it, runs a program on the library that it carries.
#
# usage: packaging/crates.sh    (asks the registry for what the crates depend on)
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Shared with the tests: most of the time goes into what the crates depend on.
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR

rm -rf "$CARGO_TARGET_DIR/package"
cargo publish --workspace --dry-run --no-verify --allow-dirty --quiet
cargo package -p slabside -p slabside-view -p slabside-cli --no-verify --allow-dirty --quiet
for package in "$CARGO_TARGET_DIR"/package/*.crate; do
    tar -C "$scratch" -xzf "$package"
done
# The registry has no slabside yet: cargo takes the unpacked ones in its place, and the same versions of all others.
cat > "$scratch/Cargo.toml" << 'MANIFEST'
[workspace]
members = ["slabside-*"]
resolver = "2"
MANIFEST
{
    echo '[patch.crates-io]'
    for name in slabside slabside-view; do
        echo "$name = { path = '$(basename "$scratch/$name"-[0-9]*)' }"
    done
} >> "$scratch/Cargo.toml"
cp Cargo.lock "$scratch"
cd "$scratch"
cargo metadata --format-version 1 > /dev/null # leaves out of Cargo.lock what only the other crates need
cargo install --quiet --debug --locked --root "$scratch/root" --path slabside-cli-[0-9]*

export HOME=$scratch/home
unset XDG_CACHE_HOME LD_PRELOAD SLABSIDE_LIBRARY SLABSIDE_OPTIONS
said=$("$scratch/root/bin/slabside" run --stats -- ls / 2>&1)
grep -q 'live at its peak' <<< "$said" || { echo "the packed command: $said" >&2; exit 1; }
[ "$(stat -c %a "$HOME/.cache/slabside")" = 700 ]
ls "$HOME"/.cache/slabside/libslabside-*.so > /dev/null
echo 'crates: packed; the command that cargo installs from the packages runs programs'
