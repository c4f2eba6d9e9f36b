"""A reader of the stats document that shares no code with the programs under test."""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from rig import http
from rig.addresses import connect

Document = dict[str, Any]


def read(address: str) -> Document:
    """One document from a plain socket: connecting is all the asking there is."""
    with connect(address) as connection:
        pieces = []
        while True:
            piece = connection.recv(262144)
            if not piece:
                return json.loads(b"".join(pieces))
            pieces.append(piece)


def read_http(address: str) -> Document:
    """One document from a stats server that speaks HTTP."""
    answer = http.get(address, "/")
    assert answer.status == 200, answer
    assert answer.header("Content-Type") == "application/json", answer.headers
    return json.loads(answer.body)


def turned_away() -> int:
    """Connections that full queues of this network turned away, whoever's they are."""
    names, numbers = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines()[:2]]
    return int(numbers[names.index("ListenDrops")])


def total(document: Document, key: str) -> int:
    """The sum of a worker's count over all workers."""
    return sum(worker[key] for worker in document["workers"])


def responses(document: Document) -> Counter[str]:
    """Responses by class over all workers."""
    counts: Counter[str] = Counter()
    for worker in document["workers"]:
        counts.update(worker["responses"])
    return +counts


def histogram_counts(encoded: str) -> list[int]:
    """The counters of an HDR histogram in V2 encoding, base64."""
    data = base64.b64decode(encoded, validate=True)
    cookie, length, offset, digits, lowest, highest, ratio = struct.unpack_from(">iiiiqqd", data)
    assert cookie & ~0xF0 == 0x1C849303, f"not V2: {cookie:#x}"
    assert (offset, digits, lowest, highest, ratio) == (0, 2, 1, 3_600_000_000, 1.0)
    payload = data[40:]
    assert len(payload) == length
    counts: list[int] = []
    position = 0
    while position < len(payload):
        value = shift = 0
        # ZigZag LEB128, of at most nine bytes, the ninth of which is whole.
        for index in range(9):
            byte = payload[position]
            position += 1
            value |= (byte if index == 8 else byte & 0x7F) << shift
            shift += 7
            if index < 8 and not byte & 0x80:
                break
        value = (value >> 1) ^ -(value & 1)
        if value < 0:
            counts.extend([0] * -value)
        else:
            counts.append(value)
    return counts


def histogram_total(encoded: str) -> int:
    """How many values an encoded histogram holds."""
    return sum(histogram_counts(encoded))


def _joined(one: Any, other: Any) -> Any:
    """Two shapes, with the keys of both at every depth."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: _joined(one.get(key), other.get(key)) for key in {**one, **other}}
    if isinstance(one, list) and isinstance(other, list):
        return [_joined(one[0], other[0])] if one and other else one or other
    return one if other is None else other


def shape(value: Any) -> Any:
    """The keys and JSON types of a document; of a list, those that any element has."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        merged: Any = None
        for element in value:
            merged = _joined(merged, shape(element))
        return [] if merged is None else [merged]
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "null" if value is None else "string"
