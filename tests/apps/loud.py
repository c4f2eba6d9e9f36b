"""An application that prints half a line, and starts a thread, while it is loaded."""

import threading
import time

print("half a line", end="")
threading.Thread(target=time.sleep, args=(1e9,), daemon=True).start()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
