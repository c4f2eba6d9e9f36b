"""Monitoring agents and tools, as PyPI has them, started in the ways that their documentation tells users of uWSGI: what they
report has to come from every worker, also from one that takes the place of another, and when a worker ends. docs/agents.md
says how each is set up. TESTS_ALL_AGENTS=1 also runs those that are like others."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from itertools import count
from typing import Callable

import pytest

from rig import http, processes, tls
from rig.agents import AGENT_SITES, Inbox, Launched, ScoutCoreAgent, environment
from rig.server import Servers
from rig.waiting import until

# The first one waits for downloads.
pytestmark = pytest.mark.timeout(600)

TOKENS = count(1)
# How long an application with an agent may take to be loaded, and what it sends to come, seconds: some are large.
DEADLINE = 120
# How long an agent may take to send what it has when its worker ends, seconds. By default some take 2, and drop the rest.
PATIENCE = "30"


@dataclass(frozen=True)
class Agent:
    """An agent and one way to start it. The values of `env` have places for the receiver's port and certificate."""

    name: str
    packages: tuple[str, ...]
    site: str
    env: dict[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    receiver: Callable = Inbox
    # One that differs from another by little, and takes long.
    is_extra: bool = False

    @property
    def id(self) -> str:
        """What the test is called."""
        how = [word.strip("-") for word in self.launcher[:1] + self.options] or [self.site]
        return f"{self.name}:{'-'.join(how)}"


DATADOG = {
    "DD_TRACE_AGENT_URL": "http://127.0.0.1:%(port)s", "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
}
DDTRACE = ("ddtrace>=2,<5", "flask>=3,<4")
NEWRELIC = ("newrelic>=9,<15", "flask>=3,<4")
NEW_RELIC = {
    "NEW_RELIC_LICENSE_KEY": "0" * 40, "NEW_RELIC_APP_NAME": "site", "NEW_RELIC_STARTUP_TIMEOUT": "25",
    "NEW_RELIC_HOST": "127.0.0.1", "NEW_RELIC_PORT": "%(port)s", "NEW_RELIC_CA_BUNDLE_PATH": "%(certificate)s",
    "NEW_RELIC_SHUTDOWN_TIMEOUT": PATIENCE,
    # Where does this machine run? Nowhere that answers.
    **{f"NEW_RELIC_UTILIZATION_DETECT_{cloud}": "false" for cloud in ("AWS", "AZURE", "GCP", "PCF")},
}
OPENTELEMETRY = (
    "opentelemetry-distro>=0.50b0", "opentelemetry-exporter-otlp-proto-http>=1.29,<2",
    "opentelemetry-instrumentation-wsgi>=0.50b0",
)
OTLP = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:%(port)s", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
}
WITH_FLASK = ("flask>=3,<4", "opentelemetry-instrumentation-flask>=0.50b0")
WITH_DJANGO = ("django>=4.2,<6", "opentelemetry-instrumentation-django>=0.50b0")

AGENTS = [
    Agent("ddtrace", DDTRACE, "on_flask", DATADOG, launcher=("ddtrace-run",)),
    Agent("ddtrace", DDTRACE, "on_flask", DATADOG, options=("--import", "ddtrace.auto")),
    Agent(
        "ddtrace", DDTRACE, "on_flask", DATADOG, options=("--import", "ddtrace.auto", "--lazy-apps"), is_extra=True,
    ),
    Agent("newrelic", NEWRELIC, "on_flask", NEW_RELIC, launcher=("newrelic-admin", "run-program")),
    Agent(
        "newrelic", NEWRELIC, "on_flask", NEW_RELIC, launcher=("newrelic-admin", "run-program"),
        options=("--lazy-apps",), is_extra=True,
    ),
    Agent("sentry", ("sentry-sdk[flask]>=2,<3",), "with_sentry", {"SENTRY_DSN": "http://key@127.0.0.1:%(port)s/1"}),
    Agent("opentelemetry-flask", OPENTELEMETRY + WITH_FLASK, "on_flask", OTLP, launcher=("opentelemetry-instrument",)),
    Agent(
        "opentelemetry-django", OPENTELEMETRY + WITH_DJANGO, "on_django", OTLP | {"DJANGO_SETTINGS_MODULE": "django_settings"},
        launcher=("opentelemetry-instrument",),
    ),
    Agent("opentelemetry-flask", OPENTELEMETRY + WITH_FLASK, "with_opentelemetry", OTLP),
    Agent(
        "elastic", ("elastic-apm[flask]>=6.20,<7", "flask>=3,<4"), "with_elastic",
        {
            "ELASTIC_APM_SERVER_URL": "http://127.0.0.1:%(port)s", "ELASTIC_APM_CLOUD_PROVIDER": "none",
            # How often it sends, and its patience at the end of a worker.
            "ELASTIC_APM_API_REQUEST_TIME": "5s",
        },
    ),
    Agent(
        "scout", ("scout-apm>=3,<5", "flask>=3,<4"), "with_scout",
        {
            "SCOUT_MONITOR": "true", "SCOUT_KEY": "key", "SCOUT_NAME": "site", "SCOUT_CORE_AGENT_LAUNCH": "false",
            "SCOUT_CORE_AGENT_DOWNLOAD": "false", "SCOUT_CORE_AGENT_SOCKET_PATH": "tcp://127.0.0.1:%(port)s",
            "SCOUT_SHUTDOWN_TIMEOUT_SECONDS": PATIENCE,
        },
        receiver=ScoutCoreAgent,
    ),
]


