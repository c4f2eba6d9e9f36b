"""One measurement: a load by wrk on a server that runs, and what came of it."""

from __future__ import annotations

import json
import resource
import subprocess
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rig import http

from measure.processes import busy, memory, spent
from measure.servers import Failed, Running
from measure.works import Work

SCRIPT = Path(__file__).resolve().parent.parent / "load.lua"
# Requests before the first counted one, and seconds after which fewer do: caches fill, templates compile.
WARM_UP, LONG_ENOUGH = 50, 1.0
# Seconds that wrk may take from its last answer to its end.
CLOSING = 0.1


@dataclass(frozen=True)
class Figures:
    """What one round of one work on one server gave. Latencies in µs, memory in bytes."""

    requests: float
    seconds: float
    rate: float
    p50: int
    p99: int
    p100: int
    errors: int
    # 1 when a client that came during the load got its answer only when the load was over.
    starved: int
    # Processor time of all of the server's processes for each request, µs.
    cpu: float
    pss: int
    # The share of the machine that neither the server nor the load used: what else was going on.
    foreign: float

    def as_dict(self) -> dict[str, float]:
        """For a file."""
        return asdict(self)


class Newcomer(threading.Thread):
    """A client that comes while the load runs, and asks once. wrk says nothing of connections that got no answer."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.answered = float("inf")

    def run(self) -> None:
        """Comes when wrk's connections are there."""
        time.sleep(0.2)
        try:
            http.request(self.address, "GET", "/")
        except (OSError, AssertionError):
            return
        self.answered = time.monotonic()

    def starved(self, ended: float) -> int:
        """Whether it had no answer before the load ended; wrk closes its connections some time before it is gone."""
        self.join(10)
        return int(self.answered > ended - CLOSING)


def wrk_command(address: str, path: str, connections: int, seconds: int, close: bool, upload: int, threads: int) -> list[str]:
    """wrk's command line."""
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT)]
    if close:
        command += ["-H", "Connection: close"]
    command += [f"http://{address}{path}"]
    return command + (["--", str(upload)] if upload else [])


def parse(output: str) -> dict[str, int]:
    """The line that load.lua prints."""
    for line in output.splitlines():
        if line.startswith("result "):
            return json.loads(line[len("result ") :])
    raise Failed(f"wrk told nothing:\n{output[-1500:]}")


def run_wrk(running: Running, work: Work, seconds: int) -> tuple[dict[str, int], list[dict[str, int]], float]:
    """Loads a server; what came of the counted page, of those beside it, and wrk's own processor time in seconds."""
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    threads = 2 if work.processes > 1 else 1
    commands = [
        wrk_command(running.address, work.path, work.connections, seconds, work.close, work.upload, threads)
    ]
    if work.beside:
        commands.append(wrk_command(running.address, work.beside[0], work.beside[1], seconds, False, 0, 1))
    before = used()
    loads = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    try:
        outputs = [load.communicate(timeout=seconds + 60)[0] for load in loads]
    finally:
        for load in loads:
            load.kill()
            load.wait()
    first, *rest = (parse(output) for output in outputs)
    return first, rest, used() - before


def requests_of(work: Work, result: dict[str, int]) -> float:
    """How many requests a load stands for. Long answers are counted by their bytes, for parts of them count too."""
    return result["bytes"] / work.size if work.by_bytes and work.size else result["requests"]


def errors_of(result: dict[str, int]) -> int:
    """All kinds of errors together."""
    return sum(result[kind] for kind in ("connect", "read", "write", "status", "timeout"))


def measure(running: Running, work: Work, seconds: int) -> Figures:
    """One round. Raises Failed when the server's answers are wrong."""
    body = b"u" * work.upload if work.upload else None
    begun = time.monotonic()
    for _ in range(WARM_UP):
        running.check(work.path, body, work.size)
        if time.monotonic() - begun > LONG_ENOUGH:
            break
    if work.beside:
        running.check(work.beside[0], None, work.size)
    if work.close:
        running.check_closes(work.path)
    newcomer = Newcomer(running.address)
    cpu, machine = spent(running.pid), busy()
    newcomer.start()
    result, beside, load_cpu = run_wrk(running, work, seconds)
    ended = time.monotonic()
    cpu, machine = spent(running.pid) - cpu, busy() - machine
    took = result["duration"] / 1e6
    counted = requests_of(work, result)
    everything = counted + sum(other["requests"] for other in beside)
    if everything < 1:
        raise Failed(f"{running.server.name}: not one answer in {took:.1f} s\n{running.complaints()}")
    return Figures(
        requests=counted,
        seconds=took,
        rate=counted / took,
        p50=result["p50"],
        p99=result["p99"],
        p100=result["p100"],
        errors=sum(errors_of(one) for one in [result, *beside]),
        starved=newcomer.starved(ended),
        cpu=cpu / everything * 1e6,
        pss=memory(running.pid),
        foreign=max(0.0, machine - cpu - load_cpu) / took,
    )
