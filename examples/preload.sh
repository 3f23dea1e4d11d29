#!/bin/sh
# slabside under an unmodified program: by the command, and by the dynamic linker alone.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --workspace
target/release/slabside run --stats -- python3 -c 'print(sum(len(str(n)) for n in range(200000)))'
LD_PRELOAD="$PWD/target/release/libslabside_preload.so" python3 -c 'print("hello from slabside")'
