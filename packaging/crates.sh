#!/usr/bin/env bash
# What crates.io would get: packs the crates, unpacks them in a scratch directory, and installs the command from there by
# cargo. So each crate is built from its package alone, as `cargo publish` does, and the command, which has no source tree
# around it, runs a program on the library that it carries. A program in Rust runs on the packed allocator.
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
cargo package -p slabside-base -p slabside-core -p slabside -p slabside-view -p slabside-cli --no-verify --allow-dirty --quiet
for package in "$CARGO_TARGET_DIR"/package/*.crate; do
    tar -C "$scratch" -xzf "$package"
done
# What the crates share may change with any version, so each names the others' by it. Every package has the licence.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
for package in "$scratch"/slabside-*; do
    [ -s "$package/LICENSE" ] || { echo "$(basename "$package") has no LICENSE" >&2; exit 1; }
    wrong=$(grep -A 1 '^\[dependencies\.slabside' "$package/Cargo.toml" | grep '^version' | grep -vxF "version = \"=$version\"" || true)
    [ -z "$wrong" ] || { echo "$(basename "$package") takes another one of the crates by: $wrong" >&2; exit 1; }
done
# The registry has no slabside yet: cargo takes the unpacked ones in its place, and the same versions of all others.
cat > "$scratch/Cargo.toml" << 'MANIFEST'
[workspace]
members = ["slabside-*", "user", "shared"]
resolver = "2"
MANIFEST
# A program as its users write it, of another crate.
mkdir -p "$scratch/user/src"
cat > "$scratch/user/Cargo.toml" << 'MANIFEST'
[package]
name = "user"
version = "0.0.0"
edition = "2021"

[dependencies]
slabside = { version = "0", features = ["allocator-api2", "override", "valgrind"] }
MANIFEST
cat > "$scratch/user/src/main.rs" << 'PROGRAM'
slabside::options!("decay:1s");

#[global_allocator]
static ALLOCATOR: slabside::Slabside = slabside::Slabside;

fn main() {
    let text = "text".repeat(1000);
    assert!(slabside::stats().live >= text.len());
    println!("live");
}
PROGRAM
# And a library of Rust, which is linked before the program is.
mkdir -p "$scratch/shared/src"
cat > "$scratch/shared/Cargo.toml" << 'MANIFEST'
[package]
name = "shared"
version = "0.0.0"
edition = "2021"

[lib]
crate-type = ["dylib"]

[dependencies]
slabside = { version = "0", features = ["allocator-api2", "override", "valgrind"] }
MANIFEST
cat > "$scratch/shared/src/lib.rs" << 'LIBRARY'
#[global_allocator]
static ALLOCATOR: slabside::Slabside = slabside::Slabside;
LIBRARY
{
    echo '[patch.crates-io]'
    for name in slabside-base slabside-core slabside slabside-view; do
        echo "$name = { path = '$(basename "$scratch/$name"-[0-9]*)' }"
    done
} >> "$scratch/Cargo.toml"
cp Cargo.lock "$scratch"
# A build script tells where its crate lies: what an earlier run was told is elsewhere.
touch "$scratch"/slabside-*/build.rs
cd "$scratch"
cargo metadata --format-version 1 > /dev/null # leaves out of Cargo.lock what only the other crates need
cargo install --quiet --debug --locked --root "$scratch/root" --path slabside-cli-[0-9]*

[ "$(cargo run --quiet --locked -p user)" = live ]
cargo build --quiet --locked -p shared

export HOME=$scratch/home
unset XDG_CACHE_HOME LD_PRELOAD SLABSIDE_LIBRARY SLABSIDE_OPTIONS
said=$("$scratch/root/bin/slabside" run --stats -- ls / 2>&1)
grep -q 'live at its peak' <<< "$said" || { echo "the packed command: $said" >&2; exit 1; }
[ "$(stat -c %a "$HOME/.cache/slabside")" = 700 ]
ls "$HOME"/.cache/slabside/libslabside-*.so > /dev/null
echo 'crates: packed; the command that cargo installs from the packages runs programs, and so does the allocator'
