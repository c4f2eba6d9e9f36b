"""./demo's decisions, which is the first command of the README, and the table that release/check writes. Neither builds anything
here, nor installs a package of the system: release/check does, on fresh systems."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
THIS = f"cp{sys.version_info[0]}{sys.version_info[1]}"
PLATFORM = sysconfig.get_platform().replace("-", "_").replace(".", "_")
# What ./demo asks of the system before there is a Python environment.
TOOLS = ("sh", "awk", "sed", "cat", "cksum", "find", "sort", "head", "tail", "ls", "rm", "mkdir", "dirname", "id", "env", "grep")

pytestmark = pytest.mark.only_rwsgi(why="it is rwsgi's")


def module(path: Path):
    """A file of release/, which is no package."""
    loader = SourceFileLoader(path.name, str(path))
    made = module_from_spec(spec_from_loader(path.name, loader))
    sys.modules[path.name] = made
    loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def supported():
    return module(ROOT / "release" / "supported.py")


def wheel(directory: Path, name: str, tag: str) -> None:
    """A wheel without compiled code, whose program prints its name."""
    directory.mkdir(parents=True, exist_ok=True)
    information = f"{name}-0.1.0.dist-info"
    program = "rtop" if name == "rwsgi_top" else name
    with zipfile.ZipFile(directory / f"{name}-0.1.0-{tag}.whl", "w") as made:
        made.writestr(f"{name}.py", f"def main():\n    print('{program} from {tag}')\n")
        made.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 0.1.0\n")
        made.writestr(f"{information}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {tag}\n")
        made.writestr(f"{information}/entry_points.txt", f"[console_scripts]\n{program} = {name}:main\n")
        made.writestr(f"{information}/RECORD", "")


class Checkout:
    """What ./demo reads, in a directory of its own, and the programs that it finds there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wheels = directory / "target" / "wheels"
        (directory / "release").mkdir(parents=True)
        (directory / "demo").write_bytes((ROOT / "demo").read_bytes())
        (directory / "release" / "needs.sh").write_bytes((ROOT / "release" / "needs.sh").read_bytes())
        (directory / "Cargo.toml").write_bytes((ROOT / "Cargo.toml").read_bytes())
        (directory / "Cargo.lock").touch()
        for name in ("server", "top", "shared"):
            (directory / name).mkdir()
        self.bin = directory / "bin"
        self.bin.mkdir()
        for name in TOOLS:
            (self.bin / name).symlink_to(next(p for d in ("/usr/bin", "/bin") if (p := Path(d, name)).exists()))

    def move(self, to: Path) -> None:
        self.directory = self.directory.rename(to)
        self.bin, self.wheels = to / "bin", to / "target" / "wheels"

    def program(self, name: str, script: str) -> None:
        """A program that is found before any other of its name; `id` that says so is how a test is not root."""
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def demo(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        values = {"PATH": str(self.bin), "HOME": str(self.directory), "PYTHON": sys.executable, **environment}
        # Whatever pip is told by the machine stays out of this: no index is to be reached.
        values.setdefault("PIP_CONFIG_FILE", os.devnull)
        return subprocess.run(
            ["/bin/sh", "./demo", *arguments], cwd=self.directory, env=values, capture_output=True, text=True, timeout=300
        )


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    made = Checkout(tmp_path / "checkout")
    made.program("id", "echo 1000")
    return made


# On a busy machine: environments are made.
@pytest.mark.timeout(900)
def test_wheels_come_from_the_directory_or_an_index_when_they_fit(checkout, tmp_path):
    """One environment for all of it, for making one takes the longest."""
    # Wheels for other interpreters are left alone.
    wheel(checkout.wheels, "rwsgi", f"cp38-cp38-{PLATFORM}")
    wheel(checkout.wheels, "rwsgi_top", f"py3-none-{PLATFORM}")
    done = checkout.demo("--prepare")
    assert done.returncode == 1
    assert "None of these is for this Python: rwsgi-0.1.0-cp38" in done.stderr
    assert "Rust 1." in done.stderr and "or later is not installed" in done.stderr

    # A name that is not released is not looked for on an index: before that anybody may have it.
    for name in ("rwsgi", "rwsgi_top"):
        page = tmp_path / "index" / name.replace("_", "-")
        wheel(page, name, f"py3-none-{PLATFORM}")
        (page / "index.html").write_text("".join(f'<a href="{each.name}">{each.name}</a>' for each in page.iterdir()))
    index = {"PIP_INDEX_URL": (tmp_path / "index").as_uri()}
    assert checkout.demo("--prepare", **index).returncode == 1
    done = checkout.demo("--prepare", DEMO_RELEASED="0.0.9 0.1.0", **index)
    assert done.returncode == 0, done.stderr
    assert f"rwsgi rwsgi from py3-none-{PLATFORM}" in done.stderr

    # One that fits is installed, beside those that do not.
    wheel(checkout.wheels, "rwsgi", f"{THIS}-{THIS}-{PLATFORM}")
    done = checkout.demo("--prepare")
    assert done.returncode == 0, done.stderr
    assert f"rwsgi rwsgi from {THIS}-{THIS}-{PLATFORM}, rtop from py3-none-{PLATFORM}" in done.stderr
    # There is nothing to do the second time.
    assert "Looking" not in checkout.demo("--prepare").stderr

    # A bare `pip install` would be refused by PEP 668: all of it is in an environment of its own, and nothing beside it.
    installed = {path.name for path in (checkout.directory / "target/demo-venv/bin").iterdir()}
    assert {"rwsgi", "rtop", "python"} <= installed
    assert sorted(path.name for path in checkout.directory.iterdir()) == sorted(
        ["Cargo.lock", "Cargo.toml", "bin", "demo", "release", "server", "shared", "target", "top"]
    )

    # Programs of an environment name its directory: a checkout that has been moved needs another one.
    checkout.move(tmp_path / "moved")
    done = checkout.demo("--prepare")
    assert done.returncode == 0, done.stderr
    assert "Making target/demo-venv" in done.stderr and f"rwsgi rwsgi from {THIS}" in done.stderr

    (checkout.directory / "target/demo-venv/bin/rtop").write_text("#!/bin/sh\necho broken >&2; exit 127\n")
    done = checkout.demo("--prepare")
    assert done.returncode == 1 and "broken\ndemo: what was installed does not start" in done.stderr


RUSTUP = "sudo apt-get install -y curl ca-certificates && curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs"


@pytest.mark.parametrize(
    "debians, line",
    [
        ({"rustc": "1.63.0+dfsg1-2"}, RUSTUP),
        ({"rustc": "1.85.1+dfsg1-1+deb13u1", "rustup": "1.27.1-3+b1"}, "sudo apt-get install -y rustup && rustup default stable"),
        ({"rustc": "1.97.1+dfsg1-1", "rustup": "1.28.2-1"}, "sudo apt-get install -y cargo"),
        ({}, RUSTUP),
    ],
    ids=["debian-12", "debian-13", "debian-testing", "another-system"],
)
def test_it_says_how_to_get_rust_on_this_system(checkout, debians, line):
    for name in ("cargo", "rustc"):
        checkout.program(name, f"echo '{name} 1.70.0 (abc 2023-06-01)'")
    cases = "\n".join(f"'policy {name}') echo '  Candidate: {version}' ;;" for name, version in debians.items())
    checkout.program("apt-cache", f"case \"$*\" in\n{cases}\n*) echo '  Candidate: (none)' ;;\nesac")
    done = checkout.demo("--prepare")
    assert done.returncode == 1
    assert "Rust 1.70.0 is older than the 1." in done.stderr
    assert line in done.stderr and "and then run ./demo again" in done.stderr
    old = debians.get("rustc", "1.97")[:4]
    assert ("this Debian has" in done.stderr) == (old in ("1.63", "1.85"))


def test_rust_of_rustup_is_found_behind_an_old_one(checkout):
    """Where it said how to get it, and is run again in the same shell."""
    cargo = checkout.directory / ".cargo" / "bin"
    cargo.mkdir(parents=True)
    for name in ("cargo", "rustc"):
        checkout.program(name, f"echo '{name} 1.63.0 (abc 2022-08-08)'")
        (cargo / name).write_text(f"#!/bin/sh\necho '{name} 1.100.0 (abc 2027-01-01)'\n")
        (cargo / name).chmod(0o755)
    done = checkout.demo("--prepare")
    assert done.returncode == 1
    # It has come to the next thing that is missing here.
    assert "there is no C compiler" in done.stderr


def test_debians_rust_is_found_where_an_image_has_no_lists_of_apt(checkout):
    checkout.program("id", "echo 0")
    checkout.program("apt-get", f"echo \"$*\" >>{checkout.directory}/asked")
    checkout.program("apt-cache", f"[ -e {checkout.directory}/asked ] && echo '  Candidate: 1.97.1+dfsg1-1'")
    done = checkout.demo("--prepare")
    assert done.returncode == 1
    assert "Installing cargo (Rust 1." in done.stderr
    assert (checkout.directory / "asked").read_text().splitlines()[-1].endswith(" cargo")


def test_a_directory_that_cannot_be_written_is_named(checkout):
    (checkout.directory / "target").touch()
    done = checkout.demo("--prepare")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{checkout.directory}/target cannot be written" in done.stderr


@pytest.mark.parametrize("version, enough", [("1.87.9", False), ("1.88.0", True), ("1.100.0", True), ("2.0.0", True), ("0.99", False)])
def test_versions_of_rust_are_compared_as_numbers(version, enough):
    done = subprocess.run(["sh", "-c", f". release/needs.sh; at_least 1.88 {version}"], cwd=ROOT)
    assert (done.returncode == 0) == enough


def test_without_a_module_venv_it_names_the_package_of_this_python(checkout):
    """Debian's own python3 has none until its package is installed."""
    checkout.program("python9", 'case "$*" in *ensurepip*) exit 1 ;; *python%d*) echo python3.13 ;; *) exit 0 ;; esac')
    done = checkout.demo("--prepare", PYTHON="python9")
    assert done.returncode == 1
    assert "python9 has no module venv" in done.stderr
    assert "sudo apt-get install -y python3.13-venv" in done.stderr


def test_root_gets_the_package_installed(checkout):
    checkout.program("id", "echo 0")
    checkout.program("apt-get", f'echo "$*" >>{checkout.directory}/asked; exit 100')
    done = checkout.demo("--prepare", PYTHON="python9")
    assert done.returncode == 1
    assert "Installing python3 python3-venv (python9 is not installed)" in done.stderr
    assert "apt-get could not install python3 python3-venv" in done.stderr

    # What is Debian's python3 is not every Python.
    checkout.program("apt-get", "exit 0")
    done = checkout.demo("--prepare", PYTHON="python9")
    assert done.returncode == 1
    assert done.stderr.endswith("demo: python9 is not installed. Name another one: PYTHON=python3 ./demo\n")


def test_an_option_that_is_not_there_is_refused(checkout):
    done = checkout.demo("--bild")
    assert done.returncode == 1
    assert "there is no option --bild" in done.stderr and "--build" in done.stdout


def test_a_row_says_what_was_not_run(supported):
    system = supported.DEBIANS[0]
    assert supported.row(system, None) == "| Debian 12 | 3.11 | not run | not run | not run | not run | not run |"
    result = supported.Result("3.11.2", "cp311 manylinux_2_17_x86_64", {}, "passes", 120, 0, 3, False, 185, "2026-11-26")
    assert supported.row(system, result) == (
        "| Debian 12 | 3.11.2 | cp311 manylinux_2_17_x86_64 | passes | 120 / 0 / 3, chosen | 3:05 min | 2026-11-26 |"
    )
    assert result.good
    assert not supported.Result("3.11.2", "cp311", {}, "passes", 120, 1, 3).good
    assert not supported.Result("3.11.2", "cp311", {}, "passes").good
    assert supported.from_json({**supported.to_json(result), "dropped": 1}) == result


def test_the_table_is_written_between_its_marks(supported):
    page = (ROOT / "docs" / "supported.md").read_text()
    text = supported.table([(system, None) for system in supported.DEBIANS])
    written = supported.written_into(page, text)
    assert supported.written_into(written, text) == written
    assert text in written and written.startswith(page.split(supported.BEGIN)[0]) and written.endswith(page.split(supported.END)[1])
    with pytest.raises(ValueError, match="the page has no"):
        supported.written_into("a page", text)


@pytest.mark.parametrize(
    "output, expected",
    [
        ("=== 3 passed, 1 skipped in 2.10s ===\n", (3, 0, 1)),
        ("== 1 failed, 2 passed, 1 error in 70.00s (0:01:10) ==\n", (2, 2, 0)),
        ("5 passed in 0.31s\n", (5, 0, 0)),
        ("== test session starts ==\nINTERNALERROR\n", None),
    ],
)
def test_what_pytest_counted_is_read(supported, output, expected):
    assert supported.counts(output) == expected


def test_the_newest_interpreter_of_each_release_has_a_row(supported, tmp_path):
    for name in ("3.8.18", "3.9.2", "3.9.18", "3.13.0", "3.14.0t", "system"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "python3").touch()
    (tmp_path / "3.12.1").mkdir()
    homes = supported.interpreters(tmp_path)
    assert [home.name for home in homes] == ["3.9.18", "3.13.0", "3.14.0t"]
    assert [supported.built_from_source(home).name for home in homes] == ["python-3.9", "python-3.13", "python-3.14t"]


def test_every_chosen_test_exists(supported, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    check = module(ROOT / "release" / "check")
    assert [name for name in check.CHOSEN if not (ROOT / "tests" / f"{name}.py").exists()] == []


@pytest.mark.parametrize(
    "handler, lacks",
    [
        (None, "qemu's binfmt handler"),
        ("disabled\ninterpreter /usr/bin/qemu\nflags: PF\n", "qemu's binfmt handler"),
        ("enabled\ninterpreter /usr/bin/qemu\nflags: P\n", "qemu's binfmt handler"),
        ("enabled\ninterpreter /usr/bin/qemu\nflags: PF\n", "qemu-system-aarch64"),
    ],
)
def test_where_nothing_emulates_another_processor_its_row_is_not_run(monkeypatch, capsys, tmp_path, handler, lacks):
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    check = module(ROOT / "release" / "check")
    wheel(tmp_path, "rwsgi", "py3-none-any")
    if handler is not None:
        (tmp_path / "qemu-aarch64").write_text(handler)
    monkeypatch.setattr(sys.modules["roots"], "BINFMT", tmp_path)
    monkeypatch.setattr(sys.modules["roots"].shutil, "which", lambda program: None)
    monkeypatch.setattr(check, "PAGE", tmp_path / "page")
    monkeypatch.setattr(check, "RESULTS", tmp_path / "results.json")
    (tmp_path / "page").write_text(f"{check.BEGIN}\n{sys.modules['supported'].END}\n")
    monkeypatch.setattr(sys, "argv", ["check", "--only", "debian-12-arm64", "--wheels", str(tmp_path)])
    assert check.main() == 1
    assert f"debian-12-arm64: not run, for this machine lacks {lacks}" in capsys.readouterr().err
    assert "| Debian 12, aarch64 (emulated) | 3.11 | not run | not run |" in (tmp_path / "page").read_text()
