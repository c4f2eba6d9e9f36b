"""The Django example with a page that waits 50 ms, as for a database: for bench/tuning.py."""

import time

from demo.wsgi import application as django

def application(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        time.sleep(0.05)
        environ["PATH_INFO"] = "/"
    return django(environ, start_response)
