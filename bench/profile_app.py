"""A program whose shares are known: twelve functions at a depth of thirty, each called often and shortly.

`/?seconds=N` works for so long and answers with the rounds that were done and the processor time that they took. With
`&sampler=gil` a thread of the program's own samples it with the global lock, `&sampler=faulthandler` asks for its stack by
a signal, both 100 times a second: what a profile by other means costs, and what it finds.
"""

import collections
import faulthandler
import json
import os
import signal
import sys
import tempfile
import threading
import time

WEIGHTS = (240, 180, 140, 110, 90, 70, 50, 40, 30, 20, 25, 5)

for weight in WEIGHTS:
    exec(f"def work_{weight}():\n    for _ in range({weight * 4}):\n        pass\n")
CALLS = [globals()[f"work_{weight}"] for weight in WEIGHTS]


def deep(depth, end):
    if depth:
        return deep(depth - 1, end)
    rounds = 0
    while time.monotonic() < end:
        for call in CALLS:
            call()
        rounds += 1
    return rounds


class GilSampler(threading.Thread):
    """Samples one thread as a Python thread can: when it gets the global lock."""

    def __init__(self, thread):
        super().__init__(daemon=True)
        self.thread, self.seen, self.over, self.took = thread, collections.Counter(), False, []

    def run(self):
        while not self.over:
            time.sleep(0.01)
            begin = time.perf_counter()
            frame = sys._current_frames().get(self.thread)
            stack = []
            while frame:
                stack.append((frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno))
                frame = frame.f_back
            self.seen[stack[0][0]] += 1
            self.took.append(time.perf_counter() - begin)


class FaultSampler(threading.Thread):
    """Has faulthandler write the thread's stack into a file, by a signal to the thread."""

    def __init__(self, thread):
        super().__init__(daemon=True)
        self.thread, self.seen, self.over, self.took = thread, collections.Counter(), False, []
        self.file = tempfile.TemporaryFile()
        faulthandler.register(signal.SIGUSR2, file=self.file, all_threads=False)

    def run(self):
        at = 0
        while not self.over:
            time.sleep(0.01)
            begin = time.perf_counter()
            signal.pthread_kill(self.thread, signal.SIGUSR2)
            time.sleep(0.001)
            end = os.fstat(self.file.fileno()).st_size
            text = os.pread(self.file.fileno(), end - at, at).decode(errors="replace")
            at = end
            for line in text.splitlines()[1:2]:
                self.seen[line.rpartition(" in ")[2]] += 1
            self.took.append(time.perf_counter() - begin)


def application(environ, start_response):
    query = dict(part.split("=") for part in environ["QUERY_STRING"].split("&") if part)
    kind = {"gil": GilSampler, "faulthandler": FaultSampler}.get(query.get("sampler", ""))
    sampler = kind and kind(threading.get_ident())
    if sampler:
        sampler.start()
    cpu, end = time.process_time(), time.monotonic() + float(query.get("seconds", 0))
    rounds = deep(30, end)
    cpu = time.process_time() - cpu
    found = {"rounds": rounds, "cpu": cpu}
    if sampler:
        sampler.over = True
        sampler.join()
        took = sorted(sampler.took)
        found |= {"seen": sampler.seen, "took": took[len(took) // 2] if took else 0}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found).encode()]
