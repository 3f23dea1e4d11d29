#!/usr/bin/env bash
# What slabside adds to the start and end of a program that says hello: the middle time of many starts, and of the
# ratios to a start without it right before. An empty library shows what loading any costs; jemalloc and mimalloc are
# measured where Debian's packages have them.
#
# usage: bench/startup.sh [ROUNDS]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cargo build --release --quiet --manifest-path "$root/Cargo.toml" -p slabside-preload
target=$(cargo metadata --manifest-path "$root/Cargo.toml" --no-deps --format-version 1 |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gcc -O2 -Wall "$root/bench/startup.c" -o "$work/startup"
printf '#include <stdio.h>\nint main(void) { puts("hello, world"); return 0; }\n' | gcc -O2 -x c - -o "$work/hello"
gcc -shared -fPIC -x c /dev/null -o "$work/empty.so"
libraries=("$work/empty.so" "$target/release/libslabside_preload.so")
for library in /usr/lib/*/libjemalloc.so.2 /usr/lib/*/libmimalloc.so.2; do
    if [ -e "$library" ]; then
        libraries+=("$library")
    else
        echo "not measured: there is no $library" >&2
    fi
done
"$work/startup" "${1:-2000}" "$work/hello" "${libraries[@]/#/LD_PRELOAD=}" | grep -v '^hello'
