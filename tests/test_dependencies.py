"""What is built into the programs: each crate is pinned by its checksum, and its licence is one that may be shipped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "docs" / "licences.md"

#: Licences (SPDX) that ask for no more than naming them and their authors.
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "ISC", "MIT", "Unicode-3.0", "Unlicense", "Zlib",
    "Apache-2.0 WITH LLVM-exception",
}  # fmt: skip

pytestmark = pytest.mark.only_rwsgi(why="it is about rwsgi's sources")


@pytest.fixture(scope="module")
def metadata() -> dict:
    found = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"],
        cwd=ROOT, env={**os.environ, "PYO3_PYTHON": sys.executable}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(found.stdout)


def may_ship(licence: str) -> bool:
    """Whether an SPDX expression can be met by allowed licences alone; `/` is what crates wrote before SPDX."""
    outside = licence.replace("(", " ( ").replace(")", " ) ").replace("/", " OR ")
    words = re.sub(r"(\S+) WITH (\S+)", r"\1_WITH_\2", outside).split()
    known = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    return eval(" ".join(known.get(word) or str(word.replace("_WITH_", " WITH ") in ALLOWED) for word in words))


def shipped_with(metadata: dict, program: str) -> set[str]:
    """The ids of the crates whose code is in `program`: what it needs to run, not to build or to test."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [package["id"] for package in metadata["packages"] if package["name"] == program]
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [
                dependency["pkg"]
                for dependency in nodes[node]["deps"]
                if any(kind["kind"] is None for kind in dependency["dep_kinds"])
            ]
    return found


def listed(metadata: dict) -> str:
    server, top = shipped_with(metadata, "rwsgi"), shipped_with(metadata, "rwsgi-top")
    rows = [
        f"| {package['name']} | {package['version']} | {package['license']} "
        f"| {' '.join(name for name, crates in (('rwsgi', server), ('rtop', top)) if package['id'] in crates)} |"
        for package in sorted(metadata["packages"], key=lambda package: (package["name"], package["version"]))
        if package["source"] and package["id"] in server | top
    ]
    return "\n".join(
        [
            "# Licences of the crates that are built in",
            "",
            "Made by `RWSGI_WRITE_DOCS=1 tests/run tests/test_dependencies.py`: do not edit.",
            "",
            "`Cargo.lock` pins each of them by its checksum. What only building and testing need is not listed.",
            "",
            "| crate | version | licence | in |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def test_each_crate_comes_from_the_registry_with_a_checksum():
    packages = (ROOT / "Cargo.lock").read_text().split("[[package]]")[1:]
    foreign = [package for package in packages if "source = " in package]
    assert len(foreign) > 50
    for package in foreign:
        assert "registry+https://github.com/rust-lang/crates.io-index" in package, package
        assert "checksum = " in package, package


def test_each_licence_may_be_shipped(metadata):
    packages = [package for package in metadata["packages"] if package["source"]]
    assert len(packages) > 50
    assert [
        (package["name"], package["license"]) for package in packages if not may_ship(package["license"] or "none")
    ] == []


@pytest.mark.parametrize(
    "licence, expected",
    [
        ("MIT", True), ("MIT/GPL-3.0", True), ("GPL-3.0", False), ("(MIT OR Apache-2.0) AND Unicode-3.0", True),
        ("(MIT OR Apache-2.0) AND GPL-3.0", False), ("Apache-2.0 WITH LLVM-exception", True), ("none", False),
    ],
)  # fmt: skip
def test_an_expression_is_read_as_spdx_has_it(licence, expected):
    assert may_ship(licence) is expected


def test_the_list_of_licences_is_up_to_date(metadata):
    text = listed(metadata)
    if os.environ.get("RWSGI_WRITE_DOCS"):
        LIST.write_text(text)
    assert LIST.read_text() == text, "write it anew: RWSGI_WRITE_DOCS=1 tests/run tests/test_dependencies.py"
