#!/usr/bin/env bash
# The tests over the simulated system under rustc's sanitizers, where a nightly toolchain has them.
#
# usage: tests/sanitize.sh [thread|address]...     both by default
set -euo pipefail
cd "$(dirname "$0")/.."
if ! libraries=$(rustc +nightly --print target-libdir 2>/dev/null); then
    echo 'skipped: there is no nightly toolchain, and so no sanitizer'
    exit 0
fi
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
# The channel of the test harness is part of std, which is not built for the sanitizer.
suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
printf 'race:std::sync::mpmc\nrace:test::\n' > "$suppressions"

for sanitizer in "${@:-thread address}"; do for sanitizer in $sanitizer; do
    if ! compgen -G "$libraries/librustc*_rt.${sanitizer:0:1}san.a" > /dev/null; then
        echo "skipped: the nightly toolchain has no $sanitizer sanitizer"
        continue
    fi
    printf -- '-- %s sanitizer\n' "$sanitizer"
    names=()
    [ "$sanitizer" = address ] || names=(real_threads corpus_of_threads)
    TSAN_OPTIONS="suppressions=$suppressions halt_on_error=1 exitcode=66" \
    RUSTFLAGS="--cfg slabside_core_alone -Zsanitizer=$sanitizer -Cunsafe-allow-abi-mismatch=sanitizer" \
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/sanitizer-$sanitizer" \
        cargo +nightly test --release --target "$host" --test model --test faults -- "${names[@]}"
done; done
