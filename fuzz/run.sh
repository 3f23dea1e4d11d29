#!/usr/bin/env bash
# Fuzzes the allocator over the simulated system, on the stable toolchain: libFuzzer comes with the crate
# libfuzzer-sys, and coverage with rustc's own code generation. (`cargo fuzz run TARGET` works as well.)
#
# usage: fuzz/run.sh SECONDS [TARGET...]     all targets, SECONDS each; what they find worth keeping goes to
#                                            fuzz/corpus, what fails to fuzz/artifacts;
#                                            FUZZ_SEED=N tries the same inputs each time
#        fuzz/run.sh minimize [TARGET...]    drops what adds nothing from fuzz/corpus
set -euo pipefail
cd "$(dirname "$0")"
what=${1:?seconds, or minimize}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\([a-z]*\)"$/\1/p' Cargo.toml)

# As cargo-fuzz sets them; all are stable.
export RUSTFLAGS='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
 -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1'
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-target}
# With a target named, build scripts and macros are built without coverage.
cargo build --release --target "$host" --target-dir "$target_dir"

for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    program=$target_dir/$host/release/$target
    # A process's region is longer than any script.
    [ "$target" = snapshots ] && longest=32768 || longest=8192
    common=(-max_len=$longest -len_control=0 -timeout=60 -rss_limit_mb=4096 "-artifact_prefix=artifacts/$target/")
    if [ "$what" = minimize ]; then
        rm -rf "corpus/$target.new" && mkdir "corpus/$target.new"
        "$program" "${common[@]}" -merge=1 -use_counters=0 "corpus/$target.new" "corpus/$target"
        rm -r "corpus/$target" && mv "corpus/$target.new" "corpus/$target"
    else
        echo "== $target, $what s"
        "$program" "${common[@]}" ${FUZZ_SEED:+"-seed=$FUZZ_SEED"} -max_total_time="$what" -print_final_stats=1 \
            "corpus/$target"
    fi
done
