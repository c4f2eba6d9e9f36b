"""The stats document: its shape, its ways out, and what it says of processes and of requests in progress."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import jsonschema
import pytest

from rig import http, stats
from rig.addresses import abstract, connect, tcp
from rig.http import Connection, head
from rig.server import Program, Servers
from rig.site import every_kind
from rig.waiting import until

DOCS = Path(__file__).resolve().parent.parent / "docs"
OF_RWSGI = pytest.mark.only_rwsgi(why="uWSGI has no such key")
SECRETS = {
    "Cookie": "sessionid=cookie-secret",
    "Authorization": "Bearer authorization-secret",
    "Proxy-Authorization": "Basic proxy-secret",
}


def busy_document(serve, address, stats_at, tmp_path, *arguments) -> tuple[stats.Document, stats.Document]:
    """A document with a request in progress, and one after it."""
    server = serve(
        *("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--processes", 2, "--threads", 2),
        *("--stats", stats_at, *arguments),
    )
    server.wait_workers(2)
    go, entered = tmp_path / "go", tmp_path / "entered"
    with Connection(address) as connection:
        connection.send(head("GET", f"/slow?go={go}&record={entered}", {"Connection": "close", "User-Agent": "tests", **SECRETS}))
        until(entered.exists, "the request is in the application")
        busy = server.stats()
        go.touch()
        assert connection.response().status == 200
    return busy, server.wait_stats(all_idle, "every core is idle")


def all_idle(document: stats.Document) -> bool:
    workers = document["workers"]
    return all(w["status"] == "idle" and not any(core["in_request"] for core in w["cores"]) for w in workers)


def missing(wanted, got, path="") -> list[str]:
    """What `wanted` has and `got` does not, or has with another type."""
    if isinstance(wanted, dict):
        if not isinstance(got, dict):
            return [f"{path} is no object"]
        return [line for key in wanted for line in missing(wanted[key], got.get(key), f"{path}.{key}")]
    if isinstance(wanted, list):
        if not isinstance(got, list):
            return [f"{path} is no list"]
        return missing(wanted[0], got[0], f"{path}[]") if wanted and got else []
    return [] if wanted == got else [f"{path} is {got}, not {wanted}"]


@OF_RWSGI
def test_every_key_that_uwsgi_sends_is_there_with_its_type(serve, tmp_path, venv_bin):
    """Compared with a real uWSGI that does the same at this moment."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    reference = Servers(Program(str(venv_bin / "uwsgi")), theirs)
    try:
        wanted = busy_document(reference, tcp(), tcp(), theirs)
    finally:
        reference.stop_all()
    got = busy_document(serve, tcp(), tcp(), ours)
    for expected, found in zip(wanted, got):
        # uWSGI's locks are its own; a server that has none says so with an empty list.
        assert isinstance(found["locks"], list)
        del expected["locks"]
        assert missing(stats.shape(expected), stats.shape(found)) == []


@OF_RWSGI
def test_what_goes_beyond_uwsgi_is_always_present(serve, address, stats_at, tmp_path):
    for document in busy_document(serve, address, stats_at, tmp_path):
        assert document["server"] == "rwsgi"
        assert isinstance(document["schema"], int)
        assert document["hostname"] == socket.gethostname()
        assert 0 < document["started_at"] < document["now"]
        assert document["generation"] == 1
        assert document["python"].startswith("3.")
        assert set(document["queue"]) >= {"depth", "capacity", "waiting", "rejected"}
        stats.histogram_total(document["latency"])
        for worker in document["workers"]:
            assert worker["generation"] == 1
            for key in ("busy_time", "cpu_time", "gil_wait", "pss", "uss", "rss_peak"):
                assert isinstance(worker[key], int), key
            assert set(worker["responses"]) == {"1xx", "2xx", "3xx", "4xx", "5xx"}
            assert set(worker["recycled"]) >= {"max_requests", "rss", "as", "harakiri", "crash", "reload", "idle"}
            stats.histogram_total(worker["latency"])


@OF_RWSGI
def test_the_published_schema_describes_it(serve, address, stats_at, tmp_path):
    schema = json.loads((DOCS / "stats.schema.json").read_text())
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    for document in busy_document(serve, address, stats_at, tmp_path):
        assert [error.message for error in validator(schema).iter_errors(document)] == []
        # And every key that is sent is explained.
        assert set(document) <= set(schema["properties"])
        assert all("description" in described for described in schema["properties"].values())


