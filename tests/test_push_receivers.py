"""Numbers that are sent to the real statsd and the real carbon, and as Datadog's own client would send them."""

from __future__ import annotations

import re
import socket
import sys
import time

import pytest

from rig import http
from rig.addresses import free_port
from rig.receivers import Carbon, Statsd
from rig.server import Program, Servers
from rig.waiting import until


@pytest.fixture
def site(serve, address):
    """Starts a server with one worker that has answered three requests."""

    def start(*options, servers=serve, requests=3):
        server = servers("--http-socket", address, "--master", "--wsgi-file", "worklife.py", "--enable-metrics", *options)
        assert [http.get(address, "/").status for _ in range(requests)] == [200] * requests
        return server

    start.servers = serve
    return start


@pytest.fixture
def uwsgi(venv_bin, tmp_path):
    """Starts real uWSGI servers."""
    directory = tmp_path / "uwsgi"
    directory.mkdir()
    servers = Servers(Program(str(venv_bin / "uwsgi")), directory)
    yield servers
    servers.stop_all()


@pytest.fixture
def statsd(tmp_path):
    started = Statsd(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def carbon(tmp_path):
    if sys.version_info >= (3, 12):
        pytest.skip("carbon cannot be installed: its last release is for Python 3.11 and older")
    started = []

    def start(port=None):
        started.append(Carbon(tmp_path / f"carbon{len(started)}", port))
        return started[-1]

    yield start
    for each in started:
        each.stop()


class Datagrams:
    """A socket that gets datagrams."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.settimeout(30)
        self.port = self.socket.getsockname()[1]

    def until(self, pattern):
        """The texts up to one that the pattern matches."""
        texts = []
        while not (texts and re.fullmatch(pattern, texts[-1])):
            texts.append(self.socket.recv(10_000).decode())
        return texts


@pytest.fixture
def datagrams():
    receiver = Datagrams()
    yield receiver
    receiver.socket.close()


@pytest.mark.only_rwsgi(why="its package has no pusher to statsd")
def test_a_real_statsd_keeps_gauges_and_adds_counters_up(site, statsd):
    site("--stats-push", f"statsd:127.0.0.1:{statsd.port},site", "--stats-pusher-default-freq", 1)
    until(lambda: statsd.numbers("counters").get("site.worker.1.requests", 0) >= 6, "the totals of two times, added up")

    def all_agree():
        # Each number is a datagram: between two of them, one is new and the other one old.
        gauges = statsd.numbers("gauges")
        memory = gauges["site.core.total_rss"]
        # Memory is none of what a statsd may add up, though uWSGI sends these as counters.
        sums = memory == gauges["site.worker.1.rss_size"] == gauges["site.rss_size"] > 1 << 20
        return sums and gauges["site.core.idle_workers"] == 1

    until(all_agree, "the gauges of one time", context=lambda: str(statsd.numbers("gauges")))
    assert statsd.numbers("counters")["statsd.bad_lines_seen"] == 0


@pytest.mark.only_rwsgi(why="its package has no pusher to statsd")
def test_a_real_statsd_gets_totals_as_gauges_and_nothing_of_workers(site, statsd):
    site(
        *("--stats-push", f"statsd:127.0.0.1:{statsd.port}", "--stats-pusher-default-freq", 1),
        *("--statsd-all-gauges", "--statsd-no-workers", "--metric", "name=so|ld:x,type=counter,initial_value=7"),
    )
    until(lambda: {"uwsgi.core.total_tx", "uwsgi.so_ld_x"} <= set(statsd.numbers("gauges")), "the totals are there")
    gauges, counters = statsd.numbers("gauges"), statsd.numbers("counters")
    assert [name for name in gauges | counters if ".worker." in name] == []
    assert set(counters) == {"statsd.bad_lines_seen", "statsd.packets_received", "statsd.metrics_received"}
    assert gauges["uwsgi.so_ld_x"] == 7
    assert counters["statsd.bad_lines_seen"] == 0


@pytest.mark.only_rwsgi(why="a plugin that its package lacks")
def test_a_real_statsd_reads_datadog_s_tags(site, statsd):
    site(
        *("--stats-push", f"dogstatsd:127.0.0.1:{statsd.port},site", "--stats-pusher-default-freq", 1),
        *("--dogstatsd-all-gauges", "--dogstatsd-extra-tags", "app:shop"),
    )
    until(lambda: statsd.numbers("gauges").get("site.worker.requests;app=shop;worker=1") == 3, "the requests of worker 1")
    until(lambda: statsd.numbers("gauges").get("site.core.idle_workers;app=shop") == 1, "it is idle")
    assert statsd.numbers("counters")["statsd.bad_lines_seen"] == 0


@pytest.mark.only_rwsgi(why="a plugin that its package lacks")
def test_datadog_s_agent_gets_what_its_own_client_sends(site, datagrams):
    from datadog.dogstatsd import DogStatsd

    site(
        *("--stats-push", f"dogstatsd:127.0.0.1:{datagrams.port},site", "--stats-pusher-default-freq", 1),
        *("--dogstatsd-extra-tags", "app:shop,env:prod", "--dogstatsd-whitelist-metric", "worker.requests"),
        *("--dogstatsd-whitelist-metric", "core.idle_workers"),
    )
    sent = datagrams.until(r"site\.worker\.requests:3.*#.*worker:1")
    # When its requests are counted it may not be idle yet.
    sent += datagrams.until(r"site\.core\.idle_workers:1\|.*")
    client = DogStatsd("127.0.0.1", datagrams.port, namespace="site", constant_tags=None, disable_buffering=True, telemetry_min_flush_interval=3600)
    client.increment("worker.requests", 3, tags=["app:shop", "env:prod", "worker:1"])
    client.gauge("core.idle_workers", 1, tags=["app:shop", "env:prod"])
    theirs = [text.strip() for text in datagrams.until(r"site\.core\.idle_workers:1\|g\|#app:shop,env:prod\n?") if text.endswith("\n")]
    theirs = theirs or [text.strip() for text in datagrams.until(r".*\n")]
    for text in theirs:
        # What a client of a container adds for the agent is no part of the number.
        assert re.sub(r"\|[ce]:[^#]*$", "", text) in sent, (theirs, sent)
    assert {re.split(r"[:|]", text)[0] for text in sent} == {"site.worker.requests", "site.core.idle_workers"}


def test_a_real_carbon_keeps_the_numbers(site, carbon):
    receiver = carbon()
    site(
        *("--carbon", f"127.0.0.1:{receiver.port}", "--carbon-freq", 1, "--carbon-id", "site", "--carbon-root", "prod"),
        *("--carbon-hostname-dots", "_", "--memory-report"),
    )
    name = f"prod.{socket.gethostname().replace('.', '_')}.site"
    until(lambda: receiver.last(f"{name}.requests") == 3, "the requests are there", context=receiver.log)
    until(lambda: receiver.last(f"{name}.worker1.requests") == 3, "those of the worker")
    until(lambda: receiver.last(f"{name}.active_workers") == 1, "the workers")
    until(lambda: (receiver.last(f"{name}.worker1.rss_size") or 0) > 1 << 20, "the memory is there")


def test_carbon_gets_the_metrics_by_their_names_when_that_is_asked_for(site, carbon):
    receiver = carbon()
    site("--carbon", f"127.0.0.1:{receiver.port}", "--carbon-freq", 1, "--carbon-id", "site", "--carbon-use-metrics")
    name = f"uwsgi.{socket.gethostname()}.site"
    until(lambda: receiver.last(f"{name}.worker.1.requests") == 3, "the requests are there", context=receiver.log)
    until(lambda: receiver.last(f"{name}.core.idle_workers") == 1, "and what else there is")


@pytest.mark.only_rwsgi(why="the log's words")
def test_a_carbon_that_is_gone_is_told_once_and_gets_numbers_again_when_it_is_back(site, carbon, address):
    port = free_port()
    server = site(
        *("--carbon", f"127.0.0.1:{port}", "--carbon-freq", 1, "--carbon-id", "site", "--carbon-timeout", 1),
        *("--carbon-retry-delay", 1),
    )
    server.logged(rf"carbon: 127.0.0.1:{port}: Connection refused.*trying again, without logging more failures")
    before = len(server.processes())
    receiver = carbon(port)
    name = f"uwsgi.{socket.gethostname()}.site.requests"
    until(lambda: receiver.last(name) == 3, "the numbers are there", context=server.log)
    server.logged(rf"carbon: 127.0.0.1:{port}: works again")
    assert http.get(address, "/").status == 200
    until(lambda: receiver.last(name) == 4, "and those after them")
    assert len(server.lines("without logging more failures")) == 1
    assert len(server.processes()) == before


@pytest.mark.only_rwsgi(why="the log's words")
def test_a_carbon_that_reads_nothing_holds_up_neither_requests_nor_the_end(site, address):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        address_of_it = "%s:%d" % deaf.getsockname()
        # The queue of connections is full: whoever connects gets no answer.
        full = [socket.socket() for _ in range(4)]
        for each in full:
            each.setblocking(False)
            each.connect_ex(deaf.getsockname())
        server = site("--carbon", address_of_it, "--carbon-freq", 1, "--carbon-timeout", 1)
        server.logged(rf"carbon: {address_of_it}: it does not answer, for 1 s \(carbon-timeout\)")
        assert [http.get(address, "/").status for _ in range(20)] == [200] * 20
        server.process.terminate()
        assert server.process.wait(30) == 0
        for each in full:
            each.close()


@pytest.mark.only_rwsgi(why="the log's words")
def test_a_statsd_that_is_gone_is_told_once_and_again_when_it_is_back(site):
    port = free_port()
    server = site("--stats-push", f"statsd:127.0.0.1:{port}", "--stats-pusher-default-freq", 1)
    server.logged(rf"statsd at 127.0.0.1:{port}: Connection refused.*trying again, without logging more failures")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", port))
        receiver.settimeout(30)
        assert receiver.recv(1000)
        server.logged(rf"statsd at 127.0.0.1:{port}: works again")
        # Before it is gone again.
        assert len(server.lines("without logging more failures")) == 1


@pytest.mark.only_rwsgi(why="it is compared with uWSGI")
def test_names_and_kinds_are_those_of_a_real_uwsgi(site, uwsgi, datagrams, address):
    options = ["--stats-push", f"socket:127.0.0.1:{datagrams.port},site", "--stats-pusher-default-freq", 1, "--threads", 2]

    def kinds(servers):
        server = site(*options, servers=servers)
        texts = datagrams.until(r"site\.worker\.1\.requests 0 3") + datagrams.until(r"site\.worker\.1\.requests 0 3")
        servers.stop_all()
        del server
        datagrams.socket.setblocking(False)
        while True:
            try:
                datagrams.socket.recv(1000)
            except BlockingIOError:
                break
        datagrams.socket.settimeout(30)
        return {text.split()[0]: text.split()[1] for text in texts}

    theirs, ours = kinds(uwsgi), kinds(site.servers)
    assert set(ours) - set(theirs) == set()
    assert {name: kind for name, kind in ours.items() if theirs[name] != kind} == {}
    # What nothing counts here: zeros of a worker 0, signals between processes, exceptions by thread.
    lacking = {name for name in set(theirs) - set(ours) if not re.search(r"\.worker\.0\.|_signals$|\.core\.\d\.exceptions$", name)}
    assert lacking == set()


@pytest.mark.only_rwsgi(why="it is compared with uWSGI")
@pytest.mark.parametrize("options", [[], ["--carbon-no-workers", "--carbon-idle-avg", "none"], ["--carbon-use-metrics", "--metrics-no-cores"]])
def test_carbon_s_lines_are_those_of_a_real_uwsgi(site, uwsgi, options):
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        receiver.settimeout(30)

        def lines(servers):
            site("--carbon", "%s:%d" % receiver.getsockname(), "--carbon-freq", 1, "--memory-report", "--processes", 2, *options, servers=servers)
            while True:
                connection, _ = receiver.accept()
                with connection, connection.makefile() as file:
                    text = file.read().splitlines()
                if any(re.search(r"\.(worker\.0\.)?requests 3 \d+$", line) for line in text):
                    break
            servers.stop_all()
            receiver.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    receiver.accept()[0].close()
            receiver.settimeout(30)
            assert all(abs(int(line.rsplit(" ", 1)[1]) - time.time()) < 600 for line in text)
            return [line.split(" ")[0] for line in text]

        theirs, ours = lines(uwsgi), lines(site.servers)
        if "--carbon-use-metrics" in options:
            unknown = re.compile(r"\.worker\.0\.(?!requests)|_signals$")
            assert set(ours) == {name for name in theirs if not unknown.search(name)}
        else:
            assert ours == theirs
