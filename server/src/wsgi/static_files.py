"""Answers a request from a file when there is one, and has the application answer all others."""

import mimetypes
import os
import re
import stat
from email.utils import formatdate, parsedate_to_datetime
from datetime import timezone

# One part, which begins or ends somewhere. A list of parts is answered with the whole, as RFC 9110 section 14.2 allows.
ONE_PART = re.compile(r"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII | re.IGNORECASE)


def part_of(size, wanted):
    """The first byte and how many, of a header `Range`: None for the whole, and no bytes where there are none."""
    match = ONE_PART.fullmatch(wanted)
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        length = min(int(match[2]), size)
        return size - length, length
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return None
    return first, max(0, last + 1 - first)


def server(application, mapped, checked):
    """`mapped` is a list of prefixes and directories (or files), `checked` one of directories to look into by path."""
    mapped = [(prefix.rstrip("/"), os.path.realpath(root)) for prefix, root in mapped]
    checked = [("", os.path.realpath(root)) for root in checked]
    places = sorted(mapped, key=lambda place: len(place[0]), reverse=True) + checked
    # Once, rather than at the first request.
    mimetypes.init()

    def find(path):
        """An open file and what the system knows of it."""
        for prefix, root in places:
            if path != prefix and not path.startswith(prefix + "/"):
                continue
            wanted = os.path.realpath(os.path.join(root, path[len(prefix):].lstrip("/")) if path != prefix else root)
            # Neither dots nor links lead out of the directory.
            if wanted != root and os.path.commonpath((root, wanted)) != root:
                continue
            try:
                # A named pipe would wait for its writer.
                file = os.open(wanted, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            about = os.fstat(file)
            if stat.S_ISREG(about.st_mode):
                return open(file, "rb"), about
            os.close(file)
        return None

    def is_unchanged(environ, about):
        # A client that asks by another server's entity tag must not be answered by the time (RFC 9110 section 13.1.3).
        if "HTTP_IF_NONE_MATCH" in environ:
            return False
        try:
            since = parsedate_to_datetime(environ.get("HTTP_IF_MODIFIED_SINCE", ""))
        except (TypeError, ValueError):
            return False
        if since.tzinfo is None:
            since = since.replace(tzinfo=timezone.utc)
        return int(about.st_mtime) <= since.timestamp()

    def static(environ, start_response):
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return application(environ, start_response)
        # The bytes of the path, as PEP 3333 hands them over; a NUL is in no file's name.
        path = os.fsdecode(environ["PATH_INFO"].encode("latin-1"))
        found = None if "\0" in path else find(path)
        if found is None:
            return application(environ, start_response)
        file, about = found
        modified = formatdate(int(about.st_mtime), usegmt=True)
        headers = [("Last-Modified", modified), ("Accept-Ranges", "bytes")]
        if is_unchanged(environ, about):
            file.close()
            start_response("304 Not Modified", headers)
            return []
        kind, encoding = mimetypes.guess_type(path)
        headers.append(("Content-Type", kind if kind and not encoding else "application/octet-stream"))
        part = None
        # A file that has changed is sent whole to a client that has the beginning of the old one.
        if environ["REQUEST_METHOD"] == "GET" and environ.get("HTTP_IF_RANGE", modified) == modified:
            part = part_of(about.st_size, environ.get("HTTP_RANGE", ""))
        first, length = part or (0, about.st_size)
        if part is not None:
            if length == 0:
                file.close()
                start_response("416 Range Not Satisfiable", [("Content-Range", f"bytes */{about.st_size}")])
                return []
            headers.append(("Content-Range", f"bytes {first}-{first + length - 1}/{about.st_size}"))
        headers.append(("Content-Length", str(length)))
        start_response("200 OK" if part is None else "206 Partial Content", headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            file.close()
            return []
        file.seek(first)
        return environ["wsgi.file_wrapper"](file)

    return static
