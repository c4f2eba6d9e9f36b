"""Compares what two servers answered, without what no two runs answer alike."""

from __future__ import annotations

import difflib
import re

from applications.browser import Browser, Exchange
from applications.table import Application

# About one connection, and so the server's own; or the time.
_OF_THE_SERVER = {"connection", "keep-alive", "transfer-encoding", "date", "server"}
# uWSGI gives neither ETag nor Accept-Ranges, and no Last-Modified with 304.
_OF_A_FILE = {200: {"content-type", "content-length", "last-modified", "content-encoding", "expires"}, 304: set()}

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
# The time and what is random, in the order in which they are looked for.
_VARYING = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[A-Z][a-z]{2},? \d\d[ -][A-Z][a-z]{2}[ -]\d{4} \d\d:\d\d:\d\d(?: GMT| [+-]\d{4})?", "<date>"),
        (r"\d{4}-\d\d-\d\d(?:[T ]|%20)\d\d(?::|%3A)\d\d(?:(?::|%3A)\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?", "<time>"),
        (r"\b\d{1,2}:\d\d:\d\d\s[AP]M\b", "<time>"),
        (_MONTH + r" \d{1,2}, \d{4}, (?:at )?(?:\d{1,2}(?::\d\d)? [ap]\.m\.|noon|midnight|\d{1,2}:\d\d(?::\d\d)? [AP]M)", "<time>"),
        (r"\b\d{1,2} " + _MONTH + r" \d{4}(?:,? \d\d:\d\d(?::\d\d)?)?", "<day>"),
        (r"\b\d{1,2}(?:st|nd|rd|th) " + _MONTH + r" \d{4} \d\d:\d\d", "<time>"),
        (r"\b\d{1,2}/\d{1,2}/\d{4} \d{1,2}(?::\d\d)? [ap]\.m\.", "<time>"),
        (r"\b\d\d:\d\d:\d\d\b", "<time>"),
        (r"(name=['\"][a-z_]*csrf[a-z_]*['\"][^>]*value=['\"])[^'\"]+", r"\1<token>"),
        (r"\b[0-9A-Za-z]{64}\b", "<token>"),
        (r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", "<uuid>"),
    )
]


class Reader:
    """Writes exchanges as text, with names in the place of what varies."""

    def __init__(self, browser: Browser, places: dict[str, str], application: Application) -> None:
        self.exchanges = browser.exchanges
        self.bodies_of_head, self.resets = browser.bodies_of_head, browser.resets
        # Longer ones first: one can be the beginning of another.
        known = {**{value: f"<cookie {name}>" for value, name in browser.secrets.items()}, **places}
        self.known = sorted(known.items(), key=lambda pair: -len(pair[0]))
        # What the server itself serves: its headers are the server's, but for what says which bytes they are.
        self.files = re.compile(application.files or "(?!)")
        self.varying = [re.compile(pattern) for pattern in application.varying]
        self.differing = [re.compile(pattern) for pattern in application.differing]

    def texts(self) -> list[str]:
        """One text for each exchange."""
        return [self._text(exchange) for exchange in self.exchanges]

    def _text(self, exchange: Exchange) -> str:
        body = self._masked(exchange.body.decode("utf-8", "surrogateescape"))
        lines = [f"{exchange.asked}", f"{exchange.status}"]
        headers = exchange.headers
        if self.files.match(exchange.asked.split(" ")[1]) and exchange.status in (200, 304):
            headers = sorted((n, v) for n, v in headers if n.lower() in _OF_A_FILE[exchange.status])
        for name, value in headers:
            # Who gives it, and where among the others, is the server's; that it is right is not.
            if name.lower() == "content-length":
                bodiless = exchange.asked.startswith("HEAD") or exchange.status == 304
                if not bodiless and int(value) != len(exchange.body):
                    lines.append(f"Content-Length: {value} for {len(exchange.body)}")
            elif name.lower() not in _OF_THE_SERVER:
                lines.append(f"{name}: {value}")
        if any(pattern.fullmatch(f"{exchange.asked} {exchange.status}") for pattern in self.differing):
            body = ""
        return self._masked("\n".join(lines)) + "\n\n" + body

    def _masked(self, text: str) -> str:
        for value, name in self.known:
            text = text.replace(value, name)
        for pattern, replacement in _VARYING:
            text = pattern.sub(replacement, text)
        for pattern in self.varying:
            text = pattern.sub(lambda match: "".join(match.groups()) + "<varies>", text)
        return text


def differences(one: Reader, other: Reader, names: tuple[str, str]) -> list[str]:
    """What is not the same, as unified diffs."""
    ours, theirs = one.texts(), other.texts()
    found = []
    if len(ours) != len(theirs):
        found.append(f"{len(ours)} answers from {names[0]} and {len(theirs)} from {names[1]}")
    for mine, yours in zip(ours, theirs):
        if mine != yours:
            lines = difflib.unified_diff(mine.splitlines(), yours.splitlines(), *names, lineterm="", n=1)
            shown = [line.encode("utf-8", "backslashreplace").decode()[:400] for line in lines]
            found.append("\n".join([mine.split("\n", 1)[0], *shown[:40]]))
    return found
