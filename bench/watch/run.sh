#!/usr/bin/env bash
# What watching costs: the time of a refresh, for how long a process is held with --stop, what the process loses, and
# the memory of the command. A heap of 1 GiB in blocks of 88 bytes; the best of many, since others use the machine too.
#
# usage: bench/watch/run.sh [BLOCKS]     after `cargo build --release`
set -euo pipefail
cd "$(dirname "$0")/../.."
blocks=${1:-12200000}
command=target/release/slabside
library=target/release/libslabside_preload.so
work=$(mktemp -d)
cc -O2 -o "$work/target" bench/watch/target.c
LD_PRELOAD=$PWD/$library "$work/target" "$blocks" "${PACE:-0}" > "$work/counts" &
target=$!
trap 'kill $target 2>/dev/null; rm -rf "$work"' EXIT
until grep -q ready "$work/counts"; do sleep 0.2; done

# best FIELD: the least and the middle one of a field of JSON lines.
best() {
    jq -r ".$1" | sort -n | awk '{ all[NR] = $1 } END { printf "%.1f ms best, %.1f ms middle of %d\n", all[1], all[int((NR + 1) / 2)], NR }'
}

printf 'a refresh, not stopped:  '
timeout 12 "$command" top $target -d 0.2 --json > "$work/plain" || true
best took_ms < "$work/plain"
printf 'a refresh with --stop:   '
timeout 12 "$command" top $target -d 0.2 --json --stop > "$work/stop" || true
best took_ms < "$work/stop"
printf 'held with --stop:        '
best held_ms < "$work/stop"
printf 'metadata:                '
head -n 1 "$work/plain" | jq -r '"\(.metadata / 1048576 * 10 | round / 10) MiB of \(.resident / 1073741824 * 100 | round / 100) GiB resident"'
printf 'memory of the command:   '
"$command" top $target -d 0.2 --json > "$work/plain" &
watcher=$!
sleep 4
awk '/VmHWM/ { printf "%.1f MiB\n", $2 / 1024 }' /proc/$watcher/status
kill $watcher

# Blocks replaced in half a second of the target's own time, with and without a command that looks each second.
for round in 1 2 3 4 5; do
    for way in without with; do
        [ $way = with ] && { "$command" top $target -d 1 --json > /dev/null & watcher=$!; }
        : > "$work/window"
        tail -n 0 -f "$work/counts" > "$work/window" &
        tail=$!
        sleep 6
        kill $tail
        [ $way = with ] && kill $watcher
        grep -x '[0-9]*' "$work/window" >> "$work/$way" || true
    done
done
for way in without with; do
    sort -n "$work/$way" | awk -v way=$way '{ all[NR] = $1 }
        END { printf "%-24s %d replaced at best, %d in the middle of %d\n", way ":", all[NR], all[int((NR + 1) / 2)], NR }'
done
