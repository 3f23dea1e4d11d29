#!/usr/bin/env bash
# What a heap profile costs: the instructions of a free and a malloc, without a profile and with a sample every 512 KiB,
# and what the difference is of a processor at 1 GiB of allocations a second, or as many as it can do if that is less.
#
# usage: bench/watch/profile.sh [LIBRARY]     after `cargo build --release`; needs valgrind
set -euo pipefail
cd "$(dirname "$0")/../.."
library=${1:-$PWD/target/release/libslabside_preload.so}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -O2 -fno-builtin -o "$work/replace" bench/watch/replace.c

# count OPTIONS SIZE TIMES: instructions of a whole run.
count() {
    LD_PRELOAD=$library SLABSIDE_OPTIONS=$1 valgrind --tool=cachegrind --cache-sim=no --branch-sim=no \
        --cachegrind-out-file=/dev/null --log-file="$work/log" "$work/replace" 20000 "$2" "$3"
    sed -n 's/.*I *refs: *\([0-9,]*\).*/\1/p' "$work/log" | tr -d ,
}

# pair OPTIONS SIZE TIMES: instructions of one round, that of the start left out.
pair() {
    awk -v a="$(count "$1" "$2" "$3")" -v b="$(count "$1" "$2" $((3 * $3)))" -v n="$3" 'BEGIN { print (b - a) / (2 * n) }'
}

echo '| bytes | instructions of a free and a malloc | with a profile | more | of a processor at 1 GiB/s |'
echo '|---|---|---|---|---|'
for size in 16 88 1000 20000; do
    times=$((400000000 / size))
    times=$((times > 800000 ? 800000 : times))
    # A processor executes three billion instructions a second.
    awk -v size=$size -v off="$(pair '' $size $times)" -v on="$(pair profile:512k $size $times)" 'BEGIN {
        more = on - off
        rate = 2 ^ 30 / size < 3e9 / off ? 2 ^ 30 / size : 3e9 / off
        printf "| %d | %.2f | %.2f | %.1f %% | %.2f %% |\n", size, off, on, 100 * more / off, 100 * more * rate / 3e9 }'
done
