#!/usr/bin/env bash
# Builds the peers as shared libraries that stand behind malloc by LD_PRELOAD, into the folder
# $CARGO_TARGET_DIR/peers, with a file `versions`; slabside's own library goes there too.
#
# The peers are the C and C++ sources that their crates carry, compiled as the crates compile them and
# linked whole; C's names are made aliases of theirs, so a call goes straight in. jemalloc and tcmalloc are
# Debian's packages: libjemalloc2 libtcmalloc-minimal4.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$here/target}")
peers=$CARGO_TARGET_DIR/peers
mkdir -p "$peers"
cd "$here"

# The folder in which the build script of crate $2 left its archive, built with feature $1.
archive() {
    cargo build --release --lib --quiet --no-default-features --features "$1" --message-format=json |
        grep '"reason":"build-script-executed"' | grep "[/#]$2[@#-]" | sed 's/.*"out_dir":"\([^"]*\)".*/\1/'
}

# Links $1.so from archive $2; its functions are C's names after $3.
link() {
    local library=$peers/$1.so archive=$2 prefix=$3 name aliases=()
    for name in malloc free calloc realloc malloc_usable_size posix_memalign aligned_alloc memalign; do
        aliases+=("-Wl,--defsym=$name=$prefix$name")
    done
    cc -shared -o "$library" -Wl,--whole-archive "$archive" -Wl,--no-whole-archive,--as-needed "${aliases[@]}" -lstdc++
    echo "built $library" >&2
}

locked() { grep -A1 "^name = \"$1\"" Cargo.lock | sed -n 's/^version = "\(.*\)"/\1/p'; }
packaged() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo missing; }
# The version in the header of mimalloc's line $1 (v2 or v3), from 20302 to 2.3.2.
mimalloc_version() {
    local manifest
    manifest=$(cargo build --release --lib --quiet --no-default-features --features mimalloc --message-format=json |
        grep '"reason":"compiler-artifact"' | grep -m1 -o '"manifest_path":"[^"]*libmimalloc-sys[^"]*"' | cut -d'"' -f4)
    awk '/define MI_MALLOC_VERSION/ { print int($3 / 10000) "." int($3 / 100) % 100 "." $3 % 100 }' \
        "${manifest%/*}/c_src/mimalloc/$1/include/mimalloc.h"
}

link libmimalloc2 "$(archive mimalloc2 libmimalloc-sys)/libmimalloc.a" mi_
link libmimalloc3 "$(archive mimalloc libmimalloc-sys)/libmimalloc.a" mi_
link libsnmalloc "$(echo "$(archive snmalloc snmalloc-sys)"/build/libsnmallocshim*.a)" sn_
link librpmalloc "$(archive rpmalloc-preload rpmalloc-sys)/librpmalloc.a" rp

if [ -e ../preload/Cargo.toml ]; then
    cargo build --release --quiet --manifest-path ../preload/Cargo.toml
    cp "$CARGO_TARGET_DIR/release/libslabside_preload.so" "$peers/"
    echo "built $peers/libslabside_preload.so" >&2
fi

{
    echo "slabside $(git describe --always --dirty 2>/dev/null || echo unversioned)"
    echo "glibc $(ldd --version | sed -n '1s/.* //p')"
    echo "mimalloc2 $(mimalloc_version v2)"
    echo "mimalloc3 $(mimalloc_version v3)"
    echo "jemalloc $(packaged libjemalloc2)"
    echo "tcmalloc gperftools $(packaged libtcmalloc-minimal4)"
    echo "snmalloc $(locked snmalloc-sys)"
    echo "rpmalloc $(locked rpmalloc-sys)"
} > "$peers/versions"
