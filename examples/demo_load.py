"""A small load for the demo: a mix of its routes, bounded in time, in number and in rate.

    python3 demo_load.py ADDRESS [SECONDS [REQUESTS]]    sends the load
    python3 demo_load.py --ready ADDRESS                 exits with 0 when ADDRESS answers, else with 1
"""

import http.client
import random
import sys
import threading
import time

CLIENTS = 4
PAUSE = 0.02  # seconds between two requests of a client
MIX = ["/fast"] * 60 + ["/slow?ms=40"] * 15 + ["/large?kb=64"] * 10 + ["/stream?lines=20"] * 5 + ["/status?code=404"] * 4
MIX += ["/slow?ms=800", "/fail", "/status?code=302"]


def answers(address):
    try:
        ask(http.client.HTTPConnection(address, timeout=5), "GET", "/fast")
    except (OSError, http.client.HTTPException):
        return False
    return True


def ask(connection, method, path, body=None):
    connection.request(method, path, body)
    connection.getresponse().read()


def client(address, end, requests):
    connection = http.client.HTTPConnection(address, timeout=15)
    for _ in range(requests):
        if time.monotonic() > end:
            break
        try:
            if random.random() < 0.05:
                ask(connection, "POST", "/upload", b"x" * 200_000)
            else:
                ask(connection, "GET", random.choice(MIX))
        except (OSError, http.client.HTTPException):
            # The server restarts, or is gone: the next request connects again.
            connection.close()
            time.sleep(0.5)
        time.sleep(PAUSE)


def main(arguments):
    if not arguments:
        sys.exit(__doc__)
    if arguments[:1] == ["--ready"]:
        return 0 if answers(arguments[1]) else 1
    address, seconds, requests = (arguments + ["600", "100000"][len(arguments) - 1 :])[:3]
    end = time.monotonic() + float(seconds)
    clients = [
        threading.Thread(target=client, args=(address, end, int(requests) // CLIENTS), daemon=True) for _ in range(CLIENTS)
    ]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
