"""A case from a seed and a number alone: the bytes of a connection, how they are cut, and how it ends."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Callable, Sequence

from rig import uwsgi

from .seeds import EXTENSIONS, FIELDS, METHODS, STREAMS, TARGETS, TOKENS, TRAILERS, VARIABLES, VERSIONS, Shape

# How a client leaves: it waits for what is due and closes its side then; closes its side at once and reads on; resets
# when all is sent; closes without reading.
ENDINGS = {"wait": 60, "half-close": 25, "reset": 8, "close": 7}
# Seconds that a pause between two pieces may take.
PAUSE = 0.003


@dataclass(frozen=True)
class Case:
    """One connection."""

    seed: int
    number: int
    # "http" or "uwsgi".
    protocol: str
    stream: bytes
    # Where the stream is cut, and the seconds to wait before the rest.
    cuts: tuple[tuple[int, float], ...]
    ending: str

    def pieces(self) -> list[tuple[bytes, float]]:
        """What is sent at once, and how long to wait after it."""
        ends = [*self.cuts, (len(self.stream), 0.0)]
        starts = [0, *(at for at, _ in self.cuts)]
        return [(self.stream[start:end], pause) for start, (end, pause) in zip(starts, ends)]

    @property
    def is_abandoned(self) -> bool:
        """Whether the client leaves without reading its answers."""
        return self.ending in ("reset", "close")


def case(seed: int, number: int, protocol: str) -> Case:
    """The case of that number."""
    rng = random.Random(f"{seed}/{number}/{protocol}")
    mark = b"%d-%d" % (seed, number)
    stream = _http(rng, mark) if protocol == "http" else _uwsgi(rng, mark)
    ending = rng.choices(list(ENDINGS), list(ENDINGS.values()))[0]
    return Case(seed, number, protocol, stream, _cuts(rng, len(stream)), ending)


def _cuts(rng: random.Random, length: int) -> tuple[tuple[int, float], ...]:
    way = rng.random()
    if way < 0.6 or length < 2:
        return ()
    if way < 0.65 and length < 300:
        places: Sequence[int] = range(1, length)
    else:
        places = sorted({rng.randrange(1, length) for _ in range(rng.randint(1, 6))})
    pausing = rng.random() < 0.5
    return tuple((at, rng.uniform(0, PAUSE) if pausing and rng.random() < 0.5 else 0.0) for at in places)


# --- HTTP


def _http(rng: random.Random, mark: bytes) -> bytes:
    before = b"".join(_innocent(rng, mark, n) for n in range(rng.choice([0, 0, 1, 1, 2, 5])))
    if rng.random() < 0.25:
        hostile = rng.choice(STREAMS)
    else:
        hostile = b"".join(_hostile(rng, mark) for _ in range(rng.choice([1, 1, 1, 2, 3])))
    hostile = _bytes(rng, hostile)
    after = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\nX-Case: " + mark + b"\r\n\r\n"
    stream = before + hostile + after * rng.choice([0, 1, 1, 2])
    # Now and then the innocent ones are hit too.
    return _bytes(rng, stream) if rng.random() < 0.1 else stream


def _innocent(rng: random.Random, mark: bytes, n: int) -> bytes:
    fields = [(b"Host", b"localhost"), (b"X-Case", mark + b"-%d" % n)]
    target = rng.choice([b"/", b"/unread", b"/chunks", b"/empty", b"/large" if rng.random() < 0.1 else b"/a?b=c"])
    shape = Shape(target=target, fields=fields)
    if rng.random() < 0.5:
        shape.method, shape.body = b"POST", _body(rng, mark)
        shape.framing = rng.choice(["length", "chunked"])
    return _rendered(rng, shape, strict=True)


def _body(rng: random.Random, mark: bytes) -> bytes:
    """A body; often one that would be a request if anybody took it for one."""
    way = rng.random()
    if way < 0.4:
        return b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\nX-Case: body-" + mark + b"\r\n\r\n"
    if way < 0.5:
        return b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\nX-Case: body-" + mark + b"\r\n\r\n"
    if way < 0.9:
        return rng.randbytes(rng.randint(0, 200))
    if way < 0.995:
        return rng.randbytes(64) * rng.randint(1, 600)
    return rng.randbytes(64) * rng.randint(2_000, 6_000)


def _hostile(rng: random.Random, mark: bytes) -> bytes:
    shape = Shape(fields=[(b"Host", b"localhost"), (b"X-Case", mark)], target=rng.choice(TARGETS[:10]))
    if rng.random() < 0.6:
        shape.method, shape.body, shape.framing = b"POST", _body(rng, mark), rng.choice(["length", "chunked"])
    if shape.framing == "length":
        shape.fields.append((b"Content-Length", b"%d" % len(shape.body)))
    elif shape.framing == "chunked":
        shape.fields.append((b"Transfer-Encoding", b"chunked"))
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        rng.choice(STRUCTURAL)(rng, shape)
    return _rendered(rng, shape, strict=rng.random() < 0.7)


def _rendered(rng: random.Random, shape: Shape, strict: bool) -> bytes:
    """The bytes. What is not strict has extensions and trailers of every kind."""
    fields, said = list(shape.fields), {name.lower() for name, _ in shape.fields}
    if strict and shape.framing == "length" and b"content-length" not in said:
        fields.append((b"Content-Length", b"%d" % len(shape.body)))
    if strict and shape.framing == "chunked" and b"transfer-encoding" not in said:
        fields.append((b"Transfer-Encoding", b"chunked"))
    lines = [b" ".join([shape.method, shape.target, shape.version]), *(b": ".join(pair) for pair in fields)]
    body = shape.body if shape.framing != "chunked" else _chunks(rng, shape.body, strict)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _chunks(rng: random.Random, body: bytes, strict: bool) -> bytes:
    result, at = [], 0
    while at < len(body):
        size = rng.choice([1, 7, 64, 1000, 100_000])
        chunk = body[at : at + max(size, len(body) // 50)]
        extension = b"" if strict else rng.choice(EXTENSIONS)
        result.append(rng.choice([b"%x", b"%X", b"0%x"]) % len(chunk) + extension + b"\r\n" + chunk + b"\r\n")
        at += len(chunk)
    return b"".join(result) + b"0\r\n" + (b"" if strict else rng.choice(TRAILERS)) + b"\r\n"


def _some(fields: list[tuple[bytes, bytes]], rng: random.Random) -> int:
    return rng.randrange(len(fields)) if fields else 0


def _method(rng: random.Random, shape: Shape) -> None:
    shape.method = rng.choice(METHODS)


def _target(rng: random.Random, shape: Shape) -> None:
    shape.target = rng.choice(TARGETS)


def _version(rng: random.Random, shape: Shape) -> None:
    shape.version = rng.choice(VERSIONS)


def _add(rng: random.Random, shape: Shape) -> None:
    shape.fields.insert(rng.randint(0, len(shape.fields)), rng.choice(FIELDS))


def _repeat(rng: random.Random, shape: Shape) -> None:
    at = _some(shape.fields, rng)
    shape.fields[at:at] = shape.fields[at : at + 1] * rng.choice([1, 1, 2, 130])


def _drop(rng: random.Random, shape: Shape) -> None:
    at = _some(shape.fields, rng)
    shape.fields[at : at + 1] = []


def _shuffle(rng: random.Random, shape: Shape) -> None:
    rng.shuffle(shape.fields)


def _recase(rng: random.Random, shape: Shape) -> None:
    shape.fields = [(rng.choice([name.lower(), name.upper(), name]), value) for name, value in shape.fields]


def _length(rng: random.Random, shape: Shape) -> None:
    """The announced length and the body's differ."""
    wrong = max(0, len(shape.body) + rng.choice([-5, -1, 1, 5, 100, 1 << 32]))
    kept = [field for field in shape.fields if field[0].lower() != b"content-length"]
    shape.fields = [*kept, (b"Content-Length", b"%d" % wrong)]


