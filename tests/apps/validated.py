"""An application that keeps to PEP 3333, with a validator around it that checks that the server does too."""

from wsgiref.validate import validator


@validator
def application(environ, start_response):
    stream = environ["wsgi.input"]
    lines = stream.readline(), stream.read(3), stream.readlines(), list(stream)
    environ["wsgi.errors"].write("checked\n")
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"valid: ")
    return [lines[0], lines[1], b"".join(lines[2])]
