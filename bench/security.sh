#!/usr/bin/env bash
# Makes the tables of docs/security.md anew: how each program of tests/c/misuse ends, what each part of hardened mode
# ends beside the peers, how well places can be foretold, and what it costs in time, memory and instructions.
#
# usage: bench/security.sh [--print | --shape] [TABLE ...]     tables: programs endings steps costs
#
# Without a table it makes all, in half an hour. --print writes them to the output and not to the page. --shape measures
# nothing and prints what the tables are to look like, each figure a dash: tests/documentation.rs compares the page.
#
# ROUNDS says how often each row is timed (3), of which the least time counts. Peers are hardened_malloc (its full
# variant, from its crate) and Scudo (Debian's libclang-rt-19-dev). A figure of a peer that is not there is told as "not
# installed", and one of a peer that fails, or does not run under valgrind, is a dash.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
page=$here/../docs/security.md
programs=$here/../tests/c
to=page
case ${1:-} in
    --print) to=output; shift ;;
    --shape) to=shape; shift ;;
esac
tables=${*:-programs endings steps costs}
rounds=${ROUNDS:-3}

sizes='16 1000 4000 8000 8192 20000 40000 100000 200000 1048576'
kinds='double_free invalid_free write_after_free read_after_free overflow underflow forged sized_delete realloc usable_size'
# What is timed, and in how many operations; and of how many the instructions are counted, where they are.
rows='pair-64 3000000 20000
pair-512 3000000 20000
pair-4096 1000000 20000
churn-1k 3000000 20000
churn-1k-log 1000000 20000
churn-20k 2000000 50000
churn-20k-log 500000 50000
churn-1m 400000 -
batch-forwards 1000000 200000
batch-shuffled 1000000 200000
trees 2000000 200000
strings-20k 1000000 50000
medium 20000 2000
large-2m 1000 -
zeroed-small 500000 20000
zeroed-large 1000 -
handoff-pair 500000 -
mayflies 100000 -
scale-2 2000000 -'

ulimit -c 0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
shape=
[ "$to" != shape ] || shape=1

# ---- allocators: a name, the options of slabside, the library ----

names=() options=() libraries=()
allocator() { names+=("$1") options+=("$2") libraries+=("$3"); }
# The first of slabside's is by default. `missing` stands for a library that is not there.
allocators() {
    local wanted
    names=() options=() libraries=()
    for wanted in "$@"; do
        case $wanted in
            glibc) allocator glibc '' '' ;;
            default) allocator default '' "$slabside" ;;
            hardened_malloc) allocator hardened_malloc '' "$hardened_malloc" ;;
            Scudo) allocator Scudo '' "$scudo" ;;
            *) allocator "$wanted" "${wanted// /}" "$slabside" ;;
        esac
    done
}

build() {
    export CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$here/target}")
    cd "$here"
    cargo build --release --quiet --no-default-features --features report --bins
    cargo build --release --quiet --manifest-path ../preload/Cargo.toml
    runner=$CARGO_TARGET_DIR/release/runner
    slabside=$CARGO_TARGET_DIR/release/libslabside_preload.so
    hardened_malloc=$(cargo build --release --lib --quiet --no-default-features --features hardened --message-format=json |
        grep '"reason":"build-script-executed"' | grep '[/#]hardened_malloc-rs[@#-]' |
        sed 's/.*"out_dir":"\([^"]*\)".*/\1/')/libhardened_malloc.so || true
    [ -e "$hardened_malloc" ] || hardened_malloc=missing
    scudo=$(find /usr/lib/llvm-* -name 'libclang_rt.scudo_standalone-x86_64.so' 2>/dev/null | sort | tail -n 1)
    [ -n "$scudo" ] || scudo=missing
}
slabside= hardened_malloc= scudo=
[ -n "$shape" ] || [ "$tables" = programs ] || build

# with AT COMMAND ...: runs a command on the allocator.
with() {
    local at=$1
    shift
    env SLABSIDE_OPTIONS="${options[at]}" LD_PRELOAD="${libraries[at]}" "$@"
}

# cell AT COMMAND ...: a table's cell: what the command prints, which may use the allocator AT.
cell() {
    local said
    if [ -n "$shape" ]; then
        printf ' - |'
    elif [ "${libraries[$1]}" = missing ]; then
        printf ' not installed |'
    else
        said=$("${@:2}" "$1" 2>"$scratch/said" < /dev/null) || said=-
        printf ' %s |' "${said:--}"
    fi
}

