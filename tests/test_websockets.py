"""WebSockets, through uWSGI's functions and through a library, on the workers' sockets and behind the http router."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest

from rig import http, processes
from rig.addresses import tcp
from rig.nginx import Nginx
from rig.server import Servers
from rig.waiting import until
from rig.websocket import ACCEPT, BINARY, CLOSE, HANDSHAKE, PING, PONG, TEXT, WebSocket

pytestmark = pytest.mark.only_rwsgi("the real uWSGI of the tests is built without SSL, which it makes the handshake with")


@pytest.fixture(scope="module", params=["--http", "--http-socket"])
def chat(request, program, tmp_path_factory):
    """`apps/chat.py` with four threads: the server, and its address."""
    servers = Servers(program, tmp_path_factory.mktemp("chat"))
    address = tcp()
    arguments = ("--wsgi-file", "chat.py", "--processes", 2, "--threads", 2, "--http-websockets", "--stats", tcp())
    yield servers(request.param, address, *arguments), address
    servers.stop_all()


def test_messages_go_both_ways(chat):
    _, address = chat
    with WebSocket(address, "/echo") as client:
        assert client.status == "HTTP/1.1 101 Switching Protocols"
        assert f"Sec-WebSocket-Accept: {ACCEPT}" in client.headers
        client.send(b"hello")
        assert client.receive() == (TEXT, b"hello")
        client.send(b"bytes")
        assert client.receive() == (BINARY, b"\xff\x00")
        client.send(b"large")
        assert client.receive() == (TEXT, b"x" * 3_000_000)
        message = b"y" * 500_000
        client.send(message)
        assert client.receive() == (TEXT, message)


def test_pings_are_answered_and_a_close_is_too(chat):
    _, address = chat
    with WebSocket(address, "/echo") as client:
        client.send(b"are you there", PING)
        assert client.receive() == (PONG, b"are you there")
        client.send(b"\x03\xe8", CLOSE)
        assert client.receive() == (CLOSE, b"\x03\xe8")
        assert client.receive() is None


def test_the_subprotocol_is_the_first_that_the_client_names(chat):
    _, address = chat
    with WebSocket(address, "/echo", "Sec-WebSocket-Protocol: chat, superchat\r\n") as client:
        assert "Sec-WebSocket-Protocol: chat" in client.headers


def test_the_application_ends_it_as_frameworks_do(chat):
    server, address = chat
    with WebSocket(address, "/echo?ends") as client:
        client.send(b"end")
        assert client.receive() == (CLOSE, b"")
        assert client.receive() is None
    server.logged(r'"GET /echo\?ends HTTP/1.1" 101')


def test_an_exception_is_logged_and_the_client_gets_no_http(chat):
    server, address = chat
    with WebSocket(address, "/echo?raises") as client:
        client.send(b"raise")
        assert client.receive() == (CLOSE, b"")
        assert client.receive() is None
    server.logged("GET /echo.* ValueError: the application is at fault")


def test_a_message_beyond_the_limit_ends_it(chat):
    _, address = chat
    with WebSocket(address, "/echo") as client:
        received = None
        # The server may hang up before it has all of the message.
        with suppress(ConnectionError):
            client.send(b"x" * 1_100_000)
            received = client.receive()
        assert received is None or received[0] == CLOSE


def test_a_client_can_be_polled(chat):
    _, address = chat
    with WebSocket(address, "/poll") as client:
        client.send(b"hello")
        assert client.receive() == (TEXT, b"HELLO")


@pytest.mark.parametrize("path", ["/fd", "/fd-after-the-handshake"])
def test_the_descriptor_is_that_of_the_client(chat, path):
    _, address = chat
    with WebSocket(address, path) as client:
        client.send(b"hello")
        assert client.receive() == (TEXT, b"olleh")


def test_a_child_that_the_application_forks_has_no_client(chat):
    server, address = chat
    with WebSocket(address, "/forks-library") as client:
        client.socket.sendall(b"x")
        # The application returns; the child is alive, and would keep the connection open.
        assert client.receive() is None


def test_a_child_that_is_forked_beside_many_clients_has_none_of_them(chat):
    """The more connections there are, the larger is a descriptor's number."""
    server, address = chat
    with ExitStack() as others:
        for _ in range(60):
            other = others.enter_context(http.Connection(address))
            other.send(http.head("GET", "/plain"))
            assert other.response().status == 200
        with WebSocket(address, "/forks-library") as client:
            client.socket.sendall(b"x")
            assert client.receive() is None


def test_a_library_that_looks_for_gunicorns_socket_finds_it(chat):
    server, address = chat
    with WebSocket(address, "/library") as client:
        assert client.status.startswith("HTTP/1.1 101")
        client.send(b"hello")
        assert client.receive() == (TEXT, b"hello")
        client.send(b"\x03\xe8", CLOSE)
        assert client.receive() == (CLOSE, b"\x03\xe8")
        assert client.receive() is None
    server.logged('"GET /library HTTP/1.1" 101')
    assert "Traceback" not in server.log().split("/library")[-1]


