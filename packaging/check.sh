#!/usr/bin/env bash
# Installs into a scratch root and uses everything that is there, as a user would: the command, also alone, C programs by
# pkg-config, CMake and Meson, manual pages, completions, `make uninstall`, the tarball where it is unpacked, and the
# Debian packages in a minimal Debian of their own.
#
# usage: packaging/check.sh    (after make; as root, and with a Debian mirror, for the packages)
# Needs: python3 gcc make pkg-config cmake meson ninja-build man-db dpkg binutils lintian mmdebstrap
set -euo pipefail
cd "$(dirname "$0")/.."
for needed in gcc make pkg-config cmake meson ninja:ninja-build man:man-db dpkg readelf:binutils mmdebstrap lintian; do
    command -v "${needed%:*}" > /dev/null && continue
    echo "install check: ${needed%:*} is not installed: apt-get install ${needed#*:}" >&2
    exit 1
done
here=$PWD/packaging/check
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset LD_PRELOAD SLABSIDE_LIBRARY SLABSIDE_OPTIONS PKG_CONFIG_PATH LD_LIBRARY_PATH MAKEFLAGS MAKELEVEL

fail() { echo "install check: $*" >&2; exit 1; }
# says WORD COMMAND...: the command succeeds and its output is the word.
says() {
    local wanted=$1 said
    shift
    said=$("$@") || fail "$* failed: $said"
    [ "$said" = "$wanted" ] || fail "$*: '$said', not '$wanted'"
}
# has WORD COMMAND...: the command succeeds and the word is in its output.
has() {
    local wanted=$1 said
    shift
    said=$("$@" 2>&1) || fail "$* failed: $said"
    case $said in *"$wanted"*) ;; *) fail "$*: no '$wanted' in: $said" ;; esac
}
passed() { echo "install check: $*"; }

# by_pkg_config NAME ROOT-OF-LIBRARIES: a C program, linked as the manual page says.
by_pkg_config() {
    local libraries=$1 flags
    flags=$(pkg-config --cflags --libs slabside)
    # shellcheck disable=SC2086 # words
    gcc -Wall -Werror "$here/program.c" -o "$scratch/replaced" $flags
    says replaced env LD_LIBRARY_PATH="$libraries" "$scratch/replaced"
    flags=$(pkg-config --cflags --libs slabside-static)
    # shellcheck disable=SC2086
    gcc -Wall -Werror "$here/program.c" -o "$scratch/beside" $flags
    says beside "$scratch/beside"
    flags=$(pkg-config --static --cflags --libs slabside)
    # shellcheck disable=SC2086
    gcc -Wall -Werror -static "$here/program.c" -o "$scratch/beside" $flags
    says beside "$scratch/beside"
}

check_command() {
    has 'live at its peak' "$1" run --stats -- ls -l /
    has libslabside "$1" run -- cat /proc/self/maps
    has SLABSIDE "$1" run --help
}

# ---- make install ------------------------------------------------------------------------------------------------
root=$scratch/root
make -s install DESTDIR="$root" PREFIX=/opt/slabside
prefix=$root/opt/slabside
check_command "$prefix/bin/slabside"
[ "$(stat -c %s "$prefix/bin/slabside")" -lt 8000000 ] || fail 'the command was installed with its debugging information'
has libslabside.so.0 readelf -d "$prefix/lib/libslabside.so"
passed 'the command runs programs on the installed library'

mkdir "$scratch/alone"
cp "$prefix/bin/slabside" "$scratch/alone"
HOME=$scratch/alone XDG_CACHE_HOME='' check_command "$scratch/alone/slabside"
passed 'the command alone runs programs on the library that it carries'

