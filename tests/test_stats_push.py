"""Stats that are sent without being asked for: to files, by UDP, as a directory of numbers; and what is left out."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from rig import http
from rig.waiting import until


@pytest.fixture
def site(serve, address, stats_at, tmp_path):
    def start(*options):
        server = serve(
            "--http-socket", address, "--master", "--wsgi-file", "worklife.py", "--stats", stats_at, "--enable-metrics",
            *options,
        )
        assert [http.get(address, "/").status for _ in range(3)] == [200] * 3
        return server

    return start


@pytest.mark.only_rwsgi(why="its package has no pusher to files")
def test_the_document_is_added_to_a_file(site, tmp_path):
    file = tmp_path / "stats.json"
    site("--stats-push", f"file:path={file},freq=1,separator=;;")
    until(lambda: file.exists() and file.read_text().count(";;") >= 2, "it was sent twice")
    first, second, _ = file.read_text().split(";;", 2)
    assert [len(json.loads(document)["workers"]) for document in (first, second)] == [1, 1]
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.only_rwsgi(why="its package has no pusher to statsd")
@pytest.mark.parametrize(("kind", "line"), [("statsd", r"^site\.worker\.1\.requests:3\|c$"), ("socket", r"^site\.worker\.1\.requests 0 3$")])
def test_numbers_are_sent_by_udp(site, kind, line):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(30)
        site("--stats-push", f"{kind}:127.0.0.1:{receiver.getsockname()[1]},site", "--stats-pusher-default-freq", 1)
        while not re.match(line, receiver.recv(1000).decode()):
            pass


def test_a_directory_has_a_file_for_each_number(site, tmp_path):
    directory = tmp_path / "metrics"
    directory.mkdir()
    site("--metrics-dir", directory, "--metric", "name=sold,type=gauge,initial_value=7")

    def value(name):
        return (directory / name).read_text().split("\n")[0].strip("\0")

    until(lambda: (directory / "worker.1.requests").exists() and value("worker.1.requests") == "3", "the requests are there")
    names = {"worker.1.core.0.requests", "core.total_tx", "core.idle_workers", "rss_size", "socket.0.listen_queue", "sold"}
    # The first files are there before the last ones.
    until(lambda: names <= set(os.listdir(directory)), "the other numbers are there", context=lambda: f"{os.listdir(directory)}")


def test_threads_are_left_out_of_the_directory(site, tmp_path):
    site("--metrics-dir", tmp_path, "--metrics-no-cores")
    until((tmp_path / "worker.1.requests").exists, "the numbers are there")
    assert not (tmp_path / "worker.1.core.0.requests").exists()


@pytest.mark.only_rwsgi(why="the log's words")
def test_a_directory_that_is_not_there_ends_the_start(serve, address):
    server = serve.run("--http-socket", address, "--wsgi-file", "worklife.py", "--metrics-dir", "/nowhere/at/all")
    assert "metrics-dir: cannot use the directory '/nowhere/at/all'" in server.log()


@pytest.mark.only_rwsgi(why="a link would be followed")
def test_no_link_leads_a_number_elsewhere(site, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    directory = tmp_path / "metrics"
    directory.mkdir()
    (directory / "core.total_tx").symlink_to(precious)
    server = site("--metrics-dir", directory)
    server.logged("metrics-dir: .*trying again")
    assert precious.read_text() == "precious"


def test_threads_and_numbers_are_left_out_of_the_stats(site):
    server = site("--stats-no-cores", "--stats-no-metrics", "--metric", "sold")
    document = server.stats()
    assert not document.get("metrics")
    assert not document["workers"][0].get("cores")


@pytest.mark.only_rwsgi(why="/metrics is ours")
def test_metrics_have_the_sums_over_threads_that_are_left_out_of_the_document(serve, address, stats_at):
    serve("--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at, "--stats-http", "--stats-no-cores")
    assert http.get(address, "/").status == 200
    for line in ("rwsgi_saturation 0", 'rwsgi_worker_cores{worker="1"} 1', 'rwsgi_worker_cores_busy{worker="1"} 0'):
        # A client has its response before the thread is idle.
        until(lambda line=line: f"\n{line}\n" in http.get(stats_at, "/metrics").text, line)
    assert not json.loads(http.get(stats_at, "/").text)["workers"][0].get("cores")


@pytest.mark.only_rwsgi(why="its package has no pusher to statsd")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process a name server of its own")
def test_a_name_that_nobody_resolves_does_not_hold_up_the_end_of_the_server(program, address, tmp_path):
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.77\noptions timeout:30 attempts:5\n")
    isolated = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', tmp_path / "resolv.conf"]
    command = [
        *(program.path, "--http-socket", address, "--wsgi-file", "foobar.py"),
        *("--stats-push", "statsd:statsd.example:8125", "--stats-pusher-default-freq", "1"),
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.77", 53))
        silent.settimeout(30)
        server = subprocess.Popen([*isolated, *command], cwd=Path(__file__).parent / "apps", stderr=subprocess.DEVNULL)
        try:
            assert b"statsd" in silent.recv(1000)
            server.terminate()
            assert server.wait(30) == 0
        finally:
            server.kill()
            server.wait()
