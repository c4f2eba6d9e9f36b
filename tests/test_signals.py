"""docs/signals.md: its tables, tried on running servers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from rig import http, processes
from rig.addresses import tcp
from rig.server import Server
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI's processes act otherwise")

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "signals.md").read_text()


def table(name: str) -> list[list[str]]:
    """The cells of the rows of a table of the page, without the two lines of its head."""
    text = re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", PAGE, re.DOTALL)[1]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[:1] + lines[2:]]


def first_words(name: str) -> list[str]:
    """What the first column has between backquotes, each cut at a blank."""
    return [span.split()[0] for row in table(name)[1:] for span in re.findall(r"`([^`]+)`", row[0])]


# How each process is called, with auto-procname.
TITLES = {"worker": "rwsgi worker 1", "http router": "rwsgi http 1", "fork server": "rwsgi forkserver", "mule": "rwsgi mule 1", "spooler": "rwsgi spooler 1"}


@pytest.fixture(scope="module")
def all_kinds(serve_module, tmp_path_factory) -> Server:
    """A server with a process of each kind."""
    directory = tmp_path_factory.mktemp("spool")
    return serve_module(
        *("--http", tcp(), "--wsgi-file", "foobar.py", "--processes", 1, "--mule", "--spooler", directory, "--auto-procname", "--stats", tcp()),
    )


def the(server: Server, kind: str) -> int | None:
    """The process of a kind, when there is one, and it alone."""
    found = [process.pid for process in server.processes() if process.command.startswith(TITLES[kind])]
    return found[0] if len(found) == 1 else None


def handles(pid: int, number: int) -> set[str]:
    """What the process does about the signal: blocks (`Blk`), ignores (`Ign`) or handles it (`Cgt`)."""
    masks = re.findall(r"^Sig(Blk|Ign|Cgt):\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return {name for name, mask in masks if int(mask, 16) >> (number - 1) & 1}


@pytest.mark.parametrize("kind", TITLES)
def test_signals_to_other_processes(all_kinds, kind):
    head, *rows = table("processes")
    # Of two in one column each other kind of process gets the other one.
    turn = list(TITLES).index(kind)
    signals = [names[turn % len(names)] for names in (re.findall("`(.*?)`", cell) for cell in head[1:])]
    (meanings,) = [row[1:] for row in rows if row[0] == kind]
    assert len(rows) == len(TITLES)
    for name, meaning in zip(signals, meanings):
        number = getattr(signal, name)
        for each in TITLES:
            until(lambda each=each: the(all_kinds, each), f"one {each}", context=all_kinds.log)
        assert http.get(all_kinds.listens[0], "/").status == 200
        pid = until(lambda: the(all_kinds, kind), f"one {kind}", context=all_kinds.log)
        if kind == "fork server":
            all_kinds.logged(rf"\(pid {pid}\): loaded")
        if meaning != "dies":
            until(lambda: number == signal.SIGWINCH or handles(pid, number), f"{kind} has begun", context=all_kinds.log)
        os.kill(pid, number)
        if meaning == "nothing":
            # It has taken the signal when it is not pending any more, and would be gone then.
            until(lambda: "0000000000000000" in re.search("^ShdPnd:.*", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[0], "it is taken")
            assert http.get(all_kinds.listens[0], "/").status == 200
            assert processes.alive(pid), f"{name} to {kind}"
            continue
        until(lambda: not processes.alive(pid), f"{kind} is gone by {name}", context=all_kinds.log)
        (line, *_) = all_kinds.logged(rf".*\(pid {pid}\) (?:died|has left).*")
        assert (f"killed by signal {int(number)}" in line[0]) == (meaning == "dies"), line[0]


def test_the_letters_of_the_fifo(serve, address, tmp_path):
    fifo = tmp_path / "fifo"
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py", "--master-fifo", fifo, "--pidfile", tmp_path / "pid", "--logto", tmp_path / "log")
    log = lambda: (tmp_path / "log").read_text()  # noqa: E731
    assert http.get(address, "/").status == 200
    fifo.write_text("z")
    until(lambda: "'z' is no order" in log(), "it says which there are", context=log)
    known = re.search("they are (.*)", log())[1].split()
    assert sorted(first_words("fifo")) == sorted(known)
    (tmp_path / "pid").unlink()
    fifo.write_text("P")
    until((tmp_path / "pid").exists, "the pidfile is there again")
    (tmp_path / "log").rename(tmp_path / "log.1")
    fifo.write_text("l")
    until((tmp_path / "log").exists, "the log is there again")
    fifo.write_text("s")
    until(lambda: re.search(r"worker 1 .* \d+ requests", log()), "what the workers do", context=log)
    before = len(log())
    fifo.write_text("t")
    until(lambda: "thread 0" in log()[before:], "what the threads do", context=log)
    for place, letter in enumerate("rRwWLc", 2):
        fifo.write_text(letter)
        until(lambda place=place: f"generation {place} takes over" in log(), f"{letter} reloads", context=log)
    fifo.write_text("Q")
    assert server.wait_exit() == 0


def test_the_words_of_ctl(program):
    told = subprocess.run([program.path, "ctl", "--help"], capture_output=True, text=True, check=True).stdout
    commands = re.search(r"^Commands:\n(.*?)\n\n", told, re.MULTILINE | re.DOTALL)[1]
    words = re.findall(r"^  ([a-z-]+)", commands, re.MULTILINE)
    assert sorted(first_words("ctl")) == sorted(set(words) - {"help"})


def test_the_options_of_files(serve):
    options = serve.run("--dump-options").log().split()
    there = [name for name in options if name.startswith(("touch-", "fs-")) or name in ("hook-touch", "py-autoreload")]
    # Other names of the same.
    assert sorted(first_words("files")) == sorted(set(there) - {"touch-workers-reload"})


def test_signals_to_the_master(serve, address, tmp_path, stats_at):
    log = tmp_path / "log"
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py", "--processes", 3, "--stats", stats_at, "--logto", log)

    server.wait_workers(3)

    def running() -> int:
        return sum(worker["status"] != "cheap" for worker in server.stats()["workers"])

    for number, count in [(signal.SIGTTOU, 2), (signal.SIGTTOU, 1), (signal.SIGTTIN, 2), (signal.SIGTTIN, 3)]:
        server.send(number)
        until(lambda count=count: running() == count, f"{count} workers", context=log.read_text)
    server.send(signal.SIGTTIN)
    until(lambda: "SIGTTIN: 4 workers cannot run" in log.read_text(), "no more than processes", context=log.read_text)
    old = log.rename(tmp_path / "log.1")

    def described(count: int) -> bool:
        # Which of the two the lines are in depends on which comes first.
        return len(re.findall(r"worker \d .*: \d+ requests", old.read_text() + log.read_text())) == count

    server.send(signal.SIGUSR1)
    until(lambda: log.exists() and described(3), "it says what they do", context=old.read_text)
    server.send(signal.SIGUSR2)
    until(lambda: described(6), "and again", context=log.read_text)
    server.send(signal.SIGWINCH)
    server.send(signal.SIGHUP)
    until(lambda: "generation 2 takes over" in log.read_text(), "a reload", context=log.read_text)
    assert http.get(address, "/").status == 200
    server.send(signal.SIGTERM)
    assert server.wait_exit() == 0


def test_a_reload_while_the_application_is_loaded_for_the_first_time_names_that_generation(serve, address, tmp_path):
    go = tmp_path / "go"
    (tmp_path / "slow_start.py").write_text(
        f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n"
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    server = serve.start("--http-socket", address, "--wsgi-file", "slow_start.py", cwd=tmp_path)
    server.logged("http-socket on")
    until(lambda: "Cgt" in handles(server.pid, signal.SIGHUP), "it watches signals")
    server.send(signal.SIGHUP)
    server.logged("reload: loading generation 2 beside generation 1$")
    go.touch()
    assert http.get(address, "/").status == 200


def test_sigttou_keeps_the_last_worker(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py")
    server.send(signal.SIGTTOU)
    server.logged("SIGTTOU: 0 workers cannot run")
    assert http.get(address, "/").status == 200


def test_sigttou_starts_none_where_cheaper_runs_fewer(serve, address, stats_at):
    server = serve("--http-socket", address, "--wsgi-file", "foobar.py", "--processes", 4, "--cheaper", 1, "--stats", stats_at)
    server.wait_workers(1)
    server.send(signal.SIGTTOU)
    server.logged("SIGTTOU: at most 3 workers of 4 run from now on, 1 at present")
    assert [worker["status"] for worker in server.stats()["workers"]].count("cheap") == 3


def test_what_a_terminal_sends_is_left_to_the_terminal(program, terminal, address, tmp_path):
    """A program in the background that may not write to its terminal is to be stopped, not to lose its workers one by one."""
    pidfile, file = tmp_path / "pid", Path(__file__).parent / "apps" / "foobar.py"
    terminal([program.path, "--http-socket", address, "--wsgi-file", file, "--pidfile", pidfile])
    until(lambda: pidfile.exists() and pidfile.read_text().strip(), "it runs")
    master = int(pidfile.read_text())
    until(lambda: "Cgt" in handles(master, signal.SIGUSR2), "it watches signals")
    assert "Cgt" not in handles(master, signal.SIGTTIN) and "Cgt" not in handles(master, signal.SIGTTOU)
    os.kill(master, signal.SIGTERM)
    until(lambda: not processes.alive(master), "it has ended")
