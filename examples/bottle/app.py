"""A small Bottle application: rwsgi --http :8000 --wsgi-file app.py"""

import hashlib

import bottle

application = bottle.Bottle()


@application.get("/")
def index():
    bottle.response.content_type = "text/plain"
    return "hello from bottle\n"


@application.post("/upload")
def upload():
    file = bottle.request.files["file"]
    digest, size = hashlib.sha256(), 0
    for piece in iter(lambda: file.file.read(65536), b""):
        digest.update(piece)
        size += len(piece)
    return {"name": file.filename, "size": size, "sha256": digest.hexdigest()}


@application.get("/stream")
def stream():
    bottle.response.content_type = "text/plain"
    for line in range(int(bottle.request.query.get("lines", 10))):
        yield f"line {line}\n"


@application.get("/error")
def error():
    raise RuntimeError("the view failed")


@application.get("/missing")
def missing():
    return bottle.HTTPResponse("nothing here\n", status=404)
