"""PEP 3333, the environ: its keys, its latin-1 rules and its flags, on every kind of socket."""

from __future__ import annotations

import json

import pytest

from rig import http, uwsgi
from rig.http import Connection
from rig.site import KINDS, every_kind


def environ(answer) -> dict:
    assert answer.status == 200, answer
    return json.loads(answer.body)


@pytest.mark.only_rwsgi(why="uWSGI leaves SCRIPT_NAME out")
def test_the_required_keys_are_there_and_are_strings(site):
    seen = environ(site.request("POST", "/environ?a=1&b=%20", {"Content-Type": "text/x", "X-Thing": "yes"}, b"12345"))
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/environ",
        "QUERY_STRING": "a=1&b=%20",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "5",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "HTTP_X_THING": "yes",
        "REQUEST_URI": "/environ?a=1&b=%20",
        "wsgi.url_scheme": "http",
        "wsgi.version": [1, 0],
        "wsgi.run_once": False,
        "type": "dict",
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert seen["SERVER_NAME"] and seen["SERVER_PORT"].isdigit()
    assert set(seen["types"].values()) == {"str"}
    assert "HTTP_CONTENT_TYPE" not in seen and "HTTP_CONTENT_LENGTH" not in seen


def test_the_server_s_port_and_the_client_s_address_are_told(http_site):
    seen = environ(http_site.get("/environ"))
    assert seen["SERVER_PORT"] == http_site.address.rsplit(":", 1)[1]
    assert seen["REMOTE_ADDR"] == "127.0.0.1"


def test_a_proxy_s_word_is_taken_over_the_uwsgi_protocol(probe_sites):
    seen = environ(probe_sites["socket"].get("/environ"))
    assert (seen["REMOTE_ADDR"], seen["SERVER_PORT"], seen["SERVER_NAME"]) == ("192.0.2.7", "80", "localhost")


def test_an_environ_is_made_anew_for_each_request(site):
    for _ in range(8):
        assert "LEFT_BEHIND" not in environ(site.get("/environ"))


def test_header_values_are_latin_1(site):
    assert environ(site.get("/environ", {"X-Name": "caf\xe9 \xff"}))["HTTP_X_NAME"] == "caf\xe9 \xff"


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/caf%C3%A9", "/caf\xc3\xa9"),
        ("/caf%e9", "/caf\xe9"),
        ("/a%2Fb%20c%25d", "/a/b c%d"),
        ("/plus+plus", "/plus+plus"),
        ("/%zz%4", "/%zz%4"),
        ("/semi;colon=1", "/semi;colon=1"),
    ],
)
@pytest.mark.only_rwsgi(why="uWSGI normalizes and reads wrong escapes in ways of its own")
def test_the_path_is_unescaped_into_latin_1(serve_echo, sent, path):
    for address in serve_echo:
        seen = environ(http.get(address, sent + "?raw=%C3%A9"))
        assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == (path, "raw=%C3%A9")


@pytest.mark.only_rwsgi(why="uWSGI takes the whole URL for a path")
def test_a_whole_url_is_understood_as_a_target(http_site):
    with Connection(http_site.address) as connection:
        connection.send(b"GET http://other.example/environ?q=1 HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n")
        answer = connection.response()
    assert (environ(answer)["PATH_INFO"], environ(answer)["QUERY_STRING"]) == ("/environ", "q=1")


@pytest.mark.only_rwsgi(why="uWSGI keeps the last of repeated headers")
def test_repeated_headers_are_joined(serve_echo):
    for address in serve_echo:
        with Connection(address) as connection:
            connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Twice: 1\r\nCookie: a=1\r\nx-twice:2 \r\nCookie: b=2\r\n\r\n")
            seen = environ(connection.response())
        assert seen["HTTP_X_TWICE"].replace(" ", "") == "1,2"
        assert seen["HTTP_COOKIE"] == "a=1; b=2"


@pytest.mark.only_rwsgi(why="uWSGI lets them pass")
def test_header_names_with_an_underscore_are_dropped(http_site):
    seen = environ(http_site.get("/environ", {"X_Forwarded_For": "forged", "X-Forwarded_Proto": "forged", "X-Kept": "1"}))
    assert "forged" not in seen.values()
    assert seen["HTTP_X_KEPT"] == "1"


@pytest.fixture(scope="module")
def serve_echo(serve_module):
    """An application that answers every path with its environ, on both kinds of HTTP sockets."""
    sites = every_kind(serve_module, "--wsgi-file", "echo.py")
    return [sites["http"].address, sites["http-socket"].address]


@pytest.mark.parametrize(
    ("processes", "threads", "flags"), [(1, 1, (False, False)), (2, 1, (True, False)), (1, 2, (False, True)), (2, 2, (True, True))]
)
def test_the_flags_tell_of_processes_and_threads(serve, address, processes, threads, flags):
    serve("--http-socket", address, "--wsgi-file", "probe.py", "--master", "--processes", processes, "--threads", threads)
    seen = environ(http.get(address, "/environ"))
    assert (bool(seen["wsgi.multiprocess"]), bool(seen["wsgi.multithread"]), bool(seen["wsgi.run_once"])) == (*flags, False)


def test_what_is_written_to_wsgi_errors_is_in_the_log(site):
    token = f"token-{site.kind}"
    site.get(f"/errors?token={token}")
    site.server.logged(f"written {token}")
    site.server.logged(f"one of lines {token}")
    site.server.logged("without an end of line, caf\u00e9 \u2603")


@pytest.fixture(scope="module")
def validated(serve_module):
    return every_kind(serve_module, "--wsgi-file", "validated.py", "--threads", 2)


@pytest.mark.only_rwsgi(why="uWSGI's environ and input do not pass in every part")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_the_standard_library_s_validator_finds_nothing(validated, kind, method):
    site, body = validated[kind], b"line\nabcdef\nlast" if method == "POST" else None
    answer = site.request(method, "/some/path?query", {"Content-Type": "text/plain"}, body)
    assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"valid: " + (body or b"")), site.server.log()
    assert "AssertionError" not in site.server.log()


@pytest.mark.only_rwsgi(why="uWSGI leaves chunked bodies to the application")
@pytest.mark.parametrize("kind", ["http", "http-socket"])
def test_the_validator_finds_nothing_in_a_chunked_request(validated, kind):
    with Connection(validated[kind].address) as connection:
        connection.send(http.head("POST", "/", {"Transfer-Encoding": "chunked"}) + b"5\r\nab\ncd\r\n0\r\n\r\n")
        assert connection.response().body == b"valid: ab\ncd"
    assert "AssertionError" not in validated[kind].server.log()


@pytest.mark.only_rwsgi(why="uWSGI takes any")
def test_a_variable_over_the_uwsgi_protocol_cannot_hide_behind_another(probe_sites):
    """nginx drops names with an underscore; what it sends has been checked, and arrives as sent."""
    variables = uwsgi.variables("GET", "/environ") + [("HTTP_X_FORWARDED_FOR", "10.0.0.1")]
    with Connection(probe_sites["socket"].address) as connection:
        connection.send(uwsgi.packet(variables))
        assert environ(connection.response())["HTTP_X_FORWARDED_FOR"] == "10.0.0.1"
