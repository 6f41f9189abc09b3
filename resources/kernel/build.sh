#!/bin/sh
# Builds a guest kernel from Debian's linux-source package.
#
#   build.sh [lean|full] [FOLDER]     FOLDER: where to work, ./kernel-build by default (2 GB)
#
# The result is FOLDER/vmlinux-FLAVOUR (stripped ELF) and vmlinux-FLAVOUR.zst. The same package
# and compiler give the same bytes. NICE and JOBS set the priority and the number of jobs.
set -eu

flavour=${1:-lean}
work=${2:-kernel-build}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

package=linux-source-6.1
version=6.1.192-2
tarball=/usr/src/$package.tar.xz
tarball_sha256=4d415b3d364834fd818270e88813e90323bbfce4f519a0e6bd4940ddcd7df693

fail() {
    printf 'build.sh: %s\n' "$1" >&2
    exit 1
}

case $flavour in
    lean) fragments=$here/lean.config ;;
    full) fragments="$here/lean.config $here/full.config" ;;
    *) fail "there is no flavour '$flavour'; say lean or full" ;;
esac

missing=
for tool in make gcc flex bison bc xz zstd strip; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
for header in libelf.h gelf.h; do
    [ -e "/usr/include/$header" ] || missing="$missing $header"
done
[ -z "$missing" ] || fail "missing:$missing; on Debian 12:
    sudo apt-get install make gcc flex bison bc xz-utils zstd binutils libelf-dev"
[ -f "$tarball" ] || fail "$tarball is missing; on Debian 12:
    sudo apt-get install $package=$version"
printf '%s  %s\n' "$tarball_sha256" "$tarball" | sha256sum --check --status ||
    fail "$tarball is not the one of $package $version (wanted sha256 $tarball_sha256);
    sudo apt-get install --reinstall $package=$version, or change version and checksum here"

mkdir -p "$work"
work=$(CDPATH='' cd -- "$work" && pwd)
source=$work/$package
if [ ! -f "$source/.unpacked" ]; then
    tar -C "$work" -xf "$tarball"
    touch "$source/.unpacked"
fi

# Neither time, user nor host of the build show in the result.
export KBUILD_BUILD_TIMESTAMP='2026-11-25 00:00:00 UTC'
export KBUILD_BUILD_USER=coracle KBUILD_BUILD_HOST=coracle KBUILD_BUILD_VERSION=1
export LC_ALL=C

out=$work/$flavour
mkdir -p "$out"
# A later fragment's word on an option replaces an earlier one's.
# shellcheck disable=SC2086
awk '
    match($0, /CONFIG_[A-Za-z0-9_]+/) && /^(CONFIG_|# CONFIG_[A-Za-z0-9_]+ is not set)/ {
        name = substr($0, RSTART, RLENGTH)
        if (!(name in line)) order[++count] = name
        line[name] = $0
    }
    END { for (i = 1; i <= count; i++) print line[order[i]] }
' $fragments >"$out/wanted.config"

run() { nice -n "${NICE:-10}" make -s -C "$source" O="$out" "$@"; }

run KCONFIG_ALLCONFIG="$out/wanted.config" allnoconfig >/dev/null
# Kconfig drops what depends on something absent without a word. That is an error here.
lost=$(awk '
    NR == FNR { have[$0] = 1; split($0, part, "="); value[part[1]] = 1; next }
    /^CONFIG_/ && !($0 in have) { print "    " $0 }
    /^# CONFIG_/ && ($2 in value) { print "    " $0 }
' "$out/.config" "$out/wanted.config")
[ -z "$lost" ] || fail "the configuration did not take:
$lost"

# String operations as calls: the compiler's own `rep stosb` in cold code goes byte by byte,
# which a host that emulates the kernel does one step at a time. Pages of 4 KiB in the file
# (the sections stay where they are in memory) save 5 MB of padding.
run -j"${JOBS:-$(nproc)}" KCFLAGS=-mstringop-strategy=libcall \
    LDFLAGS_vmlinux='--build-id=none --orphan-handling=error -z max-page-size=4096' vmlinux

strip -o "$work/vmlinux-$flavour" "$out/vmlinux"
zstd -19 --force --quiet "$work/vmlinux-$flavour" -o "$work/vmlinux-$flavour.zst"
cd "$work"
sha256sum "vmlinux-$flavour.zst"
wc -c "vmlinux-$flavour" "vmlinux-$flavour.zst"
if [ "$flavour" = lean ]; then
    # Another compiler than the committed image had gives other bytes, which is no fault.
    sha256sum --check --status "$here/SHA256SUMS" && echo "the same as the committed image" ||
        echo "differs from the committed image (gcc 12.2.0-14, binutils 2.40)"
fi
