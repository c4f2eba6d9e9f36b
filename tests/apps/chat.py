"""Speaks WebSocket, through the server's module or a library."""

import os
import time

import uwsgi


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/echo"):
        return echo(start_response)
    if path == "/library":
        return library(environ)
    if path == "/plain":
        start_response("200 OK", [("X-Socket", str("gunicorn.socket" in environ))])
        return [b"plain"]
    if path == "/late":
        start_response("200 OK", [])(b"begun")
        return refused(start_response)
    if path == "/no":
        return refused(start_response)
    if path == "/poll":
        return poll()
    if path == "/fd":
        return by_descriptor(uwsgi.connection_fd, 0.5)
    if path == "/fd-after-the-handshake":
        return by_descriptor()
    if path == "/forks-library":
        return forks_library(environ)
    start_response("404 Not Found", [])
    return [b""]


def echo(start_response):
    uwsgi.websocket_handshake()
    while True:
        message = uwsgi.websocket_recv()
        if message == b"bytes":
            uwsgi.websocket_send_binary(b"\xff\x00")
        elif message == b"large":
            uwsgi.websocket_send(b"x" * 3_000_000)
        elif message == b"pid":
            uwsgi.websocket_send(str(os.getpid()))
        elif message == b"raise":
            raise ValueError("the application is at fault")
        elif message == b"end":
            # As frameworks do.
            start_response("200 OK", [("Content-Type", "text/plain")])
            return ""
        else:
            uwsgi.websocket_send(message)


def refused(start_response):
    try:
        uwsgi.websocket_handshake()
    except OSError as error:
        print(f"refused: {error}", flush=True)
    try:
        start_response("400 Bad Request", [])
    except AssertionError:
        pass
    return [b"no"]


def poll():
    uwsgi.websocket_handshake()
    while True:
        message = uwsgi.websocket_recv_nb()
        if message:
            uwsgi.websocket_send(message.upper())


def by_descriptor(before=lambda: None, timeout=None):
    """As libraries for gevent do: the descriptor is watched first."""
    import select

    fd = before()
    uwsgi.websocket_handshake()
    fd = fd or uwsgi.connection_fd()
    while True:
        select.select([fd], [], [], timeout)
        message = uwsgi.websocket_recv_nb()
        if message:
            uwsgi.websocket_send(message[::-1])


def child():
    """A child without exec, as `multiprocessing` makes them; it lives until its parent has gone."""
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(0)


def forks_library(environ):
    """The connection is the library's; it is closed with the request."""
    connection = environ["gunicorn.socket"]
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    child()
    connection.recv(1)
    raise StopIteration


def library(environ):
    import simple_websocket

    socket = simple_websocket.Server(environ)
    try:
        while True:
            socket.send(socket.receive())
    except simple_websocket.ConnectionClosed:
        pass
    # What libraries do under gunicorn, for there is no response.
    raise StopIteration
