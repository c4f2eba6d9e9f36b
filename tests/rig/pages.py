"""Pages of the documentation, run as a reader would: files are written, commands run, and what they print is compared.

A mark, an HTML comment before a code block, says how the block is tested. The blocks of a page run in their order, in one
shell, in an empty directory. docs/site/README.md describes the marks for who writes a page.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from rig import processes
from rig.addresses import connect, free_port, listening
from rig.server import environment
from rig.terminal import Terminal
from rig.waiting import DEADLINE, until

# For one command: an environment is made and filled on a busy machine.
LONG = 8 * DEADLINE
# For a server's start and end: with a framework's first import, and the end of what it has started.
PATIENCE = 4 * DEADLINE

CHECKOUT = Path(__file__).resolve().parent.parent.parent

COMMENT = re.compile(r"<!--\s*(?P<kind>[a-z ]+?)\s*(?::[ ]*(?P<rest>[^\n]*?))?\s*(?:\n(?P<body>.*?))?-->", re.S)
TITLE = re.compile(r'\btitle="([^"]+)"')
PORT = re.compile(r"(?<!\"):(\d{4,5})\b")
SOCKET_FILE = re.compile(r"(?<![\w.:/-])/[\w./-]+\.sock\b")
OPTIONS_FILE = re.compile(r"[\w./-]+\.(?:ini|conf|yaml|json|xml)\b")
# What a mark without a block is for, and what one before a block is for.
ALONE = {"setup", "stop", "places", "ports"}
BEFORE_A_BLOCK = {"run", "output", "options", "not run"}
# What `--check` says of a fragment because it is one.
FRAGMENT = ("no address to serve on", "no application")


# `rwsgi ctl` asks the page's own server, whatever other servers of this user run. A server listens for clients first, and a
# socket's file is there before it is listened on.
ONE_SERVER = """
rwsgi() {
    case "$*" in
        *--control* | *--pidfile* | "ctl help"*) ;;
        "ctl "*)
            shift
            for _ in $(seq 300); do
                grep -q " 00010000 .* $(echo "$XDG_RUNTIME_DIR"/rwsgi/*.sock)$" /proc/net/unix && break
                sleep 0.1
            done
            set -- ctl --control "$(echo "$XDG_RUNTIME_DIR"/rwsgi/*.sock)" "$@" ;;
    esac
    command rwsgi "$@"
}
"""


class PageError(AssertionError):
    """What is wrong with a page, with the line of the block."""


@dataclass(frozen=True)
class Mark:
    """A comment that says how a block is tested."""

    kind: str
    rest: str
    body: str


@dataclass(frozen=True)
class Step:
    """A block and its mark, or a mark alone."""

    line: int
    mark: Mark | None
    language: str = ""
    title: str = ""
    text: str = ""


def steps(text: str) -> list[Step]:
    """What is done with a page, in its order. Comments that are no marks are passed over."""
    found: list[Step] = []
    pending: Step | None = None
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "html_block":
            comment = COMMENT.fullmatch(token.content.strip())
            if comment is None or comment["kind"] not in ALONE | BEFORE_A_BLOCK:
                continue
            step = Step(token.map[0] + 1, Mark(comment["kind"], comment["rest"] or "", comment["body"] or ""))
            if comment["kind"] in ALONE:
                found.append(step)
            else:
                pending = step
        elif token.type in ("fence", "code_block"):
            title = TITLE.search(token.info)
            words = token.info.split()
            mark = pending.mark if pending else None
            found.append(Step(token.map[0] + 1, mark, words[0] if words else "", title[1] if title else "", token.content))
            pending = None
        elif pending is not None and token.type.endswith("_open"):
            raise PageError(f"line {pending.line}: no block follows the mark '{pending.mark.kind}'")
    return found


def unmarked(text: str) -> list[str]:
    """The blocks of a page of which nothing says how they are tested."""
    return [
        f"line {step.line}: {step.text.splitlines()[0] if step.text else 'an empty block'}"
        for step in steps(text) if step.mark is None and not step.title
    ]


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what is shown below it."""
    found: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        goes_on = found and not found[-1][1] and (line.startswith("> ") or found[-1][0][-1].endswith("\\"))
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif goes_on:
            found[-1][0].append(line.removeprefix("> "))
        elif found:
            found[-1][1].append(line)
        else:
            raise PageError(f"a console block begins with a command after '$ ', and not with: {line}")
    return [("\n".join(command), "\n".join(shown)) for command, shown in found]


