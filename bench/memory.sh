#!/usr/bin/env bash
# What stays resident, beside the peers: prints a table in Markdown. Each figure is a process of its own, with the
# allocator preloaded.
#
# usage: bench/memory.sh [QUESTION ...]        without a question: all of them, in some ten minutes
#
# SLABSIDE names the library, else it is built. Peers are those of Debian's packages libmimalloc2.0, libjemalloc2 and
# libtcmalloc-minimal4 that are installed. MEMORY_ONLY=slabside leaves them out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cc -O2 -fno-builtin -pthread -o "$build/questions" "$here/memory/questions.c"

if [ -z "${SLABSIDE:-}" ]; then
    cargo build --release --quiet --manifest-path "$here/../Cargo.toml" -p slabside-preload
    SLABSIDE=${CARGO_TARGET_DIR:-$here/../target}/release/libslabside_preload.so
fi
names=(slabside background glibc)
libraries=("$SLABSIDE" "$SLABSIDE" "")
for peer in mimalloc:libmimalloc.so.2 jemalloc:libjemalloc.so.2 tcmalloc:libtcmalloc_minimal.so.4; do
    library=$(ls /usr/lib/*/"${peer#*:}" 2>/dev/null | head -n 1 || true)
    [ -n "$library" ] && names+=("${peer%%:*}") && libraries+=("$library")
done
[ "${MEMORY_ONLY:-}" = slabside ] && names=(slabside) libraries=("$SLABSIDE")

row() { local IFS='|'; echo "|$*|"; }
row "what stays" unit "${names[@]}"
row "---" "---" "${names[@]/*/---:}"
while IFS=$'\t' read -r name unit text; do
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    figures=()
    for at in "${!names[@]}"; do
        options=
        [ "${names[at]}" = background ] && options=background:on
        figures+=("$(SLABSIDE_OPTIONS=$options LD_PRELOAD=${libraries[at]} timeout 300 "$build/questions" "$name" || echo failed)")
    done
    row "$text" "${unit/x/-}" "${figures[@]}"
done < <("$build/questions")
