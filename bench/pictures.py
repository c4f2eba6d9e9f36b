#!/usr/bin/env python3
"""Makes the pictures of docs/find-it.md: rtop in a real terminal, on the shop of examples/ under each of its faults.

    bench/pictures.py [FAULT ...]      needs rwsgi and rtop in PATH, tmux, and rich (pip install rich)

Each picture is what the terminal shows once it has the texts that the guide speaks of.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]
sys.dont_write_bytecode = True

from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402
from rig.addresses import tcp  # noqa: E402
from rig.terminal import Terminal  # noqa: E402
from rig.waiting import until  # noqa: E402

SHOP = ROOT / "examples" / "shop"
PICTURES = ROOT / "docs" / "find-it"
COLUMNS, ROWS = 110, 26
# Seconds for one picture. Generous: it bounds a failure.
DEADLINE = 120


@dataclass(frozen=True)
class Picture:
    """What leads to a picture: keys, each with what has to be on the screen after it."""

    name: str
    fault: str
    steps: tuple[tuple[tuple[str, ...], str], ...]


PROFILE = (("P",), "for how many seconds"), (("Enter",), "% of busy threads are in")
ALL = [
    Picture("slow-query-routes", "slow-query", (((), "of the time"), (("u",), "ROUTE"))),
    Picture("slow-query-profile", "slow-query", (((), "WID"), *PROFILE)),
    Picture(
        "leak-memory",
        "leak",
        (
            *(((), "WID"), (("u",), "/login/"), (("u",), "WID"), (("j", "m"), "resident (rss)")),
            *((("t",), "enter does it"), (("Enter",), "shop.sessions.Session")),
            *((("Escape",), "WID"), (("m",), "resident (rss)")),
            *((("t",), "enter does it"), (("Enter",), "growth is since they were counted last")),
        ),
    ),
    Picture("gil-hog-profile", "gil-hog", (((), "of the time"), *PROFILE)),
    Picture("stuck-lock-stacks", "stuck-lock", (((), "a request has run for"), (("b",), "waiting for a lock"))),
]


def take(picture: Picture) -> None:
    """Makes one picture."""
    address, stats = tcp(), tcp()
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            [
                *("rwsgi", "--http", address, "--chdir", SHOP, "--wsgi-file", "app.py", "--processes", "2", "--threads", "2"),
                *("--stats", stats, "--control", f"{directory}/control.sock", "--worker-reload-mercy", "3"),
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        load = screen = None
        try:
            ready = [sys.executable, ROOT / "examples" / "demo_load.py", "--ready", address]
            until(lambda: subprocess.run(ready, check=False).returncode == 0, "the shop answers", DEADLINE)
            load = subprocess.Popen([sys.executable, SHOP / "load.py", address, picture.fault, str(DEADLINE)])
            screen = Terminal(["rtop", stats, "--frequency", "1"], Path(directory), columns=COLUMNS, rows=ROWS)
            for keys, text in picture.steps:
                if keys:
                    screen.press(*keys)
                until(lambda text=text: text in screen.screen(), f"'{text}' on the screen", DEADLINE, screen.screen)
            console = Console(record=True, width=COLUMNS, file=io.StringIO())
            # Where the shop happens to be is nobody's concern.
            shown = screen.colours().replace(str(SHOP), "/srv/shop")
            console.print(Text.from_ansi(shown), end="", soft_wrap=True)
            PICTURES.mkdir(exist_ok=True)
            console.save_svg(str(PICTURES / f"{picture.name}.svg"), title=f"rtop: {picture.fault}")
            print(f"{picture.name}: made")
        finally:
            if screen:
                screen.close()
            for process in (load, server):
                if process:
                    process.terminate()
                    process.wait()


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for one in ALL:
        if not wanted or one.fault in wanted:
            take(one)
