"""The command line: `python -m tests.chaos --seed 7 --events 100 --socket http`."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rig.server import Program  # noqa: E402

from .run import Fault, Run  # noqa: E402

SOCKET_KINDS = ["http", "http-socket", "socket"]
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def duration(text: str) -> float:
    """Seconds of `90s`, `20m`, `2h`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no duration: write 90s, 20m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.chaos", description="Load while things happen to the server at random."
    )
    parser.add_argument("--seed", type=int, help="the same seed, the same events (default: another each time)")
    parser.add_argument("--events", type=int, default=100, metavar="N", help="how many events (default: %(default)s)")
    parser.add_argument(
        "--for", type=duration, dest="seconds", metavar="TIME", help="for so long instead: 90s, 20m, 2h"
    )
    parser.add_argument(
        "--socket",
        choices=SOCKET_KINDS,
        action="append",
        help="the socket that clients use; may be repeated (default: all)",
    )
    parser.add_argument(
        "--server", default=shutil.which("rwsgi") or os.path.join(sys.prefix, "bin/rwsgi"), help="default: %(default)s"
    )
    parser.add_argument("--keep", action="store_true", help="leave the run's directory, which its first line names")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else secrets.randbelow(1 << 32)
    failed = 0
    for socket_kind in args.socket or SOCKET_KINDS:
        place = Path(tempfile.mkdtemp(prefix="chaos-"))
        print(f"--seed {seed} --socket {socket_kind}, in {place}", flush=True)
        end = time.monotonic() + (args.seconds or 0)
        more = (lambda done: time.monotonic() < end) if args.seconds else (lambda done: done < args.events)
        try:
            print(
                Run(Program(args.server), place, socket_kind, seed, say=lambda text: print(text, flush=True)).go(more),
                flush=True,
            )
        except Fault as fault:
            failed += 1
            print(fault, flush=True)
        finally:
            if not args.keep:
                shutil.rmtree(place, ignore_errors=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