def _spaces(rng: random.Random, shape: Shape) -> None:
    """White space around a name or a value."""
    at = _some(shape.fields, rng)
    if shape.fields:
        name, value = shape.fields[at]
        around = rng.choice([b" ", b"\t", b"  \t", b"\r\n ", b"\x0b"])
        shape.fields[at] = rng.choice([(name + around, value), (around + name, value), (name, around + value + around)])


STRUCTURAL: list[Callable[[random.Random, Shape], None]] = [
    _method, _target, _version, _add, _add, _add, _repeat, _drop, _shuffle, _recase, _length, _spaces,
]  # fmt: skip

# --- Bytes of any kind


def _flip(rng: random.Random, data: bytearray, at: int) -> None:
    data[at] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, at: int) -> None:
    data[at] = rng.choice(b"\0\t\n\r \x7f\x80\xff:;,0/%")


def _insert(rng: random.Random, data: bytearray, at: int) -> None:
    data[at:at] = rng.choice(TOKENS)


def _delete(rng: random.Random, data: bytearray, at: int) -> None:
    del data[at : at + rng.choice([1, 1, 2, 4, 30])]


def _double(rng: random.Random, data: bytearray, at: int) -> None:
    data[at:at] = data[at : at + rng.choice([1, 2, 10, 100])]


