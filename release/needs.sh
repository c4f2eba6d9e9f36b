# What ./demo and tests/run need of the system, for both to read. POSIX sh. $python is the interpreter to use.

# --- Debian's packages.

# What Debian calls this interpreter: the packages of its `venv` and of its headers are called after it. Before there is one,
# it is `python3`.
debian_python() {
    "$python" -c 'import os, sys; print("python%d.%d" % sys.version_info[:2] if sys.base_prefix == "/usr" else "python3")' 2>/dev/null ||
        echo python3
}

# Whether the interpreter is one of Debian's packages, or is missing, so that its parts can be packages too.
python_is_debians() {
    ! command -v "$python" >/dev/null || "$python" -c 'import sys; sys.exit(sys.base_prefix != "/usr")'
}

has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

has_headers() { "$python" -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' 2>/dev/null; }

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# Installs these packages, as root where there is apt. A package must not start a service of its own.
install_debian() {
    apt-get update -qq &&
        RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
}

# The start of a line that installs packages, for whoever runs this: a bare Debian has no sudo.
apt_install() { if [ "$(id -u)" = 0 ]; then echo "apt-get install -y"; else echo "sudo apt-get install -y"; fi; }

# The version of a package that could be installed; nothing when there is none, or no apt.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9].*\)/\1/p'; }

# --- Rust. The oldest version that builds this stands in Cargo.toml.

rust_wanted() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml; }

# at_least 1.88 1.63.0: whether the second is not older.
at_least() { printf '%s %s\n' "$1" "$2" | awk '{ split($1, w, "."); split($2, h, "."); exit !(h[1] > w[1] || h[1] == w[1] && h[2] + 0 >= w[2] + 0) }'; }

# The version that is there; nothing when there is none, or only rustup without a toolchain.
rust_found() { cargo --version >/dev/null 2>&1 && rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p'; }

has_rust() {
    rust=$(rust_found) || rust=''
    [ -n "$rust" ] && at_least "$(rust_wanted)" "$rust"
}

# Takes rustup's Rust into PATH where the one that comes first there is missing or too old: a shell that was open when rustup was
# installed does not know it, and Debian's may stand before it.
find_rust() {
    has_rust && return
    rustups=${CARGO_HOME:-${HOME-}/.cargo}/bin
    [ -x "$rustups/cargo" ] || return 1
    before=$PATH
    PATH=$rustups:$PATH
    has_rust || { PATH=$before && return 1; }
}

# Whether Debian's own is new enough. Images often come without apt's lists, so nothing is known of it.
debian_has_rust() {
    debians=$(candidate rustc)
    if [ -z "$debians" ] && can_install; then
        apt-get update -qq >/dev/null 2>&1 || :
        debians=$(candidate rustc)
    fi
    [ -n "$debians" ] && at_least "$(rust_wanted)" "$debians"
}

# The line that gets it here: Debian's own when that is new enough, else by rustup, which Debian has since 13.
how_to_get_rust() {
    if debian_has_rust; then
        echo "$(apt_install) cargo"
    elif [ -n "$(candidate rustup)" ]; then
        echo "$(apt_install) rustup && rustup default stable"
    else
        command -v curl >/dev/null || ! command -v apt-cache >/dev/null || printf '%s' "$(apt_install) curl ca-certificates && "
        echo "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal"
    fi
}

# Why Rust is missing, in words.
rust_is_missing() {
    has_rust || :
    if [ -n "$rust" ]; then
        printf 'Rust %s is older than the %s that this needs' "$rust" "$(rust_wanted)"
    else
        printf 'Rust %s or later is not installed' "$(rust_wanted)"
    fi
    if ! debian_has_rust && [ -n "$debians" ]; then
        printf ' (this Debian has %s)' "${debians%%+*}"
    fi
}
