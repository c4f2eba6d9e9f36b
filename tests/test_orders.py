"""Orders by signal, through the fifo and by touching files, and what becomes of workers without a master."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from rig import http, processes
from rig.load import Load
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI reloads by another path, with other words")


def generation(server) -> int:
    return server.stats()["generation"]


def wait_generation(server, number: int) -> None:
    def replaced() -> bool:
        document = server.stats()
        return document["generation"] == number and all(w["generation"] == number for w in document["workers"])

    until(replaced, f"all workers are of generation {number}", context=server.log)


def test_the_fifo_takes_letters(serve, address, stats_at, tmp_path):
    fifo = tmp_path / "fifo"
    server = serve(
        *("--http-socket", address, "--wsgi-file", "worklife.py", "--processes", 2, "--stats", stats_at),
        *("--master-fifo", fifo, "--vacuum"),
    )
    server.wait_workers(2)
    with Load(address, "/", clients=4) as load:
        for number, letter in enumerate("rc", 2):
            fifo.write_text(letter)
            wait_generation(server, number)
    assert not load.lost, load.lost
    server.wait_workers(2)
    fifo.write_text("s\nz")
    server.logged(r"worker 2 \(pid \d+\) is (idle|busy): \d+ requests")
    server.logged("'z' is no order")
    fifo.write_text("q")
    assert server.wait_exit() == 0
    assert not fifo.exists()


def test_a_chain_reload_replaces_one_worker_after_another(serve, address, stats_at, tmp_path):
    touched = tmp_path / "chain"
    touched.touch()
    server = serve(
        *("--http-socket", address, "--wsgi-file", "worklife.py", "--processes", 3, "--stats", stats_at),
        *("--touch-chain-reload", touched),
    )
    server.wait_workers(3)
    # At once: a file that is emptied and then written may have changed twice.
    touched.touch()
    wait_generation(server, 2)
    left = server.logged(r"worker (\d) \(pid \d+\) of generation 1 has left", count=3)
    assert sorted(match[1] for match in left) == ["1", "2", "3"]


def test_touching_a_file_reloads(serve, address, stats_at, tmp_path):
    touched = tmp_path / "touch"
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at, "--touch-reload", touched
    )
    server.wait_workers(1)
    touched.touch()
    wait_generation(server, 2)
    server.logged(rf"touch-reload: '{touched}' has changed")


def test_a_changed_module_is_noticed_and_a_broken_one_keeps_the_old(serve, address, stats_at, tmp_path):
    module = tmp_path / "changing.py"
    text = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'%s']\n"
    module.write_text(text % "one")
    server = serve(
        *("--http-socket", address, "--wsgi-file", "changing.py", "--stats", stats_at, "--py-autoreload", 1),
        cwd=tmp_path,
    )
    assert http.get(address, "/").body == b"one"
    module.write_text("def broken(:\n")
    server.logged("failed to load")
    assert http.get(address, "/").body == b"one"
    module.write_text(text % "two, and longer")
    until(lambda: http.get(address, "/").body == b"two, and longer", "the change is served", context=server.log)


def test_sigterm_reloads_when_it_is_told_to(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at, "--brutal-reload-on-term"
    )
    server.wait_workers(1)
    server.send(signal.SIGTERM)
    wait_generation(server, 2)
    server.send(signal.SIGINT)
    assert server.wait_exit() == 0


def test_workers_end_with_their_master_at_once_with_no_orphans(serve, address, stats_at, tmp_path):
    server = serve("--http-socket", address, "--wsgi-file", "worklife.py", "--stats", stats_at, "--no-orphans")
    worker = server.wait_workers(1)["workers"][0]["pid"]
    started = tmp_path / "started"
    with http.Connection(address) as connection:
        connection.send(http.head("GET", f"/?started={started}&until={tmp_path / 'never'}"))
        until(started.exists, "the request has begun")
        server.send(signal.SIGKILL)
        until(lambda: not processes.alive(worker), "the worker is gone in the middle of its request")
    server.wait_exit()


def test_a_log_that_is_not_written_holds_up_nothing_else(serve, address, stats_at, tmp_path):
    """As on a disk that hangs: here a pipe that nobody reads from."""
    (tmp_path / "flood.py").write_text(
        "import subprocess\n"
        "def application(environ, start_response):\n"
        "    writer = subprocess.Popen(['yes'], stdout=2)\n"
        "    start_response('200 OK', [])\n"
        "    return [str(writer.pid).encode()]\n"
    )
    log = tmp_path / "log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDWR)
    server = serve(
        *("--http-socket", address, "--wsgi-file", "flood.py", "--stats", stats_at, "--logto", log), cwd=tmp_path
    )
    writer = int(http.get(address, "/").text)
    try:
        # It waits for somebody who takes what it writes.
        until(lambda: processes.look(writer).state == "S", "the pipe is full")
        for _ in range(5):
            server.wait_stats(lambda document: document["workers"][0]["requests"] == 1, "it answers")
    finally:
        processes.kill(writer)

        def read_on() -> None:
            while not os.read(reader, 65536).endswith(b"the end"):
                pass

        drain = threading.Thread(target=read_on)
        drain.start()
        server.stop()
        os.write(reader, b"the end")
        drain.join()
        os.close(reader)
