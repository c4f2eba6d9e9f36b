"""Applications that break PEP 3333: a clear line and a traceback in the log, and no client gets a false response."""

from __future__ import annotations

import re

import pytest

from rig import http
from rig.http import Closed, Connection, Response


def asked(site, target: str) -> Response | None:
    """The answer, or None when the connection was closed before a whole one came."""
    try:
        return site.get(target)
    except Closed:
        return None


@pytest.mark.only_rwsgi(why="uWSGI sends some of these as if they were fine")
@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("fail", "ValueError: failed"),
        ("never-started", "start_response"),
        ("started-twice", "start_response"),
        ("returns-str", "str"),
        ("yields-str", "str"),
        ("returns-none", "None"),
        ("system-exit", "SystemExit"),
        *[(f"bad-header?what={what}", "header|Header") for what in ("newline", "lf", "name", "colon", "unicode", "bytes", "number")],
        *[(f"bad-status?what={what}", "status") for what in ("short", "text", "newline", "number", "bytes")],
    ],
)
def test_a_mistake_before_anything_was_sent_is_answered_with_500(site, route, said):
    separator = "&" if "?" in route else "?"
    token = f"{route}-{site.kind}".replace("?", "-").replace("=", "-")
    before = len(site.server.log())
    answer = site.get(f"/{route}{separator}token={token}")
    assert answer.status == 500
    assert answer.header("X-Injected") is None
    assert b"text, not bytes" not in answer.body and b"Traceback" not in answer.body
    site.server.logged(rf"(?s)\A.{{{before}}}.*({said})")
    # And nobody else is harmed.
    assert site.get("/unread").body == b"not read"


@pytest.mark.parametrize("route", ["fail", "fail-iterating", "exc-info-after"])
def test_a_traceback_names_the_line_of_the_application(site, route):
    token = f"trace-{route}-{site.kind}"
    asked(site, f"/{route}?after=0&token={token}")
    site.server.logged(rf"(?s)Traceback \(most recent call last\):.*probe\.py\", line \d+.*ValueError: .* ?{token}")


@pytest.mark.only_rwsgi(why="uWSGI says 200 and nothing")
def test_a_failure_before_the_first_byte_of_the_body_is_answered_with_500(site):
    assert site.get(f"/fail-iterating?after=0&token=first-{site.kind}").status == 500


def test_a_failure_in_the_middle_breaks_the_answer_off(site):
    with pytest.raises(Closed) as closed:
        site.get(f"/fail-iterating?after=3&token=middle-{site.kind}")
    assert closed.value.received in (b"", b"z" * 30)


@pytest.mark.only_rwsgi(why="uWSGI sends the beginning as a whole answer")
def test_str_after_bytes_breaks_the_answer_off(site):
    answer = None
    try:
        with site.open("GET", "/yields-str-later") as connection:
            answer = connection.response()
    except Closed:
        pass
    if answer is not None:
        # An answer whose end is the end of the connection cannot tell; every other kind must.
        assert answer.status == 500 or (site.kind == "socket" and answer.framing == "close")
    site.server.logged(r"TypeError|str")


TOO_LONG = ("bytes", "list", "iterable", "after-the-end", "write", "write-caught", "write-and-list")


@pytest.mark.only_rwsgi(why="uWSGI sends all of it")
@pytest.mark.parametrize("by", TOO_LONG)
def test_of_a_body_longer_than_its_content_length_the_client_gets_that_many_bytes(site, by):
    answer = site.get(f"/too-long?by={by}&token={site.kind}")
    assert (answer.status, answer.header("Content-Length"), answer.body) == (200, "5", b"12345")


@pytest.mark.only_rwsgi(why="uWSGI does not notice")
@pytest.mark.parametrize("by", TOO_LONG)
def test_a_body_longer_than_its_content_length_is_logged_once(site, by):
    target = f"/too-long?by={by}&token=logged-{site.kind}"
    site.get(target)
    # The request's line in the access log comes after all that there was to say of it.
    site.server.logged(re.escape(f'"GET {target} HTTP/1.1" 200'))
    named = re.escape(f"GET {target}: ") + ".*more than the 5 bytes of its Content-Length"
    assert len(re.findall(named, site.server.log())) == 1


@pytest.mark.only_rwsgi(why="uWSGI sends all of it")
def test_an_iterable_that_is_too_long_is_closed(site, record):
    site.get(f"/too-long?record={record.path}")
    assert record.wait() == ["closed"]


@pytest.mark.only_rwsgi(why="uWSGI's HTTP sockets do not keep connections alive")
@pytest.mark.parametrize("by", TOO_LONG)
def test_more_than_content_length_never_reaches_the_next_answer(http_site, by):
    with Connection(http_site.address) as connection:
        assert connection.request("GET", f"/too-long?by={by}").body == b"12345"
        try:
            assert connection.request("GET", "/unread").body == b"not read"
        except Closed:
            # An exception that goes on through the application costs the connection.
            assert by == "write"


def test_less_than_content_length_closes_the_connection(site, record):
    with pytest.raises(Closed) as closed:
        site.get(f"/too-short?record={record.path}")
    assert closed.value.received in (b"", b"123456")
    assert record.wait() == ["closed"]


@pytest.mark.only_rwsgi(why="uWSGI does not notice")
def test_less_than_content_length_is_logged(site, record):
    before = len(site.server.log())
    asked(site, f"/too-short?record={record.path}")
    site.server.logged(rf"(?s)\A.{{{before}}}.*Content-Length")


@pytest.mark.only_rwsgi(why="uWSGI sends them on")
def test_an_application_s_hop_by_hop_headers_do_not_spoil_the_answer(http_site):
    """The client refuses an answer that is not well formed."""
    answer = asked(http_site, "/hop-by-hop")
    assert answer is None or answer.status == 500 or answer.body == b"the application must not say this"


def test_a_failing_application_does_not_cost_the_worker(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--stats", stats_at)
    before = server.wait_workers(1)["workers"][0]["pid"]
    for _ in range(20):
        try:
            http.get(address, "/fail?token=t")
        except Closed:
            pass  # uWSGI says nothing at all
    assert http.get(address, "/pid").text == str(before)
    assert server.stats()["workers"][0]["exceptions"] == 20


# Each level takes kilobytes of the stack, and Python counts levels only.
RECURSIVE = """
import threading
import uwsgi

together = threading.Barrier(2)

def key(item):
    return sorted([1, 2], key=key)

def recurse():
    try:
        key(1)
    except RecursionError:
        return "RecursionError"

uwsgi.register_signal(17, "worker", lambda number: print("handler:", recurse(), flush=True))

def application(environ, start_response):
    # Each thread has one of two requests.
    together.wait(20)
    uwsgi.signal(17)
    start_response("200 OK", [])
    return [recurse().encode()]
"""


def test_every_thread_has_the_stack_that_recursion_needs_until_python_ends_it(serve, address, tmp_path):
    (tmp_path / "recursive.py").write_text(RECURSIVE)
    options = "--master", "--threads", 2, "--chdir", tmp_path, "--wsgi-file", "recursive.py"
    server = serve("--http-socket", address, *options)
    with Connection(address) as one, Connection(address) as other:
        for connection in (one, other):
            connection.send(http.head("GET", "/"))
        assert [one.response().body, other.response().body] == [b"RecursionError"] * 2
    server.logged("handler: RecursionError")
