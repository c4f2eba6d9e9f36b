"""`rwsgi migrate`: what becomes of a configuration that was written for uWSGI, for people and for scripts."""

from __future__ import annotations

import subprocess

import pytest

pytestmark = pytest.mark.only_rwsgi("uWSGI has no such command")

APP = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"


@pytest.fixture
def migrate(program, tmp_path):
    (tmp_path / "app.py").write_text(APP)

    def run(*words: str) -> subprocess.CompletedProcess:
        command = [program.path, "migrate", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)

    return run


def test_a_configuration_that_loses_nothing_exits_with_0(migrate, tmp_path):
    (tmp_path / "site.ini").write_text("[uwsgi]\nhttp-socket = :8000\nmodule = app\nmaster = true\n")
    printed = migrate("site.ini")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout.startswith("rwsgi starts with this configuration and does all of it.\n")
    assert "\nCOMMAND\n  rwsgi site.ini\n" in printed.stdout
    assert "SIGTERM\n" in printed.stdout


def test_a_configuration_that_loses_something_exits_with_1_and_names_it(migrate, tmp_path):
    (tmp_path / "site.ini").write_text("[uwsgi]\nhttp-socket = :8000\nmodule = app\nsubscribe-to = 10.0.0.1:4040\n")
    printed = migrate("site.ini")
    assert (printed.returncode, printed.stderr) == (1, "")
    assert "site.ini:4: subscribe-to = 10.0.0.1:4040\n" in printed.stdout


def test_a_command_that_does_not_start_exits_with_2_and_says_why(migrate):
    printed = migrate("/usr/bin/uwsgi", "--http", ":8000", "--module", "app", "--fastrouter", ":9000")
    assert (printed.returncode, printed.stderr) == (2, "")
    assert "WRONG" in printed.stdout
    assert "fastrouter" in printed.stdout


def test_nothing_is_started_or_made(migrate, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    printed = migrate("uwsgi", "--socket", "site.sock", "--module", "app", "--pidfile", "site.pid", "--logto", "site.log")
    assert printed.returncode == 0
    assert f"uwsgi_pass unix:{tmp_path}/site.sock;" in printed.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == before
