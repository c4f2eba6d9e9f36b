"""What a browser keeps and does: cookies, forms, uploads. It writes down every answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import quote_plus, urljoin, urlsplit

from rig import http

BOUNDARY = "----------------------------a41d6ad1d1a8"


@dataclass
class Form:
    """A form of a page, with what it would send as it stands."""

    action: str
    method: str
    multipart: bool
    fields: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class File:
    """A file to upload."""

    name: str
    content: bytes
    kind: str = "application/octet-stream"


class _Forms(HTMLParser):
    """Collects forms. Buttons are left out: a client names the one that it presses."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.open: Form | None = None
        self.area: str | None = None
        self.select: str | None = None
        self.text = ""
        self.chosen: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, value = given.get("name"), given.get("value") or ""
        if tag == "form":
            multipart = given.get("enctype") == "multipart/form-data"
            self.open = Form(given.get("action") or "", (given.get("method") or "get").upper(), multipart)
            self.forms.append(self.open)
        elif self.open is None:
            return
        elif tag == "input" and name:
            kind = (given.get("type") or "text").lower()
            if kind in ("checkbox", "radio") and "checked" in given:
                self.open.fields.append((name, value or "on"))
            elif kind not in ("checkbox", "radio", "submit", "button", "image", "file", "reset"):
                self.open.fields.append((name, value))
        elif tag == "textarea" and name:
            self.area, self.text = name, ""
        elif tag == "select" and name:
            self.select, self.chosen = name, None
        elif tag == "option" and self.select and ("selected" in given or self.chosen is None and "multiple" not in given):
            if "selected" in given or self.chosen is None:
                self.chosen = value

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.open = None
        elif tag == "textarea" and self.area and self.open:
            self.open.fields.append((self.area, self.text.removeprefix("\n")))
            self.area = None
        elif tag == "select" and self.select and self.open:
            if self.chosen is not None:
                self.open.fields.append((self.select, self.chosen))
            self.select = None


@dataclass
class Page:
    """An answer, and where it came from."""

    target: str
    answer: http.Response

    @property
    def status(self) -> int:
        """The status."""
        return self.answer.status

    @property
    def text(self) -> str:
        """The body, as UTF-8."""
        return self.answer.body.decode(errors="replace")

    def form(self, holding: str) -> Form:
        """The first form with a field of this name."""
        parser = _Forms()
        parser.feed(self.text)
        for form in parser.forms:
            if any(name == holding for name, _ in form.fields):
                return form
        raise AssertionError(f"{self.target} ({self.status}) has no form with a field {holding!r}: {self.text[:2000]}")

    def find(self, pattern: str) -> str:
        """The first group of what matches in the body."""
        found = re.search(pattern, self.text)
        assert found, f"{self.target} ({self.status}) has nothing like {pattern!r}: {self.text[:2000]}"
        return found[1]


