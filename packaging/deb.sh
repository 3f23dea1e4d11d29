#!/usr/bin/env bash
# Packs two Debian packages of what `make install` installs: slabside, the command with the shared library, and
# libslabside-dev, what programs are built with. Needs dpkg-deb, and objdump of binutils.
#
# dpkg-deb is on every Debian, and packs the very files that `make install` installs. cargo-deb would need that list a
# second time, in a crate's Cargo.toml, and would have to be built first.
#
# usage: packaging/deb.sh [DIRECTORY]    (target/packages)
set -euo pipefail
cd "$(dirname "$0")/.."
to=$(realpath -m "${1:-${CARGO_TARGET_DIR:-target}/packages}")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
soversion=$(sed -n 's/^soversion := //p' Makefile)
machine=$(dpkg --print-architecture)
libdir=usr/lib/$(uname -m)-linux-gnu
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

make --no-print-directory -s install DESTDIR="$stage/slabside" PREFIX=/usr LIBDIR="/$libdir"
chmod 755 "$stage/slabside"

maintainer='The slabside developers <slabside@localhost>'

# In Debian's form; CHANGELOG.md, which lies beside it, says more.
changelog() {
    local date
    date=$(date --rfc-email --utc --date "@${SOURCE_DATE_EPOCH:-$(stat -c %Y CHANGELOG.md)}")
    printf 'slabside (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s  %s\n' \
        "$version" "$maintainer" "$date"
}

# What belongs to the development package moves there.
move() {
    mkdir -p "$stage/libslabside-dev/$(dirname "$1")"
    mv "$stage/slabside/$1" "$stage/libslabside-dev/$1"
}
for path in usr/include "$libdir/libslabside.a" "$libdir/libslabside_preload.a" "$libdir/libslabside.so" \
    "$libdir/pkgconfig" "$libdir/cmake" usr/share/man/man3; do
    move "$path"
done
gzip -9n "$stage"/*/usr/share/man/man*/*
rm "$stage/slabside/usr/share/doc/slabside/LICENSE"
sed -i 's|](LICENSE)|](copyright)|' "$stage/slabside/usr/share/doc/slabside/"*.md
for name in slabside libslabside-dev; do
    mkdir -p "$stage/$name/usr/share/doc/$name"
    install -m 644 packaging/copyright "$stage/$name/usr/share/doc/$name"
    changelog | gzip -9n > "$stage/$name/usr/share/doc/$name/changelog.gz"
done
if [ -d "$stage/slabside/usr/share/zsh/site-functions" ]; then # where Debian's zsh looks
    mv "$stage/slabside/usr/share/zsh/site-functions" "$stage/slabside/usr/share/zsh/vendor-completions"
fi

# The newest symbol version of glibc that the two binaries ask for.
needed_glibc() {
    objdump -T "$stage/slabside/usr/bin/slabside" "$stage/slabside/$libdir/libslabside.so.$version" |
        grep -o 'GLIBC_2\.[0-9]*' | sort -Vu | tail -n 1 | sed 's/GLIBC_//'
}

# control NAME DEPENDS TITLE, and the long description on standard input.
control() {
    mkdir -p "$stage/$1/DEBIAN"
    cat > "$stage/$1/DEBIAN/control" << CONTROL
Package: $1
Version: $version
Architecture: $machine
Maintainer: $maintainer
Installed-Size: $(du -sk "$stage/$1" | cut -f 1)
Depends: $2
Section: $4
Priority: optional
Description: $3
$(sed 's/^/ /')
CONTROL
}
control slabside "libc6 (>= $(needed_glibc)), libgcc-s1" 'memory allocator that detects every double and invalid free' utils << 'TEXT'
The command slabside runs any dynamically linked program on the allocator,
and looks into its heap. The shared library serves programs that are linked
with it.
TEXT
control libslabside-dev "slabside (= $version), libc6-dev" 'memory allocator slabside: what programs are built with' libdevel << 'TEXT'
Header, static libraries, pkg-config and CMake files, and the manual page of
the C functions.
TEXT
printf 'activate-noawait ldconfig\n' > "$stage/slabside/DEBIAN/triggers"
printf 'libslabside %s slabside (>= %s)\n' "$soversion" "$version" > "$stage/slabside/DEBIAN/shlibs"

mkdir -p "$to"
for name in slabside libslabside-dev; do
    dpkg-deb --root-owner-group --build "$stage/$name" "$to/${name}_${version}_$machine.deb"
done
