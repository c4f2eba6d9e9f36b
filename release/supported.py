"""The systems that release/check runs on, and the table of docs/supported.md."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

BEGIN, END = "<!-- release/check writes from here -->", "<!-- to here -->"
NOT_RUN = "not run"
# In place of a wheel's tag.
BUILT = "the sdist builds, and serves"


@dataclass(frozen=True)
class System:
    """One row: a fresh Debian and an interpreter in it."""

    name: str
    label: str
    suite: str
    # Of Python, for a row that was not run.
    version: str
    # What ./demo is told; the interpreter's packages of Debian.
    python: str = "python3"
    packages: tuple[str, ...] = ()
    # An interpreter that is no package: its directory on this machine.
    home: Path | None = None
    # A processor that is emulated, as Debian names it.
    arch: str | None = None


@dataclass(frozen=True)
class Result:
    """What became of a row. What is None was not run."""

    # Of the interpreter, as "3.11.2".
    python: str | None = None
    # The tag of the server's wheel.
    wheel: str | None = None
    # What was installed: the names of the files, and their checksums.
    wheels: dict[str, str] | None = None
    # "passes", or what went wrong, in a few words.
    first_command: str | None = None
    passed: int | None = None
    failed: int | None = None
    skipped: int | None = None
    # All tests, or the chosen ones.
    whole: bool = False
    # Of everything, in seconds.
    seconds: int | None = None
    day: str | None = None

    @property
    def good(self) -> bool:
        """Whether everything that was to run has run and passed."""
        return self.wheel == BUILT or self.first_command == "passes" and self.failed == 0 and bool(self.passed)


# What an interpreter built from source needs of Debian 12 to start with all its modules.
LIBRARIES = (
    "libssl3", "libsqlite3-0", "libffi8", "libreadline8", "libncursesw6", "libbz2-1.0", "liblzma5", "zlib1g", "libuuid1", "libgdbm6",
    "libdb5.3",
)  # fmt: skip

DEBIANS = [
    System("debian-12", "Debian 12", "bookworm", "3.11"),
    System("debian-13", "Debian 13", "trixie", "3.13"),
    System("debian-testing", "Debian testing", "forky", "3.14"),
    System("debian-12-arm64", "Debian 12, aarch64 (emulated)", "bookworm", "3.11", arch="arm64"),
    System("debian-testing-3.15", "Debian testing", "forky", "3.15", "python3.15", ("python3.15", "python3.15-venv")),
]
# No wheel, no checkout: the packages of sources, and a Rust that is Debian's.
SDIST = System("sdist", "Debian testing, its own Rust", "forky", "3.14")


def built_from_source(home: Path) -> System:
    """The row of an interpreter in this directory, on Debian 12, as pyenv leaves it: `…/3.9.18`, with bin/python3."""
    version = re.match(r"(3\.\d+)(?:\.\d+)?(t?)", home.name)
    name = version[1] + version[2] if version else home.name
    return System(f"python-{name}", "Debian 12, CPython built from source", "bookworm", home.name, str(home / "bin/python3"), LIBRARIES, home)


def interpreters(versions: Path) -> list[Path]:
    """The newest of each release that pyenv has in this directory, 3.9 and later, oldest first."""
    newest: dict[tuple[int, bool], tuple[int, Path]] = {}
    for home in versions.iterdir() if versions.is_dir() else []:
        version = re.fullmatch(r"3\.(\d+)\.(\d+)(t?)", home.name)
        if version and int(version[1]) >= 9 and (home / "bin/python3").exists():
            key = (int(version[1]), bool(version[3]))
            newest[key] = max(newest.get(key, (-1, home)), (int(version[2]), home))
    return [newest[key][1] for key in sorted(newest)]


def counts(output: str) -> tuple[int, int, int] | None:
    """Passed, failed (with errors) and skipped, from pytest's closing line; None when it has not come to one."""
    lines = re.findall(r"^=+ (.*) in [\d.]+s.*=+$|^((?:\d+ \w+,? ?)+) in [\d.]+s", output, re.MULTILINE)
    if not lines:
        return None
    found = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", lines[-1][0] or lines[-1][1])}
    failed = sum(found.get(word, 0) for word in ("failed", "error", "errors"))
    return found.get("passed", 0), failed, found.get("skipped", 0)


def row(system: System, result: Result | None) -> str:
    """A line of the table."""
    result = result or Result()
    tests = NOT_RUN
    if result.passed is not None:
        tests = f"{result.passed} / {result.failed} / {result.skipped}, {'all' if result.whole else 'chosen'}"
    took = NOT_RUN if result.seconds is None else f"{result.seconds // 60}:{result.seconds % 60:02} min"
    cells = [system.label, result.python or system.version, result.wheel or NOT_RUN, result.first_command or NOT_RUN, tests, took, result.day or NOT_RUN]
    return "| " + " | ".join(cells) + " |"


def table(results: list[tuple[System, Result | None]]) -> str:
    """The table, as Markdown."""
    head = ["System", "Python", "Wheel", "`./demo`", "Tests: passed / failed / skipped", "Took", "Day"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *(row(*each) for each in results)]
    return "\n".join(lines) + "\n"


def written_into(page: str, text: str) -> str:
    """The page with `text` between the marks, in place of what was there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def to_json(result: Result) -> dict:
    """For the file that keeps results."""
    return asdict(result)


def from_json(entry: dict) -> Result:
    """The reverse; what an older version wrote beside is left out."""
    return Result(**{name: value for name, value in entry.items() if name in Result.__dataclass_fields__})
