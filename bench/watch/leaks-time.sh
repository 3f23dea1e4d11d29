#!/usr/bin/env bash
# How long `slabside leaks` takes for a heap of 1 GiB in blocks of 88 bytes, of which the program has lost ten: while it
# rests and while it replaces blocks as fast as it can. Seconds of the clock and of processors, the best of five.
#
# usage: bench/watch/leaks-time.sh [BLOCKS]     after `cargo build --release`; needs gcc and jq
set -euo pipefail
cd "$(dirname "$0")/../.."
blocks=${1:-12200000}
command=target/release/slabside
work=$(mktemp -d)
target=
trap 'kill $target 2>/dev/null; rm -rf "$work"' EXIT
gcc -O2 -fno-builtin -o "$work/target" bench/watch/target.c
TIMEFORMAT='%R %U %S'

# row TITLE OPTION...: the times of the fastest of five searches.
row() {
    local title=$1
    shift
    : > "$work/times"
    for _ in 1 2 3 4 5; do
        { time "$command" leaks $target --json "$@" > "$work/report"; } 2> "$work/time"
        jq -e '.proved and .count == 10' "$work/report" > "$work/exact" || { cat "$work/report"; exit 1; }
        printf '%s %s\n' "$(cat "$work/time")" "$(jq -r '"\(.passes) \(.held_ms)"' "$work/report")" >> "$work/times"
    done
    sort -n "$work/times" | head -n 1 | awk -v title="$title" \
        '{ printf "%-32s %.2f s, %.2f s of processors, %d passes, stopped for %.0f ms\n", title, $1, $2 + $3, $4, $5 }'
}

for pace in 0.000001 0; do
    LD_PRELOAD=$PWD/target/release/libslabside_preload.so "$work/target" "$blocks" $pace 10 > "$work/counts" &
    target=$!
    until grep -q ready "$work/counts"; do sleep 0.2; done
    what='at full speed'
    [ $pace = 0 ] || what='at rest'
    row "$what:"
    row "$what, --stop:" --stop
    kill $target
    wait $target 2> "$work/ended" || true
done
