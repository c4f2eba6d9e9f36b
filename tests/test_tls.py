"""HTTPS by the http router: what a client of any kind sees, and what the application is told of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from rig import http, tls
from rig.addresses import connect, tcp
from rig.http import Connection, head
from rig.tls import Piecemeal, TlsConnection, https, router_of, waiting
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="the test environment's uWSGI is built without TLS")

CURL = shutil.which("curl") or "/usr/bin/curl"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The servers' certificate."""
    return tls.self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def site(serve_module, own):
    """The address of a server of `probe.py` with TLS."""
    at = tcp()
    serve_module("--https", f"{at},{own.cert},{own.key}", "--wsgi-file", "probe.py", "--threads", 2, "--http-timeout", 20, listens=[at])
    return at


# Requests and responses


def test_the_application_is_told_of_https(site, own):
    with TlsConnection(site, tls.client(own)) as connection:
        environ = json.loads(connection.request("GET", "/environ?a=b").body)
        again = json.loads(connection.request("GET", "/environ", {"HTTPS-DN": "/CN=forged"}).body)
        assert connection.tls.version() == "TLSv1.3"
    for seen in (environ, again):
        assert (seen["wsgi.url_scheme"], seen["HTTPS"]) == ("https", "on")
        assert (seen["REMOTE_ADDR"], seen["SERVER_PORT"]) == ("127.0.0.1", site.split(":")[1])
        assert not {"HTTPS_DN", "HTTPS_CC", "HTTPS_CLIENT_CERTIFICATE"} & set(seen)


def test_a_plain_socket_beside_it_stays_plain(serve, own):
    at, plain = tcp(), tcp()
    https(serve, at, own, "--http", plain)
    with TlsConnection(at) as secure, Connection(plain) as other:
        assert json.loads(secure.request("GET", "/environ").body)["wsgi.url_scheme"] == "https"
        environ = json.loads(other.request("GET", "/environ").body)
    assert environ["wsgi.url_scheme"] == "http" and "HTTPS" not in environ


def test_curl_verifies_the_certificate_and_agrees_on_http_1(site, own):
    command = [CURL, "-sS", "--cacert", own.cert, "-w", "%{http_version} %{ssl_verify_result}", f"https://{site}/unread"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=30).stdout == "not read1.1 0"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken_and_sessions_resumed(site, version):
    context = tls.client()
    context.minimum_version = context.maximum_version = version
    with TlsConnection(site, context) as first:
        assert first.request("GET", "/unread").text == "not read"
        session = first.tls.session
    plain = connect(site)
    with context.wrap_socket(plain, server_hostname="localhost", session=session) as resumed:
        resumed.sendall(head("GET", "/unread"))
        assert resumed.recv(12) == b"HTTP/1.1 200"
        assert resumed.session_reused


def test_old_versions_are_refused(site):
    context = tls.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        TlsConnection(site, context)


def test_a_connection_serves_many_requests_and_pipelined_ones_in_order(site):
    with TlsConnection(site) as connection:
        for number in range(50):
            assert connection.request("POST", "/digest", body=b"x" * number).text.startswith(f"{number} ")
        connection.send(b"".join(head("POST", "/digest", body=b"x" * n) + b"x" * n for n in range(100)))
        assert [int(connection.response().text.split()[0]) for _ in range(100)] == list(range(100))


@pytest.mark.parametrize("size", [1, 16_384, 100_000, 5_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_bodies_of_any_size_arrive(site, size, framing):
    body = b"x" * size
    with TlsConnection(site) as connection:
        if framing == "length":
            answer = connection.request("POST", "/digest", body=body)
        else:
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[at : at + 70_000] for at in range(0, size, 70_000)))
            connection.send(head("POST", "/digest", {"Transfer-Encoding": "chunked"}) + chunks + b"0\r\n\r\n")
            answer = connection.response()
        assert answer.text == f"{size} {hashlib.sha256(body).hexdigest()}"
        assert connection.request("GET", "/unread").text == "not read"


