"""Packets at a uwsgi socket that two readers could understand differently are dropped without an answer."""

from __future__ import annotations

import pytest

from rig import uwsgi
from rig.http import Connection

pytestmark = pytest.mark.only_rwsgi(why="uWSGI reads the digits that it finds")

BODY = b"hello"


@pytest.mark.parametrize("said", ["+5", "-5", " 5", "5 ", "5,5", "0x5", "5\0", "18446744073709551621"])
def test_a_content_length_that_is_not_digits_alone_is_refused(probe_sites, said):
    site = probe_sites["socket"]
    with Connection(site.address) as connection:
        connection.send(uwsgi.packet(uwsgi.variables("POST", "/digest", {"Content-Length": said})) + BODY)
        assert connection.rest() == b""
    site.server.logged("CONTENT_LENGTH is not a number")
    assert site.request("POST", "/digest", body=BODY).text.startswith("5 ")


def test_leading_zeros_and_an_empty_content_length_are_read(probe_sites):
    site = probe_sites["socket"]
    for said, body in [("0005", BODY), ("0", b""), ("", b"")]:
        with Connection(site.address) as connection:
            connection.send(uwsgi.packet(uwsgi.variables("POST", "/digest", {"Content-Length": said})) + body)
            assert connection.response().text.startswith(f"{len(body)} ")
