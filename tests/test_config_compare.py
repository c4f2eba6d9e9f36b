"""Configuration files that are made up are read as uWSGI reads them, value for value."""

from __future__ import annotations

import difflib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rig.configurations import ENVIRONMENT, Maker

pytestmark = pytest.mark.only_rwsgi(why="it is what the other is compared with")

FILES = int(os.environ.get("RWSGI_COMPARED_FILES", "200"))
FIRST = int(os.environ.get("RWSGI_COMPARED_FIRST", "1"))
# What stands elsewhere in each file, for others to refer to.
PLAIN = "plain-a = p\nplain-b = 21\nnumber = 8\n"
# Conditions and loops are settings for uWSGI, and what they leave is compared.
LOGIC = ("for", "if-", "end", "else", "show-config", "strict")


def shown(output: str) -> list[str]:
    """The settings that --show-config has shown, a line each."""
    _, _, rest = output.partition(";uWSGI instance configuration\n[uwsgi]\n")
    text, end, _ = rest.partition(";end of configuration")
    assert end, output
    return [line for line in text.splitlines() if not line.startswith(LOGIC)]


def run(command: list, directory: Path) -> str:
    environment = {"PATH": os.environ["PATH"], **ENVIRONMENT}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    return (done.stdout + done.stderr).decode()


@pytest.fixture(scope="module")
def uwsgi(venv_bin) -> Path:
    return venv_bin / "uwsgi"


def test_files_are_read_as_uwsgi_reads_them(program, uwsgi, tmp_path):
    def differences(number: int) -> str | None:
        directory = tmp_path / str(number)
        directory.mkdir()
        file = Maker(number, directory).write()
        (directory / "plain.ini").write_text("[uwsgi]\n" + PLAIN)
        before = ["--show-config", "--ini", directory / "plain.ini"]
        theirs = run([uwsgi, *before, file], directory)
        ours = run([program.path, *before, "--check", file], directory)
        lines = [shown(output) for output in (theirs, ours)]
        if lines[0] == lines[1]:
            return None
        return "\n".join([f"== {number}: {file}", *difflib.unified_diff(*lines, "uWSGI", "here", lineterm="", n=0)])

    with ThreadPoolExecutor(max_workers=4) as pool:
        found = [difference for difference in pool.map(differences, range(FIRST, FIRST + FILES)) if difference]
    assert not found, f"{len(found)} of {FILES} files:\n" + "\n".join(found[:20])