def test_a_body_that_is_announced_is_asked_for(site):
    with TlsConnection(site) as connection:
        connection.send(head("POST", "/digest", {"Expect": "100-continue", "Content-Length": "5"}))
        assert connection.read(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"hello")
        assert connection.response().text.startswith("5 ")


def test_a_long_response_waits_for_a_client_that_reads_slowly(site):
    size = 30_000_000
    with TlsConnection(site) as slow, TlsConnection(site) as other:
        slow.send(head("GET", f"/large?bytes={size}"))
        slow.read(1000)
        # The worker is free meanwhile: the response waits in the router.
        for _ in range(5):
            assert other.request("GET", "/unread").text == "not read"
        assert len(slow.read(size - 1000)) == size - 1000


def test_a_file_is_sent_whole(serve, own, tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "large.bin").write_bytes(content)
    at = tcp()
    https(serve, at, own, "--static-map", f"/files={tmp_path}")
    with TlsConnection(at) as connection:
        assert connection.request("GET", "/files/large.bin").body == content
        part = connection.request("GET", "/files/large.bin", {"Range": "bytes=1000-1999"})
        assert (part.status, part.body) == (206, content[1000:2000])


def test_the_end_of_a_response_without_a_length_is_told(site):
    """A client of HTTP/1.0 knows it by the end alone, which an attacker could forge without TLS's own."""
    with TlsConnection(site) as connection:
        connection.send(b"GET /chunks HTTP/1.0\r\n\r\n")
        # Python raises SSLEOFError for an end that was not announced.
        connection.tls.suppress_ragged_eofs = False
        assert connection.response().framing == "close"


