#!/usr/bin/env bash
# The table of docs/leaks.md: what slabside, memcheck and LeakSanitizer say of programs that lose blocks.
#
# usage: bench/watch/leaks.sh     after `cargo build --release`; needs valgrind, gcc and jq
set -euo pipefail
cd "$(dirname "$0")/../.."
command=$PWD/target/release/slabside
library=$PWD/target/release/libslabside_preload.so
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=tests/c/watch/leaky.c
gcc -O1 -g -fno-builtin -pthread -Iinclude -o "$work/leaky" $source
gcc -O1 -g -fno-builtin -pthread -Iinclude -fsanitize=leak -o "$work/leaky-lsan" $source

# blocks PATTERN: the sum of the blocks that memcheck tells of in lines with PATTERN.
blocks() {
    { grep -E "$1" "$work/memcheck" || true; } | sed 's/.* in \([0-9,]*\) blocks.*/\1/; s/,//g' | awk '{ sum += $1 } END { print sum + 0 }'
}

echo '| program | lost | slabside | memcheck, definitely and indirectly | possibly | LeakSanitizer |'
echo '|---|---|---|---|---|---|'
for way in direct list tree ring table large aligned freed thread held middle mapped disguised; do
    lost=$("$command" run --library "$library" --leaks --json -- "$work/leaky" $way 2> "$work/slabside")
    slabside=$(jq .count "$work/slabside")
    valgrind --leak-check=full "$work/leaky" $way > "$work/out" 2> "$work/memcheck"
    sure=$(blocks 'definitely lost: [1-9]|indirectly lost: [1-9]')
    possibly=$(blocks 'possibly lost: [1-9]')
    "$work/leaky-lsan" $way > "$work/out" 2> "$work/lsan" || true
    sanitizer=$(sed -n 's/^SUMMARY: .*leaked in \([0-9]*\) allocation.*/\1/p' "$work/lsan")
    echo "| $way | $lost | $slabside | $sure | $possibly | ${sanitizer:-0} |"
done
