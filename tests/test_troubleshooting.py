"""docs/troubleshooting.md: each message that it quotes is brought about, and found as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Union

import pytest

from rig import http, other_user
from rig.addresses import connect, tcp
from rig.nginx import Nginx
from rig.server import Program, Servers
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="the messages are rwsgi's")

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "troubleshooting.md").read_text()

APP = """
import ctypes, os, sys, threading, time

if os.environ.get("WITH_THREAD"):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
grown = []

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/kill":
        os.kill(os.getpid(), 9)
    elif path == "/segv":
        ctypes.string_at(0)
    elif path == "/exit":
        os._exit(3)
    elif path == "/raise":
        raise ValueError("no")
    elif path == "/sleep":
        time.sleep(6)
    elif path == "/hang":
        open("started", "a").close()
        time.sleep(60)
    elif path == "/grow":
        grown.append(b"x" * (60 << 20))
    elif path == "/early":
        return [b"x"]
    start_response("200 OK", {"/big": [("X", "a" * 9000)], "/short": [("Content-Length", "100")]}.get(path, []))
    return ["text" if path == "/str" else b"ok"]
"""


# What a scene gives: what was printed, or how to read logs. Their lines are written by processes that nothing waits for.
Told = Union[str, Callable[[], str]]


class Scenes:
    """What the messages come from. Each is made once; what it gives is all that was logged or printed."""

    def __init__(self, program: Program, rtop: str, directory: Path) -> None:
        self.program, self.rtop, self.directory = program, rtop, directory
        self.servers = Servers(program, directory)
        self.told: dict[Callable[[Scenes], Told], Told] = {}
        (directory / "app.py").write_text(APP)
        self.nginx: Nginx | None = None

    def text(self, scene: Callable[[Scenes], Told]) -> str:
        """What a scene has given so far."""
        if scene not in self.told:
            self.told[scene] = scene(self)
        told = self.told[scene]
        return told if isinstance(told, str) else told()

    def start(self, *options: object, **named: object):
        """A server of the application."""
        return self.servers("--module", "app", *options, cwd=self.directory, **named)

    def failing(self, *options: object, env: dict[str, str] | None = None) -> tuple[int, str]:
        """A start that is to fail: its exit status and its log."""
        server = self.servers.run(*options, cwd=self.directory, env=env)
        return server.wait_exit(), server.log()

    def run(self, *command: object, **named: object) -> str:
        """All that a program prints."""
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, **named
        )  # fmt: skip
        return done.stdout + done.stderr

    def close(self) -> None:
        """Ends all."""
        if self.nginx is not None:
            self.nginx.stop()
        self.servers.stop_all()


@pytest.fixture(scope="module")
def scenes(program, rtop):
    # Where nginx's workers may enter.
    directory = other_user.place()
    scenes = Scenes(program, rtop, directory)
    try:
        yield scenes
    finally:
        scenes.close()
        shutil.rmtree(directory)


def behind_nginx(scenes: Scenes) -> Told:
    """One nginx with all that can be wrong behind it, and the servers' logs."""
    directory = scenes.directory
    plain, uwsgi, full, denied = tcp(), tcp(), directory / "full.sock", directory / "denied.sock"
    server = scenes.start("--http-socket", plain, "--socket", uwsgi, "--processes", 2)
    scenes.start("--http-socket", denied)
    os.chmod(denied, 0)
    crowded = scenes.start("--http-socket", full, "--listen", 1, "--chmod-socket")
    until(lambda: http.get(str(full), "/").status == 200, "it serves")
    worker = next(process.pid for process in crowded.processes() if process.name.startswith("rwsgi w"))
    os.kill(worker, signal.SIGSTOP)
    crowd = []
    try:
        while True:
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            crowd.append(one)
            one.connect(str(full))
    except BlockingIOError:
        pass
    to = {
        "plain": f"proxy_pass http://{plain};",
        "refused": f"proxy_pass http://{tcp()};",
        "missing": f"proxy_pass http://unix:{directory}/missing.sock;",
        "denied": f"proxy_pass http://unix:{denied};",
        "full": f"proxy_pass http://unix:{full};",
        "impatient": f"proxy_pass http://{plain}; proxy_read_timeout 1s;",
        "http to uwsgi": f"proxy_pass http://{uwsgi};",
        "uwsgi to http": f"uwsgi_pass {plain};",
        "small": f"client_max_body_size 1k; proxy_pass http://{plain};",
    }
    blocks = {name: f"server {{ listen ADDRESS; location / {{ proxy_set_header Host localhost; {line} }} }}" for name, line in to.items()}
    (directory / "nginx").mkdir()
    scenes.nginx = nginx = Nginx(directory / "nginx", {}, servers=blocks, user="www-data")
    for name, path, status in [
        ("plain", "/", 200), ("plain", "/kill", 502), ("plain", "/big", 502), ("refused", "/", 502), ("missing", "/", 502), ("denied", "/", 502),
        ("full", "/", 502), ("impatient", "/sleep", 504), ("http to uwsgi", "/", 502), ("uwsgi to http", "/", 400),
    ]:  # fmt: skip
        assert http.get(nginx.addresses[name], path).status == status, f"{name}{path}\n{nginx.log()}\n{server.log()}"
    assert http.request(nginx.addresses["small"], "POST", "/", body=b"x" * 3000).status == 413
    for one in crowd:
        one.close()
    os.kill(worker, signal.SIGCONT)
    return lambda: nginx.log() + server.log()


