"""An application that spoils the memory that its server's processes share, as a wild pointer in an extension would."""

import errno
import os
import random
from urllib.parse import parse_qs


def shared(name):
    """Descriptors of this process that are memory files of that name."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            # The descriptor that the directory was listed with.
            continue
        if link.startswith(f"/memfd:{name}"):
            yield int(fd)


def fill(name, seed):
    """Fills them: with ones for seed 0, else with what comes of the seed. How many bytes there were."""
    written = 0
    for fd in set(shared(name)):
        size = os.fstat(fd).st_size
        noise = b"\xff" * size if seed == 0 else random.Random(seed).randbytes(size)
        with open(f"/proc/self/fd/{fd}", "r+b", buffering=0) as file:
            written += file.write(noise)
    return str(written)


def resize(name, size):
    """Gives them another size: the name of the error, or what became of them."""
    for fd in shared(name):
        try:
            os.truncate(f"/proc/self/fd/{fd}", size)
        except OSError as error:
            return errno.errorcode[error.errno]
        return "resized"
    return "not found"


def application(environ, start_response):
    query = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    body = str(os.getpid())
    if "fill" in query:
        body = fill(query["fill"], int(query["seed"]))
    if "resize" in query:
        body = resize(query["resize"], int(query["size"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
