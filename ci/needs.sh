# What the scripts beside this one need from the machine. Read with `.`, not run: `want` notes a
# Debian package that is missing, `settle` installs what was noted (as root, on Debian and its
# relatives) or says the line to run. Nothing is installed that is already there.

missing=
oldest_rust=1.95

say() {
    printf '%s\n' "$*" >&2
}

# want PACKAGE COMMAND...: the package is needed if the command fails.
want() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

has() {
    command -v "$1"
}

has_file() {
    test -e "$1"
}

# Installs what was noted, or says why not and ends.
settle() {
    install_missing || exit 1
}

# The same for what is only wished for: what it is needed for will be skipped.
settle_wishes() {
    install_missing || say "Going on without:$missing. What needs it will be skipped."
    missing=
}

install_missing() {
    test -n "$missing" || return 0
    if ! has apt-get >/dev/null; then
        say "Missing here, by their names in Debian:$missing"
        return 1
    fi
    line="apt-get update && apt-get install --yes --no-install-recommends$missing"
    if test "$(id -u)" -ne 0; then
        say "Missing here:$missing. To install, as root:"
        say "  $line"
        return 1
    fi
    say "Installing:$missing"
    if ! DEBIAN_FRONTEND=noninteractive sh -c "$line" >&2; then
        say "apt could not install:$missing (the lines above say why)."
        return 1
    fi
    missing=
}

# True when `rustc` is at least the version this workspace is written for.
rust_is_new() {
    found=$(rustc --version 2>/dev/null | sed 's/^rustc \([0-9]*\.[0-9]*\).*/\1/')
    test -n "$found" || return 1
    test "$(printf '%s\n%s\n' "$oldest_rust" "$found" | sort -V | head -n 1)" = "$oldest_rust"
}

# The newest version of a package that apt offers, empty without apt.
offered() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*\.[0-9]*\).*/\1/p'
}

# A Rust compiler: rustup's if it is there, else Debian's newest if that is new enough.
want_rust() {
    cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
    test -d "$cargo_home/bin" && PATH="$cargo_home/bin:$PATH" && export PATH
    rust_is_new && has cargo >/dev/null && return 0
    if has rustup >/dev/null; then
        say "Rust $oldest_rust or newer is needed: rustup update stable"
        exit 1
    fi
    if test "$(id -u)" -eq 0 && has apt-get >/dev/null && test -z "$(offered rustc-web)"; then
        apt-get update >&2 || true
    fi
    version=$(offered rustc-web)
    if test -n "$version" &&
        test "$(printf '%s\n%s\n' "$oldest_rust" "$version" | sort -V | head -n 1)" = "$oldest_rust"
    then
        missing="$missing rustc-web cargo-web"
        return 0
    fi
    say "Rust $oldest_rust or newer is needed and neither here nor offered by apt (plain rustc of"
    say "Debian is too old). Install it with rustup, see https://rustup.rs, then try again."
    exit 1
}

# What building the coracle program takes.
want_build() {
    want gcc has gcc
    want binutils has ld
    want libc6-dev has_file /usr/lib/x86_64-linux-gnu/libc.a
    want ca-certificates has_file /etc/ssl/certs/ca-certificates.crt
    want_rust
    if test "$(uname -sm)" != "Linux x86_64"; then
        say "Coracle runs on 64-bit x86 Linux; this is $(uname -sm)."
        exit 1
    fi
}
