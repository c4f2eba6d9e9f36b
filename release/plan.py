"""What a release is made of: a table, and what can be said of it without building anything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A kind of machine that wheels are for."""

    #: As rustc names it.
    triple: str
    #: As wheels name it: the oldest C library that the wheel runs on. Zig links against that one.
    platform: str

    @property
    def arch(self) -> str:
        return self.triple.split("-")[0]

    @property
    def musl(self) -> bool:
        return self.triple.endswith("-musl")


# glibc 2.17 (of 2012) is the oldest that Rust's own standard library runs on; musl 1.2 the one that pip knows best.
TARGETS = (
    Target("x86_64-unknown-linux-gnu", "manylinux_2_17"),
    Target("aarch64-unknown-linux-gnu", "manylinux_2_17"),
    Target("x86_64-unknown-linux-musl", "musllinux_1_2"),
    Target("aarch64-unknown-linux-musl", "musllinux_1_2"),
)

# What PyO3 supports; `t` is a free-threaded build, which it supports from 3.14 on.
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.14t", "3.15", "3.15t")

#: What --only names. `static` is rtop's executable by itself, for machines without Python.
KINDS = ("rwsgi", "rwsgi-top", "static", "sdist")

PACKAGES = {"rwsgi": "server", "rwsgi-top": "top"}


@dataclass(frozen=True)
class Artifact:
    """One file of a release."""

    kind: str
    #: The package that it is made from.
    package: str
    target: Target | None = None
    python: str | None = None

    def file(self, version: str) -> str:
        """The name that it must have, for a version."""
        name = self.package.replace("-", "_")
        if self.kind == "sdist":
            return f"{name}-{version}.tar.gz"
        assert self.target
        if self.kind == "static":
            return f"rtop-{version}-{self.target.triple}.tar.gz"
        return f"{name}-{version}-{python_tag(self.python)}-{platform_tag(self.target)}.whl"


def python_tag(python: str | None) -> str:
    """The tags of a wheel for this Python, or for every one."""
    if python is None:
        return "py3-none"
    number = python.rstrip("t").replace(".", "")
    return f"cp{number}-cp{number}{'t' if python.endswith('t') else ''}"


def platform_tag(target: Target) -> str:
    """As maturin writes it: the name before PEP 600 as well, where there is one."""
    tag = f"{target.platform}_{target.arch}"
    return f"manylinux2014_{target.arch}.{tag}" if target.platform == "manylinux_2_17" else tag


def artifacts(kinds=KINDS, pythons=PYTHONS, triples=tuple(target.triple for target in TARGETS)) -> list[Artifact]:
    """What is to be made, in the order in which it is made: one target after the other, each one's Pythons together."""
    targets = [target for target in TARGETS if target.triple in triples]
    found = [Artifact("sdist", package) for package in PACKAGES if "sdist" in kinds]
    for target in targets:
        if "rwsgi-top" in kinds:
            found.append(Artifact("rwsgi-top", "rwsgi-top", target))
        # Where the C library is part of the program, it runs on every Linux.
        if "static" in kinds and target.musl:
            found.append(Artifact("static", "rwsgi-top", target))
        if "rwsgi" in kinds:
            found += [Artifact("rwsgi", "rwsgi", target, python) for python in PYTHONS if python in pythons]
    return found


def python_config(python: str) -> str:
    """What PyO3 and maturin must know of an interpreter, which need not be here (PYO3_CONFIG_FILE)."""
    number = python.rstrip("t")
    threaded = python.endswith("t")
    lines = {
        "implementation": "CPython",
        "version": number,
        "shared": "true",
        "abi3": "false",
        "build_flags": "Py_GIL_DISABLED" if threaded else "",
        "suppress_build_script_link_lines": "false",
        "pointer_width": "64",
        # For maturin: what the extension's file and the wheel are named by.
        "abiflags": "t" if threaded else "",
        "abi_tag": python.replace(".", ""),
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())