def test_a_request_that_asks_for_an_upgrade_can_get_http_instead(chat):
    _, address = chat
    with WebSocket(address, "/plain") as client:
        assert client.status == "HTTP/1.1 200 OK"
        assert "X-Socket: True" in client.headers


def test_a_request_that_does_not_ask_for_it_is_not_upgraded(chat):
    server, address = chat
    assert http.get(address, "/no").status == 400
    server.logged("refused: unable to complete websocket handshake: the request does not ask for it")
    old = HANDSHAKE.replace("Version: 13", "Version: 8")
    with WebSocket(address, "/no", handshake=old) as client:
        assert client.status == "HTTP/1.1 400 Bad Request"


def test_a_client_that_does_not_wait_for_the_answer_is_refused(chat):
    server, address = chat
    with WebSocket(address, "/no", handshake=HANDSHAKE + "\x81") as client:
        assert client.status == "HTTP/1.1 400 Bad Request"
    server.logged("refused: .* sent more than its request")


def test_there_is_no_handshake_after_a_response_was_begun(chat):
    server, address = chat
    with WebSocket(address, "/late") as client:
        assert client.status == "HTTP/1.1 200 OK"
    server.logged("refused: .* a response was begun")


def test_threads_are_free_again_and_nothing_stays_open(chat):
    server, address = chat
    for _ in range(10):
        clients = [WebSocket(address, "/echo") for _ in range(3)]
        # One of four threads is left for the others.
        assert http.get(address, "/plain").body == b"plain"
        for client in clients:
            client.__exit__()
    until(lambda: all(worker["status"] == "idle" for worker in server.stats()["workers"]), "every worker is idle")
    until(lambda: not connections_of(server, address), "no connection is open")


def connections_of(server, address) -> list[str]:
    """The server's TCP connections, other than those that wait to be closed by the kernel."""
    port = f"{int(address.rpartition(':')[2]):04X}"
    established = "01"
    found = []
    for pid in (process.pid for process in processes.marked(server.mark)):
        try:
            lines = open(f"/proc/{pid}/net/tcp").read().splitlines()[1:]
        except OSError:
            continue
        found += [line for line in lines if line.split()[1].endswith(port) and line.split()[3] == established]
    return found


def test_without_the_option_the_http_router_keeps_its_clients(serve, address):
    server = serve("--http", address, "--wsgi-file", "chat.py")
    with WebSocket(address, "/no") as client:
        assert client.status == "HTTP/1.1 400 Bad Request"
    server.logged("refused: .* http-websockets is not set")
    assert http.get(address, "/plain").body == b"plain"


@pytest.mark.parametrize("path", ["/echo", "/fd"])
def test_a_silent_client_is_pinged_and_closed_when_it_does_not_answer(serve, address, path):
    limits = ("--websockets-ping-freq", 1, "--websockets-pong-tolerance", 5)
    serve("--http-socket", address, "--wsgi-file", "chat.py", *limits)
    with WebSocket(address, path) as client:
        assert client.receive() == (PING, b"")
        client.send(b"", PONG)
        assert client.receive() == (PING, b"")
        # Now it is silent.
        while (received := client.receive()) is not None:
            assert received[0] in (PING, CLOSE)


@pytest.mark.parametrize("path", ["/echo", "/library"])
def test_nginx_passes_websockets_on_with_uwsgi_pass(serve, tmp_path, path):
    server = serve("--socket", tmp_path / "app.sock", "--wsgi-file", "chat.py", "--threads", 2)
    location = f"location / {{ include uwsgi_params; uwsgi_pass unix:{tmp_path}/app.sock; }}"
    nginx = Nginx(tmp_path, {}, servers={"chat": f"server {{ listen ADDRESS; {location} }}"})
    try:
        with WebSocket(nginx.addresses["chat"], path) as client:
            # What the library for Python 3.9 sends names no reason.
            assert client.status.startswith("HTTP/1.1 101 ")
            client.send(b"hello")
            assert client.receive() == (TEXT, b"hello")
            client.send(b"\x03\xe8", CLOSE)
            assert client.receive() == (CLOSE, b"\x03\xe8")
            assert client.receive() is None
        server.logged(f'"GET {path} HTTP/1.1" 101')
    finally:
        nginx.stop()


def test_a_killed_worker_ends_only_its_own_clients(serve, address):
    serve("--http", address, "--wsgi-file", "chat.py", "--processes", 2, "--http-websockets")
    with WebSocket(address, "/echo") as ended, WebSocket(address, "/echo") as alive:
        ended.send(b"pid")
        processes.kill(int(ended.receive()[1]))
        assert ended.receive() is None
        alive.send(b"still here")
        assert alive.receive() == (TEXT, b"still here")
    until(lambda: http.get(address, "/plain").body == b"plain", "the other worker serves")