# The prefix is below a scratch root, which pkg-config puts before the paths.
export PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
has "-L$prefix/lib -lslabside" pkg-config --libs slabside
unset PKG_CONFIG_SYSROOT_DIR
sed -i "s|^prefix=.*|prefix=$prefix|" "$prefix"/lib/pkgconfig/*.pc
by_pkg_config "$prefix/lib"
passed 'C programs by pkg-config: shared, static, and beside malloc'

cmake -S "$here" -B "$scratch/cmake" -DCMAKE_PREFIX_PATH="$prefix" > "$scratch/log" || fail "$(cat "$scratch/log")"
cmake --build "$scratch/cmake" > "$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
says replaced "$scratch/cmake/replaced"
says beside "$scratch/cmake/beside"
says replaced "$scratch/cmake/static"
passed 'a CMake project'

meson setup "$scratch/meson" "$here" > "$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
meson compile -C "$scratch/meson" > "$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
says replaced env LD_LIBRARY_PATH="$prefix/lib" "$scratch/meson/replaced"
says beside "$scratch/meson/beside"
unset PKG_CONFIG_LIBDIR
passed 'a Meson project'

for page in slabside slabside-run slabside-options.7 slabside.3; do
    file=$(find "$prefix/share/man" -name "$page" -o -name "$page.1")
    [ -f "$file" ] || fail "there is no page $page"
    wrong=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=100 man --warnings -E UTF-8 -l -Tutf8 "$file" 2>&1 > "$scratch/page") || fail "$wrong"
    [ -z "$wrong" ] || fail "$page: $wrong"
    grep -q slabside "$scratch/page" || fail "$page is empty"
done
for shell in bash-completion/completions/slabside zsh/site-functions/_slabside fish/vendor_completions.d/slabside.fish; do
    grep -q stats "$prefix/share/$shell" || fail "$shell does not know --stats"
done
bash -c ". '$prefix/share/bash-completion/completions/slabside' && complete -p slabside" > /dev/null
passed 'manual pages and completions'
wrong=$(packaging/links.py "$prefix/share/doc/slabside") || fail "$wrong"
passed 'each link of the installed pages leads somewhere'

make -s uninstall DESTDIR="$root" PREFIX=/opt/slabside
left=$(find "$root" ! -type d)
[ -z "$left" ] || fail "uninstall left $left"
passed 'make uninstall leaves nothing'

# ---- make dist ---------------------------------------------------------------------------------------------------
packaging/dist.sh "$scratch/packages" > /dev/null
mkdir "$scratch/elsewhere"
tar -C "$scratch/elsewhere" -xzf "$scratch"/packages/slabside-*.tar.gz
tree=$(echo "$scratch"/elsewhere/slabside-*)
check_command "$tree/bin/slabside"
PKG_CONFIG_LIBDIR=$tree/lib/pkgconfig by_pkg_config "$tree/lib"
wrong=$(packaging/links.py "$tree") || fail "$wrong"
passed 'the tarball, where it was unpacked'

# ---- make deb ----------------------------------------------------------------------------------------------------
packaging/deb.sh "$scratch/packages" > /dev/null
has libc6 dpkg-deb --field "$scratch"/packages/slabside_*.deb Depends
# Left out: the project has no mail address, and the shared library lies in the package of the command.
lintian --allow-root --fail-on error,warning \
    --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog,package-name-doesnt-match-sonames \
    "$scratch"/packages/*.deb || fail 'lintian finds the packages wanting'
passed 'lintian finds nothing in the Debian packages'
if [ "$(id -u)" != 0 ]; then
    echo 'install check: skipped: the Debian packages in a minimal Debian, which only root can set up' >&2
    exit 0
fi
if ! unshare --mount --pid --fork true 2> /dev/null; then
    echo 'install check: skipped: the Debian packages in a minimal Debian: this container may not mount (CAP_SYS_ADMIN)' >&2
    exit 0
fi
root=$scratch/debian
# shellcheck disable=SC2016 # apt-get's
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
# A mirror may fail to answer once.
for attempt in 1 2 3; do
    mmdebstrap --variant=essential --include=libc6-dev "$suite" "$root" "$mirror" > "$scratch/log" 2>&1 && break
    [ "$attempt" != 3 ] || fail "$(tail "$scratch/log")"
    rm -rf "$root"
    sleep 5
done
# inside COMMAND...: in that Debian, which has its own /proc.
inside() {
    # shellcheck disable=SC2016 # the inner shell's
    unshare --mount --pid --fork sh -c 'mount -t proc proc "$1/proc" && exec chroot "$@"' sh "$root" \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
install_inside() {
    cp "$1" "$root/package.deb"
    inside dpkg -i /package.deb > "$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
}
install_inside "$scratch"/packages/slabside_*.deb
has 'live at its peak' inside slabside run --stats -- ls -l /
has libslabside.so.0 inside ldconfig -p
install_inside "$scratch"/packages/libslabside-dev_*.deb
libraries=$root/usr/lib/$(uname -m)-linux-gnu
flags=$(PKG_CONFIG_LIBDIR=$libraries/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root pkg-config --cflags --libs slabside)
# shellcheck disable=SC2086 # words
gcc "$here/program.c" -o "$root/replaced" $flags
says replaced inside /replaced
inside dpkg --purge libslabside-dev slabside > "$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
left=$(find "$root/usr" -name '*slabside*')
[ -z "$left" ] || fail "dpkg --purge left $left"
passed 'the Debian packages, in a minimal Debian'
passed 'everything'