# heading WORDS ...: a table's first two lines, all but the first column to the right.
heading() {
    printf '|'
    printf ' %s |' "$@"
    printf '\n| --- |'
    shift
    printf ' --: |%.0s' "$@"
    echo
}

# ---- endings ----

# 1 where a program that misuses the heap was ended by a signal. One that goes on and finds the heap damaged exits.
ended() {
    local status=0
    (with "$2" timeout 20 "$1") > /dev/null 2>&1 || status=$?
    [ "$status" -gt 128 ] && echo 1 || echo 0
}
all_ended() {
    local program count=0 of=0
    for program in "$scratch/$kind"*; do
        of=$((of + 1))
        count=$((count + $(ended "$program" "$1")))
    done
    echo "$count of $of"
}
endings() {
    allocators glibc default zero canary quarantine random guard hardened hardened_malloc Scudo
    local file kind compiler
    heading misuse "${names[@]}"
    for kind in $kinds; do
        rm -f "$scratch/$kind"*
        for file in "$programs/misuse/$kind"*; do
            # One form of the programs has a heap beside the C library's.
            [ -z "$shape" ] && ! grep -q 'form: *prefixed' "$file" || continue
            compiler=cc
            [ "${file##*.}" = c ] || compiler=c++
            $compiler -w -O2 -fno-builtin -pthread -I "$here/../include" -o "$scratch/$(basename "${file%.*}")" "$file"
        done
        printf '| %s |' "${kind//_/ }"
        for at in "${!names[@]}"; do cell "$at" all_ended; done
        echo
    done
}

# ---- steps ----

step() {
    with "$3" timeout 300 "$scratch/spread" "$1" "$2" | awk '{ print $(NF - 1) " %" }'
}
again() {
    with "$2" timeout 300 "$scratch/spread" reuse "$1" |
        awk '{ print $5 == $7 ? ($8 == "(never)" ? "none within " $7 : $5) : $5 " to " ($8 == "(never)" ? "more than " : "") $7 }'
}
steps() {
    allocators default hardened hardened_malloc Scudo
    local size at heap titles=()
    [ -n "$shape" ] || cc -O2 -fno-builtin -I "$here/../include" -o "$scratch/spread" "$programs/hardened/spread.c"
    for heap in fresh full; do
        for at in "${!names[@]}"; do titles+=("$heap: ${names[at]}"); done
    done
    heading bytes "${titles[@]}"
    for size in $sizes; do
        printf '| %s |' "$size"
        for heap in fresh full; do
            for at in "${!names[@]}"; do cell "$at" step "$heap" "$size"; done
        done
        echo
    done
    printf '\nPairs of malloc and free until a freed block comes back, third least and third most of 240:\n\n'
    heading bytes "${names[@]}"
    for size in $sizes; do
        printf '| %s |' "$size"
        for at in "${!names[@]}"; do cell "$at" again "$size"; done
        echo
    done
}

# ---- costs ----

# Nanoseconds an operation and bytes at the peak.
timed() {
    with "$3" timeout 300 "$runner" row "$1" "$2" |
        awk '/^time/ { time = $3 / $2 } /^peak/ { peak = $2 } END { if (time > 0) print time, peak }'
}
# Instructions of so many operations, and how many they were.
counted() {
    with "$3" valgrind --tool=cachegrind --cache-sim=no -q --cachegrind-out-file="$scratch/counts" \
        "$runner" count "$1" "$2" | awk '/^time/ { print $2 }'
    sed -n 's/^summary: *//p' "$scratch/counts"
}
# Instructions an operation: those of the second half, so that neither the start nor the making of the heap counts.
instructions() {
    { counted "$1" "$2" "$3" && counted "$1" $((2 * $2)) "$3"; } 2> /dev/null | tr '\n' ' ' |
        awk 'NF == 4 && $3 > $1 { print ($4 - $2) / ($3 - $1) }'
}

# Runs all there is to run: lines "times ROW NAME NANOSECONDS PEAK" and "counts ROW NAME INSTRUCTIONS".
measured() {
    local round row ops count at
    for ((round = 1; round <= rounds; round++)); do
        while read -r row ops count; do
            for at in "${!names[@]}"; do
                [ "${libraries[at]}" = missing ] || echo "times|$row|${names[at]}|$(timed "$row" "$ops" "$at")"
            done
        done <<< "$rows"
    done
    while read -r row ops count; do
        for at in "${!names[@]}"; do
            [ "${libraries[at]}" = missing ] || [ "$count" = - ] ||
                echo "counts|$row|${names[at]}|$(instructions "$row" "$count" "$at")"
        done
    done <<< "$rows"
}

