#!/usr/bin/env bash
# The commands of the guide's pages docs/profile.md, docs/leaks.md and docs/fat.md with what they print of redis, Python, a
# C++ and a Rust server.
#
# usage: bench/watch/guide.sh [leaks|fat|profile]...     after `cargo build --release`; needs g++, rustc, python3 and redis
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2> /dev/null; rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$here/target/release/slabside" "$work/bin/slabside"
export PATH=$work/bin:$PATH SLABSIDE_LIBRARY=$here/target/release/libslabside_preload.so PYTHONMALLOC=malloc
g++ -O1 -g -std=c++17 -o "$work/server" bench/watch/server.cpp
rustc -O -g --edition 2021 -o "$work/rust-server" bench/watch/server.rs
gcc -O1 -g -fno-builtin -Iinclude -o "$work/ending" tests/c/watch/ending.c
cp bench/watch/server.py "$work"
cd "$work"

# begin NAME COMMAND...: starts a program on slabside with a profile. Its number is in the variable NAME.
begin() {
    local name=$1
    shift
    slabside run --option profile:8k -- "$@" > "$name.out" 2>&1 &
    pids+=($!)
    printf -v "$name" %s $!
}

# show COMMAND: prints it as typed, and what it prints.
show() {
    printf '$ %s\n' "$1"
    bash -c "$1" 2>&1 || printf '(status %s)\n' $?
}

begin cpp ./server
begin rust ./rust-server
begin python python3 server.py
begin redis redis-server --port 0 --unixsocket redis.sock --save ''
for name in cpp rust python; do
    until grep -q ready $name.out; do sleep 0.1; done
done
until [ -S redis.sock ]; do sleep 0.1; done
redis-benchmark -s redis.sock -q -n 100000 -r 50000 -t set,lpush,hset > redis-benchmark.out
sleep 2

leaks() {
    for pid in $cpp $rust $python $redis; do
        show "slabside leaks $pid"
    done
    local block
    block=$(slabside leaks "$cpp" --json | jq -r '[.lost[] | select(.what == "Session object")][0].example')
    show "slabside explain --who $cpp $(printf 0x%x "$block")"
    show 'slabside run --leaks -- ./ending'
    show 'slabside run --leaks --option profile:1 -- ./ending'
    printf '# The sessions that lead to each other are known.\nleak:drop_session\nleak:Session object\n' > known.txt
    show 'cat known.txt'
    show "slabside leaks $cpp --suppressions known.txt --fail; echo \$?"
    for pid in $cpp $rust $python $redis; do
        show "slabside diff $pid --every 2s --for 10s | cut -c 1-120"
    done
}

fat() {
    for pid in $cpp $rust $python $redis; do
        show "slabside top $pid --once | head -n 10"
        show "slabside types $pid | head -n 14"
    done
    local text request log
    first() { slabside explain --who "$cpp" "$1" --json | jq -r '.addresses[0].holders[0].place' | grep -o '0x[0-9a-f]*' | head -n 1; }
    text=$(slabside types "$cpp" --json | jq -r '.repeated[0].example')
    text=$(printf 0x%x "$text")
    for _ in 1 2 3; do
        show "slabside explain --who $cpp $text | grep 'block of\|held'"
        text=$(first "$text")
        [ -n "$text" ] || break
    done
    show "slabside map $redis --pins | head -n 6"
    show "slabside map $redis --by type"
}

profile() {
    for pid in $cpp $rust $python $redis; do
        show "slabside profile $pid | head -n 14"
    done
    show "slabside profile $cpp --kind grown --for 10s | head -n 16"
    show "slabside profile $redis --folded heap.folded && head -n 6 heap.folded | cut -c 1-150"
    show "slabside profile $cpp --on 16k"
    show "slabside profile $cpp --off"
    show 'slabside run --profile=heap.folded --profile-interval 1k -- ./ending; cat heap.folded'
    show 'slabside run --profile=heap.json --profile-interval 1k -- ./ending; jq -c "del(.stacks, .live)" heap.json'
    show "slabside profile $rust --json | jq -c 'del(.stacks), .stacks[0].frames[0], (.stacks[0] | del(.frames))'"
}

[ $# -gt 0 ] || set -- profile leaks fat
for page in "$@"; do
    printf '== %s\n' "$page"
    $page
done
