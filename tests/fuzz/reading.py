"""What a stream of bytes means, read strictly and independently of the server: RFC 9112, and the uwsgi protocol.

A reading has the requests that the stream holds, and how it ends. Where the RFC leaves a recipient the choice between
serving and refusing, a request is not `certain`: it may be refused, but never be read as anything else.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from .application import saw

# What the server under test is started with, and what its documents promise.
BUFFER_SIZE = 4096
LIMIT_POST = 300_000
MAX_HEADERS = 128
MAX_EMPTY_LINES = 4
MAX_EXTENSION = 1024
MAX_TRAILERS = 8192
# The prefix under which there are files.
FILES = "/static"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%s) ([^\x00-\x20\x7f]+) HTTP/1\.([01])" % _TOKEN)
_FIELD_LINE = re.compile(rb"(%s):([\t\x20-\x7e\x80-\xff]*)" % _TOKEN)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]+)([ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)")
_STRICT_EXTENSION = re.compile(rb'(?:;%s(?:=(?:%s|"[^"\\\x00-\x1f\x7f-\xff]*"))?)*' % (_TOKEN, _TOKEN))
_TRAILER = re.compile(rb"[\t\x20-\x7e\x80-\xff]+")
# The characters of RFC 3986, with whole escapes.
_STRICT_PATH = re.compile(rb"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_AUTHORITY = re.compile(rb"(?:\[[0-9A-Za-z:._~!$&'()*+,;=-]*\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
_STRICT_AUTHORITY = re.compile(rb"[A-Za-z0-9.-]+(?::[0-9]{1,5})?")
_DIGITS = re.compile(rb"[0-9]+")


class End(Enum):
    """How a stream ends, after its requests."""

    # Nothing is left of it, or what is left is behind a request that ends the connection.
    CLEAN = "clean"
    # More would have to come. It may be refused already for what is there.
    INCOMPLETE = "incomplete"
    # What follows must be refused.
    REFUSED = "refused"


@dataclass(frozen=True)
class Request:
    """A request that the application is to see."""

    # The application's own words for it.
    saw: str
    certain: bool
    is_head: bool
    expects: bool = False
    # Whether a file may be the answer, which the application does not see then.
    may_be_file: bool = False


@dataclass(frozen=True)
class Reading:
    """All that a stream means."""

    requests: tuple[Request, ...]
    end: End
    why: str
    # Whether the request behind those begins as a HEAD, so that a refusal of it has no body.
    last_is_head: bool = False

    @property
    def are_heads(self) -> list[bool]:
        """Of each request, and of the one that is refused or incomplete, whether it is a HEAD."""
        return [*(request.is_head for request in self.requests), self.last_is_head]

    @property
    def due(self) -> int:
        """How many answers come before the client closes its side, unless one that is not certain is refused."""
        return len(self.requests) + (self.end is End.REFUSED)


class _Refused(Exception):
    """The bytes are no request, or one that must be refused."""


class _Incomplete(Exception):
    """They end before the request does."""


@dataclass
class _Head:
    method: str
    target: str
    is_1_1: bool
    fields: list[tuple[str, str]]
    length: int | None
    chunked: bool
    stays: bool
    expects: bool
    certain: bool


def http(stream: bytes) -> Reading:
    """Reads a connection's bytes as HTTP/1.1."""
    requests: list[Request] = []
    at = begin = 0
    try:
        while at < len(stream):
            begin = at
            head, at = _head(stream, at)
            if head.chunked:
                body, at, strict = _chunked(stream, at)
            else:
                strict, length = True, head.length or 0
                if length > LIMIT_POST:
                    raise _Refused("a body over limit-post")
                body = stream[at : at + length]
                if len(body) < length:
                    raise _Incomplete("a body")
                at += length
            requests.append(_request(head, body, strict))
            if not head.stays:
                return Reading(tuple(requests), End.CLEAN, "the last one closes")
    except _Refused as why:
        return Reading(tuple(requests), End.REFUSED, str(why), _begins_as_head(stream, begin))
    except _Incomplete as why:
        return Reading(tuple(requests), End.INCOMPLETE, str(why), _begins_as_head(stream, begin))
    return Reading(tuple(requests), End.CLEAN, "all of it")


def _begins_as_head(stream: bytes, begin: int) -> bool:
    request = stream[begin:]
    at = _empty_lines(request)
    return at <= 2 * MAX_EMPTY_LINES and request.startswith(b"HEAD ", at)


def _request(head: _Head, body: bytes, strict: bool) -> Request:
    read = None if head.target.startswith("/unread") else body
    said = saw(head.method, head.target, _environ(head), read)
    has_body = head.chunked or bool(head.length)
    may_be_file = _may_be_file(head.method, head.target)
    return Request(said, head.certain and strict, head.method == "HEAD", head.expects and has_body, may_be_file)


