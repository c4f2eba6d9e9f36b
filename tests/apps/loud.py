"""An application that prints half a line, starts a thread, and has something to do at the exit, while it is loaded."""

import atexit
import os
import threading
import time

print("half a line", end="")
atexit.register(lambda: os.write(2, b"\nloud.py leaves %d\n" % os.getpid()))
threading.Thread(target=time.sleep, args=(1e9,), daemon=True).start()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
