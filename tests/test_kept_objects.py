"""What an application keeps of a request reaches nothing once that request is over, least of all another client."""

from __future__ import annotations

import pytest

from rig import http

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's write() and input belong to whichever request the core has")


@pytest.mark.parametrize("what", ["write", "start_response", "read", "environ"])
def test_what_is_kept_of_a_request_is_dead_in_the_next(serve, address, what):
    serve("--http-socket", address, "--wsgi-file", "odd.py", "--master")
    assert http.get(address, f"/keep?what={what}").body == b"kept"
    answer = http.request(address, "POST", f"/use-kept?what={what}", body=b"A BODY")
    assert answer.status == 200
    assert answer.body == b"this the request is over"
