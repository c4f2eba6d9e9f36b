"""Answers a request from a file when there is one, and has the application answer all others."""

import mimetypes
import os
import stat
from email.utils import formatdate, parsedate_to_datetime
from datetime import timezone


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
        headers = [("Last-Modified", formatdate(int(about.st_mtime), usegmt=True))]
        if is_unchanged(environ, about):
            file.close()
            start_response("304 Not Modified", headers)
            return []
        kind, encoding = mimetypes.guess_type(path)
        headers.append(("Content-Type", kind if kind and not encoding else "application/octet-stream"))
        headers.append(("Content-Length", str(about.st_size)))
        start_response("200 OK", headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            file.close()
            return []
        return environ["wsgi.file_wrapper"](file)

    return static
