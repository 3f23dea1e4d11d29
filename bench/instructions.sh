#!/usr/bin/env bash
# Counts the instructions of slabside's fast paths with callgrind; ends with 1 where one is over its budget
# in budgets.toml. Builds slabside and two small programs, no peers. Needs valgrind.
#
# usage: bench/instructions.sh [ARGUMENT]...    LIBRARY=FILE counts those of a library that was built before
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$here/target}")
cd "$here"
[ -n "${LIBRARY:-}" ] || cargo build --release --quiet --manifest-path ../preload/Cargo.toml
cargo build --release --quiet --no-default-features --bin probe --bin instructions
exec "$CARGO_TARGET_DIR/release/instructions" "$@" slabside="${LIBRARY:-$CARGO_TARGET_DIR/release/libslabside_preload.so}"
