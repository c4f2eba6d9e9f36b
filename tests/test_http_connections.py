"""Connections that stay, wait, or dawdle, on both kinds of HTTP sockets."""

from __future__ import annotations

from contextlib import ExitStack
from select import select

import pytest

from rig import stats
from rig.http import Closed, Connection, head
from rig.site import every_kind

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's HTTP sockets do not keep connections alive, and wait with their threads")

LEAVING = {"Connection": "close"}


def test_a_connection_serves_many_requests(http_site):
    with Connection(http_site.address) as connection:
        for number in range(200):
            answer = connection.request("POST", "/digest", body=b"x" * number)
            assert answer.text.startswith(f"{number} ")
            assert answer.framing in ("length", "chunked")


def test_pipelined_requests_are_answered_in_order(http_site):
    with Connection(http_site.address) as connection:
        count = 100
        connection.send(b"".join(head("POST", "/digest", body=b"x" * n) + b"x" * n for n in range(count)))
        assert [int(connection.response().text.split()[0]) for _ in range(count)] == list(range(count))


@pytest.mark.parametrize("kind", ["http-socket", "http"])
def test_a_request_behind_a_chunked_body_that_waits_in_a_file_is_answered(serve, address, kind):
    serve(f"--{kind}", address, "--wsgi-file", "probe.py", "--post-buffering", 2000)
    chunk = b"%x\r\n%s\r\n" % (50_000, b"x" * 50_000)
    posted = head("POST", "/digest", {"Transfer-Encoding": "chunked"}) + chunk * 4 + b"0\r\n\r\n"
    with Connection(address) as connection:
        # More than is read at once, so that the body is in its file before its end and the next request come together.
        connection.send(posted + head("GET", "/unread"))
        assert connection.response().text.split()[0] == "200000"
        assert connection.response().text == "not read"


@pytest.mark.parametrize("target", ["/unread", "/chunks", "/large?bytes=100000", "/empty", "/status?code=204"])
def test_the_client_s_wish_to_close_is_granted(http_site, target):
    with Connection(http_site.address) as connection:
        answer = connection.request("GET", target, LEAVING)
        assert (answer.header("Connection") or "").lower() == "close"
        assert connection.closed_by_server()


def test_what_comes_behind_the_last_request_does_not_cost_its_answer(http_site):
    """Closing while something is unread resets the connection, and the client's system forgets what it has (RFC 9112
    section 9.6)."""
    size = 8_000_000
    with Connection(http_site.address) as connection:
        connection.send(head("GET", f"/large?bytes={size}", LEAVING))
        # The answer is on its way, and waits for this client, when more comes.
        connection.socket.recv(1, 0x2)
        connection.send(head("GET", "/unread"))
        answer = connection.response()
        assert (answer.header("Connection") or "").lower() == "close"
        assert len(answer.body) == size
        assert connection.rest() == b""


@pytest.mark.parametrize("target", ["/unread", "/chunks"])
def test_a_client_of_http_1_0_gets_no_chunks_and_a_closed_connection(http_site, target):
    with Connection(http_site.address) as connection:
        connection.send(f"GET {target} HTTP/1.0\r\n\r\n".encode())
        answer = connection.response()
        assert answer.framing in ("length", "close")
        assert answer.body in (b"not read", b"one,two," + b"x" * 100000 + b",end")
        assert connection.closed_by_server()


