"""The goals, one row each, and what a run says of them. Every one is a ratio or a count within one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from measure.charts import number
from measure.results import Results

SOCKET, FRONT = "rwsgi --http-socket", "rwsgi --http"
LONGEST = "longest, ms"
POLL, COST = "master CPU a poll, µs", "cost of ten polls a second to hello, %"


@dataclass(frozen=True)
class Verdict:
    """A goal's figure, and whether it is reached."""

    figure: str
    reached: bool


@dataclass(frozen=True)
class Goal:
    """One goal. `judge` gives None when the run did not measure what it needs."""

    work: str
    wanted: str
    judge: Callable[[Results], Verdict | None]


def peers(results: Results, work: str, figure: str) -> dict[str, float]:
    """What everyone but us and the floor has of a figure. Who failed requests, or left
    a client without an answer for the whole load, competes with nobody."""
    found = {}
    for server in results.rounds.get(work, {}):
        value = results.median(work, server, figure)
        wrong = results.median(work, server, "errors") or results.median(work, server, "starved")
        if value is not None and not wrong and server != "floor" and not server.startswith("rwsgi"):
            found[server] = value
    return found


def at_most(work: str, ours: str, theirs: str, limit: float) -> Callable[[Results], Verdict | None]:
    """Our processor time for each request in terms of another's."""

    def judge(results: Results) -> Verdict | None:
        mine, other = results.median(work, ours, "cpu"), results.median(work, theirs, "cpu")
        if mine is None or other is None:
            return None
        return Verdict(f"{number(mine)} µs, {mine / other:.2f} of {theirs}'s", mine <= limit * other)

    return judge


def times_less(work: str, ours: str, theirs: str, times: float) -> Callable[[Results], Verdict | None]:
    """How many times another's processor time is ours."""

    def judge(results: Results) -> Verdict | None:
        mine, other = results.median(work, ours, "cpu"), results.median(work, theirs, "cpu")
        if mine is None or other is None:
            return None
        return Verdict(f"{other / mine:.2f} times less than {theirs}'s {number(other)} µs", other >= times * mine)

    return judge


def at_most_micros(work: str, ours: str, limit: float) -> Callable[[Results], Verdict | None]:
    """Our processor time for each request, µs."""

    def judge(results: Results) -> Verdict | None:
        mine = results.median(work, ours, "cpu")
        return None if mine is None else Verdict(f"{number(mine)} µs", mine <= limit)

    return judge


def p99_in_each_round(work: str, ours: str, milliseconds: float) -> Callable[[Results], Verdict | None]:
    """Our p99 in the worst round."""

    def judge(results: Results) -> Verdict | None:
        p99 = results.get(work, ours, "p99")
        if p99 is None:
            return None
        told = f"{number(p99.low / 1e3)} to {number(p99.high / 1e3)} ms"
        return Verdict(told, p99.high <= milliseconds * 1e3)

    return judge


def memory_at_most(work: str, ours: str, megabytes: float) -> Callable[[Results], Verdict | None]:
    """PSS of all our processes."""

    def judge(results: Results) -> Verdict | None:
        mine = results.median(work, ours, "pss")
        return None if mine is None else Verdict(f"{mine / 1e6:.1f} MB", mine <= megabytes * 1e6)

    return judge


def best_cpu(work: str, ours: str) -> Callable[[Results], Verdict | None]:
    """Our processor time in terms of the least that a peer needs."""

    def judge(results: Results) -> Verdict | None:
        mine, others = results.median(work, ours, "cpu"), peers(results, work, "cpu")
        if mine is None or not others:
            return None
        best = min(others, key=others.__getitem__)
        return Verdict(f"{number(mine)} µs, {mine / others[best]:.2f} of {best}'s", mine <= others[best])

    return judge


