"""The mutating client in its short form, and whether its oracle would notice.

`FUZZ_SEED` and `FUZZ_COUNT` choose other cases; a fault names the line that runs its case again.
"""

from __future__ import annotations

import os

import pytest

from fuzz import oracle, reading
from fuzz.campaign import Campaign
from fuzz.site import KINDS, Outcome, Site, answers
from fuzz.mutate import Case, case

pytestmark = pytest.mark.only_rwsgi(why="uWSGI reads many of them as something else")

# A fixed seed: a change of the server is judged by the same cases as the one before it.
SEED = int(os.environ.get("FUZZ_SEED", "12"))
COUNT = int(os.environ.get("FUZZ_COUNT", "3000"))


def test_hostile_bytes_harm_nobody(serve, tmp_path):
    report = Campaign(Site(serve, tmp_path), SEED, KINDS, tmp_path).run(0, COUNT)
    assert not report.faults, "\n\n".join(report.faults[:5])
    assert all(report.cases[kind] == COUNT for kind in KINDS)
    # Neither all refused nor all served: the cases are worth something.
    assert report.served > COUNT and report.refused > COUNT // 4 and report.innocent > 100


def test_a_case_is_its_seed_and_number():
    for protocol in ("http", "uwsgi"):
        assert case(3, 5, protocol) == case(3, 5, protocol)
        assert len({case(3, number, protocol).stream for number in range(50)}) > 45
    cut = next(one for one in (case(1, number, "http") for number in range(100)) if one.cuts)
    assert b"".join(piece for piece, _ in cut.pieces()) == cut.stream


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(GET) + GET
OK = b"HTTP/1.1 200 OK\r\nX-Saw: %s\r\nContent-Length: %d\r\n\r\n%s"
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 1\r\n\r\n\n"


def _served(stream: bytes) -> bytes:
    """What a server answers that reads the stream as it is meant."""
    said = [request.saw.encode() for request in reading.http(stream).requests]
    return b"".join(OK % (line, len(line), line) for line in said)


@pytest.mark.parametrize(
    "stream, came, end",
    [
        pytest.param(GET, b"", "closed", id="no answer"),
        pytest.param(GET, b"", "hang", id="a hang"),
        pytest.param(GET, _served(GET)[:-3], "closed", id="half an answer"),
        pytest.param(GET, _served(GET).replace(b"200", b"500"), "closed", id="a server's error"),
        pytest.param(GET, _served(BODY), "closed", id="another's answer"),
        pytest.param(GET, _served(GET) + _served(GET), "closed", id="an answer too many"),
        pytest.param(GET, REFUSAL, "closed", id="a refusal of what is right"),
        pytest.param(BODY, _served(BODY) + _served(GET), "closed", id="a body taken for a request"),
        pytest.param(GET.replace(b"Host", b"Host "), _served(GET), "closed", id="what must be refused is served"),
        pytest.param(b"bad\r\n\r\n" + GET, REFUSAL + _served(GET), "closed", id="going on after a refusal"),
        pytest.param(b"bad\r\n\r\n", REFUSAL.replace(b"close", b"keep-alive"), "closed", id="a refusal that stays"),
        pytest.param(GET, b"HTTP/1.1 200 OK\nX: a\n\n", "closed", id="no HTTP"),
    ],
)
def test_the_oracle_notices(stream, came, end):
    found, rest, wrong = answers(came, [False] * 3)
    outcome = Outcome(found, f"bad answer: {wrong}" if wrong else end, rest)
    one = Case(1, 1, "http", stream, (), "wait")
    assert oracle.fault(one, "http-socket", reading.http(stream), outcome)


@pytest.mark.parametrize("stream", [GET, BODY, GET + BODY, BODY[:-1], GET + b"bad\r\n\r\n", b""])
def test_the_oracle_is_content_with_what_is_right(stream):
    meaning = reading.http(stream)
    came = _served(stream) + (REFUSAL if meaning.end is reading.End.REFUSED else b"")
    found, rest, wrong = answers(came, [False] * 3)
    assert not wrong
    one = Case(1, 1, "http", stream, (), "wait")
    assert oracle.fault(one, "http-socket", meaning, Outcome(found, "closed", rest)) is None