def lines(text: str) -> list[str]:
    """The commands of a block that has one on each line, with what it is for behind three blanks or more."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [re.split(r"\s{3,}", line.strip())[0] for line in joined.splitlines() if line.strip()]


def printed(expected: str, actual: str) -> bool:
    """Whether `actual` is what a page shows; `…` is any text, and on a line of its own any number of lines."""
    parts = []
    for line in expected.strip().splitlines():
        line = line.rstrip()
        parts.append(r"(?:.*\n)*?" if line == "…" else ".*?".join(map(re.escape, line.split("…"))) + r"[ \t]*\n")
    return re.fullmatch("".join(parts), actual.strip("\n") + "\n") is not None


def answers(address: str) -> bool:
    """Whether somebody listens. A socket's file may have got its name after it was bound: supervisord does that."""
    if not address.startswith("/"):
        return listening(address)
    try:
        connect(address).close()
    except OSError:
        return False
    return True


def in_session(session: int) -> list[int]:
    """The running processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            # After the name: state, parent, group, session.
            state, _, _, its, *_ = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(its) == session and state not in "ZX":
            found.append(int(entry))
    return found


@dataclass
class Background:
    """A server that a page has started."""

    line: int
    output: Path
    status: Path
    pid: int


class Run:
    """One page, run from its first block to its last."""

    def __init__(self, page: Path, wheels: Path) -> None:
        self.page, self.wheels, self.mark = page, wheels, uuid.uuid4().hex
        # Where everybody may enter: a page may give its files to another user. A short name: it is part of sockets' names.
        self.below = Path(tempfile.mkdtemp(prefix="page-", dir="/tmp"))
        self.below.chmod(0o755)
        self.directory, self.notes, self.home = (self.below / name for name in ("d", "notes", "home"))
        for made in (self.directory, self.notes, self.home):
            made.mkdir(mode=0o700 if made is self.home else 0o755)
        self.places: list[str] = []
        self.named_ports: list[str] = []
        self.ports: dict[str, str] = {}
        self.backgrounds: list[Background] = []
        self.last_output: Path | None = None
        self.count = 0
        self.line = 0
        self.shell: subprocess.Popen | None = None

    def __enter__(self) -> Run:
        extra = {
            "HOME": str(self.home), "CHECKOUT": str(CHECKOUT), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels),
            "XDG_RUNTIME_DIR": str(self.home), "NO_PROXY": "*", "no_proxy": "*",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_COMPILE": "1", "TMPDIR": str(self.home),
            "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
        }
        self.environment = environment(self.mark, extra)
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e"], stdin=subprocess.PIPE, cwd=self.directory, env=self.environment,
            stdout=(self.notes / "shell.log").open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
        )
        self.tell(ONE_SERVER)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.shell.stdin.close()
            self.shell.kill()
            self.shell.wait()
            until(self.all_killed, f"{self.page.name}: no process is left")
            shutil.rmtree(self.below)

    def all_killed(self) -> bool:
        """Kills what the page has left. Some programs write over their environment, and so over the mark: nginx does."""
        left = [process.pid for process in processes.marked(self.mark)] + in_session(self.shell.pid)
        for pid in left:
            processes.kill(pid)
        return not left

    def all(self) -> None:
        """Runs every step."""
        for step in steps(self.page.read_text()):
            self.line = step.line
            self.step(step)

    def step(self, step: Step) -> None:
        """One block, or one mark that stands alone."""
        kind, rest = (step.mark.kind, step.mark.rest) if step.mark else ("", "")
        if kind == "not run":
            self.check(rest, "'not run' gives no reason")
        elif kind == "places":
            self.places += rest.split()
            for place in rest.split():
                (self.below / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif kind == "ports":
            self.named_ports += rest.split()
        elif kind == "stop":
            self.stop()
        elif kind == "setup":
            self.background(step.mark.body, "") if rest == "server" else self.run(step.mark.body, "")
        elif kind == "output":
            self.check(self.last_output, "nothing has printed anything before this block")
            self.wait_printed(step.text, self.last_output)
        elif kind == "options":
            self.options(step.text)
        elif kind == "run":
            self.run_block(step, rest)
        elif step.title:
            self.write(step.title, step.text)
        else:
            raise self.wrong("this block has no mark: nothing says how it is tested")

    def run_block(self, step: Step, how: str) -> None:
        """A block that is run: at once, as a server, or in a terminal."""
        how, _, changes = f"{how} ".partition("with ")
        how, text = how.strip(), step.text
        for old, new in (re.split(r"(?<![<>=!])=(?!=)", change, maxsplit=1) for change in shlex.split(changes)):
            self.check(old in text, f"nothing in this block is {old}")
            text = text.replace(old, new)
        if step.language == "python":
            script = self.note("py")
            script.write_text(self.put(text))
            pairs = [(f"python {script}", "")]
        elif how == "lines":
            pairs, how = [(command, "") for command in lines(text)], ""
        else:
            pairs = commands(text) if step.language == "console" else [(text, "")]
        *before, (command, shown) = pairs
        for each in before:
            self.run(*each)
        if how == "server":
            self.background(command, shown)
        elif how.startswith("screen "):
            self.screen(command, how.removeprefix("screen ").strip())
        elif how.startswith("exit "):
            self.run(command, shown, int(how.removeprefix("exit ")))
        else:
            self.check(not how, f"there is no 'run: {how}'")
            self.run(command, shown)

    def run(self, command: str, shown: str, status: int = 0) -> None:
        """Runs a command in the page's shell and compares what it prints."""
        script, output, done = self.note("sh"), self.note("out"), self.note("status")
        script.write_text(self.put(command) + "\n")
        go = f"source {script} >{output} 2>&1 </dev/null"
        self.tell(f"{go}; echo 0 >{done}.new; mv {done}.new {done}" if status == 0 else
                  f"set +e; {go}; echo $? >{done}.new; mv {done}.new {done}; set -e")  # fmt: skip
        until(lambda: done.exists() or self.shell.poll() is not None, self.about(command), LONG, lambda: self.read(output))
        self.check(done.exists(), f"this failed with status {self.shell.poll()}:\n{command}\n{self.read(output)}")
        ended = int(done.read_text())
        self.check(ended == status, f"this ended with status {ended} and not {status}:\n{command}\n{self.read(output)}")
        self.last_output = output
        if shown.strip():
            self.check(printed(shown, self.read(output)), f"{command}\nprinted\n{self.read(output)}\nthe page shows\n{shown}")

    def background(self, command: str, shown: str) -> None:
        """Starts a server in the page's shell and waits until it listens."""
        script, output, status, pid = (self.note(extension) for extension in ("sh", "out", "status", "pid"))
        script.write_text(self.put(command) + "\n")
        self.tell(f"(trap 'echo $? >{status}.new; mv {status}.new {status}' EXIT; source {script}) >{output} 2>&1 </dev/null & echo $! >{pid}.new; mv {pid}.new {pid}")
        until(pid.exists, self.about(command), PATIENCE)
        started = Background(self.line, output, status, int(pid.read_text()))
        self.backgrounds.append(started)
        self.last_output = output
        addresses = self.addresses(script.read_text())
        self.check(addresses, f"this names no address that one could wait for:\n{command}")

        def ready() -> bool:
            self.check(not status.exists(), f"the server ended while it started:\n{command}\n{self.read(output)}")
            return all(answers(address) for address in addresses)

        until(ready, f"{self.about(command)}: {addresses} listen", PATIENCE, lambda: self.read(output))
        if shown.strip():
            self.wait_printed(shown, output)

    def addresses(self, text: str) -> set[str]:
        """The ports and the files of sockets in a command, and in the files of options that it names."""
        where, read = Path(os.readlink(f"/proc/{self.shell.pid}/cwd")), set()
        while named := {word for word in OPTIONS_FILE.findall(text) if (where / word).is_file()} - read:
            read |= named
            text += "".join((where / word).read_text() for word in named)
        return {f"127.0.0.1:{port}" for port in self.ports.values() if re.search(rf"\b{port}\b", text)} | set(SOCKET_FILE.findall(text))

    def screen(self, command: str, text: str) -> None:
        """Runs a command in a terminal until it shows `text`, and presses q."""
        script, variables = self.note("sh"), self.note("env")
        self.run(f"export -p >{variables}; echo cd $(printf %q \"$PWD\") >>{variables}", "")
        script.write_text(f"source {variables}\n{self.put(command)}\n")
        terminal = Terminal(["bash", str(script)], self.notes, columns=120)
        try:
            until(lambda: text in terminal.screen(), f"{self.about(command)} shows {text}", PATIENCE, terminal.screen)
            terminal.press("q")
            terminal.wait_left()
        finally:
            terminal.close()

    def options(self, text: str) -> None:
        """Checks a fragment of an ini file."""
        file = self.note("ini")
        file.write_text(self.put(text if text.lstrip().startswith("[") else f"[uwsgi]\n{text}"))
        done = subprocess.run(
            ["rwsgi", "--check", str(file)], capture_output=True, text=True, env=self.environment, timeout=PATIENCE, check=False
        )
        told = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("warning:", "error:"))]
        wrong = [line for line in told if not any(known in line for known in FRAGMENT)]
        self.check(not wrong, "\n".join(wrong))

    def stop(self) -> None:
        """Ends the servers as a supervisor does; one that does not end well is a failure."""
        for server in reversed(self.backgrounds):
            if server.status.exists():
                raise PageError(f"{self.page.name}, line {server.line}: the server has ended before:\n{self.read(server.output)}")
            for child in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
                processes.kill(int(child), signal.SIGTERM)
            what = f"{self.page.name}, line {server.line}: the server ends"
            until(server.status.exists, what, PATIENCE, lambda server=server: self.read(server.output))
            status = server.status.read_text().strip()
            if status != "0":
                raise PageError(f"{self.page.name}, line {server.line}: the server ended with {status}:\n{self.read(server.output)}")
        self.backgrounds.clear()

    def write(self, name: str, text: str) -> None:
        """Writes a file of the page; one without a directory goes where the page's shell is."""
        path = Path(self.put(name))
        if not path.is_absolute():
            path = Path(os.readlink(f"/proc/{self.shell.pid}/cwd")) / path
        self.check(path.is_relative_to(self.below), f"{name} is outside of the page's directory: it lacks a mark 'places'")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.put(text))

    def put(self, text: str) -> str:
        """A text of the page with this run's ports and directories. In one pass: one may be below another."""
        if self.places:
            names = "|".join(map(re.escape, sorted(self.places, key=len, reverse=True)))
            text = re.sub(rf"(?<![\w.$}}-])({names})(?![\w-])", lambda found: f"{self.below}{found[1]}", text)
        text = PORT.sub(lambda found: f":{self.port(found[1])}", text)
        if self.named_ports:
            text = re.sub(rf"\b({'|'.join(self.named_ports)})\b", lambda found: self.port(found[1]), text)
        return text

    def port(self, shown: str) -> str:
        """The port that the page's port is in this run."""
        return self.ports.setdefault(shown, str(free_port()))

    def read(self, output: Path) -> str:
        """What was printed, with the page's ports and directories."""
        text = output.read_text(errors="replace") if output.exists() else ""
        text = text.replace(str(self.directory), "").replace(str(self.below), "")
        for shown, real in self.ports.items():
            text = re.sub(rf"\b{real}\b", shown, text)
        return text

    def wait_printed(self, shown: str, output: Path) -> None:
        """Waits until what the page shows is what was printed."""
        until(lambda: printed(shown, self.read(output)), f"{self.about(shown)} is printed", PATIENCE, lambda: self.read(output))

    def note(self, extension: str) -> Path:
        """A new file for what the runner writes down."""
        self.count += 1
        return self.notes / f"{self.count}.{extension}"

    def tell(self, line: str) -> None:
        """Gives the page's shell a line."""
        try:
            self.shell.stdin.write(f"{line}\n".encode())
            self.shell.stdin.flush()
        except BrokenPipeError:
            raise self.wrong(f"the shell has ended:\n{(self.notes / 'shell.log').read_text()}") from None

    def about(self, text: str) -> str:
        return f"{self.page.name}, line {self.line}: {text.strip().splitlines()[0]!r}"

    def wrong(self, why: str) -> PageError:
        return PageError(f"{self.page.name}, line {self.line}: {why}")

    def check(self, condition: object, why: str) -> None:
        if not condition:
            raise self.wrong(why)
