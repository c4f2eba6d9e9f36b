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


SERVER_KEYS = ("wsgi.version", "wsgi.url_scheme", "wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once")


def asked(site, *variables: tuple[str, str], target: str = "/environ", body: bytes = b"") -> dict:
    """The environ of a packet with these variables behind those of a request."""
    length = [("CONTENT_LENGTH", str(len(body)))] if body else []
    with Connection(site.address) as connection:
        connection.send(uwsgi.packet([*uwsgi.variables("POST" if body else "GET", target), *length, *variables]) + body)
        return environ(connection.response())


@pytest.mark.only_rwsgi(why="uWSGI lets names pass that it does not set itself")
def test_what_is_the_server_s_no_packet_can_set(probe_sites):
    site = probe_sites["socket"]
    usual = asked(site)
    forged = [(name, "forged") for name in (*SERVER_KEYS, "wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.of_our_own")]
    seen = asked(site, *forged)
    assert {name: seen[name] for name in SERVER_KEYS} == {name: usual[name] for name in SERVER_KEYS}
    assert "forged" not in seen.values()
    # The input is one, the errors go to the log, the file is sent.
    with Connection(site.address) as connection:
        body = b"line\n"
        variables = [*uwsgi.variables("POST", "/digest"), ("CONTENT_LENGTH", "5"), *forged]
        connection.send(uwsgi.packet(variables) + body)
        assert connection.response().status == 200
    with Connection(site.address) as connection:
        connection.send(uwsgi.packet([*uwsgi.variables("GET", "/errors?token=of-a-forger"), *forged]))
        assert connection.response().status == 200
    site.server.logged("written of-a-forger")


@pytest.mark.parametrize(("said", "scheme"), [
    ([], "http"),
    ([("HTTPS", "on")], "https"),
    ([("HTTPS", "On")], "https"),
    ([("HTTPS", "1")], "https"),
    ([("HTTPS", "off")], "http"),
    ([("HTTPS", "")], "http"),
    ([("UWSGI_SCHEME", "https")], "https"),
    ([("UWSGI_SCHEME", "http")], "http"),
    # It wins over HTTPS, in either order, and is nothing when it is empty.
    ([("HTTPS", "on"), ("UWSGI_SCHEME", "http")], "http"),
    ([("UWSGI_SCHEME", "http"), ("HTTPS", "on")], "http"),
    ([("HTTPS", "on"), ("UWSGI_SCHEME", "")], "https"),
    # Of what comes twice the later counts.
    ([("HTTPS", "on"), ("HTTPS", "off")], "http"),
    ([("UWSGI_SCHEME", "http"), ("UWSGI_SCHEME", "https")], "https"),
    ([("wsgi.url_scheme", "https")], "http"),
    ([("HTTPS", "on"), ("wsgi.url_scheme", "ftp")], "https"),
])
def test_the_scheme_is_what_the_proxy_says_in_two_variables(probe_sites, said, scheme):
    assert asked(probe_sites["socket"], *said)["wsgi.url_scheme"] == scheme


def test_of_a_variable_that_comes_twice_the_later_value_counts(probe_sites):
    twice = [("HTTP_X_TWICE", "1"), ("HTTP_X_TWICE", "2"), ("MY_PARAM", "a"), ("MY_PARAM", ""), ("REMOTE_USER", "x"), ("REMOTE_USER", "y")]
    seen = asked(probe_sites["socket"], *twice)
    assert (seen["HTTP_X_TWICE"], seen["MY_PARAM"], seen["REMOTE_USER"]) == ("2", "", "y")


@pytest.mark.only_rwsgi(why="uWSGI lets names with an underscore pass, and keeps the last of repeated headers")
def test_no_header_makes_a_key_that_is_the_server_s(http_site):
    usual = environ(http_site.get("/environ"))
    headers = {name: "forged" for name in (*SERVER_KEYS, "wsgi.input", "REMOTE-USER", "SCRIPT-NAME", "PATH-INFO", "HTTPS", "UWSGI-SCHEME")}
    seen = environ(http_site.get("/environ", headers))
    assert {name for name, value in seen.items() if value == "forged"} <= {name for name in seen if name.startswith("HTTP_")}
    for name in (*SERVER_KEYS, "PATH_INFO", "SCRIPT_NAME"):
        assert seen[name] == usual[name]
    assert "REMOTE_USER" not in seen
