"""Socket addresses in uWSGI's notation: free ones, connecting to them, and seeing whether somebody listens."""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from pathlib import Path

# Below Linux's ephemeral range, so that no client's own port can take one between its choice and its use.
PORTS = range(15000, 32000)

# A reserved port is marked by an abstract socket. The oldest marks are let go: their tests have ended, or a server listens
# on the port. A process that ran a thousand tests would have more descriptors than `select` knows.
RESERVED = 200
_reservations: deque[socket.socket] = deque()


def free_port() -> int:
    """A TCP port that nobody listens on, and that no other test process is given."""
    for _ in range(1000):
        port = random.choice(PORTS)
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0rwsgi-tests-port-{port}")
        except OSError:
            mark.close()
            continue
        _reservations.append(mark)
        if len(_reservations) > RESERVED:
            _reservations.popleft().close()
        with socket.socket(socket.AF_INET6) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("::", port))
            except OSError:
                continue
        return port
    raise AssertionError("no free TCP port found")


def tcp() -> str:
    """A free `127.0.0.1:port`."""
    return f"127.0.0.1:{free_port()}"


def abstract() -> str:
    """A free `@name`."""
    return f"@rwsgi-tests-{os.getpid()}-{random.getrandbits(48):x}"


def connect(address: str, timeout: float = 30.0) -> socket.socket:
    """A connected socket to `host:port`, `:port`, `[v6]:port`, `/path` or `@abstract`."""
    if address.startswith("@"):
        family, target = socket.AF_UNIX, "\0" + address[1:]
    elif "/" in address:
        family, target = socket.AF_UNIX, address
    else:
        host, port = address.rsplit(":", 1)
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        target = (host.strip("[]") or "127.0.0.1", int(port))
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(target)
    except OSError:
        connection.close()
        raise
    if family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def listening(address: str) -> bool:
    """Whether somebody listens on `address`. It looks without connecting, so that no server's counts are touched."""
    if address.startswith("@") or "/" in address:
        accepts = "00010000"  # SO_ACCEPTCON, as /proc/net/unix writes it
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
            fields = line.split()
            if len(fields) > 7 and fields[3] == accepts and fields[7].rstrip("@") == address:
                return True
        return False
    port = f":{int(address.rsplit(':', 1)[1]):04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(port) and fields[3] == "0A":  # LISTEN
                return True
    return False