def _truncate(rng: random.Random, data: bytearray, at: int) -> None:
    del data[at:]


def _splice(rng: random.Random, data: bytearray, at: int) -> None:
    other = rng.choice(STREAMS)
    data[at:] = other[rng.randrange(len(other)) :]


def _line_end(rng: random.Random, data: bytearray, at: int) -> None:
    found = data.find(b"\r\n", at)
    if found >= 0:
        data[found : found + 2] = rng.choice(
            [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"\r\n ", b" \r\n", b"\0\r\n"]
        )


def _number(rng: random.Random, data: bytearray, at: int) -> None:
    found = next((i for i in range(at, min(at + 200, len(data))) if 48 <= data[i] <= 57), None)
    if found is not None:
        data[found : found + 1] = rng.choice(
            [b"0", b"1", b"9", b"00", b"-1", b"+1", b"1" * 20, b"a", b"fffffffff", b""]
        )


BYTES: list[Callable[[random.Random, bytearray, int], None]] = [
    _flip, _set, _insert, _insert, _delete, _double, _truncate, _splice, _line_end, _line_end, _number,
]  # fmt: skip


def _bytes(rng: random.Random, stream: bytes) -> bytes:
    """Some bytes changed, more often in the first thousand, where the heads are."""
    data = bytearray(stream)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 1, 2, 3, 6])):
        if data:
            near = len(data) if rng.random() < 0.3 else min(len(data), 1000)
            rng.choice(BYTES)(rng, data, rng.randrange(near))
    return bytes(data)


# --- uwsgi packets


def _uwsgi(rng: random.Random, mark: bytes) -> bytes:
    body = _body(rng, mark) if rng.random() < 0.5 else None
    target = rng.choice(["/", "/unread", "/chunks", "/large", "/empty", "/file", "/a?b=c"])
    headers = {"X-Case": mark.decode()}
    pairs = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in uwsgi.variables("POST" if body is not None else "GET", target, headers, body)
    ]
    for _ in range(rng.choice([0, 0, 1, 1, 2, 4])):
        way = rng.randrange(5)
        at = rng.randint(0, len(pairs))
        if way < 3:
            pairs.insert(at, rng.choice(VARIABLES))
        elif way == 3:
            pairs[at : at + 1] = pairs[at : at + 1] * rng.choice([0, 2, 100])
        else:
            rng.shuffle(pairs)
    lengths = {number: rng.choice([0, 1, 255, 0x7FFF, 0xFFFF]) for number in _wrong(rng, 2 * len(pairs))}
    texts = [text for pair in pairs for text in pair]
    block = b"".join((lengths.get(n, len(text)) & 0xFFFF).to_bytes(2, "little") + text for n, text in enumerate(texts))
    size = len(block) + (rng.choice([-1, 1, -4, 4, 4096, -len(block)]) if rng.random() < 0.1 else 0)
    modifiers = [rng.choice([0, 1, 5, 255]) if rng.random() < 0.05 else 0 for _ in range(2)]
    head = bytes([modifiers[0]]) + (size & 0xFFFF).to_bytes(2, "little") + bytes([modifiers[1]])
    stream = head + block + (body or b"") + (rng.randbytes(30) if rng.random() < 0.1 else b"")
    if rng.random() < 0.05:
        # Another protocol's bytes.
        return rng.choice(STREAMS)
    return _bytes(rng, stream) if rng.random() < 0.5 else stream


def _wrong(rng: random.Random, count: int) -> list[int]:
    """Which lengths of a packet's strings are wrong: mostly none."""
    return [rng.randrange(count)] if count and rng.random() < 0.1 else []