def _may_be_file(method: str, target: str) -> bool:
    return method in ("GET", "HEAD") and FILES in unquote(target)


def _environ(head: _Head) -> list[tuple[str, str]]:
    """The headers that the application sees."""
    seen: dict[str, str] = {}
    for name, value in head.fields:
        key = name.upper().replace("-", "_")
        if "_" in name or key in ("TRANSFER_ENCODING", "CONTENT_LENGTH"):
            continue
        key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
        separator = "; " if key == "HTTP_COOKIE" else ","
        seen[key] = f"{seen[key]}{separator}{value}" if key in seen else value
    match = re.match(r"(?i)https?://([^/?]*)", head.target)
    if match:
        seen["HTTP_HOST"] = match[1]
    return list(seen.items())


def _head(stream: bytes, start: int) -> tuple[_Head, int]:
    """A head, and where it ends."""
    within = stream[start : start + BUFFER_SIZE]
    complete = within.find(b"\r\n\r\n", _empty_lines(within))
    try:
        lines, length = _lines(within)
        head = _checked(lines)
    except _Incomplete:
        if len(stream) - start > BUFFER_SIZE:
            raise _Refused("a head over buffer-size") from None
        raise
    except _Refused:
        # Nobody has to look at the beginning of a head.
        if complete < 0 and len(stream) - start <= BUFFER_SIZE:
            raise _Incomplete("a head that is wrong already") from None
        raise
    return head, start + length


def _empty_lines(bytes_: bytes) -> int:
    """Where the request line begins."""
    at = 0
    while bytes_.startswith(b"\r\n", at):
        at += 2
    return at


def _lines(within: bytes) -> tuple[list[bytes], int]:
    """The lines of a head, and its length."""
    at = _empty_lines(within)
    if at > 2 * MAX_EMPTY_LINES:
        raise _Refused("too many empty lines")
    lines = []
    while True:
        end = re.compile(rb"[\r\n]").search(within, at)
        if end is None or within[end.start() :] == b"\r":
            raise _Incomplete("a head")
        if not within.startswith(b"\r\n", end.start()):
            raise _Refused("a bare CR or LF")
        line, at = within[at : end.start()], end.start() + 2
        if not line:
            return lines, at
        lines.append(line)


def _checked(lines: list[bytes]) -> _Head:
    match = _REQUEST_LINE.fullmatch(lines[0])
    if not match:
        raise _Refused(f"the request line {lines[0]!r}")
    method, target, is_1_1 = match[1].decode(), match[2], match[3] == b"1"
    certain = _target(method, target)
    fields = []
    for line in lines[1:]:
        field = _FIELD_LINE.fullmatch(line)
        if not field:
            raise _Refused(f"the field line {line!r}")
        fields.append((field[1].decode(), field[2].strip(b" \t")))
    if len(fields) > MAX_HEADERS:
        raise _Refused("too many fields")
    certain &= _host([value for name, value in fields if name.lower() == "host"], is_1_1)
    length, chunked = _framing(fields, is_1_1)
    expectations = [value.lower() for name, value in fields if name.lower() == "expect"]
    if is_1_1 and any(value != b"100-continue" for value in expectations):
        raise _Refused("an expectation")
    options = [
        option.strip(b" \t").lower()
        for name, value in fields
        if name.lower() == "connection"
        for option in value.split(b",")
    ]
    stays = (is_1_1 or b"keep-alive" in options) and b"close" not in options
    named = [(name, value.decode("latin-1")) for name, value in fields]
    expects = is_1_1 and bool(expectations)
    return _Head(method, target.decode("latin-1"), is_1_1, named, length, chunked, stays, expects, certain)


def _target(method: str, target: bytes) -> bool:
    """Whether the target must be served; refuses what must not be."""
    if method == "CONNECT":
        raise _Refused("CONNECT")
    if b"#" in target:
        raise _Refused("a fragment")
    if method == "OPTIONS" and target == b"*":
        return True
    if target.startswith(b"/"):
        path = target
    else:
        absolute = re.fullmatch(rb"(?i)https?://([^/?]+)([/?].*)?", target, re.DOTALL)
        if not absolute or not _AUTHORITY.fullmatch(absolute[1]):
            raise _Refused(f"the target {target!r}")
        path = absolute[2] or b"/"
    if b"%00" in path.split(b"?")[0]:
        raise _Refused("a NUL in the path")
    return bool(_STRICT_PATH.fullmatch(target))


def _host(hosts: list[bytes], is_1_1: bool) -> bool:
    """Whether the Host must be taken."""
    if len(hosts) > 1 or (is_1_1 and not hosts):
        raise _Refused("not one Host")
    if not all(_AUTHORITY.fullmatch(host) for host in hosts):
        raise _Refused("a bad Host")
    return all(_STRICT_AUTHORITY.fullmatch(host) for host in hosts)


