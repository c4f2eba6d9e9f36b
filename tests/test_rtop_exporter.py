"""rtop --exporter: a plain uWSGI's numbers, as a real Prometheus reads them."""

from __future__ import annotations

import re
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from rig import http
from rig.addresses import free_port, listening, tcp
from rig.prometheus import promtool
from rig.server import Program, Servers
from rig.waiting import until


class Exporter:
    """A running `rtop --exporter`."""

    def __init__(self, rtop, log, *arguments):
        self.address, self.log_path = tcp(), log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [rtop, *arguments, "--exporter", self.address], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        until(lambda: self.process.poll() is not None or listening(self.address), "the exporter listens", context=self.log)

    def log(self):
        return self.log_path.read_text()

    def get(self, path, accept=None):
        request = urllib.request.Request(f"http://{self.address}{path}", headers={"Accept": accept} if accept else {})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.headers["Content-Type"], answer.read()

    def text(self, path="/metrics"):
        return self.get(path)[1].decode()

    def stop(self):
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture
def exporter(rtop, tmp_path):
    started = []

    def start(*arguments):
        started.append(Exporter(rtop, tmp_path / f"exporter{len(started)}.log", *arguments))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def uwsgi(venv_bin, tmp_path):
    """Starts real uWSGI servers, each with two workers."""
    directory = tmp_path / "uwsgi"
    directory.mkdir()
    servers = Servers(Program(str(venv_bin / "uwsgi")), directory)

    def start(address, stats_at):
        server = servers("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--processes", 2, "--stats", stats_at)
        # It listens for a while before it answers, for which the exporter has three seconds.
        server.stats()
        return server

    start.servers = servers
    yield start
    servers.stop_all()


def test_a_real_prometheus_reads_a_plain_uwsgi_through_its_end_and_its_return(uwsgi, exporter, prometheus, address, stats_at):
    uwsgi(address, stats_at)
    for _ in range(7):
        assert http.get(address, "/pid").status == 200
    serving = exporter(stats_at)
    watching = prometheus({"uwsgi": [serving.address]})
    assert watching.wait_value("rwsgi_up", lambda up: up == 1) == 1
    # uWSGI counts a request after its response, and its second worker starts when the first one may serve already.
    watching.wait_value("sum(rwsgi_worker_requests_total)", lambda count: count == 7)
    watching.wait("rwsgi_worker_up == 1", lambda samples: {sample["metric"]["worker"] for sample in samples} == {"1", "2"})
    watching.wait_value("rwsgi_saturation", lambda saturation: saturation == 0)
    # uWSGI has none of these, and what is not known is not zero.
    absent = "|".join((
        "rwsgi_start_time_seconds", "rwsgi_generation", "rwsgi_ready", "rwsgi_queue_capacity", "rwsgi_temp_files_.*",
        "rwsgi_slow_clients_total", "rwsgi_worker_responses_total", "rwsgi_worker_cpu_seconds_total",
        "rwsgi_worker_resident_memory_bytes", "rwsgi_request_duration_seconds.*", "rwsgi_cgroup_.*",
    ))
    assert watching.query(f'{{__name__=~"{absent}"}}') == []

    uwsgi.servers.stop_all()
    watching.wait_value("rwsgi_up", lambda up: up == 0)
    watching.wait("rwsgi_worker_requests_total", lambda samples: samples == [])
    watching.wait_value("up", lambda up: up == 1)
    uwsgi(address, stats_at)
    watching.wait_value("rwsgi_up", lambda up: up == 1)

    # One line for any number of failures, and one when they are over.
    log = serving.log()
    # Which failure is the first depends: in the middle of uWSGI's end connections are reset.
    assert len(re.findall(rf"^rtop: {stats_at}: .*trying again at each scrape$", log, re.MULTILINE)) == 1, log
    assert len(re.findall(rf"^rtop: {stats_at}: answers again$", log, re.MULTILINE)) == 1, log
    assert serving.stop() == 0


