#!/usr/bin/env python3
"""What a profile costs a busy worker and how right it is, beside other ways to take one.

    bench/profile.py [--server rwsgi] [--seconds 5] [--rounds 5]

Cost is processor time for a round of the same work, with and without: the median of alternating runs. Shares are compared
with the program's own, and with py-spy's where that is installed and may trace.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


class Server:
    def __init__(self, program):
        self.directory = tempfile.mkdtemp(prefix="rwsgi-profile-")
        self.control, self.port = os.path.join(self.directory, "control"), free_port()
        self.process = subprocess.Popen(
            [program, "--http-socket", f"127.0.0.1:{self.port}", "--wsgi-file", "profile_app.py", "--control", self.control],
            cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for _ in range(500):
            try:
                self.get(0)
                return
            except OSError:
                time.sleep(0.02)
        raise SystemExit("the server does not start")

    def get(self, seconds, sampler=""):
        url = f"http://127.0.0.1:{self.port}/?seconds={seconds}&sampler={sampler}"
        return json.load(urllib.request.urlopen(url))

    def ask(self, **request):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.control)
            connection.sendall(json.dumps(request).encode() + b"\n")
            for line in connection.makefile("rb"):
                reply = json.loads(line)
                if "done" in reply:
                    return next(iter(reply["done"].values()))
                if "failed" in reply:
                    raise SystemExit(reply["failed"])

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.directory)


def with_beside(server, seconds, beside, sampler=""):
    """A run of the work with something beside it; the rounds' processor time, and what was beside."""
    found = []
    thread = threading.Thread(target=lambda: found.append(beside()))
    thread.start()
    time.sleep(0.2)
    answer = server.get(seconds, sampler)
    thread.join()
    return answer, found[0]


def own_shares(profile):
    seen = Counter()
    for stack in profile["stacks"]:
        seen[profile["frames"][stack["frames"][-1]]["function"]] += stack["count"]
    return seen


def py_spy_shares(text):
    seen = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        seen[stack.rpartition(";")[2].split(" (")[0]] += int(count)
    return seen


def in_percent(seen):
    # The loop that calls them costs something too, which is no part of the shares that are known.
    seen = Counter({name: count for name, count in seen.items() if name.startswith("work_")})
    total = sum(seen.values()) or 1
    return {name: 100 * count / total for name, count in seen.most_common()}


def largest_difference(one, other):
    return max(abs(one.get(name, 0) - other.get(name, 0)) for name in {*one, *other})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="rwsgi")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--py-spy", default=shutil.which("py-spy"))
    options = parser.parse_args()
    server = Server(options.server)
    try:
        measure(server, options)
    finally:
        server.stop()


def measure(server, options):
    from profile_app import WEIGHTS

    seconds = options.seconds
    pid = server.ask(do="stacks")["threads"][0]["pid"]
    known = {f"work_{weight}": 100 * weight / sum(WEIGHTS) for weight in WEIGHTS}

    def record():
        with tempfile.NamedTemporaryFile() as file:
            subprocess.run(
                [options.py_spy, "record", "-d", str(int(seconds)), "-r", "100", "-f", "raw", "--nolineno", "-o", file.name, "-p", str(pid)],
                check=True, capture_output=True,
            )
            return py_spy_shares(Path(file.name).read_text())

    ways = {
        "a signal, own frames": lambda: with_beside(
            server, seconds, lambda: own_shares(server.ask(do="profile", seconds=seconds, rate=100))),
        "the same, 1000 Hz": lambda: with_beside(
            server, seconds, lambda: own_shares(server.ask(do="profile", seconds=seconds, rate=1000))),
        "a thread with the global lock": lambda: (lambda a: (a, Counter(a["seen"])))(server.get(seconds, "gil")),
        "faulthandler, a signal": lambda: (lambda a: (a, Counter(a["seen"])))(server.get(seconds, "faulthandler")),
    }
    if options.py_spy:
        ways["py-spy"] = lambda: with_beside(server, seconds, record)
    costs = {name: [] for name in ways}
    base, shares = [], {name: Counter() for name in ways}

    def cost(answer):
        return answer["cpu"] / answer["rounds"]

    for _ in range(options.rounds):
        for name, way in ways.items():
            before = cost(server.get(seconds / 2))
            answer, seen = way()
            after = cost(server.get(seconds / 2))
            shares[name] += seen
            base += [before, after]
            costs[name].append(100 * (cost(answer) / ((before + after) / 2) - 1))
    began = time.perf_counter()
    for _ in range(100):
        server.ask(do="stacks")
    print(f"a stack through the control socket: {(time.perf_counter() - began) * 10:.2f} ms")
    spread = 100 * statistics.pstdev(base) / statistics.mean(base)
    print(f"work alone: {1e6 * statistics.median(base):.0f} us a round, spread {spread:.1f} %")
    print(f"{'':32} {'cost %':>8} {'samples':>8} {'off by at most, points':>24}")
    for name in ways:
        off = largest_difference(in_percent(shares[name]), known)
        print(f"{name:32} {statistics.median(costs[name]):8.2f} {sum(shares[name].values()):8} {off:24.1f}")
    if options.py_spy:
        ours, theirs = in_percent(shares["a signal, own frames"]), in_percent(shares["py-spy"])
        print(f"beside py-spy: off by at most {largest_difference(ours, theirs):.1f} points")
        print("top ten:", " ".join(list(ours)[:10]))
        print("py-spy :", " ".join(list(theirs)[:10]))


if __name__ == "__main__":
    main()
