"""A small Flask application: rwsgi --http :8000 --wsgi-file app.py --callable app"""

import hashlib

from flask import Flask, Response, request

app = Flask(__name__)


@app.get("/")
def index():
    return Response("hello from flask\n", mimetype="text/plain")


@app.post("/upload")
def upload():
    file = request.files["file"]
    digest, size = hashlib.sha256(), 0
    for piece in iter(lambda: file.stream.read(65536), b""):
        digest.update(piece)
        size += len(piece)
    return {"name": file.filename, "size": size, "sha256": digest.hexdigest()}


@app.get("/stream")
def stream():
    lines = int(request.args.get("lines", 10))
    return Response((f"line {n}\n" for n in range(lines)), mimetype="text/plain")


@app.get("/error")
def error():
    raise RuntimeError("the view failed")


@app.get("/missing")
def missing():
    return Response("nothing here\n", status=404, mimetype="text/plain")
