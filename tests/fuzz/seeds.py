"""What is mutated: shapes of requests, as parts and as bytes, and the pieces that mutations put in."""

from __future__ import annotations

from dataclasses import dataclass, field

from test_http_and_http_socket_agree import REQUESTS
from test_http_heads import REFUSED


@dataclass
class Shape:
    """A request in its parts, so that a mutation can change one of them and keep the others right."""

    method: bytes = b"GET"
    target: bytes = b"/"
    version: bytes = b"HTTP/1.1"
    fields: list[tuple[bytes, bytes]] = field(default_factory=lambda: [(b"Host", b"localhost")])
    body: bytes = b""
    # "none", "length" or "chunked".
    framing: str = "none"


# Whole connections that the other tests send. What is larger than this costs time and finds nothing more.
LARGEST = 20_000
STREAMS = [
    *[data for data, _ in REFUSED.values() if len(data) <= LARGEST],
    *[data for data in map(b"".join, REQUESTS.values()) if len(data) <= LARGEST],
]

METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"DELETE", b"TRACE", b"CONNECT", b"PRI", b"get", b"M-SEARCH"]

TARGETS = [
    b"/", b"/unread", b"/chunks", b"/large", b"/empty", b"/file", b"/a/b?c=d&e=%20", b"/static/file", b"/static/file?a", b"/%00", b"/?%00", b"/a%zz%",
    b"/x/%2e%2e/..%2fadmin", b"/../../etc/passwd", b"//evil.example/", b"/caf\xc3\xa9", b"/\xff", b"/a#b", b"*", b"a",
    b"/static/file", b"/static/file", b"/static/", b"/static", b"/static/../seen", b"/static/%2e%2e/seen", b"/static/fi\0le",
    b"/%73tatic/file", b"/static/file/", b"/static//file", b"/static/..%2fseen", b"http://localhost/a", b"HTTPS://other.example:8443?q", b"http://user@host/", b"http:///", b"localhost:80", b"/;p",
    b"/\"<>^`{|}\\", b"/" + b"a" * 3_000, b"/" + b"%41" * 400, b"/?" + b"&" * 1_000,
]  # fmt: skip