costs() {
    allocators default 'zero, quarantine' hardened hardened_malloc Scudo
    local at missing=
    for at in "${!names[@]}"; do
        [ "${libraries[at]}" != missing ] || missing+=" ${names[at]}"
    done
    if [ -n "$shape" ]; then : > "$scratch/figures"; else measured < /dev/null > "$scratch/figures"; fi
    local titles=("${names[@]}" 'time, hardened over hardened_malloc' 'peak, the same')
    heading row "${titles[@]}"
    cost_table times
    printf '\nInstructions an operation, with what the row itself does:\n\n'
    heading row "${names[@]}" 'hardened over hardened_malloc'
    cost_table counts
}

# cost_table times|counts: the rows of a table and its sums, out of the figures.
cost_table() {
    { echo "$rows"; echo; cat "$scratch/figures"; } | awk -v kind="$1" -v missing=" $missing " -v shape="$shape" '
    BEGIN { count = split("default|zero, quarantine|hardened|hardened_malloc|Scudo", name, "|"); FS = " " }
    !figures && NF == 0 { figures = 1; FS = "|"; next }
    !figures { if (kind == "times" || $3 != "-") order[++all] = $1; next }
    $1 != kind || $4 == "" { next }
    {
        split($4, figure, " ")
        key = $2 SUBSEP $3
        if (!(key in time) || figure[1] < time[key]) time[key] = figure[1]
        if (!(key in peak) || figure[2] < peak[key]) peak[key] = figure[2]
    }
    function cell(row, who) {
        if (index(missing, " " who " ")) return " not installed |"
        if (!((row SUBSEP who) in time)) return " - |"
        if (kind == "counts") return sprintf(" %.0f |", time[row, who])
        return sprintf(" %.0f ns, %.1f MB |", time[row, who], peak[row, who] / 1e6)
    }
    # The quotient of two figures as a cell, noted for a mean.
    function over(which, a, b) {
        if (!(a > 0 && b > 0)) return " - |"
        sum[which] += log(a / b); number[which]++
        return sprintf(" %.2f |", a / b)
    }
    function mean(which) { return number[which] ? sprintf("%.2f", exp(sum[which] / number[which])) : "-" }
    END {
        for (i = 1; i <= all; i++) {
            row = order[i]
            line = "| " row " |"
            for (j = 1; j <= count; j++) line = line cell(row, name[j])
            line = line over("malloc", time[row, "hardened"], time[row, "hardened_malloc"])
            if (kind == "times") line = line over("peak", peak[row, "hardened"], peak[row, "hardened_malloc"])
            over("scudo", time[row, "hardened"], time[row, "Scudo"])
            over("parts", time[row, "zero, quarantine"], time[row, "default"])
            print line
        }
        printf "\nGeometric means: hardened over hardened_malloc %s", mean("malloc")
        if (kind == "times") printf ", its peak %s", mean("peak")
        printf ". Hardened over Scudo %s. `zero,quarantine` over the default %s.\n", mean("scudo"), mean("parts")
    }'
}

# ---- the page ----

# Puts what comes in between the marks of table $1 on the page.
put() {
    { echo; cat; echo; } > "$scratch/table"
    awk -v table="$scratch/table" -v first="<!-- $1, written by bench/security.sh -->" -v last="<!-- end of $1 -->" '
        $0 == last { inside = 0; ended = 1 }
        !inside { print }
        $0 == first { inside = 1; begun = 1; while ((getline line < table) > 0) print line }
        END { exit !(begun && ended) }' "$page" > "$scratch/page"
    cat "$scratch/page" > "$page"
}

for table in $tables; do
    if [ "$table" = programs ]; then
        # The tests write that one.
        [ "$to" != page ] || SLABSIDE_WRITE=1 cargo test --quiet --release --manifest-path "$here/../Cargo.toml" --test catalogue
    elif [ "$to" = page ]; then
        "$table" > "$scratch/made"
        put "$table" < "$scratch/made"
    else
        echo "<!-- $table, written by bench/security.sh -->"
        printf '\n%s\n\n' "$("$table")"
        echo "<!-- end of $table -->"
    fi
done
