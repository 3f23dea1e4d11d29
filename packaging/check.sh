#!/usr/bin/env bash
# Installs into a scratch root and uses everything that is there, as a user would: the command, C programs by
# pkg-config, CMake and Meson, manual pages, completions, `make uninstall`, the tarball where it is unpacked, and the
# Debian packages in a root of their own.
#
# usage: packaging/check.sh    (after make; as root for the packages' chroot)
# Needs: gcc make pkg-config cmake meson ninja-build man-db dpkg binutils
set -euo pipefail
cd "$(dirname "$0")/.."
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
has libslabside.so.0 readelf -d "$prefix/lib/libslabside.so"
passed 'the command runs programs on the installed library'

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
passed 'the tarball, where it was unpacked'

# ---- make deb ----------------------------------------------------------------------------------------------------
packaging/deb.sh "$scratch/packages" > /dev/null
has libc6 dpkg-deb --field "$scratch"/packages/slabside_*.deb Depends
# A root with the few programs that dpkg and the check need, and their libraries, copied from this system.
chroot=$scratch/chroot
mkdir -p "$chroot"/{var/lib/dpkg/{info,updates},tmp,proc,dev,etc}
touch "$chroot/var/lib/dpkg/status"
provide() {
    local program library
    for program in "$@"; do
        program=$(command -v "$program")
        { echo "$program"; ldd "$program" | grep -o '/[^ ]*'; }
    done | sort -u | while read -r library; do
        mkdir -p "$chroot$(dirname "$library")"
        cp -Ln "$library" "$chroot$library"
    done
}
provide sh ls cat grep
cp -Ln "$(gcc -print-file-name=libgcc_s.so.1)" "$chroot/lib/x86_64-linux-gnu/" 2> /dev/null || true
dpkg --root="$chroot" --force-depends --force-script-chrootless --no-triggers -i "$scratch"/packages/*.deb \
    > "$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
has 'install ok installed' dpkg-query --root="$chroot" -W -f '${Status}' slabside
if [ "$(id -u)" = 0 ]; then
    # shellcheck disable=SC2016 # the inner shell's
    has 'live at its peak' unshare --mount sh -c 'mount --rbind /proc "$1/proc" && exec chroot "$1" \
        /usr/bin/slabside run --stats -- ls -l /' sh "$chroot"
    passed 'the Debian packages, in a root of their own'
else
    passed 'the Debian packages are installed; only root can run them in a root of their own'
fi
dpkg --root="$chroot" --force-script-chrootless --no-triggers --purge libslabside-dev slabside > "$scratch/log" 2>&1 ||
    fail "$(cat "$scratch/log")"
[ ! -e "$chroot/usr/bin/slabside" ] || fail 'dpkg --purge left the command'
passed 'everything'