def test_a_response_that_breaks_off_does_not_look_whole(site):
    with TlsConnection(site) as connection:
        connection.tls.suppress_ragged_eofs = False
        connection.send(b"GET /fail-iterating?after=3&token=tls&unsized=1 HTTP/1.0\r\n\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            while connection.tls.recv(65536):
                pass


def test_a_connection_that_is_idle_too_long_is_ended_with_a_word(serve, own):
    at = tcp()
    https(serve, at, own, "--http-keepalive=2")
    with TlsConnection(at) as connection:
        assert connection.request("GET", "/unread").text == "not read"
        connection.tls.suppress_ragged_eofs = False
        assert connection.closed_by_server()


def test_a_client_that_ends_its_side_gets_its_response(site, record, tmp_path):
    client = Piecemeal(site)
    client.shake_hands()
    client.socket.sendall(client.encrypted(head("GET", waiting(record, tmp_path / "go"), {"Connection": "close"})))
    record.wait()
    client.socket.shutdown(socket.SHUT_WR)
    (tmp_path / "go").touch()
    assert client.read().startswith(b"HTTP/1.1 200")
    client.socket.close()


# Bytes in odd pieces


def test_every_byte_may_come_alone(site):
    client = Piecemeal(site)

    def dribble(data):
        for at in range(len(data)):
            client.socket.sendall(data[at : at + 1])

    client.shake_hands(dribble)
    dribble(client.encrypted(head("POST", "/digest", body=b"hello") + b"hello"))
    assert client.read().startswith(b"HTTP/1.1 200")
    client.socket.close()


def test_the_first_request_may_come_with_the_end_of_the_handshake(site):
    client = Piecemeal(site)
    held = []

    def send(data):
        # The first message has to go; what ends the handshake waits for the request.
        held.append(data)
        if len(held) == 1:
            client.socket.sendall(data)

    client.shake_hands(send)
    client.socket.sendall(b"".join(held[1:]) + client.encrypted(head("GET", "/unread")))
    assert b"200 OK" in client.read()
    client.socket.close()


def test_many_records_and_many_requests_in_one_piece_are_all_served(site):
    """rustls holds what the system has given already: no event announces it again."""
    client = Piecemeal(site)
    client.shake_hands()
    client.socket.sendall(b"".join(client.encrypted(head("GET", "/pid")) for _ in range(300)))
    answers = b""
    while answers.count(b"HTTP/1.1 200") < 300:
        answers += client.read()
    client.socket.close()


def test_a_head_in_many_records_and_a_record_with_many_pieces_are_read(site):
    client = Piecemeal(site)
    client.shake_hands()
    text = head("POST", "/digest", body=b"x" * 40_000) + b"x" * 40_000 + head("GET", "/pid")
    client.socket.sendall(b"".join(client.encrypted(text[at : at + 7]) for at in range(0, 210, 7)) + client.encrypted(text[210:]))
    answers = b""
    while answers.count(b"HTTP/1.1 200") < 2:
        answers += client.read()
    client.socket.close()


def test_an_idle_connection_costs_no_processor_time(serve, own):
    at = tcp()
    server = https(serve, at, own)
    router = router_of(server)
    with TlsConnection(at) as idle, TlsConnection(at) as partial:
        assert idle.request("GET", "/unread").text == "not read"
        partial.send(b"GET / HT")

        def sleeps() -> bool:
            return all(Path(f"/proc/{router}/stat").read_text().rsplit(")", 1)[1].split()[0] == "S" for _ in range(200))

        # One that is busy all the time is never found asleep so often in a row.
        until(sleeps, "the router sleeps", context=server.log)


# What is no TLS


def test_plain_http_is_told_to_use_https(site):
    with Connection(site) as connection:
        answer = connection.request("GET", "/unread")
        assert answer.status == 400 and "https://" in answer.text
        assert connection.closed_by_server()


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x00\x05hello", b"\0" * 100, b"\x80\x2e\x01\0\x02", os.urandom(500)])
def test_nonsense_ends_its_connection_alone(site, data):
    with Connection(site, timeout=20) as connection:
        connection.send(data)
        connection.socket.shutdown(socket.SHUT_WR)
        connection.rest()
    with TlsConnection(site) as other:
        assert other.request("GET", "/unread").text == "not read"


def test_a_record_that_was_changed_on_its_way_is_not_taken(site):
    client = Piecemeal(site)
    client.shake_hands()
    data = bytearray(client.encrypted(head("GET", "/unread")))
    data[20] ^= 1
    client.socket.sendall(data)
    with pytest.raises(ssl.SSLError, match="(?i)alert"):
        client.read()
    client.socket.close()


def test_a_handshake_has_to_end_in_time(serve, own):
    at = tcp()
    https(serve, at, own, "--http-timeout", 1)
    with Connection(at) as silent, Connection(at) as half:
        half.send(b"\x16\x03\x01\x02\x00\x01")
        assert silent.closed_by_server() and half.closed_by_server()


def test_why_handshakes_fail_is_logged_when_asked_for(serve, own):
    at = tcp()
    server = https(serve, at, own, "--ssl-verbose")
    with Connection(at) as connection:
        connection.send(b"\x16\x03\x01\x00\x05hello")
        connection.socket.shutdown(socket.SHUT_WR)
        connection.rest()
    server.logged(r"127\.0\.0\.1: TLS: ")


# Starting


def refused(serve, *arguments):
    server = serve.run(*arguments, "--wsgi-file", "probe.py")
    assert server.wait_exit() != 0
    return server.log()


def test_what_is_wrong_with_the_files_is_said_at_the_start(serve, own, tmp_path):
    at, other = tcp(), tls.self_signed(tmp_path, "other")
    locked, empty, der = tmp_path / "locked.key", tmp_path / "empty", tmp_path / "own.der"
    tls.openssl("pkey", "-in", own.key, "-aes128", "-passout", "pass:secret", "-out", locked)
    empty.write_text("")
    der.write_bytes(tls.der(own))
    for cert, key, what in [
        (tmp_path / "no.crt", own.key, "https: certificate '.*no.crt' cannot be read: No such file"),
        (own.cert, tmp_path, "https: key '.*' cannot be read: it is no file"),
        (own.cert, other.key, "https: key '.*other.key' does not belong to certificate '.*localhost.crt'"),
        (own.key, own.key, "https: certificate '.*' has no certificate in it: expected PEM"),
        (der, own.key, "https: certificate '.*' has no certificate in it: expected PEM.* DER"),
        (own.cert, own.cert, "https: key '.*' has no private key in it: expected PEM"),
        (own.cert, empty, "https: key '.*' has no private key in it"),
        (own.cert, locked, "https: key '.*' has a passphrase"),
    ]:
        log = refused(serve, "--https", f"{at},{cert},{key}")
        assert re.search(what, log), log
        assert "PRIVATE KEY-----\n" not in log
    log = refused(serve, "--https", f"{at},{own.cert},{own.key},HIGH,!{empty}")
    assert "https: authority" in log and "has no certificate in it" in log


def test_an_expired_certificate_is_served_with_a_warning(serve, tmp_path):
    key, at = tls.key(tmp_path / "foobar.key"), tcp()
    own = tls.Certificate(tls.of_version_1(tmp_path, key, days=-1), key)
    server = https(serve, at, own)
    server.logged("https: certificate '.*' has expired")
    assert tls.shown_certificate(at) == tls.der(own)


# Options around it


def test_http_to_https_redirects(serve, own):
    at, plain, other = tcp(), tcp(), tcp()
    https(serve, at, own, "--http-to-https", f"{plain},8443", "--http-to-https", other)
    answer = http.request(plain, "GET", "/a%20b?c=d")
    assert (answer.status, answer.header("Location")) == (301, "https://localhost:8443/a%20b?c=d")
    answer = http.request(other, "POST", "/x", {"Host": "example.org:8080"}, b"x" * 100_000)
    assert (answer.status, answer.header("Location")) == (301, "https://example.org/x")
    with Connection(other) as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: b\nc\r\n\r\n")
        assert connection.response().status == 400


def test_the_long_form_and_a_shared_socket(serve, own, tmp_path):
    at = tcp()
    ini = tmp_path / "app.ini"
    ini.write_text(
        f"[uwsgi]\nshared-socket = {at}\nhttps2 = addr==0,cert={own.cert},key={own.key}\n"
        f"https-session-context = x\nssl-sessions-timeout = 5\nwsgi-file = probe.py\n"
    )
    serve("--ini", ini, listens=[at])
    with TlsConnection(at) as connection:
        assert connection.request("GET", "/unread").text == "not read"


def test_https_socket_is_served_by_the_router(serve, own):
    at = tcp()
    server = serve("--https-socket", f"{at},{own.cert},{own.key}", "--wsgi-file", "probe.py", listens=[at])
    server.logged("https-socket: the http router serves it")
    with TlsConnection(at) as connection:
        assert connection.request("GET", "/unread").text == "not read"


def test_files_are_named_from_where_the_server_was_started(serve, own, tmp_path):
    at = tcp()
    for file in (own.cert, own.key):
        shutil.copy(file, tmp_path)
    app = os.path.join(os.path.dirname(__file__), "apps")
    serve("--https", f"{at},{own.cert.name},{own.key.name}", "--chdir", app, "--wsgi-file", "probe.py", listens=[at], cwd=tmp_path)
    assert tls.shown_certificate(at) == tls.der(own)


def test_a_client_that_sends_its_body_too_slowly_is_refused(serve, own):
    at = tcp()
    https(serve, at, own, "--body-min-rate", 1000, "--min-rate-grace", 1)
    with TlsConnection(at) as connection:
        connection.send(head("POST", "/digest", {"Content-Length": "1000000"}) + b"x")
        assert connection.response().status == 408