def router(scenes: Scenes) -> Told:
    """The http router with one busy worker and space for one more, and a directory for bodies that is not there any more."""
    address, bodies = tcp(), scenes.directory / "bodies"
    bodies.mkdir()
    server = scenes.start("--http", address, "--listen", 1, "--temp-dir", bodies, "--post-buffering", 4096, "--temp-size", "1m")
    assert http.get(address, "/").status == 200
    texts = [http.get(address, "/kill")]
    assert texts[0].status == 502
    until(lambda: http.get(address, "/").status == 200, "another worker serves")
    texts.append(http.request(address, "POST", "/", body=b"x" * 3_000_000))
    assert texts[1].status == 503
    (scenes.directory / "started").unlink(missing_ok=True)
    held = [http.Connection(address) for _ in range(4)]
    for connection in held:
        connection.send(http.head("GET", "/hang"))
    until((scenes.directory / "started").exists, "one is in the application")
    texts.append(until(lambda: (answer := http.get(address, "/")).status == 503 and answer, "no more can wait"))
    for connection in held:
        connection.close()
    server.send(signal.SIGTERM)
    server.send(signal.SIGTERM)
    return lambda: "\n".join(answer.text for answer in texts) + server.log()


def application(scenes: Scenes) -> Told:
    """An application with faults, with harakiri and a limit of memory."""
    address = tcp()
    server = scenes.start(
        *("--http-socket", address, "--harakiri", 6, "--limit-post", 1000, "--reload-on-rss", 60, "--min-worker-lifetime", 1),
        *("--buffer-size", 8192, "--processes", 2), env={"WITH_THREAD": "yes"},
    )  # fmt: skip
    for path, statuses in [("/raise", {500}), ("/early", {500}), ("/str", {500}), ("/hang", {504})]:
        assert http.get(address, path).status in statuses, path
    for path in ("/short", "/segv", "/exit"):
        try:
            http.get(address, path)
        except (http.Closed, ConnectionError):
            pass
        until(lambda: answers(address), "it serves", context=server.log)
    assert http.request(address, "POST", "/", body=b"x" * 3000).status == 413
    assert http.get(address, "/", {"X": "a" * 9000}).status == 431
    assert http.get(address, "/grow").status == 200
    return server.log


def answers(address: str) -> bool:
    try:
        return http.get(address, "/").status == 200
    except (http.Closed, ConnectionError):
        return False


def reloads(scenes: Scenes) -> Told:
    """A worker that does not leave, and code that does not load."""
    directory = scenes.directory / "reloads"
    directory.mkdir()
    (directory / "app.py").write_text(APP)
    address = tcp()
    server = scenes.servers("--module", "app", "--http-socket", address, "--reload-mercy", 1, cwd=directory)
    with http.Connection(address) as connection:
        connection.send(http.head("GET", "/hang"))
        until((directory / "started").exists, "it is in the application")
        server.send(signal.SIGHUP)
        server.logged("did not leave in time")
    (directory / "app.py").write_text("def broken(:\n")
    server.send(signal.SIGHUP)
    return server.log