def _framing(fields: list[tuple[str, bytes]], is_1_1: bool) -> tuple[int | None, bool]:
    lengths = [value for name, value in fields if name.lower() == "content-length"]
    codings = [value for name, value in fields if name.lower() == "transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise _Refused("more than one framing")
    if codings and (not is_1_1 or codings[0].lower() != b"chunked"):
        raise _Refused("a transfer coding")
    if not lengths:
        return None, bool(codings)
    if not _DIGITS.fullmatch(lengths[0]) or int(lengths[0]) >= 1 << 64:
        raise _Refused("a bad Content-Length")
    return int(lengths[0]), False


def _chunk_line(stream: bytes, at: int) -> tuple[bytes, int]:
    end = stream.find(b"\r\n", at)
    if end < 0:
        raise _Incomplete("a line of the chunked body")
    line = stream[at:end]
    if b"\r" in line or b"\n" in line:
        raise _Refused("a bare CR or LF in a chunked body")
    return line, end + 2


def _chunked(stream: bytes, at: int) -> tuple[bytes, int, bool]:
    """The body, where it ends, and whether it must be taken."""
    pieces: list[bytes] = []
    total, strict = 0, True
    while True:
        line, at = _chunk_line(stream, at)
        match = _CHUNK_SIZE.fullmatch(line)
        if not match:
            raise _Refused(f"the chunk's size {line!r}")
        if match[2].strip(b" \t") == b"" and match[2]:
            raise _Refused("white space after a chunk's size")
        size = int(match[1], 16)
        if size >= 1 << 64:
            raise _Refused("a chunk's size beyond 64 bits")
        strict &= bool(_STRICT_EXTENSION.fullmatch(match[2])) and len(line) < MAX_EXTENSION and len(match[1]) <= 16
        if size == 0:
            break
        # What is there of it counts, whether or not the rest comes.
        there = stream[at : at + size]
        total += len(there)
        if total > LIMIT_POST:
            raise _Refused("a chunked body over limit-post")
        if len(there) < size:
            raise _Incomplete("a chunk")
        pieces.append(there)
        at += size
        after = stream[at : at + 2]
        if after != b"\r\n"[: len(after)]:
            raise _Refused("a chunk longer than it says")
        if len(after) < 2:
            raise _Incomplete("the end of a chunk")
        at += 2
    start = at
    while True:
        line, at = _chunk_line(stream, at)
        if not line:
            return b"".join(pieces), at, strict
        if not _TRAILER.fullmatch(line) or line[:1] in (b" ", b"\t", b":"):
            raise _Refused(f"the trailer {line!r}")
        strict &= bool(_FIELD_LINE.fullmatch(line)) and at - start < MAX_TRAILERS


def uwsgi(stream: bytes) -> Reading:
    """Reads a connection's bytes as one uwsgi packet and its body. A refusal has no answer there."""
    if not stream:
        return Reading((), End.CLEAN, "nothing")
    if stream[0] != 0:
        return Reading((), End.REFUSED, "modifier1")
    if len(stream) < 4:
        return Reading((), End.INCOMPLETE, "a packet's head")
    size = struct.unpack_from("<H", stream, 1)[0]
    if not 0 < size <= BUFFER_SIZE:
        return Reading((), End.REFUSED, "the packet's size")
    block, rest = stream[4 : 4 + size], stream[4 + size :]
    if len(block) < size:
        return Reading((), End.INCOMPLETE, "a packet")
    variables = _variables(block)
    if variables is None:
        return Reading((), End.REFUSED, "the variables do not add up")
    announced = variables.get("CONTENT_LENGTH", "")
    if announced and not (announced.isascii() and announced.isdigit() and int(announced) < 1 << 64):
        return Reading((), End.REFUSED, "CONTENT_LENGTH")
    length = int(announced or 0)
    if length > LIMIT_POST:
        return Reading((), End.REFUSED, "a body over limit-post", variables.get("REQUEST_METHOD") == "HEAD")
    if len(rest) < length:
        return Reading((), End.INCOMPLETE, "a body")
    method, uri = variables.get("REQUEST_METHOD", ""), variables.get("REQUEST_URI", "")
    body = None if uri.startswith("/unread") else rest[:length]
    may_be_file = _may_be_file(method, variables.get("PATH_INFO", ""))
    said = saw(method, uri, list(variables.items()), body)
    request = Request(said, True, method == "HEAD", may_be_file=may_be_file)
    return Reading((request,), End.CLEAN, "a packet")


def _variables(block: bytes) -> dict[str, str] | None:
    """The variables of a packet, the last of a name; None when they do not add up."""
    texts, at = [], 0
    while at < len(block):
        length = int.from_bytes(block[at : at + 2], "little")
        text = block[at + 2 : at + 2 + length]
        if at + 2 + length > len(block):
            return None
        texts.append(text.decode("latin-1"))
        at += 2 + length
    return dict(zip(texts[::2], texts[1::2])) if len(texts) % 2 == 0 else None
