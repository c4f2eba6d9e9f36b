"""A load that brings out one fault of the shop, bounded in time and in rate.

    python3 load.py ADDRESS FAULT [SECONDS]

FAULT is slow-query, leak, gil-hog, stuck-lock or none.
"""

import http.client
import itertools
import random
import sys
import threading
import time

CLIENTS = 4
PAUSE = 0.02  # seconds between two requests of a client
WAIT = 15  # seconds for an answer

# How many requests of a hundred go where.
FAULTS = {
    "none": {},
    "slow-query": {"/orders/{}": 60},
    "leak": {"/login/user{}": 60},
    "gil-hog": {"/reports/{}": 30},
    "stuck-lock": {"/invoices/{}": 5},
}
# The stuck lock needs an invoice that does not exist: the first client asks for it once.
FIRST = {"stuck-lock": "/invoices/0"}


def paths(fault):
    """Paths without end."""
    mix = FAULTS[fault]
    choices, shares = [*mix, "/products/{}"], [*mix.values(), 100 - sum(mix.values())]
    for number in itertools.count(1):
        yield random.choices(choices, shares)[0].format(number % 1000 + 1)


def client(address, fault, end):
    connection = http.client.HTTPConnection(address, timeout=WAIT)
    for path in paths(fault):
        if time.monotonic() > end:
            return
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            # No answer, or the server restarts: the next request connects again.
            connection.close()
            time.sleep(0.5)
        time.sleep(PAUSE)


def main(arguments):
    if len(arguments) < 2 or arguments[1] not in FAULTS:
        sys.exit(__doc__)
    address, fault, seconds = (*arguments, "600")[:3]
    end = time.monotonic() + float(seconds)
    if fault in FIRST:
        connection = http.client.HTTPConnection(address, timeout=WAIT)
        connection.request("GET", FIRST[fault])
        connection.getresponse().read()
    clients = [threading.Thread(target=client, args=(address, fault, end), daemon=True) for _ in range(CLIENTS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