def most_requests(work: str, ours: str) -> Callable[[Results], Verdict | None]:
    """Our requests a second in terms of the best peer's, and our processor time in terms of that same peer's."""

    def judge(results: Results) -> Verdict | None:
        mine, others = results.median(work, ours, "rate"), peers(results, work, "rate")
        if mine is None or not others:
            return None
        best = max(others, key=others.__getitem__)
        cpu, their_cpu = results.median(work, ours, "cpu") or 0, results.median(work, best, "cpu") or 0
        told = f"{number(mine)}/s, {mine / others[best]:.3f} of {best}'s; CPU {cpu / their_cpu:.2f} of its"
        # Requests a second are those of 8 threads that sleep: what is above or below by a percent is the clock.
        return Verdict(told, mine >= 0.99 * others[best] and cpu <= their_cpu)

    return judge


def fast_pages(results: Results) -> Verdict | None:
    """The fast pages of the mixed load beside everyone's, and beside themselves without the slow ones."""
    mine, alone = results.median("mixed", FRONT, "p99"), results.median("mixed-without", FRONT, "p99")
    others = peers(results, "mixed", "p99")
    if mine is None or alone is None or not others:
        return None
    best = min(others, key=others.__getitem__)
    told = f"p99 {number(mine / 1e3)} ms, {mine / alone:.1f} times that without slow pages; best peer "
    return Verdict(f"{told}{best}: {number(others[best] / 1e3)} ms", mine <= others[best] and mine <= 5 * alone)


def behind_nginx(results: Results) -> Verdict | None:
    """Django behind nginx."""
    rows = {(row["server"], row["way"]): row for row in results.special.get("nginx", [])}
    told, reached = [], True
    for way in ("unix", "TCP"):
        mine, theirs = rows.get(("rwsgi", way)), rows.get(("uwsgi", way))
        if mine is None or theirs is None:
            return None
        reached &= not mine["failed"] and mine[LONGEST] <= theirs[LONGEST]
        told.append(f"{way}: {mine['failed']} failed, longest {mine[LONGEST]} ms (uwsgi {theirs[LONGEST]} ms)")
    return Verdict("; ".join(told), bool(reached))


def reloads(results: Results) -> Verdict | None:
    """Reloads under load, of both sockets."""
    rows = results.special.get("reload", [])
    if not rows:
        return None
    told, reached = [], True
    for row in rows:
        more = row["longest reloading, ms"] - row[LONGEST]
        reached &= not row["errors"] and more <= 50
        told.append(f"{row['server']}: {row['errors']} failed, longest {more:+.0f} ms, {row['reloads']} reloads")
    return Verdict("; ".join(told), bool(reached))


def django_memory(limit: float) -> Callable[[Results], Verdict | None]:
    """PSS of four workers in terms of uWSGI's."""

    def judge(results: Results) -> Verdict | None:
        rows = [results.row("django-memory", server=server) for server in (SOCKET, "uwsgi --http-socket")]
        if None in rows:
            return None
        ours, other = (float(row["PSS, MB"]) for row in rows if row)
        return Verdict(f"{ours:.1f} MB, {ours / other:.2f} of uwsgi's", ours <= limit * other)

    return judge


def polls(results: Results) -> Verdict | None:
    """What a stats poll costs the master, and polls cost hello."""
    row = (results.special.get("polls") or [None])[0]
    if row is None:
        return None
    told = f"{row[POLL]:.0f} µs of master CPU; ten a second cost hello {row[COST]:+.2f}% CPU"
    return Verdict(told, row[POLL] <= 1000 and row[COST] < 1)


def idle(results: Results) -> Verdict | None:
    """Memory of idle connections."""
    rows = [row for row in results.special.get("idle", []) if str(row["server"]).startswith("rwsgi")]
    if not rows:
        return None
    told = "; ".join(f"{row['server']}: {row['bytes each']:.0f} bytes each, {row['served on']} served on" for row in rows)
    return Verdict(told, all(row["bytes each"] <= 2048 and row["served on"] == row["wanted"] for row in rows))


def starts(limit: float) -> Callable[[Results], Verdict | None]:
    """Time from exec to the first answer, ms."""

    def judge(results: Results) -> Verdict | None:
        row = results.row("start", server=SOCKET)
        return None if row is None else Verdict(f"{row['median, ms']:.0f} ms", float(row["median, ms"]) <= limit)

    return judge


