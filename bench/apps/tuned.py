"""The Flask example with pages that wait as for a database, that compute, and that are large: for bench/tuning.py."""

import importlib.util
import time
from pathlib import Path

from flask import Response, request

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "flask" / "app.py"
spec = importlib.util.spec_from_file_location("flask_example", EXAMPLE)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
app = application = example.app


@app.get("/wait")
def wait():
    """As a page that waits for a database: 50 ms, or ?ms=."""
    time.sleep(float(request.args.get("ms", 50)) / 1000)
    return Response("waited\n", mimetype="text/plain")


@app.get("/compute")
def compute():
    """Python code alone: some milliseconds of a processor."""
    total = 0
    for number in range(100_000):
        total += number & 7
    return Response(f"{total}\n", mimetype="text/plain")


@app.get("/large")
def large():
    """8 MB in one piece."""
    return Response(b"x" * (8 << 20), mimetype="application/octet-stream")


@app.get("/pieces")
def pieces():
    """8 MB in pieces of 64 kB, made one after another."""
    return Response((b"x" * (64 << 10) for _ in range(128)), mimetype="application/octet-stream")


@app.post("/size")
def size():
    """How much was uploaded."""
    return {"size": len(request.get_data())}