@pytest.fixture
def started(program, tmp_path):
    """Starts the server of an environment: `started(environment, launcher)(options)`."""
    fleets = []

    def servers(place, launcher=()) -> Servers:
        path = program.path if program.is_uwsgi else str(place / "bin/rwsgi")
        launched = Launched(path, tuple([str(place / "bin" / launcher[0]), *launcher[1:]] if launcher else []))
        fleets.append(Servers(launched, tmp_path))
        return fleets[-1]

    yield servers
    for fleet in fleets:
        fleet.stop_all()


def asked(address: str, pids: set[int], are_there: Callable[[set[int]], bool]) -> list[str]:
    """Sends requests until `are_there` is content with the processes that have answered; returns what was sent."""
    tokens = []

    def enough() -> bool:
        # None begins as another does.
        tokens.append(f"token-{os.getpid()}-{next(TOKENS)}-")
        answer = http.get(address, f"/work/{tokens[-1]}")
        assert answer.status == 200, answer
        pids.add(int(answer.body))
        return are_there(pids)

    until(enough, "requests answered by all workers", DEADLINE)
    return tokens


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.id)
def test_an_agent_reports_the_requests_of_every_worker(started, program, address, stats_at, tmp_path, agent):
    if agent.is_extra and not os.environ.get("TESTS_ALL_AGENTS"):
        pytest.skip("TESTS_ALL_AGENTS=1 is not set")
    place = environment(agent.name, list(agent.packages), program)
    certificate = tls.self_signed(tmp_path, "127.0.0.1")
    receiver = agent.receiver(*([certificate] if agent.name == "newrelic" else []))
    told = {"port": receiver.port, "certificate": certificate.cert}
    env = {name: value % told for name, value in agent.env.items()} | {"NO_PROXY": "*", "PATH": f"{place}/bin:/usr/bin:/bin"}
    home = ["--home", place] if program.is_uwsgi else []
    server = started(place, agent.launcher)(
        *("--http-socket", address, "--stats", stats_at, "--master", "--processes", 2, "--enable-threads", *home),
        *("--module", agent.site, "--max-requests", 30, *agent.options),
        cwd=AGENT_SITES, env=env,
    )
    try:
        def all_come(tokens: list[str], what: str) -> None:
            def missing() -> list[str]:
                return [token for token in tokens if not receiver.has(token)]

            until(lambda: not missing(), what, DEADLINE, lambda: f"not come: {missing()} of {tokens}\n{server.log()}")

        until(lambda: all(worker["accepting"] for worker in server.stats()["workers"]), "both workers serve", DEADLINE, server.log)
        first: set[int] = set()
        all_come(asked(address, first, lambda pids: len(pids) == 2), "both workers report")
        # The last request of a worker is reported too, when it ends because of max-requests.
        recycled = set(first)
        all_come(asked(address, recycled, lambda pids: len(pids) >= 4), "recycled workers report")
        reloaded: set[int] = set()
        before = {worker["pid"] for worker in server.stats()["workers"]}
        server.send(signal.SIGHUP)
        all_come(asked(address, reloaded, lambda pids: len(pids - before) >= 2), "workers of the next generation report")
    finally:
        receiver.close()


# What the launchers of agents put in front of every Python's path. This one takes itself out of the environment, so that what
# the application starts has no agent, as that of OpenTelemetry did.
BROUGHT = """
import os, threading

with open(os.path.join(os.path.dirname(__file__), "brought"), "a") as file:
    file.write(f"{os.getpid()}\\n")
threading.Thread(target=threading.Event().wait, daemon=True).start()
del os.environ["PYTHONPATH"]
"""
SITE = """
import os, sys

def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{'sitecustomize' in sys.modules} {os.environ.get('PYTHONPATH')}".encode()]
"""


@pytest.mark.only_rwsgi(why="uWSGI has one interpreter, in its master")
def test_what_every_python_is_brought_runs_in_those_alone_that_load_the_application(serve, address, stats_at, tmp_path):
    agent = tmp_path / "agent"
    agent.mkdir()
    (agent / "sitecustomize.py").write_text(BROUGHT)
    (tmp_path / "site_of_test.py").write_text(SITE)
    server = serve(
        *("--http", address, "--stats", stats_at, "--module", "site_of_test"), cwd=tmp_path, env={"PYTHONPATH": str(agent)}
    )
    server.wait_workers(1)
    assert http.get(address, "/").text == "True None"
    names = {process.pid: process.name for process in server.processes()}
    assert {"rwsgi http", "rwsgi forksrv"} <= set(names.values())
    brought = [int(pid) for pid in (agent / "brought").read_text().split()]
    # The command that it was started with, which then began anew without it; and where the application is loaded.
    assert [names[pid] for pid in brought[1:]] == ["rwsgi forksrv"]
    assert brought[0] == server.pid
    assert set(processes.look(server.pid).threads()) <= {"rwsgi master", "tokio-rt-worker"}