def test_a_client_of_http_1_0_may_ask_to_stay(http_site):
    with Connection(http_site.address) as connection:
        for _ in range(3):
            connection.send(b"GET /large?bytes=10 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = connection.response()
            assert answer.body == b"y" * 10
            assert (answer.header("Connection") or "").lower() == "keep-alive"


@pytest.mark.parametrize("kind", ["http", "http-socket"])
@pytest.mark.parametrize("target", ["/unread", "/chunks", "/empty"])
def test_with_keepalive_turned_off_each_answer_says_that_its_connection_closes(no_keepalive, kind, target):
    with Connection(no_keepalive[kind].address) as connection:
        answer = connection.request("GET", target)
        assert (answer.header("Connection") or "").lower() == "close"
        assert connection.closed_by_server()


@pytest.fixture(scope="module")
def no_keepalive(serve_module):
    """A server that closes each connection after its first answer."""
    return every_kind(serve_module, "--wsgi-file", "probe.py", "--http-keepalive=0")


def test_a_head_in_single_bytes_is_read(http_site):
    with Connection(http_site.address) as connection:
        for byte in head("GET", "/unread"):
            connection.send(bytes([byte]))
        assert connection.response().body == b"not read"


@pytest.fixture(scope="module")
def one_core(serve_module):
    """A server with a single core on every kind of socket: whatever holds it holds everybody up."""
    return every_kind(serve_module, "--wsgi-file", "probe.py", "--processes", 1, "--threads", 1)


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_idle_connections_hold_no_core(one_core, kind):
    site = one_core[kind]
    idle = [Connection(site.address) for _ in range(50)]
    for connection in idle:
        assert connection.request("GET", "/unread").body == b"not read"
    assert site.get("/unread").body == b"not read"
    for connection in idle:
        assert connection.request("GET", "/unread").body == b"not read"
        connection.close()


@pytest.mark.parametrize("kind", ["http", "http-socket"])
@pytest.mark.parametrize("sent", [b"GET /unr", head("POST", "/digest", body=b"12345678") + b"1234"], ids=["head", "body"])
def test_requests_that_come_slowly_hold_no_core(one_core, kind, sent):
    site = one_core[kind]
    slow = [Connection(site.address) for _ in range(20)]
    for connection in slow:
        connection.send(sent)
    assert site.get("/unread").body == b"not read"
    for connection in slow:
        connection.send(b"ead HTTP/1.1\r\nHost: a\r\n\r\n" if sent.startswith(b"GET") else b"5678")
        assert connection.response().status == 200
        connection.close()


@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_clients_that_read_slowly_hold_no_core(one_core, kind):
    """The http router keeps what a client does not read in memory and in a file; a worker keeps an answer that is complete."""
    site, size = one_core[kind], 8_000_000
    slow = [site.open("GET", f"/large?bytes={size}") for _ in range(5)]
    for connection in slow:
        connection.socket.recv(1, 0x2)
    assert site.get("/unread").body == b"not read"
    for connection in slow:
        assert len(connection.response().body) == size
        connection.close()


def test_a_request_that_waits_for_a_core_is_served_in_its_turn(one_core, tmp_path, record):
    site, go = one_core["http"], tmp_path / "go"
    with site.open("GET", f"/slow?go={go}&record={record.path}") as first:
        record.wait()
        waiting = [site.open("GET", f"/slow?go=/&record={record.path}") for _ in range(5)]
        assert len(record.lines()) == 1
        go.touch()
        assert first.response().status == 200
        for connection in waiting:
            assert connection.response().status == 200
            connection.close()


def test_a_client_that_leaves_the_queue_harms_nobody(one_core, tmp_path, record):
    site, go = one_core["http"], tmp_path / "go"
    with site.open("GET", f"/slow?go={go}&record={record.path}") as first:
        record.wait()
        for _ in range(5):
            site.open("GET", "/unread").reset()
        go.touch()
        assert first.response().status == 200
    assert site.get("/unread").body == b"not read"


def test_a_worker_s_death_is_answered_with_an_error_by_the_front(probe_sites):
    site = probe_sites["http"]
    try:
        assert site.get("/die?how=kill").status in (502, 503)
    except Closed:
        pytest.fail("the http router closed the connection without an answer")
    assert site.get("/unread").body == b"not read"


def test_kept_connections_are_shared_out_among_the_workers(serve, address, stats_at):
    server = serve(
        "--http-socket", address, "--wsgi-file", "probe.py", "--processes", 4, "--threads", 2, "--stats", stats_at
    )
    server.wait_workers(4)
    with ExitStack() as stack:
        for _ in range(40):
            # One after another: each is answered, and kept, before the next one comes.
            connection = stack.enter_context(Connection(address))
            assert connection.request("GET", "/unread").status == 200
        document = server.wait_stats(lambda document: stats.total(document, "requests") >= 40, "all counted")
    # How evenly depends on who was asleep at which moment; without turns the first of them gets nearly all.
    requests = [worker["requests"] for worker in document["workers"]]
    assert min(requests) >= 1 and max(requests) <= 30, requests


def test_of_many_that_come_at_once_the_last_waits_for_few_answers_to_the_first(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--processes", 2, "--stats", stats_at)
    server.wait_workers(2)
    with ExitStack() as stack:
        connections = {}
        for _ in range(48):
            # Each asks at once: the workers are busy before the last one has come.
            connection = stack.enter_context(Connection(address))
            connection.send(head("GET", "/brief"))
            connections[connection.socket] = connection
        answers = dict.fromkeys(connections, 0)
        # All but one for each worker: what a worker has taken waits for that one, which may not get a processor for a while.
        while list(answers.values()).count(0) > 2:
            ready, _, _ = select(list(connections), [], [], 30)
            assert ready, answers.values()
            for socket in ready:
                assert connections[socket].response().status == 200
                answers[socket] += 1
                connections[socket].send(head("GET", "/brief"))
    # Taken one by one, with all that are there served in between, the first would have two dozen.
    assert max(answers.values()) <= 12, sorted(answers.values())
