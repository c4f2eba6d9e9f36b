"""Large responses, whole and in pieces: `/large?BYTES`, `/pieces?BYTES`; and `/count`."""

PIECE = 65536


def application(environ, start_response):
    size = int(environ["QUERY_STRING"] or 0)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size)), ("Connection", "close")])
    if environ["PATH_INFO"] == "/large":
        return [b"y" * size]
    return (b"y" * min(PIECE, size - at) for at in range(0, size, PIECE))
