"""The command line: runs many cases, or one case again."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rig.server import Program, Servers

from . import reading
from .campaign import Campaign
from .site import KINDS, Site
from .mutate import case


def main() -> int:
    """The command line; the status is 1 when a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what all is derived from (default: 1)")
    parser.add_argument("--count", type=int, default=10_000, help="how many cases (default: 10000)")
    parser.add_argument("--first", type=int, default=0, help="the first case's number (default: 0)")
    parser.add_argument("--for", type=float, dest="seconds", help="stop after so many seconds, whatever --count says")
    parser.add_argument("--socket", choices=[*KINDS, "all"], default="all", help="the kind of socket (default: all)")
    parser.add_argument("--case", type=int, help="run this case alone, and show it")
    parser.add_argument("--server", default=shutil.which("rwsgi"), help="the server (default: rwsgi in PATH)")
    parser.add_argument("--keep", type=Path, default=Path("target/fuzz"), help="where the bytes of a fault are written")
    arguments = parser.parse_args()
    if arguments.server is None:
        parser.error("there is no rwsgi in PATH; give --server")
    kinds = KINDS if arguments.socket == "all" else (arguments.socket,)
    arguments.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rwsgi-fuzz-") as directory:
        servers = Servers(Program(arguments.server), Path(directory))
        try:
            site = Site(servers, Path(directory))
            if arguments.case is not None:
                return _one(site, arguments.seed, arguments.case, kinds)
            return _many(site, arguments, kinds)
        finally:
            servers.stop_all()


def _many(site: Site, arguments: argparse.Namespace, kinds: tuple[str, ...]) -> int:
    begun = time.monotonic()
    campaign = Campaign(site, arguments.seed, kinds, arguments.keep)
    # Ctrl-C ends it with a report.
    signal.signal(signal.SIGINT, lambda *_: campaign.stop())
    report = campaign.run(arguments.first, arguments.count, arguments.seconds)
    print(f"seed {arguments.seed}, cases {dict(report.cases)} in {time.monotonic() - begun:.0f} s")
    print(f"answers {report.served} served, {report.refused} refused; ", end="")
    print(f"{report.innocent} innocent requests, the slowest {report.slowest * 1000:.0f} ms")
    for cases, look in report.looks:
        print(f"after {cases:>9} cases: {look}")
    for fault in report.faults[:10]:
        print(f"\nFAULT {fault}")
    return 1 if report.faults else 0


def _one(site: Site, seed: int, number: int, kinds: tuple[str, ...]) -> int:
    from . import oracle

    status = 0
    for listener in (site.listeners[kind] for kind in kinds):
        one = case(seed, number, listener.protocol)
        meaning = (reading.http if listener.protocol == "http" else reading.uwsgi)(one.stream)
        outcome = listener.exchange(one, meaning)
        fault = oracle.fault(one, listener.kind, meaning, outcome)
        print(f"== {listener.kind}\n{one}\n{meaning}\n{outcome}\n{fault or 'as it should be'}")
        status |= fault is not None
    print(site.server.log())
    return status


if __name__ == "__main__":
    sys.exit(main())
