"""Real applications from PyPI under their own uwsgi.ini: the same client, and the same answers as under uWSGI."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from applications.answers import differences
from applications.deployment import entrances, use
from applications.environment import TARGET, install
from applications.table import TABLE
from rig.server import Program

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the applications are pinned for Python 3.11"),
]

WAYS = [(application, entrance) for application in TABLE for entrance in entrances(application)]


@pytest.fixture(params=WAYS, ids=[f"{application.name}-{entrance}" for application, entrance in WAYS])
def way(request):
    """An application and a way in."""
    application, entrance = request.param
    ordinary = application.light and entrance == application.listens
    if not ordinary and not request.config.getoption("--all-applications"):
        pytest.skip("runs with --all-applications")
    missing = [name for name in application.programs if shutil.which(name) is None]
    assert not missing, f"{application.name} needs {missing}: tests/run installs them"
    return application, entrance


def test_an_application_answers_as_it_does_under_uwsgi(way, program, venv_bin, tmp_path):
    application, entrance = way
    installed = install(application)
    read, seconds = {}, {}
    real = Program(str(venv_bin / "uwsgi"))
    compared = not application.routes or _has_routes(real)
    for name, each in (("uwsgi", real), ("rwsgi", program)) if compared else (("rwsgi", program),):
        directory = tmp_path / name
        directory.mkdir()
        begun = time.monotonic()
        read[name] = use(application, installed, each, entrance, directory)
        seconds[name] = round(time.monotonic() - begun, 1)
    assert not read["rwsgi"].bodies_of_head, "an answer to HEAD has no body"
    assert not read["rwsgi"].resets, "a refused upload has an answer"
    if not compared:
        pytest.skip("served as its client wants it; not compared, since this uWSGI was built without PCRE and has no rules")
    found = differences(read["uwsgi"], read["rwsgi"], ("uwsgi", "rwsgi"))
    _keep(application, entrance, installed.version(application), len(read["rwsgi"].exchanges), len(found), seconds)
    assert not found, f"{len(found)} of {len(read['rwsgi'].exchanges)} answers differ:\n\n" + "\n\n".join(found[:10])


def _has_routes(uwsgi: Program) -> bool:
    return "--route-label" in subprocess.run([uwsgi.path, "--help"], capture_output=True, text=True, check=False).stdout


def _keep(application, entrance, version, answers, differ, seconds) -> None:
    """The figures of docs/applications.md."""
    result = {"version": version, "answers": answers, "differ": differ, "seconds": seconds, "python": sys.version.split()[0]}
    path: Path = TARGET / "results" / f"{application.name}-{entrance}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result) + "\n")
