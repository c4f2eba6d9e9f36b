"""Whether the answers on a connection are those that its bytes mean."""

from __future__ import annotations

import re

from rig.http import Response

from .site import FILE, Outcome
from .mutate import Case
from .reading import End, Reading

# A server that refuses may cut off a client that goes on sending: its answer can be lost then.
FLOOD = 60_000
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def fault(case: Case, kind: str, reading: Reading, outcome: Outcome) -> str | None:
    """What is wrong with the outcome at this kind of socket; None when nothing is."""
    if case.is_abandoned:
        return None
    if outcome.end == "hang":
        return "the server neither answered nor closed in time"
    if outcome.end.startswith("bad answer"):
        return outcome.end
    lost = (outcome.end == "reset" and len(case.stream) > FLOOD) or _gives_up(case, kind)
    # Who says that it awaits it gets it, also when its body never ends.
    only_continue = reading.end is End.INCOMPLETE and outcome.rest == CONTINUE
    if outcome.rest and not lost and not only_continue:
        return f"an answer that breaks off: {outcome.rest[:200]!r}"
    return _answers(case, reading, outcome, lost)


def _gives_up(case: Case, kind: str) -> bool:
    """The http router takes a client that closes its side for one that leaves, as nginx does, and drops its request
    when nobody has begun with it."""
    return kind == "http" and case.ending == "half-close"


def _answers(case: Case, reading: Reading, outcome: Outcome, lost: bool) -> str | None:
    answers = list(outcome.answers)
    for number, request in enumerate(reading.requests):
        if not answers:
            return None if lost else f"request {number} was not answered: {request.saw}"
        answer = answers.pop(0)
        if request.may_be_file and is_file(answer):
            wrong = _file(answer, request.is_head)
            if wrong:
                return f"request {number}: {wrong}"
            continue
        if _is_refusal(answer):
            if request.certain:
                return f"request {number} was refused: {answer.status} {answer.text!r}"
            return f"an answer after a refusal: {answers[0]}" if answers else _refusal(answer)
        wrong = _served(answer, request.saw)
        if wrong:
            return f"request {number}: {wrong}"
        if answer.interim and not (request.expects and answer.interim == [100]):
            return f"request {number}: interim answers {answer.interim}"
    if case.protocol == "uwsgi":
        return _uwsgi_end(reading, answers)
    if len(answers) > 1 or (answers and not _is_refusal(answers[0])):
        return f"an answer to no request: {answers[0].status} {answers[0].headers} {answers[0].text[:100]!r}"
    if answers and reading.end is End.CLEAN:
        return f"a refusal of nothing: {answers[0].status} {answers[0].text!r}"
    if reading.end is End.REFUSED and not answers and not lost:
        return f"not refused: {reading.why}"
    return _refusal(answers[0]) if answers else None


def _uwsgi_end(reading: Reading, answers: list[Response]) -> str | None:
    """A bad packet is dropped; only a body that is not taken is answered."""
    if not answers:
        return None
    if reading.end is End.REFUSED and len(answers) == 1 and answers[0].status == 413:
        return _refusal(answers[0])
    return f"an answer to no request: {answers[0].status} {answers[0].headers}"


def is_file(answer: Response) -> bool:
    """Whether a file is the answer, or what is said instead of it."""
    return answer.status in (200, 206, 304, 412, 416) and answer.header("X-Saw") is None


def _file(answer: Response, is_head: bool) -> str | None:
    if answer.status == 200 and answer.body != FILE and not is_head:
        return f"a file that is another: {answer.body[:100]!r}"
    if answer.status == 206 and not is_head:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.header("Content-Range") or "")
        if not match or answer.body != FILE[int(match[1]) : int(match[2]) + 1] or int(match[3]) != len(FILE):
            return f"a wrong part of a file: {answer.headers} {answer.body[:100]!r}"
    return None


def _is_refusal(answer: Response) -> bool:
    return answer.status >= 400 and answer.header("X-Saw") is None


def _refusal(answer: Response) -> str | None:
    if answer.header("Connection") != "close":
        return f"a refusal that does not say close: {answer.status} {answer.headers}"
    if answer.status >= 500 and answer.status not in (501, 505):
        return f"a refusal that blames the server: {answer.status} {answer.text!r}"
    return None


def _served(answer: Response, saw: str) -> str | None:
    if answer.status not in (200, 204):
        return f"status {answer.status}: {answer.text[:200]!r}"
    if answer.header("X-Saw") != saw:
        return f"the application saw {answer.header('X-Saw')}, and not {saw}"
    if answer.body and answer.text.rstrip(" ") != saw:
        return f"another's body: {answer.text[:200]!r} instead of {saw}"
    if not answer.body and answer.status == 200 and answer.framing != "none":
        return "an empty body"
    return None


def disagreement(case: Case, reading: Reading, outcomes: dict[str, Outcome]) -> str | None:
    """What the two HTTP sockets answered differently. What is incomplete may be refused by one before it ends."""
    if case.is_abandoned or set(outcomes) != {"http", "http-socket"} or _gives_up(case, "http"):
        return None
    if any(outcome.end == "reset" for outcome in outcomes.values()) and len(case.stream) > FLOOD:
        return None
    briefs = [outcome.brief() for outcome in outcomes.values()]
    if reading.end is End.INCOMPLETE:
        briefs = [brief[: len(reading.requests)] for brief in briefs]
    return None if briefs[0] == briefs[1] else f"http answers {briefs[0]}, http-socket {briefs[1]}"