def starts(scenes: Scenes) -> str:
    """Servers that do not start, and some that warn."""
    texts = []
    for status, options in [
        (22, ("--http-socket", tcp(), "--module", "nosuch")),
        (22, ("--http-socket", tcp(), "--module", "app:nosuch")),
        (1, ("--http-socket", scenes.directory / "nosuch" / "x.sock", "--module", "app")),
        (1, ("--module", "app")),
        (1, ("--http-socket", tcp(), "--module", "app", "--procesess", 4)),
        (1, ("--http-socket", tcp(), "--module", "app", "--home", scenes.directory / "nosuch")),
    ]:
        ended, text = scenes.failing(*options)
        assert ended == status, text
        texts.append(text)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended, text = scenes.failing("--http-socket", f"127.0.0.1:{taken.getsockname()[1]}", "--module", "app")
        assert ended == 1
        texts.append(text)
    file = scenes.directory / "port.ini"
    file.write_text("[uwsgi]\nmodule = app\nhttp-socket = 9090\n")
    texts.append(scenes.run(scenes.program.path, "--check", file, cwd=scenes.directory))
    return "\n".join(texts)


# Root without the right to pass over permissions, or whoever runs the tests.
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []


def locked(path: Path) -> None:
    """Makes a file or directory another user's, or nobody's."""
    path.chmod(0o700 if os.getuid() == 0 else 0)
    if os.getuid() == 0:
        shutil.chown(path, "www-data")


def forbidden(scenes: Scenes) -> str:
    """A socket where this user may not make one."""
    place = scenes.directory / "locked"
    place.mkdir()
    locked(place)
    command = [*UNPRIVILEGED, scenes.program.path, "--http-socket", place / "x.sock", "--module", "app"]
    return scenes.run(*command, cwd=scenes.directory)


def as_root(scenes: Scenes) -> Told:
    if os.getuid() != 0:
        pytest.skip("only root is warned")
    return scenes.start("--http-socket", tcp()).log


def rtop_s(scenes: Scenes) -> str:
    """What rtop says of addresses that are no stats servers, or not for everybody."""
    stats, plain, file = tcp(), tcp(), scenes.directory / "stats.sock"
    server = scenes.start("--http-socket", plain, "--stats", stats, "--stats-http")
    until(lambda: answers(plain), "it answers as soon as it is asked", context=server.log)
    scenes.start("--http-socket", tcp(), "--stats", file)
    locked(file)
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor() as pool:
        # It takes a question and answers nothing.
        silent = f"http://127.0.0.1:{other.getsockname()[1]}"
        addresses = [tcp(), stats, silent, f"http://{plain}/", file]
        return "\n".join(pool.map(lambda address: scenes.run(*UNPRIVILEGED, scenes.rtop, address, "-n", 1), addresses))


def pip(scenes: Scenes) -> str:
    wheel = scenes.directory / "rwsgi-0.1.0-cp27-cp27mu-manylinux1_x86_64.whl"
    wheel.touch()
    install = (sys.executable, "-m", "pip", "install", "--no-index", "--disable-pip-version-check", "--target", scenes.directory / "t")
    # Its own words, wherever it runs.
    from pip._internal.exceptions import ExternallyManagedEnvironment

    managed = f"error: {ExternallyManagedEnvironment(None).reference}"
    return scenes.run(*install, wheel) + scenes.run(*install, "rwsgi", cwd=scenes.directory) + managed


def django(scenes: Scenes) -> str:
    code = (
        "import django; from django.conf import settings; settings.configure(ALLOWED_HOSTS=['a.example'], DEBUG=False); django.setup()\n"
        "from django.test import RequestFactory\n"
        "try: RequestFactory().get('/', HTTP_HOST='b.example').get_host()\n"
        "except Exception as error: print(error)\n"
    )
    return scenes.run(sys.executable, "-c", code)


