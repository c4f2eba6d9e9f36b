#!/usr/bin/env python3
"""How costs grow with numbers that few have tried: connections, workers, threads, lines of a configuration, vassals, jobs.

    bench/growth.py                       everything, some 15 minutes; writes docs/growth.md and docs/growth/
    bench/growth.py --only workers,jobs   only these; the others stay as the last run left them
    bench/growth.py --only ""             measures nothing, and writes the page of what is known
    bench/growth.py --smoke --out DIR     small numbers: whether the script itself works

Measures one server at sizes that double, and fits the power of the size with which each cost grows: 1 is linear, and what is over
1.2 is named. Only on loopback, and bounded in time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]
sys.dont_write_bytecode = True

from measure import ground  # noqa: E402
from measure.growing import DIMENSIONS, Bench  # noqa: E402
from measure.growth import Cost, by_dimension, chart, table  # noqa: E402
from measure.holders import most  # noqa: E402

HEAD = """# How costs grow

What {names} cost, at numbers that double. To measure yours:

<!-- not run: it runs for minutes -->

    bench/growth.py

A cost that is proportional to the number has slope 1, one that does not depend on it 0, one that is quadratic 2. A slope is the
median over all pairs of sizes, on logarithmic axes; *of the last three* leaves out the small numbers, where what is paid once
hides the growth. *Spread* is how far a round lies from the median of its size, at most. A row whose spread is over 20 % says little
about small differences, but a quadratic cost would show: it is sixteen times the linear one at the largest number.

{machine}

{note}

## What was found by this

One measurement of each before and after, on a busy machine. Starts in the table of lines end where the build that was measured could
not start yet; connections on `--http-socket` were measured before all of it, which does not concern them.

| what | at | before | after |
| --- | --- | ---: | ---: |
| emperor, a scan each second: each file was compared with each vassal | 1,000 vassals | 8.2 ms | 4.3 ms |
| its slope from 500 to 1,000 |  | 1.55 | 0.9 |
| master, a reload: for each start all slots were compared with all processes; pages of slots were given back, at which the kernel visits each worker | 512 workers | 806 ms | 425 ms |
| master, the start | 512 workers | 356 ms | 269 ms |
| http router, a request: all workers were compared with each other | 1,000 workers | 28 µs | 23 µs |
| a start with 5,000 rules or more: a packet could not hold the configuration | 10,000 rules | none | serves |

Not mended:

- A poll of the stats and a scrape grow with the power 1.3 of the workers: a worker costs 6 µs with 64 workers and 7 to 10 µs with
  1,024. No loop in a loop is known there. It may be the caches: a worker's numbers are some pages of memory, and those of 1,024
  workers are more than the caches hold. That was not proven.
- Rules cost a request 80 ns each, for they are evaluated one after another, as in uWSGI. Put those that end the routing first.
- The memory of connections has slope 1.36 at the small numbers, where memory that is there already serves some; from 25,000 on it
  is linear, about 500 bytes each.
- That all requests find no free thread, and that a client leaves while it waits in the router's queue, has the router look through
  its links, or its queue: that is linear for each such request, and bounded by `threads` and `listen`.
"""


def file_of(dimension: str) -> str:
    """The name of its chart."""
    words = "".join(letter if letter.isalnum() else " " for letter in dimension.lower()).split()
    return "-".join(words) + ".svg"


def page(costs: list[Cost], header: dict[str, str], note: str) -> str:
    """docs/growth.md."""
    dimensions = by_dimension(costs)
    machine = "\n".join(f"- {name}: {header[name]}" for name in ("measured", "machine", "kernel", "Python", "rwsgi"))
    names = ", ".join(dict.fromkeys(group[0].size for group in dimensions.values()))
    parts = [HEAD.format(names=names, machine=machine, note=note)]
    for name, group in dimensions.items():
        parts.append(f"## {name}\n\n![{name}](growth/{file_of(name)})\n\n{table(group)}")
    return "\n".join(parts).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(sys.executable).parent
    parser.add_argument("--rwsgi", type=Path, default=beside / "rwsgi")
    parser.add_argument("--rtop", type=Path, default=beside / "rtop", help="left out where there is none")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="where growth.md and growth/ go")
    parser.add_argument("--only", default=",".join(DIMENSIONS), help="of: %(default)s")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    results = ROOT / "target" / "bench" / ("growth-smoke.json" if options.smoke else "growth.json")
    kept = json.loads(results.read_text()) if results.exists() and not options.smoke else {}
    header = ground.header(beside.parent, options.rwsgi, {}, given=True)
    for name in filter(None, options.only.split(",")):
        print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
        costs: list[Cost] = []
        with tempfile.TemporaryDirectory() as room:
            say = lambda text: print(f"{time.strftime('%H:%M:%S')}   {text}", file=sys.stderr, flush=True)  # noqa: E731
            rtop = str(options.rtop) if options.rtop.exists() else None
            DIMENSIONS[name](Bench(str(options.rwsgi), rtop, Path(room), options.smoke, costs, say))
        kept[name] = [asdict(cost) for cost in costs]
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps(kept, indent=1))
    all_costs = [Cost(**cost) for name in DIMENSIONS for cost in kept.get(name, [])]
    charts = options.out / "growth"
    charts.mkdir(parents=True, exist_ok=True)
    for dimension, group in by_dimension(all_costs).items():
        (charts / file_of(dimension)).write_text(chart(dimension, group))
    note = f"A process may have {most():,} descriptors here, which bounds the connections of one process."
    (options.out / "growth.md").write_text(page(all_costs, header, note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
