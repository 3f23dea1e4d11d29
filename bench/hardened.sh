#!/usr/bin/env bash
# What hardened mode costs: rows on slabside by default, with zero and quarantine, and with all parts, beside
# hardened_malloc (its full variant, from its crate) and Scudo (Debian's libclang-rt-19-dev). Each row is
# run ROUNDS times in turn and the least taken; prints a table in Markdown.
#
# usage: bench/hardened.sh [ROUNDS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/target}
rounds=${1:-3}
cd "$here"
cargo build --release --quiet --no-default-features --features report --bins
cargo build --release --quiet --manifest-path ../preload/Cargo.toml
peer=$(cargo build --release --lib --quiet --no-default-features --features hardened --message-format=json |
    grep '"reason":"build-script-executed"' | grep '[/#]hardened_malloc-rs[@#-]' | sed 's/.*"out_dir":"\([^"]*\)".*/\1/')
runner=$CARGO_TARGET_DIR/release/runner
slabside=$CARGO_TARGET_DIR/release/libslabside_preload.so
scudo=$(find /usr/lib/llvm-* -name 'libclang_rt.scudo_standalone-x86_64.so' 2>/dev/null | tail -n 1)

rows='pair-64 3000000
pair-512 3000000
pair-4096 1000000
churn-1k 3000000
churn-1k-log 1000000
churn-20k 2000000
churn-20k-log 500000
churn-1m 400000
batch-forwards 1000000
batch-shuffled 1000000
trees 2000000
strings-20k 1000000
medium 20000
large-2m 1000
zeroed-small 500000
zeroed-large 1000
handoff-pair 500000
mayflies 100000
scale-2 2000000'

# one OPTIONS LIBRARY ROW OPS: nanoseconds an operation and peak bytes.
one() {
    SLABSIDE_OPTIONS=$1 LD_PRELOAD=$2 "$runner" row "$3" "$4" 2>/dev/null |
        awk '/^time/ { time = $3 / $2 } /^peak/ { peak = $2 } END { print time, peak }'
}

while read -r row ops; do
    for _ in $(seq "$rounds"); do
        echo "$row slabside $(one '' "$slabside" "$row" "$ops")"
        echo "$row zero+quarantine $(one zero,quarantine "$slabside" "$row" "$ops")"
        echo "$row hardened $(one hardened "$slabside" "$row" "$ops")"
        echo "$row hardened_malloc $(one '' "$peer/libhardened_malloc.so" "$row" "$ops")"
        [ -z "$scudo" ] || echo "$row scudo $(one '' "$scudo" "$row" "$ops")"
    done
done <<< "$rows" | awk '
    NF < 4 || $3 == 0 { next }
    !seen[$1]++ { order[++count] = $1 }
    { key = $1 SUBSEP $2 }
    !(key in time) || $3 < time[key] { time[key] = $3 }
    !(key in peak) || $4 < peak[key] { peak[key] = $4 }
    function cell(row, name) { return sprintf(" %.0f ns, %.1f MB |", time[row, name], peak[row, name] / 1e6) }
    function note(which, a, b) { if (a > 0 && b > 0) { sum[which] += log(a / b); number[which]++ } }
    function mean(which) { return number[which] ? exp(sum[which] / number[which]) : 0 }
    END {
        print "| row | default | zero, quarantine | hardened | hardened_malloc | Scudo | time, hardened over hardened_malloc | peak, the same |"
        print "| --- | --: | --: | --: | --: | --: | --: | --: |"
        for (i = 1; i <= count; i++) {
            row = order[i]
            h = time[row, "hardened"]; m = time[row, "hardened_malloc"]
            note("time", h, m); note("peak", peak[row, "hardened"], peak[row, "hardened_malloc"])
            note("part", time[row, "zero+quarantine"], time[row, "slabside"])
            note("scudo", h, time[row, "scudo"])
            printf "| %s |%s%s%s%s%s %.2f | %.2f |\n", row, cell(row, "slabside"), cell(row, "zero+quarantine"), \
                cell(row, "hardened"), cell(row, "hardened_malloc"), cell(row, "scudo"), \
                m ? h / m : 0, peak[row, "hardened_malloc"] ? peak[row, "hardened"] / peak[row, "hardened_malloc"] : 0
        }
        printf "\nGeometric means: hardened over hardened_malloc: time %.2f, peak %.2f. Hardened over Scudo: time %.2f. ", mean("time"), mean("peak"), mean("scudo")
        printf "Zero and quarantine over the default: time %.2f.\n", mean("part")
    }'
