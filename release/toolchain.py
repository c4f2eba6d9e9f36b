"""Rust's standard library for a target: the toolchain's, or one that is built from its sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

# Debian packages Rust's sources, also of versions that are not in its latest release. Only the package is taken.
DEBIAN_SUITES = ("trixie-backports", "testing", "sid")
DEBIAN_MIRROR = "http://deb.debian.org/debian"
DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# What a program or an extension module is linked from, procedural macros' library included.
CRATES = "std,panic_abort,panic_unwind,proc_macro"


class NoStd(Exception):
    """There is no standard library for a target, and none could be built: why."""


def output(*command: str, **more) -> str:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more)
    return done.stdout.strip()


def has_std(triple: str, rustc: str = "rustc") -> bool:
    """Whether rustc can link a program for a target."""
    directory = subprocess.run(
        [rustc, "--print", "target-libdir", "--target", triple], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return directory.returncode == 0 and any(Path(directory.stdout.strip()).glob("libstd-*.rlib"))


def rustc_for(triple: str, directory: Path) -> str:
    """A rustc that has a standard library for a target. What is made for it is kept in `directory`.

    The toolchain stays as it is: whoever wants the library that rustup has adds the target before. Raises NoStd.
    """
    if has_std(triple):
        return "rustc"
    version = output("rustc", "--version").split()[1]
    directory = directory / f"rust-{version}"
    rustc = directory / "rustc"
    if not (rustc.exists() and has_std(triple, str(rustc))):
        build_std(triple, sources(version, directory), directory)
    return str(rustc)


def sources(version: str, directory: Path) -> Path:
    """The directory `library` of Rust's own sources, of exactly the compiler's version."""
    installed = Path(output("rustc", "--print", "sysroot"), "lib/rustlib/src/rust/library")
    unpacked = directory / "sources" / f"usr/src/rustc-{version}/library"
    for library in (installed, unpacked):
        if (library / "std/Cargo.toml").exists():
            return library
    download_sources(version, directory)
    if not (unpacked / "std/Cargo.toml").exists():
        raise NoStd(f"Debian's rust-src {version} does not hold {unpacked}")
    return unpacked


def download_sources(version: str, directory: Path) -> None:
    """Unpacks Debian's package of them, whichever of its releases has this version."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and DEBIAN_KEYS.exists()):
        raise NoStd(f"the toolchain has none, and without apt there are no sources of Rust {version} to build it from")
    apt = directory / "apt"
    for place in ("lists/partial", "archives/partial"):
        (apt / place).mkdir(parents=True, exist_ok=True)
    lines = (f"deb [signed-by={DEBIAN_KEYS} arch=amd64] {DEBIAN_MIRROR} {suite} main\n" for suite in DEBIAN_SUITES)
    (apt / "sources.list").write_text("".join(lines))
    # Its own lists: those of the system stay as they are.
    options = {
        "Dir::State::Lists": apt / "lists", "Dir::Cache::Archives": apt / "archives", "Dir::Cache::PkgCache": "",
        "Dir::Cache::SrcPkgCache": "", "Dir::Etc::SourceList": apt / "sources.list", "Dir::Etc::SourceParts": "-",
        "APT::Architecture": "amd64", "APT::Architectures": "amd64", "Acquire::Languages": "none", "APT::Sandbox::User": "root",
    }  # fmt: skip
    flags = [f"-o{name}={value}" for name, value in options.items()]
    try:
        subprocess.run(["apt-get", "-qq", *flags, "update"], check=True)
        policy = output("apt-cache", *flags, "policy", "rust-src")
        found = re.search(rf"^[ *]*({re.escape(version)}[+-]\S+)", policy, re.MULTILINE)
        if found is None:
            raise NoStd(f"the toolchain has none, and Debian has no rust-src {version}")
        subprocess.run(["apt-get", "-qq", *flags, "download", f"rust-src={found[1]}"], check=True, cwd=directory)
        (package,) = directory.glob(f"rust-src_{version}*.deb")
        # Under another name until all of it is there: whoever finds it takes it.
        new = directory / "sources.new"
        shutil.rmtree(new, ignore_errors=True)
        subprocess.run(["dpkg-deb", "-x", package, new], check=True)
        shutil.rmtree(directory / "sources", ignore_errors=True)
        new.rename(directory / "sources")
        package.unlink()
    except subprocess.CalledProcessError as error:
        raise NoStd(f"the toolchain has none, and the sources of Rust {version} could not be had: {error}") from error


def build_std(triple: str, library: Path, directory: Path) -> None:
    """Builds it, and puts it into a copy of the toolchain's own directories that a rustc of its own looks into."""
    crate, target = directory / "empty", directory / "target"
    (crate / "src").mkdir(parents=True, exist_ok=True)
    (crate / "src/lib.rs").write_text("#![no_std]\n")
    (crate / "Cargo.toml").write_text('[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n')
    environment = {
        **os.environ,
        # Building it is what only nightly compilers do unasked; the server itself is compiled without this.
        "RUSTC_BOOTSTRAP": "1",
        "__CARGO_TESTS_ONLY_SRC_ROOT": str(library),
        # For link-time optimization; without this machine's directories.
        "RUSTFLAGS": f"-Cembed-bitcode=yes --remap-path-prefix={library.parent}=/rustc",
        "CARGO_TARGET_DIR": str(target),
    }
    command = ["cargo", "build", f"-Zbuild-std={CRATES}", "--release", "--target", triple, "--quiet"]
    if subprocess.run(command, cwd=crate, env=environment).returncode:
        raise NoStd("its sources do not compile")
    real = Path(output("rustc", "--print", "sysroot"))
    rustlib = directory / "sysroot/lib/rustlib"
    rustlib.mkdir(parents=True, exist_ok=True)
    for there in [*(real / "lib").iterdir(), *(real / "lib/rustlib").iterdir()]:
        here = directory / "sysroot" / there.relative_to(real)
        if not here.exists():
            here.symlink_to(there)
    # Under another name until all of it is there: whoever finds it takes it.
    own, new = rustlib / triple / "lib", directory / f"{triple}.new"
    shutil.rmtree(own, ignore_errors=True)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for built in (target / triple / "release/deps").glob("*.rlib"):
        if not built.name.startswith("libempty-"):
            shutil.copy(built, new)
    own.parent.mkdir(exist_ok=True)
    new.rename(own)
    wrapper = directory / "rustc"
    wrapper.write_text(f'#!/bin/sh\nexec "{real}/bin/rustc" --sysroot "{directory}/sysroot" "$@"\n')
    wrapper.chmod(0o755)
