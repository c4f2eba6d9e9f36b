"""docs/find-it.md: each fault of `examples/shop` is found with rtop, on its screen and by its JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from rig.addresses import tcp
from rig.server import environment
from rig.waiting import DEADLINE, until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI does not tell what its threads execute")

SHOP = Path(__file__).resolve().parent.parent / "examples" / "shop"


class Shop:
    """The shop under a load that brings out one of its faults, and rtop."""

    def __init__(self, serve, rtop, terminal, directory) -> None:
        self.address, self.stats, self.rtop, self.terminal = tcp(), tcp(), rtop, terminal
        serve(
            "--http", self.address, "--chdir", SHOP, "--wsgi-file", "app.py", "--processes", 2, "--threads", 2,
            "--stats", self.stats, "--control", directory / "control.sock", "--worker-reload-mercy", 3,
        )

    @contextmanager
    def under(self, fault: str):
        """While this fault's load runs."""
        # It is killed at the end: for longer than all that a test waits for.
        command = [sys.executable, SHOP / "load.py", self.address, fault, str(10 * DEADLINE)]
        load = subprocess.Popen(command, env=environment("shop"))
        try:
            yield
        finally:
            load.kill()
            load.wait()

    def screen(self):
        """rtop in a terminal, with a sample."""
        monitor = self.terminal([self.rtop, self.stats, "--frequency", "0.5"], columns=120, rows=40)
        monitor.wait("WID")
        return monitor

    def told(self, *arguments: object) -> dict:
        """What rtop prints as JSON; empty while it has nothing to tell."""
        command = [self.rtop, self.stats, *map(str, arguments), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}


@pytest.fixture
def shop(serve, rtop, terminal, tmp_path):
    return Shop(serve, rtop, terminal, tmp_path)


def test_a_slow_query(shop):
    with shop.under("slow-query"):
        monitor = shop.screen()
        monitor.press("u")
        # The routes are sorted by their share of the time.
        monitor.wait_for(lambda text: "/orders/{}" in text and text.index("/orders/{}") < text.index("/products/{}"), "orders first")
        monitor.press("u", "P")
        monitor.wait("for how many seconds?")
        monitor.press("BSpace", "BSpace", "2", "Enter")
        monitor.wait("% of busy threads are in show (orders.py:")

        # In one second there may be no request that ends, or none that is slow.
        def is_told() -> bool:
            routes = shop.told("-n", 2)["routes"]
            return bool(routes) and max(routes, key=lambda route: route["share"] or 0)["route"] == "/orders/{}"

        def is_hottest() -> bool:
            hottest = shop.told("--profile", "1s")["hottest"]
            return hottest and (hottest["file"], hottest["function"]) == (str(SHOP / "shop" / "orders.py"), "show")

        until(is_told, "orders have the largest share")
        until(is_hottest, "the query is the hottest function")


def test_a_leak(shop):
    with shop.under("leak"):
        monitor = shop.screen()
        monitor.press("u")
        monitor.wait("/login/")
        monitor.press("u")
        monitor.wait("WID")
        monitor.press("j", "m")
        monitor.wait("memory of worker", "resident (rss)")
        monitor.press("t")
        monitor.wait("enter does it")
        monitor.press("Enter")
        monitor.wait("shop.sessions.Session")
        shop.told("--memory", "types", "--worker", 1)

        def grown() -> bool:
            rows = shop.told("--memory", "types", "--worker", 1)["rows"]
            return any(row["name"] == "shop.sessions.Session" and row["count_growth"] > 0 for row in rows[:10])

        until(grown, "sessions among the types that grow")


def test_a_computation_that_holds_the_global_lock(shop):
    with shop.under("gil-hog"):
        monitor = shop.screen()
        monitor.press("P")
        monitor.wait("for how many seconds?")
        monitor.press("BSpace", "BSpace", "2", "Enter")
        monitor.wait("% of busy threads are in is_prime (reports.py:", "gil")

        def is_told() -> bool:
            told = shop.told("--profile", "1s")
            return told["hottest"] and told["hottest"]["function"] == "is_prime" and told["states"]["gil"] > 0

        until(is_told, "the computation is the hottest function")


def test_a_lock_that_is_never_released(shop):
    with shop.under("stuck-lock"):
        monitor = shop.screen()
        monitor.press("b")
        monitor.wait("waiting for a lock", "GET /invoices/", "shop/invoices.py:")

        # A thread that gets no processor answers with no stack.
        def locked() -> list[dict]:
            return [thread for thread in shop.told("--stacks")["threads"] if thread["state"] == "lock" and thread["frames"]]

        thread = until(locked, "a stack of a thread that waits for the lock")[0]
        assert thread["frames"][0]["file"] == str(SHOP / "shop" / "invoices.py")
        assert thread["request"].startswith("GET /invoices/")


def test_nothing_is_found_where_nothing_is_wrong(shop):
    with shop.under("none"):
        assert shop.told("-n", 3)["findings"] == []