def test_the_published_schema_tells_a_stats_document_from_others():
    validator = jsonschema.Draft202012Validator(json.loads((DOCS / "stats.schema.json").read_text()))
    fixtures = sorted((DOCS.parent / "shared" / "tests" / "fixtures").glob("uwsgi-*.json"))
    documents = [json.loads(path.read_text()) for path in fixtures]
    assert len(documents) >= 6
    for path, document in zip(fixtures, documents):
        assert [error.message for error in validator.iter_errors(document)] == [], path.name
    assert not validator.is_valid({})
    worker = next(worker for document in documents for worker in document.get("workers", []))
    whole = next(document for document in documents if document.get("workers"))
    for key in ("id", "pid", "status", "requests", "cores"):
        less = {name: value for name, value in worker.items() if name != key}
        assert not validator.is_valid({**whole, "workers": [less]}), f"a worker without {key}"


@pytest.mark.parametrize("form", ["tcp", "port", "ipv6", "unix", "abstract"])
def test_it_is_read_on_every_kind_of_address(serve, tmp_path, address, form):
    at = {
        "tcp": tcp(), "port": tcp().replace("127.0.0.1", ""), "ipv6": tcp().replace("127.0.0.1", "[::1]"),
        "unix": str(tmp_path / "stats.sock"), "abstract": abstract(),
    }[form]  # fmt: skip
    if form == "abstract" and serve.program.is_uwsgi:
        pytest.skip("uWSGI's abstract names end in a NUL")
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py", "--master", "--processes", 2, "--stats", at)
    assert len(server.stats()["workers"]) == 2


@OF_RWSGI
def test_it_is_read_on_several_addresses_at_once(serve, tmp_path, address, stats_at):
    other = str(tmp_path / "stats.sock")
    serve("--http-socket", address, "--wsgi-file", "foobar.py", "--stats", stats_at, "--stats", other)
    assert stats.read(stats_at)["pid"] == stats.read(other)["pid"]


