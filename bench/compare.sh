#!/usr/bin/env bash
# Builds everything and makes the whole comparison: writes docs/benchmarks.md, docs/counts.md and docs/plots.
# Options are those of src/bin/compare/main.rs. With --quick it takes under three minutes and counts nothing, else an hour.
#
# Needs: a C and a C++ compiler, cmake, valgrind, and of Debian's packages libjemalloc2 libtcmalloc-minimal4.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$here/target}")
"$here/peers.sh"
cd "$here"
cargo build --release --quiet --no-default-features --features report --bins
cd - > /dev/null
exec "$CARGO_TARGET_DIR/release/compare" "$@"