@dataclass
class Exchange:
    """One request and its answer, to compare with the same one under another server."""

    asked: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Browser:
    """A client with cookies."""

    def __init__(self, address: str, behind: str, uwsgi: bool) -> None:
        self.address = address
        # "socket" behind nginx, else "http".
        self.behind = behind
        # Whether this is the real uWSGI, for what it cannot be asked.
        self.uwsgi = uwsgi
        self.exchanges: list[Exchange] = []
        self.cookies: dict[str, str] = {}
        # Every value that a cookie ever had, with its name: no two runs have the same.
        self.secrets: dict[str, str] = {}
        # Uploads that were refused unread, where the client saw a reset in place of the answer, as it can under uWSGI.
        self.resets: list[str] = []
        # Where the answer to HEAD had a body, which uWSGI sends when the application gives one.
        self.bodies_of_head: list[str] = []
        # Sent with every request.
        self.headers: dict[str, str] = {}

    def request(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Page:
        """One request on a connection of its own."""
        sent = {"User-Agent": "client", "Connection": "close", **self.headers, **(headers or {})}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        with http.Connection(self.address, timeout=120) as connection:
            answer = connection.request(method, target, sent, body)
            if method == "HEAD" and connection.rest():
                self.bodies_of_head.append(target)
        for cookie in answer.all("Set-Cookie"):
            name, _, value = cookie.split(";")[0].partition("=")
            if re.search(r"(?i)max-age=0\b|expires=thu, 01[ -]jan[ -]1970", cookie):
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
            if len(value.strip('"')) >= 8:
                self.secrets[value.strip('"')] = name
        self.exchanges.append(Exchange(f"{method} {target}", answer.status, answer.headers, answer.body))
        return Page(target, answer)

    def get(self, target: str, expect: int = 200, **headers: str) -> Page:
        """A GET. Names of headers have `_` for `-`."""
        return self.expect(expect, self.request("GET", target, _named(headers)))

    def head(self, target: str, expect: int = 200) -> Page:
        """A HEAD; its answer has the same length as the one to GET."""
        return self.expect(expect, self.request("HEAD", target))

    def post(self, target: str, fields: dict[str, str], expect: int = 302, **headers: str) -> Page:
        """A POST of a form's fields."""
        body = _urlencoded(list(fields.items()))
        sent = {"Content-Type": "application/x-www-form-urlencoded", **_named(headers)}
        return self.expect(expect, self.request("POST", target, sent, body))

    def upload(self, target: str, fields: dict[str, str | File], expect: int = 302) -> Page:
        """A POST as a script of a page sends it, as a form with files."""
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        return self.expect(expect, self.request("POST", target, kind, _multipart(list(fields.items()))))

    def submit(
        self, page: Page, holding: str, fields: dict[str, str | File], expect: int = 302, target: str | None = None
    ) -> Page:
        """Sends the form of `page` that has the field `holding`, with these values in place of its own."""
        form = page.form(holding)
        values: list[tuple[str, str | File]] = [(name, value) for name, value in form.fields if name not in fields]
        values += fields.items()
        where = target or _path(urljoin(page.target, form.action))
        if form.method == "GET":
            return self.get(f"{where.split('?')[0]}?{_urlencoded(values).decode()}", expect)
        if form.multipart or any(isinstance(value, File) for _, value in values):
            kind, body = f"multipart/form-data; boundary={BOUNDARY}", _multipart(values)
        else:
            kind, body = "application/x-www-form-urlencoded", _urlencoded(values)
        return self.expect(expect, self.request("POST", where, {"Content-Type": kind}, body))

    def follow(self, page: Page, expect: int = 200) -> Page:
        """Goes where a redirect points."""
        location = page.answer.header("Location")
        assert location is not None, f"{page.target} ({page.status}) redirects nowhere: {page.text[:2000]}"
        return self.get(_path(urljoin(page.target, location)), expect)

    def again(self, page: Page) -> Page:
        """The same GET with the conditions that a browser's cache adds, which must be answered with 304."""
        conditions = {"If-None-Match": page.answer.header("ETag"), "If-Modified-Since": page.answer.header("Last-Modified")}
        given = {name: value for name, value in conditions.items() if value is not None}
        assert given, f"{page.target} has neither ETag nor Last-Modified"
        return self.expect(304, self.request("GET", page.target, given))

    def refused(self, expect: int, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        """An upload that the application refuses unread. It is not compared: under uWSGI the client can see a reset."""
        try:
            self.expect(expect, self.request(method, target, headers, body))
            self.exchanges.pop()
        except ConnectionError:
            self.resets.append(target)

    def note(self, what: str, text: str) -> None:
        """Writes down what another client saw."""
        self.exchanges.append(Exchange(what, 0, [], text.encode()))

    def expect(self, status: int, page: Page) -> Page:
        """Fails unless the answer has this status."""
        asked = self.exchanges[-1].asked
        assert page.status == status, f"{asked}: {page.status} instead of {status}\n{page.answer.headers}\n{page.text[:3000]}"
        return page


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _urlencoded(values: list) -> bytes:
    return "&".join(f"{quote_plus(name)}={quote_plus(str(value))}" for name, value in values).encode()


def _multipart(values: list) -> bytes:
    parts = []
    for name, value in values:
        disposition = f'Content-Disposition: form-data; name="{name}"'
        if isinstance(value, File):
            head = f'{disposition}; filename="{value.name}"\r\nContent-Type: {value.kind}'
            content = value.content
        else:
            head, content = disposition, value.replace("\n", "\r\n").encode()
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