def test_it_is_read_over_http(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py", "--master", "--stats", stats_at, "--stats-http")
    assert stats.read_http(stats_at)["pid"] == server.pid


@OF_RWSGI
def test_over_http_it_takes_any_client(serve, address, stats_at):
    serve("--http-socket", address, "--wsgi-file", "foobar.py", "--stats", stats_at, "--stats-http")
    with Connection(stats_at) as connection:
        connection.send(b"GET / HTTP/1.0\r\n\r\n")
        assert json.loads(connection.response().body)["server"] == "rwsgi"
    assert http.head_of(stats_at, "/").status == 200
    assert http.request(stats_at, "POST", "/", body=b"x").status in (200, 405)


@OF_RWSGI
def test_a_reader_that_does_not_read_holds_nobody_up(serve, address, stats_at):
    serve("--http-socket", address, "--wsgi-file", "foobar.py", "--stats", stats_at)
    silent = [connect(stats_at) for _ in range(50)]
    assert stats.read(stats_at)["workers"]
    assert http.get(address, "/").status == 200
    for connection in silent:
        connection.close()


def test_it_names_the_master_and_its_place(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py", "--master", "--stats", stats_at)
    document = server.stats()
    assert (document["pid"], document["uid"], document["gid"]) == (server.pid, os.getuid(), os.getgid())
    assert document["cwd"] == os.readlink(f"/proc/{server.pid}/cwd")
    assert [(entry["name"], entry["proto"]) for entry in document["sockets"]] == [(address, "http")]


@OF_RWSGI
def test_the_backlog_is_as_long_as_the_system_allows(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py", "--stats", stats_at)
    assert server.stats()["sockets"][0]["max_queue"] == int(Path("/proc/sys/net/core/somaxconn").read_text())


@OF_RWSGI
def test_memory_is_what_the_system_says_also_of_idle_workers(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--processes", 2, "--stats", stats_at)
    page = os.sysconf("SC_PAGE_SIZE")
    server.wait_workers(2)

    def is_right(worker: dict) -> bool:
        size, resident = (int(part) * page for part in Path(f"/proc/{worker['pid']}/statm").read_text().split()[:2])
        is_close = abs(worker["vsz"] - size) <= size * 0.1 and abs(worker["rss"] - resident) <= resident * 0.2
        return is_close and 0 < worker["uss"] <= worker["pss"] <= worker["rss"] <= worker["rss_peak"] * 1.1

    # A worker that has just begun still grows, and its pages are counted now and then.
    server.wait_stats(lambda document: all(map(is_right, document["workers"])), "memory as the system has it")


@OF_RWSGI
def test_a_request_in_progress_is_shown_as_it_is(serve, address, stats_at, tmp_path):
    busy, idle = busy_document(serve, address, stats_at, tmp_path)
    [(worker, core)] = [(w, c) for w in busy["workers"] for c in w["cores"] if c["in_request"]]
    info = core["req_info"]
    assert worker["status"] == "busy"
    assert info["method"] == "GET"
    assert info["uri"] == "/slow?go=…&record=…", "values of a query may be secrets"
    assert info["protocol"] == "HTTP/1.1"
    assert info["remote_addr"].startswith("127.0.0.1")
    assert info["request_start"] == info["started"] // 1_000_000
    assert abs(info["started"] + info["elapsed"] - busy["now"]) < 1_000_000
    assert "HTTP_USER_AGENT=tests" in core["vars"]
    # Both are cut to whole microseconds, each after its own sum.
    assert worker["busy_time"] + 1 >= info["elapsed"] > 0 == worker["requests"]
    for other in idle["workers"]:
        assert other["status"] == "idle"
        assert all(c["req_info"] == {} and not any(c["vars"]) for c in other["cores"])


@OF_RWSGI
@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_empty_lines_before_a_request_hide_nothing_of_it(serve, stats_at, tmp_path, kind, record):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--stats", stats_at)[kind]
    target = f"/slow?go={tmp_path}/go&record={record.path}"
    with Connection(site.address) as connection:
        connection.send(b"\r\n\r\n" + head("GET", target))
        record.wait()
        [core] = [core for worker in site.server.stats()["workers"] for core in worker["cores"] if core["in_request"]]
        (tmp_path / "go").touch()
        assert connection.response().status == 200
    info = core["req_info"]
    assert (info.get("method"), info.get("uri"), info.get("protocol")) == ("GET", "/slow?go=…&record=…", "HTTP/1.1")
    assert "HTTP_HOST=localhost" in core["vars"]


@OF_RWSGI
def test_busy_time_goes_on_during_a_request(serve, address, stats_at, tmp_path, record):
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--stats", stats_at)
    go = tmp_path / "go"

    def busy_time() -> int:
        return server.stats()["workers"][0]["busy_time"]

    with Connection(address) as connection:
        connection.send(head("GET", f"/slow?go={go}&record={record.path}"))
        record.wait()
        first = busy_time()
        until(lambda: busy_time() > first, "busy time grows")
        assert server.stats()["workers"][0]["requests"] == 0
        go.touch()
        connection.response()
    worker = until(lambda: [w for w in server.stats()["workers"] if w["requests"] == 1], "the request is counted")[0]
    # Both are of the one request that there was, and nothing is counted twice.
    assert worker["busy_time"] == worker["running_time"]
    assert busy_time() == worker["busy_time"]


@OF_RWSGI
@pytest.mark.parametrize("threads", [1, 2])
def test_no_secret_leaves_through_it(serve, address, stats_at, tmp_path, threads):
    for document in busy_document(serve, address, stats_at, tmp_path, "--threads", threads):
        text = json.dumps(document)
        assert "secret" not in text.replace(str(tmp_path), "").replace(document["cwd"], "")
        assert "HTTP_COOKIE" not in text and "AUTHORIZATION" not in text


@OF_RWSGI
def test_the_queue_before_the_workers_is_counted(serve, stats_at, tmp_path, record):
    site = every_kind(serve, "--wsgi-file", "probe.py", "--stats", stats_at)["http"]
    server, go = site.server, tmp_path / "go"
    with site.open("GET", f"/slow?go={go}&record={record.path}") as first:
        record.wait()
        waiting = [site.open("GET", "/pid") for _ in range(5)]
        document = server.wait_stats(lambda document: document["queue"]["depth"] == 5, "five wait")
        assert document["listen_queue"] >= 5
        assert document["queue"]["capacity"] >= 5
        go.touch()
        assert first.response().status == 200
        for connection in waiting:
            assert connection.response().status == 200
            connection.close()
    document = server.wait_stats(lambda document: document["queue"]["depth"] == 0, "none waits")
    assert stats.histogram_total(document["queue"]["waiting"]) >= 5
    assert document["queue"]["rejected"] == 0
