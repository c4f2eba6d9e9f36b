"""Fixtures: the programs under test, and servers that live for a test or for a module."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rig import other_user  # noqa: E402
from rig.addresses import tcp  # noqa: E402
from rig.prometheus import Prometheus  # noqa: E402
from rig.server import Program, Servers  # noqa: E402
from rig.terminal import Terminal  # noqa: E402
from rig.site import KINDS, Record, every_kind  # noqa: E402


def pytest_addoption(parser):
    parser.addoption(
        "--server",
        default=os.path.join(sys.prefix, "bin", "rwsgi"),
        help="the server under test; the path of a real uwsgi proves what a test expects",
    )
    parser.addoption("--all-applications", action="store_true", help="the large ones of tests/applications too")
    parser.addoption("--rtop", default=os.path.join(sys.prefix, "bin", "rtop"), help="the rtop under test")


def pytest_configure(config):
    config.addinivalue_line("markers", "only_rwsgi(why): where uWSGI is known to do something else")


def pytest_collection_modifyitems(config, items):
    program = Program(config.getoption("--server"))
    for item in items:
        marker = item.get_closest_marker("only_rwsgi")
        if program.is_uwsgi and marker is not None:
            item.add_marker(pytest.mark.skip(reason=marker.kwargs.get("why", "of rwsgi alone")))


def _found(path: str) -> str:
    path = os.path.abspath(path)
    if not os.access(path, os.X_OK):
        pytest.exit(f"{path} is not there: tests/run installs what the tests need", returncode=2)
    return path


@pytest.fixture(scope="session")
def program(request) -> Program:
    """The server under test."""
    return Program(_found(request.config.getoption("--server")))


@pytest.fixture(scope="module")
def program_for_all(program):
    """A server that www-data, and so anybody, can run."""
    other_user.www_data()
    place = other_user.place()
    yield other_user.install(program, place / "venv")
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def rtop(request) -> str:
    """The path of the rtop under test."""
    return _found(request.config.getoption("--rtop"))


@pytest.fixture(scope="session")
def venv_bin() -> Path:
    """Where uwsgi, uwsgitop and the rest of the test environment are."""
    return Path(sys.prefix) / "bin"


@pytest.fixture
def serve(program, tmp_path):
    """Starts servers for one test: `serve("--http-socket", address, ...)`."""
    servers = Servers(program, tmp_path)
    yield servers
    servers.stop_all()


@pytest.fixture(scope="module")
def serve_module(program, tmp_path_factory):
    """Starts servers that the tests of a module share."""
    servers = Servers(program, tmp_path_factory.mktemp("servers"))
    yield servers
    servers.stop_all()


@pytest.fixture
def address() -> str:
    """A free `127.0.0.1:port`."""
    return tcp()


@pytest.fixture
def stats_at() -> str:
    """A free `127.0.0.1:port` for the stats."""
    return tcp()


@pytest.fixture(scope="module")
def probe_sites(serve_module):
    """One server of `apps/probe.py` on every kind of socket. Its log shows queries: they tell the tests' requests apart."""
    shown = [] if serve_module.program.is_uwsgi else ["--show-request", "queries"]
    return every_kind(serve_module, "--wsgi-file", "probe.py", "--processes", 2, "--threads", 2, *shown)


@pytest.fixture(params=KINDS)
def site(request, probe_sites):
    """The probe, behind each kind of socket in turn."""
    return probe_sites[request.param]


@pytest.fixture(params=["http", "http-socket"])
def http_site(request, probe_sites):
    """The probe, behind each kind of socket that speaks HTTP."""
    return probe_sites[request.param]


@pytest.fixture
def record(tmp_path) -> Record:
    """Where the application writes down what it saw: `?record={record.path}`."""
    return Record(tmp_path / "record")


@pytest.fixture
def terminal(tmp_path):
    """Opens terminals: `terminal(["rtop", address])`."""
    opened = []

    def open_terminal(command, **options) -> Terminal:
        opened.append(Terminal([str(part) for part in command], tmp_path, **options))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


@pytest.fixture
def prometheus(tmp_path):
    """Starts real Prometheus servers: `prometheus({"job": [address]})`. See `rig.prometheus`."""
    started = []

    def start(targets, **options) -> Prometheus:
        directory = tmp_path / f"prometheus-{len(started)}"
        directory.mkdir()
        started.append(Prometheus(directory, targets, **options))
        return started[-1]

    yield start
    for each in started:
        each.stop()