VERSIONS = [b"HTTP/1.0", b"HTTP/1.1", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.10", b"HTTP/11", b""]

FIELDS = [
    (b"Connection", b"close"), (b"Connection", b"keep-alive"), (b"Connection", b"Close , Content-Length"),
    (b"Connection", b"upgrade"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAMAAABkAARAAAAAAAIAAAAA"),
    (b"Keep-Alive", b"timeout=5"), (b"Expect", b"100-continue"), (b"Expect", b"100-Continue "), (b"Expect", b"gold"),
    (b"Content-Length", b"0"), (b"Content-Length", b"5"), (b"Content-Length", b"+5"), (b"Content-Length", b"5, 5"),
    (b"Content-Length", b"-1"), (b"Content-Length", b"0x5"), (b"Content-Length", b"18446744073709551616"),
    (b"Content-Length", b"300001"), (b"Content_Length", b"5"), (b"Content-Length ", b"5"), (b" Content-Length", b"5"),
    (b"Content-Length", b"\x0b5"), (b"Content-Length", b"5\xa0"), (b"Content-Length", b"\xd9\xa5"),
    (b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked, chunked"), (b"Transfer-Encoding", b"gzip"),
    (b"Transfer-Encoding", b"gzip, chunked"), (b"Transfer-Encoding", b"identity"), (b"Transfer-Encoding", b"xchunked"),
    (b"Transfer-Encoding", b"Chunked"), (b"Transfer-Encoding", b"chunked;q=1"), (b"Transfer-Encoding", b"\x0cchunked"),
    (b"Transfer-Encoding", b"chunked\x00"), (b"Transfer-Encoding ", b"chunked"), (b"transfer_encoding", b"chunked"),
    (b"Transfer-Encoding", b""), (b"TE", b"trailers"), (b"Trailer", b"Content-Length"),
    (b"Host", b"localhost"), (b"Host", b""), (b"Host", b"a b"), (b"Host", b"user@host"), (b"Host", b"[::1]:80"),
    (b"Host", b"[::1"), (b"Host", b"a:b"), (b"Host", b"a,b"), (b"Host", b"\xe9"), (b"Host ", b"localhost"),
    (b"Cookie", b"a=1"), (b"Cookie", b"b=2"), (b"X-Forwarded-For", b"127.0.0.1"), (b"X-Forwarded-Proto", b"https"),
    (b"Proxy", b"http://evil.example"), (b"X_Under", b"score"), (b"X-Empty", b""), (b"X-Tab", b"\ta\tb\t"),
    (b"X-Latin", b"caf\xe9"), (b"X-Nul", b"a\0b"), (b"X-Cr", b"a\rb"), (b"X-Lf", b"a\nX-Injected: b"),
    (b"X-Fold", b"a\r\n b"), (b"X-Del", b"\x7f"), (b"X-Esc", b"\x1b[2J"), (b"", b"nameless"), (b"X A", b"b"),
    (b"X-\xe9", b"b"), (b"X-Long", b"b" * 3_900), (b"X-Longer", b"b" * 5_000), (b"Range", b"bytes=0-,-1"),
    (b"Range", b"bytes=0-9"), (b"Range", b"bytes=-0"), (b"Range", b"bytes=5-1"), (b"Range", b"bytes=" + b"9" * 3_000 + b"-"),
    (b"Range", b"bytes=6000-"), (b"If-None-Match", b"*"), (b"If-None-Match", b'W/"a", "b'), (b"If-Match", b'"a"'),
    (b"If-Range", b'"a"'), (b"If-Unmodified-Since", b"Thu, 01 Jan 1970 00:00:00 GMT"),
    (b"If-Modified-Since", b"Fri, 31 Dec 9999 23:59:59 GMT"), (b"If-Modified-Since", b"Thu, 01 Jan 0000 00:00:00 -9999"),
    (b"If-Modified-Since", b"Thu, 99 Jan 1970 00:00:00 GMT"), (b"Content-Type", b"text/plain"), (b"Content-Type", b""),
    (b"Date", b"now"), (b"Wsgi.Input", b"x"), (b"Script-Name", b"/x"), (b"Remote-Addr", b"10.0.0.1"),
]  # fmt: skip

# Bytes that readers disagree about.
TOKENS = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\r\n", b"\n\r", b"\0", b" ", b"\t", b"\x0b", b"\x0c", b"\x7f",
    b"\x80", b"\xa0", b"\xff", b"\xc2\x85", b"\xe2\x80\xa8", b":", b",", b";", b"=", b"%", b"%00", b"%0d%0a", b"%2e%2e/", b"#", b"?",
    b"0", b"-1", b"+5", b"0x10", b"1e9", b"4294967296", b"9223372036854775808", b"18446744073709551615", b"9" * 40,
    b"0\r\n\r\n", b"0\r\n", b"5\r\nhello\r\n", b"ffffffffffffffff\r\n", b";ext=\"\n\"", b"\r\n folded", b"\r\n\tfolded",
    b"\r\nContent-Length: 5", b"\r\nContent-Length: 0\r\n", b"\r\nTransfer-Encoding: chunked", b"\r\nHost: b",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 10\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
    b" HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
]  # fmt: skip

# Chunk extensions and trailers, good and bad.
EXTENSIONS = [
    b"", b"", b"", b"", b";a", b";a=b", b';a="b c"', b" ;a", b"\t;a=b", b" ", b";", b";=", b";a\xe9", b";a\0", b";a\n",
    b";" + b"x" * 1_100,
]  # fmt: skip
TRAILERS = [
    b"", b"", b"", b"X-Sum: 1\r\n", b"Content-Length: 5\r\n", b"no colon\r\n", b" folded\r\n", b": x\r\n", b"X: \0\r\n",
]  # fmt: skip

# Variables of a uwsgi packet: what a proxy that is not nginx may send, and what nobody should.
VARIABLES = [
    (b"REQUEST_METHOD", b"HEAD"), (b"REQUEST_METHOD", b""), (b"REQUEST_METHOD", b"G T"), (b"CONTENT_LENGTH", b"5"),
    (b"CONTENT_LENGTH", b"0"), (b"CONTENT_LENGTH", b""), (b"CONTENT_LENGTH", b"+5"), (b"CONTENT_LENGTH", b"-1"),
    (b"CONTENT_LENGTH", b" 5"), (b"CONTENT_LENGTH", b"5 "), (b"CONTENT_LENGTH", b"5,5"), (b"CONTENT_LENGTH", b"0x5"),
    (b"CONTENT_LENGTH", b"00005"), (b"CONTENT_LENGTH", b"300001"), (b"CONTENT_LENGTH", b"18446744073709551616"),
    (b"CONTENT_LENGTH", b"\xd9\xa5"), (b"HTTP_CONTENT_LENGTH", b"7"), (b"HTTP_TRANSFER_ENCODING", b"chunked"),
    (b"PATH_INFO", b"/static/file"),
    (b"PATH_INFO", b"/static/../seen"), (b"PATH_INFO", b"relative"), (b"PATH_INFO", b""), (b"PATH_INFO", b"/a\0b"), (b"REQUEST_URI", b"/chunks"),
    (b"REQUEST_URI", b"/large"), (b"REQUEST_URI", b"/empty"), (b"REQUEST_URI", b"/file"), (b"REQUEST_URI", b"/unread"),
    (b"REQUEST_URI", b"\xff\0\r\n"), (b"QUERY_STRING", b"a\nb"), (b"REMOTE_ADDR", b"1.2.3.4\n\x1b[2Jspoofed"),
    (b"REMOTE_ADDR", b"x" * 500), (b"SERVER_PROTOCOL", b"HTTP/1.0"), (b"SERVER_PROTOCOL", b"HTTP/9"), (b"HTTPS", b"on"),
    (b"UWSGI_SCHEME", b"https"), (b"UWSGI_FILE", b"/etc/passwd"), (b"UWSGI_SCRIPT", b"os"), (b"SCRIPT_NAME", b"/x"),
    (b"HTTP_COOKIE", b"a=1"), (b"HTTP_HOST", b""), (b"", b"nameless"), (b"", b""), (b"HTTP_", b"x"),
    (b"HTTP_X", b"\0\xff\r\n"), (b"HTTP_LONG", b"b" * 3_000), (b"HTTP_N" * 50, b"x"), (b"SERVER_PORT", b"x"),
    (b"wsgi.input", b"x"), (b"wsgi.errors", b""), (b"wsgi.url_scheme", b"gopher"), (b"wsgi.file_wrapper", b"x"),
]  # fmt: skip