# From where each message comes.
MESSAGES: dict[str, Callable[[Scenes], Told]] = {
    "connect() failed (111: Connection refused) while connecting to upstream": behind_nginx,
    "connect() to unix:… failed (2: No such file or directory) while connecting to upstream": behind_nginx,
    "connect() to unix:… failed (13: Permission denied) while connecting to upstream": behind_nginx,
    "connect() to unix:… failed (11: Resource temporarily unavailable) while connecting to upstream": behind_nginx,
    "upstream prematurely closed connection while reading response header from upstream": behind_nginx,
    "refused: a uwsgi packet with modifier1 71 instead of 0": behind_nginx,
    "refused: 400 the request line is malformed": behind_nginx,
    "upstream sent too big header while reading response header from upstream": behind_nginx,
    "the worker stopped before it answered": router,
    "too many requests are waiting": router,
    "a request body cannot be kept, its client gets 503: …": router,
    "upstream timed out (110: Connection timed out) while reading response header from upstream": behind_nginx,
    "harakiri: worker … (pid …) thread … holds …, longer than the … s allowed: ending it": application,
    "client intended to send too large body: … bytes": behind_nginx,
    "refused: 413 the request body is larger than this server takes": application,
    "refused: 431 the request head is longer than this server takes": application,
    "Invalid HTTP_HOST header: '…'. You may need to add '…' to ALLOWED_HOSTS.": django,
    "ERROR GET /…: …": application,
    "the application produced output before it called start_response": application,
    "TypeError: the application produced str where bytes are needed": application,
    "the application produced … of the … bytes of its Content-Length; the connection is closed": application,
    "no application could be loaded: exiting": starts,
    "no application: module '…' cannot be imported: ModuleNotFoundError: No module named '…'": starts,
    "no application: module '…' has no '…': name it with --callable": starts,
    "cannot listen on …: Address already in use (os error 98)": starts,
    "cannot listen on …: Permission denied (os error 13)": forbidden,
    "cannot listen on …: No such file or directory (os error 2): the directory does not exist": starts,
    "no address to serve on: give --http ADDRESS …": starts,
    "'…' is read as a unix socket, the file '…'; for a port on every interface write ':…', as uWSGI does": starts,
    "there is no option '…'; did you mean '…'?": starts,
    "home: cannot run the Python of '…': …": starts,
    "running as root: an intruder would have the whole machine; set uid (and gid) to another user": as_root,
    "died: killed by signal 9 (SIGKILL)": behind_nginx,
    "died: killed by signal 11 (SIGSEGV)": application,
    "died: exit status …": application,
    "did not leave in time: killed": reloads,
    "resident memory of … MB, above reload-on-rss (…): replacing it": application,
    "the application has started threads while it was loaded (…): they do not run in the workers": application,
    "reload: generation … failed to load (…): generation … goes on": reloads,
    "cannot connect: Connection refused (os error 111)": rtop_s,
    "cannot connect: Permission denied (os error 13)": rtop_s,
    "no answer within 3.0 s": rtop_s,
    "no answer within 3.0 s (if it has stats-http, write http:// before its address)": rtop_s,
    "the answer is not a stats document: …": rtop_s,
    "error: externally-managed-environment": pip,
    "is not a supported wheel on this platform": pip,
    "No matching distribution found for rwsgi": pip,
}


def uwsgi_s(scenes: Scenes) -> Told:
    """A real uWSGI and a packet that is larger than its buffer."""
    address = tcp()
    servers = Servers(Program(str(Path(sys.prefix) / "bin" / "uwsgi")), scenes.directory)
    servers.directory = scenes.directory / "uwsgi"
    servers.directory.mkdir()
    try:
        server = servers("--socket", address, "--module", "app", cwd=scenes.directory)
        with connect(address) as connection:
            connection.sendall(b"\0" + (9000).to_bytes(2, "little") + b"\0" + b"x" * 100)
            connection.recv(1)
        return server.log
    finally:
        servers.stop_all()


MESSAGES["invalid request block size"] = uwsgi_s


def turned_on(scenes: Scenes) -> Told:
    """A free-threaded Python that is told to have its lock."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python always has a global lock")
    return scenes.start("--http-socket", tcp(), env={"PYTHON_GIL": "1"}).log


MESSAGES["Python's global lock is on, so that the threads of a worker take turns"] = turned_on

# What another test brings about.
ELSEWHERE = {"was killed by the kernel for want of memory": "test_cgroup.py"}

QUOTED = re.findall(r"^### `([^`]+)`$", PAGE, re.MULTILINE)


def test_every_message_of_the_page_is_tried():
    assert len(QUOTED) == len(set(QUOTED)) > 45
    assert set(QUOTED) == MESSAGES.keys() | ELSEWHERE.keys()
    for message, file in ELSEWHERE.items():
        assert message in (Path(__file__).parent / file).read_text()


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_what_the_program_says(scenes, message):
    if message.startswith("home:") and Path(scenes.program.path).read_bytes()[:2] != b"#!":
        pytest.skip("the plain executable has a Python of its own, and says otherwise")
    pattern = ".*?".join(re.escape(part) for part in message.split("…"))

    def text() -> str:
        return scenes.text(MESSAGES[message])

    until(lambda: re.search(pattern, text()), "the program says so", context=lambda: text()[-8000:])
