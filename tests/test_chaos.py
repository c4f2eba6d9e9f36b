"""The short form of the chaos run: every event of the table at least once on each socket, and the oracle that judges."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from chaos import events, oracle, run
from chaos.clients import Attempt, Outcome
from chaos.events import Event
from chaos.ledger import Excuse, Kill, Ledger, Loss
from chaos.oracle import Counted, Record
from rig import processes
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="it tells what only our stats document tells")

# Any will do; the same one shows the same sequence again.
SEED = 20


# Much happens in it, and a busy machine takes its time for that.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("socket_kind", ["http", "http-socket", "socket"])
def test_nothing_is_lost_but_what_killed_processes_held(program, tmp_path, socket_kind):
    one = run.Run(program, tmp_path, socket_kind, SEED)
    possible = [event.name for event in events.EVENTS if event.possible(one.site)]
    report = one.go(lambda done: done < len(possible))
    assert sorted(report.events) == sorted(possible)
    assert report.right > 100 * len(possible) / 4


def test_the_same_seed_is_the_same_sequence(tmp_path):
    class Everything:
        socket_kind, small_disks, clock_moves = "http", True, tmp_path

    def names(seed: int) -> list[str]:
        drawn = events.sequence(seed, Everything)
        return [f"{event.name} {chance.random()}" for event, chance in (next(drawn) for _ in range(60))]

    assert names(3) == names(3) != names(4)


@pytest.mark.parametrize("socket_kind", ["http", "http-socket"])
def test_a_kill_that_no_row_tells_of_is_a_fault_with_its_seed_and_its_events(
    program, tmp_path, monkeypatch, socket_kind
):
    def unnoticed(stage):
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(stage.ask, "/hang")
            holder = until(lambda: Record.parse(stage.site.record.read_text()).begun.get(stage.number), "it has begun")
            processes.kill(holder)
            stage.ledger.others.append(asked.result())

    monkeypatch.setattr(events, "EVENTS", [Event("unnoticed", unnoticed)])
    with pytest.raises(run.Fault, match=r"(?s)seed 5, --http.*0: unnoticed.*wrong:.*which was not killed"):
        run.Run(program, tmp_path, socket_kind, 5).go(lambda done: done < 1)


def test_an_event_that_kills_more_than_its_row_says_is_a_fault(program, tmp_path, monkeypatch):
    monkeypatch.setattr(
        events,
        "EVENTS",
        [Event("mislabelled", lambda stage: stage.kill("spooler", stage.one("spooler")), Loss.NOTHING)],
    )
    with pytest.raises(run.Fault, match="its row says that it costs nothing"):
        run.Run(program, tmp_path, "http-socket", 5).go(lambda done: done < 1)


# The oracle itself, on what nobody has to wait for.

WORKER, OTHER, ROUTER = 10, 11, 20


def attempt(number: str = "a", outcome: Outcome = Outcome.LOST, **more) -> Attempt:
    fields = {"kind": "hello", "uses_disk": False, "begun": 5.0, "idle_since": 5.0, "ended": 6.0, **more}
    return Attempt(number, outcome=outcome, **fields)


def record(**begun: int) -> Record:
    found = Record(begun=dict(begun))
    found.job_begun, found.job_done = defaultdict(list), defaultdict(list)
    return found


def killed(what: str, pid: int, before: float = 5.4, after: float = 5.6) -> Ledger:
    return Ledger(kills=[Kill(what, pid, before, after)])


NOTHING = Ledger()


@pytest.mark.parametrize(
    ("others", "begun", "ledger", "socket_kind", "faults"),
    [
        # What a killed worker held is lost with it.
        ([attempt()], {"a": WORKER}, killed("worker", WORKER), "http", 0),
        ([attempt()], {"a": WORKER}, killed("worker", WORKER), "http-socket", 0),
        # What another held is not.
        ([attempt()], {"a": OTHER}, killed("worker", WORKER, 7.0, 7.1), "http-socket", 1),
        ([attempt()], {"a": OTHER}, NOTHING, "http", 1),
        ([attempt()], {}, NOTHING, "http", 1),
        # Behind the router a worker has as many as it has threads; on its own socket, all that it has accepted.
        ([attempt(n) for n in "abc"], {"a": WORKER, "b": WORKER}, killed("worker", WORKER), "http", 1),
        ([attempt(n) for n in "abc"], {"a": WORKER, "b": WORKER}, killed("worker", WORKER), "http-socket", 0),
        # What passed a killed router is lost, and only what did.
        ([attempt()], {"a": WORKER}, killed("http", ROUTER), "http", 0),
        ([attempt()], {"a": WORKER}, killed("http", ROUTER, 7.0, 7.1), "http", 1),
        # A worker that leaves may close an idle connection as a request comes; a router has no reason to.
        ([attempt(reused=True, silent=True)], {}, NOTHING, "http-socket", 0),
        ([attempt(reused=True, silent=True)], {"a": WORKER}, NOTHING, "http-socket", 1),
        ([attempt(reused=True, silent=True)], {}, NOTHING, "http", 1),
        # Nothing excuses a wrong answer or none.
        ([attempt(outcome=Outcome.WRONG)], {"a": WORKER}, killed("worker", WORKER), "http", 1),
        ([attempt(outcome=Outcome.HUNG)], {"a": WORKER}, killed("http", ROUTER), "http", 1),
        # A refusal is right while the disk is full, for what needs it.
        (
            [attempt(outcome=Outcome.REFUSED, status=503, uses_disk=True)],
            {},
            Ledger(excuses=[Excuse(5.5, 9.0)]),
            "http",
            0,
        ),
        (
            [attempt(outcome=Outcome.REFUSED, status=503, uses_disk=True)],
            {},
            Ledger(excuses=[Excuse(6.5, 9.0)]),
            "http",
            1,
        ),
        ([attempt(outcome=Outcome.REFUSED, status=503)], {}, Ledger(excuses=[Excuse(5.5, 9.0)]), "http", 1),
        ([attempt(outcome=Outcome.LEFT)], {}, NOTHING, "http", 0),
    ],
)
def test_the_oracle_knows_what_may_be_lost(others, begun, ledger, socket_kind, faults):
    assert len(oracle.requests(others, record(**begun), ledger, socket_kind, threads=2)) == faults


@pytest.mark.parametrize(
    ("requests", "latencies", "ledger", "faults"),
    [
        (3, 3, NOTHING, 0),
        (2, 2, NOTHING, 1),
        (4, 4, NOTHING, 1),
        (3, 2, NOTHING, 1),
        (1, 1, killed("worker", WORKER), 0),
        (0, 0, killed("worker", WORKER), 1),
    ],
)
def test_the_oracle_counts(requests, latencies, ledger, faults):
    counted = Counted(requests, latencies, requests)
    assert len(oracle.counts([], record(a=1, b=2, c=1), counted, ledger, threads=2)) == faults


def test_the_oracle_knows_each_job():
    text = "begin j 1\nqueued j\njob-begin j 5\n"
    done = text + "job-end j 5\n"
    assert oracle.jobs(Record.parse(done), NOTHING) == []
    assert oracle.jobs(Record.parse(text), NOTHING) == ["job j was queued and never done"]
    again = done + "job-begin j 6\njob-end j 6\n"
    assert len(oracle.jobs(Record.parse(again), NOTHING)) == 1
    assert oracle.jobs(Record.parse(again), killed("spooler", 5)) == []
    assert len(oracle.jobs(Record.parse(again), killed("spooler", 6))) == 1
    assert oracle.jobs(Record.parse("job-begin j 5\njob-end j 5\n"), NOTHING) == [
        "job j was run, and no request queued it"
    ]


def test_the_oracle_sees_a_request_that_ran_twice():
    assert oracle.requests([], Record.parse("begin a 1\nbegin a 2\n"), NOTHING, "http", 2)