def spooled(figure: str, unit: str, good: Callable[[float], bool]) -> Callable[[Results], Verdict | None]:
    """One figure of the spooler."""

    def judge(results: Results) -> Verdict | None:
        row = results.row("spooler", server=SOCKET)
        return None if row is None or figure not in row else Verdict(f"{number(float(row[figure]))}{unit}", good(float(row[figure])))

    return judge


UWSGI = "uwsgi --http-socket"

GOALS = [
    Goal("hello, keep-alive, `--http-socket`", "CPU/request at most bjoern's", at_most("hello", SOCKET, "bjoern", 1)),
    Goal("", "at most 1.3 of the floor", at_most("hello", SOCKET, "floor", 1.3)),
    Goal("", "at least 3.5 times less than uWSGI's", times_less("hello", SOCKET, UWSGI, 3.5)),
    Goal("", "memory of all processes at most 12 MB", memory_at_most("hello", SOCKET, 12)),
    Goal("hello through `--http`", "at most 1.5 of granian's", at_most("hello", FRONT, "granian", 1.5)),
    Goal("", "at least 3 times less than uWSGI `--http`'s", times_less("hello", FRONT, "uwsgi --http", 3)),
    Goal("", "2 processes: p99 at most 5 ms in each round", p99_in_each_round("hello-2", FRONT, 5)),
    Goal("a connection for each request", "at most uWSGI's", at_most("hello-close", SOCKET, UWSGI, 1)),
    Goal("Flask page", "at most bjoern's", at_most("flask", SOCKET, "bjoern", 1)),
    Goal("10 ms waits, 8 threads", "at least the best peer's requests/s, at most its CPU", most_requests("wait", SOCKET)),
    Goal("10 kB response", "at most the best peer's CPU", best_cpu("10kB", SOCKET)),
    Goal("", "through `--http`: at most granian's", at_most("10kB", FRONT, "granian", 1)),
    Goal("1 MB response", "at most the best peer's CPU", best_cpu("1MB", SOCKET)),
    Goal("", "through `--http`: at most 1.3 of direct", at_most("1MB", FRONT, SOCKET, 1.3)),
    Goal("1 MB upload", "at most the best peer's CPU", best_cpu("upload-1MB", SOCKET)),
    Goal("", "through `--http`: at most 1.5 of direct", at_most("upload-1MB", FRONT, SOCKET, 1.5)),
    Goal("100 MB file", "through `--http`: at most 1.1 of direct", at_most("file", FRONT, SOCKET, 1.1)),
    Goal("1,000 chunks of 100 bytes", "at most 1,000 µs", at_most_micros("stream", SOCKET, 1000)),
    Goal("", "through `--http`: at most 1,300 µs", at_most_micros("stream", FRONT, 1300)),
    Goal("mixed, through `--http`", "p99 of fast pages the lowest, at most 5 times theirs without slow ones", fast_pages),
    Goal("mixed, `--http-socket`", "p99 of fast pages at most 5 ms in each round", p99_in_each_round("mixed", SOCKET, 5)),
    Goal("Django behind nginx, 10,000 at 1,000 at once", "no failures; longest at most tuned uWSGI's", behind_nginx),
    Goal("reload each second under load", "no failures; longest at most 50 ms more", reloads),
    Goal("4 Django workers", "PSS at most uWSGI's", django_memory(1)),
    Goal("", "at most half of uWSGI's", django_memory(0.5)),
    Goal("stats poll, 64 workers of 2 threads", "at most 1 ms; ten a second cost hello less than 1%", polls),
    Goal("10,000 idle connections", "served on, at most 2 kB each", idle),
    Goal("start, hello app", "within 100 ms of exec", starts(100)),
    Goal("", "within 40 ms", starts(40)),
    Goal("spooler", "an empty job: at most 26 µs", spooled("CPU/job run, µs", " µs", lambda micros: micros <= 26)),
    Goal("", "the same in tmpfs", spooled("CPU/job run in tmpfs, µs", " µs", lambda micros: micros <= 26)),
    Goal("", "10,000 jobs queued a second, synced", spooled("queued/s", "/s", lambda rate: rate >= 10_000)),
]
