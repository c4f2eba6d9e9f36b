"""Servers behind a real load balancer are restarted one after another under load, and every request gets its answer."""

from __future__ import annotations

import signal
import threading
from collections import Counter

import pytest

from rig import http
from rig.addresses import tcp
from rig.haproxy import HAProxy
from rig.http import Connection
from rig.nginx import Nginx
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no drain-delay")

RESTARTS = 10
# A request takes long enough to be in progress when a server is told to stop, and for the clients to be bounded.
APPLICATION = """
import os, time
def application(environ, start_response):
    time.sleep(0.02)
    body = environ["wsgi.input"].read() or b"ok"
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-Server", os.environ["NAME"])])
    return [body]
"""


class Fleet:
    """Three servers, each with an address of its own for requests and one for probes."""

    def __init__(self, serve, directory, kind: str, delay: int) -> None:
        self.serve, self.directory, self.kind, self.delay = serve, directory, kind, delay
        (directory / "app.py").write_text(APPLICATION)
        self.addresses = [(tcp(), tcp()) for _ in range(3)]
        self.servers = [self.start(number) for number in range(3)]

    def start(self, number: int):
        address, probe = self.addresses[number]
        server = self.serve(
            f"--{self.kind}", address, "--probe", probe, "--wsgi-file", "app.py", "--processes", 2, "--drain-delay",
            self.delay, cwd=self.directory, env={"NAME": str(number)},
        )
        until(lambda: http.get(probe, "/-/ready").status == 200, "it is ready", context=server.log)
        return server

    def restart(self, number: int) -> None:
        """What a rolling deployment does with each."""
        server = self.servers[number]
        server.send(signal.SIGTERM)
        assert server.wait_exit() == 0
        self.servers[number] = self.start(number)

    def stop(self) -> None:
        """Tells all to stop; who started them waits for it."""
        for server in self.servers:
            if server.process.poll() is None:
                server.send(signal.SIGTERM)


class Clients:
    """Clients with connections that they keep, each with one request after another: the methods in turn."""

    def __init__(self, address: str, methods: tuple[str, ...], count: int = 6) -> None:
        self.address, self.methods = address, methods
        self.answers: Counter[str] = Counter()
        self.lost: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with Connection(self.address) as connection:
            number = 0
            while not self._end.is_set():
                method = self.methods[number % len(self.methods)]
                number += 1
                body = b"x" * 100 if method == "POST" else None
                try:
                    answer = connection.request(method, "/", body=body)
                except (OSError, AssertionError) as failure:
                    return self.lost.append(f"{method}: {failure!r}")
                if answer.status == 200 and answer.body == (body or b"ok"):
                    self.answers[answer.header("X-Server") or ""] += 1
                else:
                    self.lost.append(f"{method}: {answer.status} {answer.text[:100]}")

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"


def restarted_under_load(fleet: Fleet, clients: Clients, context, restarts: int = RESTARTS) -> None:
    """So many restarts; every request is answered, and each server has its part of them."""
    try:
        for number in range(restarts):
            goal = clients.answers.total() + 20
            until(lambda goal=goal: clients.lost or clients.answers.total() >= goal, "requests are answered", context=context)
            fleet.restart(number % 3)
    finally:
        clients.stop()
    assert clients.lost == [], f"{clients.lost[:10]}\n{clients.answers}\n{context()}"
    assert all(clients.answers[str(number)] > 20 for number in range(3)), clients.answers


@pytest.mark.parametrize(("kind", "restarts"), [("http", RESTARTS), ("http-socket", 3)])
def test_nothing_is_lost_behind_a_balancer_that_asks_whether_servers_are_ready(serve, tmp_path, kind, restarts):
    # It has to ask, ten times a second, before the delay is over; on a busy machine not every time has its turn.
    fleet = Fleet(serve, tmp_path, kind, delay=4)
    balancer = HAProxy(tmp_path, fleet.addresses)
    try:
        restarted_under_load(fleet, Clients(balancer.address, ("GET", "POST")), balancer.log, restarts)
    finally:
        fleet.stop()
        balancer.stop()


# As docs/probes.md has it.
UPSTREAM = """
upstream app {{
    {servers}
    keepalive 16;
}}
server {{
    listen ADDRESS;
    location / {{
        proxy_pass http://app;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_connect_timeout 2s;
        proxy_next_upstream error timeout;
        proxy_next_upstream_tries 3;
    }}
}}
"""


def test_nothing_is_lost_behind_an_nginx_that_asks_nothing(serve, tmp_path):
    fleet = Fleet(serve, tmp_path, "http", delay=1)
    servers = "\n    ".join(f"server {address} max_fails=1 fail_timeout=1s;" for address, _ in fleet.addresses)
    nginx = Nginx(tmp_path, {}, servers={"app": UPSTREAM.format(servers=servers)})
    try:
        restarted_under_load(fleet, Clients(nginx.addresses["app"], ("GET",)), nginx.log)
    finally:
        fleet.stop()
        nginx.stop()