def test_several_servers_are_found_and_probed_by_a_real_prometheus(uwsgi, exporter, prometheus):
    first, second, gone = tcp(), tcp(), tcp()
    for number, stats_at in enumerate((first, second)):
        site = tcp()
        uwsgi(site, stats_at)
        for _ in range(number + 1):
            assert http.get(site, "/pid").status == 200
    serving = exporter(first, second, gone)
    discovery = {"http_sd_configs": [{"url": f"http://{serving.address}/sd", "refresh_interval": "1s"}]}
    jobs = [
        {"job_name": "uwsgi", **discovery},
        {"job_name": "exporter", "static_configs": [{"targets": [serving.address]}]},
    ]
    watching = prometheus({}, config={"scrape_configs": jobs})

    def by_instance(samples):
        return {sample["metric"]["instance"]: sample["value"][1] for sample in samples}

    watching.wait("rwsgi_up", lambda samples: by_instance(samples) == {first: "1", second: "1", gone: "0"})
    counts = "sum by (instance) (rwsgi_worker_requests_total)"
    watching.wait(counts, lambda samples: by_instance(samples) == {first: "1", second: "2"})
    failed = watching.wait('rtop_exporter_scrapes_total{result="failed"} > 0')
    assert [sample["metric"]["target"] for sample in failed] == [gone]


def test_only_servers_that_were_named_are_probed(uwsgi, exporter, address, stats_at):
    uwsgi(address, stats_at)
    other = tcp()
    serving = exporter(stats_at, other)
    assert "rwsgi_up 1" in serving.text(f"/probe?target={stats_at.replace(':', '%3A')}")
    with socket.create_server(("127.0.0.1", free_port())) as precious:
        precious.settimeout(0.5)
        host, port = precious.getsockname()
        for target in (f"{host}:{port}", "/etc/passwd", ""):
            with pytest.raises(urllib.error.HTTPError) as refused:
                serving.get(f"/probe?target={target}")
            assert refused.value.code == 404
        with pytest.raises(TimeoutError):
            precious.accept()


def test_promtool_finds_nothing_to_say(uwsgi, exporter, address, stats_at):
    uwsgi(address, stats_at)
    http.get(address, "/pid")
    serving = exporter(stats_at, "--metrics-compat", "uwsgi_exporter")
    content_type, text = serving.get("/metrics", accept="text/plain;version=0.0.4")
    assert content_type.startswith("text/plain"), content_type
    checked = promtool("check", "metrics", stdin=text.decode())
    # Names that others have chosen are not ours to change.
    ours = [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("rwsgi_")]
    assert ours == [], checked
    assert re.search(r'^uwsgi_up(\{stats_uri="[^"]*"\})? 1$', text.decode(), re.MULTILINE)


def test_a_server_that_hangs_holds_up_nobody_else(uwsgi, exporter, address, stats_at):
    uwsgi(address, stats_at)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        hangs = "%s:%d" % silent.getsockname()
        serving = exporter(stats_at, hangs, "--timeout", "20")
        with socket.create_connection(serving.address.split(":")) as waiting:
            waiting.sendall(f"GET /probe?target={hangs} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            accepted, _ = silent.accept()
            with accepted:
                assert "rwsgi_up 1" in serving.text(f"/probe?target={stats_at}")
    # Also while somebody is answered.
    assert serving.stop() == 0


def test_clients_that_say_nothing_are_bounded(exporter, stats_at):
    serving = exporter(stats_at)
    host, port = serving.address.split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(80)]
    try:
        def refused():
            answers = []
            for client in silent:
                client.setblocking(False)
                try:
                    answers.append(client.recv(100))
                except BlockingIOError:
                    pass
            return any(b"503" in answer for answer in answers)

        until(refused, "those beyond the bound get 503")
        threads = int(re.search(r"^Threads:\s+(\d+)", open(f"/proc/{serving.process.pid}/status").read(), re.MULTILINE)[1])
        assert threads <= 64 + 4
    finally:
        for client in silent:
            client.close()
    until(lambda: _answers(serving), "it answers again")


def _answers(serving):
    try:
        return "rwsgi_up 0" in serving.text()
    except OSError:
        # 503, or a connection that is closed before the request was read.
        return False


def test_an_address_that_is_taken_is_told(rtop, stats_at):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([rtop, stats_at, "--exporter", str(port)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert f"rtop: --exporter 127.0.0.1:{port}: cannot listen there: Address already in use" in done.stderr
