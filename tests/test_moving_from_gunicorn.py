"""docs/moving-from-gunicorn.md against a real gunicorn: its settings are all there, and what the page says of both servers holds."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import threading
from pathlib import Path

import pytest

from rig import http, processes
from rig.addresses import tcp
from rig.server import Program, Server, Servers
from rig.waiting import until

gunicorn_config = pytest.importorskip("gunicorn.config", reason="gunicorn 27 needs Python 3.10")

pytestmark = pytest.mark.only_rwsgi(why="compares rwsgi with gunicorn")

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "moving-from-gunicorn.md").read_text()
# The one that the page is about; older ones have fewer settings.
NEWEST = 27

APP = """
import json, os, time

loaded_in = os.getpid()

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hold":
        open("started", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    elif path == "/long":
        time.sleep(float(environ["QUERY_STRING"]))
    environ["wsgi.input"].read()
    text = {key: value for key, value in environ.items() if isinstance(value, (str, bool))}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({**text, "pid": os.getpid(), "loaded_in": loaded_in, "version": 1}).encode()]
"""


def seen(address: str, target: str) -> int:
    """The response's status; 0 for a connection that was closed without one."""
    try:
        return http.get(address, target).status
    except ConnectionError:
        return 0


class Both:
    """Starts the same application under either server, in a directory of its own."""

    def __init__(self, program: Program, gunicorn: Path, directory: Path) -> None:
        self.directory = directory
        self.servers = {"rwsgi": Servers(program, self._made("rwsgi")), "gunicorn": Servers(Program(str(gunicorn)), self._made("gunicorn"))}

    def _made(self, name: str) -> Path:
        place = self.directory / name
        place.mkdir()
        (place / "site_.py").write_text(APP)
        return place

    def place(self, which: str) -> Path:
        """Where it runs."""
        return self.directory / which

    def start(self, which: str, *options: object, wait: bool = True) -> tuple[Server, str]:
        """A server and its address."""
        address = tcp()
        if which == "rwsgi":
            options = ("--http-socket", address, "--module", "site_", *options)
        else:
            options = ("--no-control-socket", "-b", address, *options, "site_:application")
        server = self.servers[which].start(*options, cwd=self.place(which), listens=[address])
        if wait:
            server.wait_ready()
            # gunicorn ends a worker that takes longer to start than its timeout.
            until(lambda: seen(address, "/") == 200, "it serves", context=server.log)
        return server, address

    def hold(self, which: str, address: str) -> Held:
        """A request that is in the application until `go`."""
        held = Held(address, self.place(which) / "go")
        until((self.place(which) / "started").exists, "the request has begun")
        return held


class Held:
    """A request in progress."""

    def __init__(self, address: str, go: Path) -> None:
        self._go = go
        self._outcome: list[int] = []
        self._thread = threading.Thread(target=self._ask, args=(address,))
        self._thread.start()

    def _ask(self, address: str) -> None:
        self._outcome.append(seen(address, "/hold"))

    def outcome(self) -> int:
        """The response's status; 0 for a connection that was closed without one."""
        self._thread.join(30)
        return self._outcome[0]

    def go(self) -> None:
        """Lets the application answer."""
        self._go.touch()


@pytest.fixture
def both(program, venv_bin, tmp_path):
    gunicorn = venv_bin / "gunicorn"
    both = Both(program, gunicorn, tmp_path)
    yield both
    for place in ("rwsgi", "gunicorn"):
        (both.place(place) / "go").touch()
    for servers in both.servers.values():
        servers.stop_all()


def environ(address: str, headers: dict[str, str] | None = None) -> dict[str, object]:
    return json.loads(http.get(address, "/", headers).body)


def workers(server: Server, which: str) -> list[int]:
    """The processes that serve, by what ps says."""
    if which == "gunicorn":
        return [process.pid for process in server.processes() if process.parent == server.pid]
    return [process.pid for process in server.processes() if re.match(r"rwsgi w(orker )?\d", process.command)]


# The page's tables.


def rows() -> dict[str, tuple[str, str]]:
    """The settings of the last table: their command line, and what becomes of them."""
    table = PAGE.split("## Every setting", 1)[1]
    found = re.findall(r"^\| `([a-z0-9_]+)` \| (.*?) \| (.*) \|$", table, re.MULTILINE)
    names = [name for name, _, _ in found]
    assert len(names) == len(set(names)), "a setting that is there twice"
    return {name: (words, answer) for name, words, answer in found}


def test_every_setting_of_gunicorn_is_there_with_its_command_line():
    import gunicorn

    there = rows()
    known = {setting.name: setting.cli or [] for setting in gunicorn_config.KNOWN_SETTINGS}
    assert not known.keys() - there.keys(), "settings that the page leaves out"
    if gunicorn.version_info[0] >= NEWEST:
        assert not there.keys() - known.keys(), "settings that gunicorn does not have"
    for name, words in known.items():
        if name == "wsgi_app":
            continue
        expected = " ".join(f"`{word}`" for word in words) or "—"
        assert there[name][0] == expected, name


# What stands between backquotes in the answers and is no option.
WORDS = set(
    "uwsgi.atexit logging.config uwsgidecorators wsgi.file_wrapper ipv4in setscriptname setpathinfo drop auto listen_queue last "
    "on_exit on_starting when_ready".split()
)  # fmt: skip


def test_the_options_that_the_page_names_are_options(serve):
    asked = serve.run("--dump-options")
    options = set(asked.log().split())
    assert "processes" in options
    for name, (_, answer) in rows().items():
        for span in re.findall(r"`([^`]+)`", answer):
            option = re.match(r"[a-z][a-z0-9-]*(?= =|$)", span)
            if option and span not in WORDS:
                assert option[0] in options, f"{name}: {span}"


def test_each_example_of_an_option_is_taken(serve, tmp_path):
    """Those of the tables: `name = value`."""
    real = {"FILE": "file", "COMMAND": "true", "HOST": "127.0.0.1", "PORT": "8125", "N": "2", "PREFIX": "mysite", "FACILITY": "daemon",
            "CERT": "cert", "KEY": "key", "CIPHERS": "HIGH", "CA": "ca", "PATH": str(tmp_path / "control"), "NAME": "name"}  # fmt: skip
    examples = {span for span in re.findall(r"`([a-z0-9-]+ = [^`]+)`", PAGE)}
    assert len(examples) > 30
    (tmp_path / "file").write_text("[uwsgi]\nprocesses = 2\n[app:main]\nuse = egg:x\n")
    file = tmp_path / "site.ini"
    for example in sorted(examples):
        line = re.sub(r"\b(" + "|".join(real) + r")\b", lambda found: real[found[1]], example)
        extra = "" if line.startswith(("module", "mount", "paste", "ini-paste")) else "module = site_\n"
        file.write_text(f"[uwsgi]\nhttp-socket = 127.0.0.1:8000\n{extra}{line}\n")
        server = serve.run("--check", file, cwd=tmp_path)
        # That there is no event loop is said in a warning.
        assert "gevent" in line or not re.search("^(warning|error)", server.log(), re.MULTILINE), f"{line}: {server.log()}"
        assert server.wait_exit() == 0, f"{line}: {server.log()}"


def test_the_variables_of_log_formats_are_variables():
    logging = (Path(__file__).resolve().parent.parent / "docs" / "logging.md").read_text()
    known = set(re.findall(r"^\| `%\((\w+)\)` \|", logging, re.MULTILINE))
    table = PAGE.split("The variables of a format:")[1].split("## ")[0]
    named = {name for line in re.findall(r"^\|.*\| (`.*`) \|$", table, re.MULTILINE) for name in re.findall(r"%\((\w+)\)", line)}
    assert len(named) > 10 and named <= known


# What works differently.


def test_both_finish_requests_at_sigterm_and_only_rwsgi_at_sigint(both):
    for which, number, status in [("gunicorn", signal.SIGTERM, 200), ("rwsgi", signal.SIGTERM, 200), ("rwsgi", signal.SIGINT, 200)]:
        for name in ("go", "started"):
            (both.place(which) / name).unlink(missing_ok=True)
        server, address = both.start(which)
        held = both.hold(which, address)
        server.send(number)
        server.logged("andling signal|stopping")
        held.go()
        assert held.outcome() == status, (which, number)
        assert server.wait_exit() == 0
    for name in ("go", "started"):
        (both.place("gunicorn") / name).unlink(missing_ok=True)
    server, address = both.start("gunicorn")
    held = both.hold("gunicorn", address)
    server.send(signal.SIGINT)
    assert held.outcome() in (0, 500)
    assert server.wait_exit() == 0


def test_code_that_does_not_load_ends_gunicorn_at_a_reload_and_not_rwsgi(both):
    for which in ("gunicorn", "rwsgi"):
        server, address = both.start(which)
        (both.place(which) / "site_.py").write_text("def broken(:\n")
        server.send(signal.SIGHUP)
        if which == "gunicorn":
            assert server.wait_exit() == 3
        else:
            server.logged("failed to load")
            assert environ(address)["version"] == 1


def test_a_reload_loads_new_code_where_gunicorn_s_preload_keeps_the_old(both):
    """And what is loaded once, and where."""
    for which, options in [("gunicorn", ["--preload"]), ("rwsgi", [])]:
        server, address = both.start(which, *options)
        before = environ(address)
        assert before["loaded_in"] != before["pid"]
        (both.place(which) / "site_.py").write_text(APP.replace('"version": 1', '"version": 2'))
        server.send(signal.SIGHUP)

        # The process before it may still serve one more.
        def another() -> dict[str, object] | None:
            found = environ(address)
            return found if found["pid"] != before["pid"] else None

        after = until(another, "another process serves", context=server.log)
        assert after["version"] == (1 if which == "gunicorn" else 2)
    server, address = both.start("gunicorn")
    assert environ(address)["loaded_in"] == environ(address)["pid"]


def test_a_long_request_is_ended_by_sync_and_by_harakiri_and_not_by_gthread(both):
    for which, options, status in [
        ("gunicorn", ["-t", "2"], {0, 500}), ("gunicorn", ["-t", "6", "-k", "gthread"], {200}), ("rwsgi", ["--harakiri", "2"], {504}),
    ]:
        _, address = both.start(which, *options)
        # What is ended takes as long as it likes. gunicorn looks once a second, and ends a worker of threads that does not
        # get a processor for as long as its timeout.
        seconds = 8 if status == {200} else 25
        assert seen(address, f"/long?{seconds}") in status, (which, options)


HOST = "Host: x\r\n"
# What is sent, what gunicorn answers, what rwsgi answers.
REQUESTS = {
    "a small method": (f"get / HTTP/1.1\r\n{HOST}\r\n", 400, 200),
    "a method with a sign": (f"GET# / HTTP/1.1\r\n{HOST}\r\n", 400, 200),
    "no host": ("GET / HTTP/1.1\r\n\r\n", 200, 400),
    "HTTP/1.2": (f"GET / HTTP/1.2\r\n{HOST}\r\n", 200, 505),
    "a folded header": (f"GET / HTTP/1.1\r\n{HOST}X: a\r\n b\r\n\r\n", 400, 400),
    "a blank before a colon": (f"GET / HTTP/1.1\r\n{HOST}X : a\r\n\r\n", 400, 400),
    "a long line": (f"GET /{'a' * 5000} HTTP/1.1\r\n{HOST}\r\n", 414, 200),
    "a long header": (f"GET / HTTP/1.1\r\n{HOST}X: {'a' * 9000}\r\n\r\n", 431, 200),
    "110 headers": (f"GET / HTTP/1.1\r\n{HOST}" + "X: a\r\n" * 110 + "\r\n", 431, 200),
    "129 headers": (f"GET / HTTP/1.1\r\n{HOST}" + "X: a\r\n" * 129 + "\r\n", 431, 431),
    "a head of 70 kB": (f"GET / HTTP/1.1\r\n{HOST}X: {'a' * 70_000}\r\n\r\n", 431, 431),
}


def status_of(address: str, text: str) -> int:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        try:
            connection.sendall(text.encode())
        except ConnectionError:
            # What is refused is not read to its end.
            pass
        return int(connection.makefile("rb").readline().split()[1])


def test_limits_of_requests(both):
    for place, which in enumerate(("gunicorn", "rwsgi"), 1):
        _, address = both.start(which)
        statuses = {name: status_of(address, request[0]) for name, request in REQUESTS.items()}
        assert statuses == {name: request[place] for name, request in REQUESTS.items()}, which


def test_the_environ_and_what_a_proxy_says(both):
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.9", "X_Under": "1"}
    rule = "equal:${HTTP_X_FORWARDED_PROTO};https setscheme:https"
    assert rule in PAGE
    environs = {}
    for name, options in [("gunicorn", []), ("rwsgi", []), ("rwsgi with the rule", ["--route-if", rule])]:
        _, address = both.start(name.split()[0], *options)
        environs[name] = environ(address, headers)
    assert {name: each["wsgi.url_scheme"] for name, each in environs.items()} == {"gunicorn": "https", "rwsgi": "http", "rwsgi with the rule": "https"}
    for each in environs.values():
        assert each["REMOTE_ADDR"] == "127.0.0.1" and "HTTP_X_UNDER" not in each
    assert environs["gunicorn"]["RAW_URI"] == environs["rwsgi"]["REQUEST_URI"] == "/"
    assert environs["gunicorn"]["SERVER_SOFTWARE"].startswith("gunicorn/") and "SERVER_SOFTWARE" not in environs["rwsgi"]


def test_connections_headers_and_the_access_log(both):
    for which in ("gunicorn", "rwsgi"):
        server, address = both.start(which)
        with http.Connection(address) as connection:
            answer = connection.request("GET", "/seen")
            assert (answer.header("Connection") == "close") == (which == "gunicorn")
            assert answer.framing == ("chunked" if which == "gunicorn" else "length")
            assert answer.header("Server") == ("gunicorn" if which == "gunicorn" else None)
        if which == "rwsgi":
            server.logged('"GET /seen HTTP/1.1" 200')
        else:
            assert "/seen" not in server.log()


def test_an_upload_that_takes_its_time_holds_a_worker_of_gunicorn_alone(both):
    for which in ("gunicorn", "rwsgi"):
        _, address = both.start(which)
        with http.Connection(address) as slow, http.Connection(address) as other:
            slow.send(http.head("POST", "/", {"Content-Length": "10"}) + b"12345")
            # So that it is the first that is accepted.
            select.select([slow.socket], [], [], 0.5)
            other.send(http.head("GET", "/"))
            readable, _, _ = select.select([other.socket], [], [], 1 if which == "gunicorn" else 30)
            assert bool(readable) == (which == "rwsgi"), which
            slow.send(b"67890")
            assert slow.response("POST").status == 200
            assert other.response().status == 200


# Signals, exit statuses, statsd.


def test_the_number_of_workers_changes_by_signals(both):
    for which, options in [("gunicorn", ["-w", "2"]), ("rwsgi", ["--processes", "3"])]:
        server, _ = both.start(which, *options, *(["--auto-procname"] if which == "rwsgi" else []))
        first, most = (2, 3) if which == "gunicorn" else (3, 3)
        until(lambda: len(workers(server, which)) == first, "the workers run", context=server.log)
        for number, count in [(signal.SIGTTOU, first - 1), (signal.SIGTTIN, first), (signal.SIGTTIN, most)]:
            server.send(number)
            until(lambda: len(workers(server, which)) == count, f"{count} workers after {number}", context=server.log)
    server.logged("SIGTTIN: 4 workers cannot run")


def test_sigusr1_opens_the_log_again_in_both(both):
    for which, option in [("gunicorn", "--log-file"), ("rwsgi", "--logto")]:
        log = both.place(which) / "log"
        server, address = both.start(which, option, log)
        old = log.rename(log.with_suffix(".1"))
        server.send(signal.SIGUSR1)
        until(log.exists, "a new file", context=server.log)
        assert http.get(address, "/").status == 200
        assert server.process.poll() is None and old.exists()
    until(lambda: re.search(r"worker 1 \(pid \d+\) is (idle|busy): \d+ requests", old.read_text() + log.read_text()), "what the workers do")


def test_sigusr2_starts_a_second_gunicorn_and_only_a_line_of_rwsgi_s_log(both):
    server, address = both.start("rwsgi")
    server.send(signal.SIGUSR2)
    server.logged(r"worker 1 \(pid \d+\) is (idle|busy): \d+ requests")
    assert http.get(address, "/").status == 200
    pidfile = both.place("gunicorn") / "pid"
    server, _ = both.start("gunicorn", "--pid", pidfile)
    server.send(signal.SIGUSR2)
    second = pidfile.with_name("pid.2")
    until(second.exists, "a second master", context=server.log)
    until(lambda: len([p for p in server.processes() if p.parent == int(second.read_text())]) == 1, "its worker", context=server.log)
    master = int(second.read_text())
    for process in server.processes():
        if master in (process.pid, process.parent):
            processes.kill(process.pid)


@pytest.mark.parametrize(("app", "status"), [("nosuch:application", (3, 22)), ("site_:nosuch", (4, 22))])
def test_exit_statuses_of_what_cannot_be_loaded(both, app, status):
    server = both.servers["gunicorn"].run("--no-control-socket", "-b", tcp(), app, cwd=both.place("gunicorn"))
    assert server.wait_exit() == status[0], server.log()
    module, _, name = app.partition(":")
    server = both.servers["rwsgi"].run("--http-socket", tcp(), "--module", module, "--callable", name, cwd=both.place("rwsgi"))
    assert server.wait_exit() == status[1], server.log()


def test_exit_statuses_of_what_cannot_be_started(both):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = both.servers["rwsgi"].run("--http-socket", address, "--module", "site_", cwd=both.place("rwsgi"))
        assert server.wait_exit() == 1
        server.logged("ddress already in use")
        server = both.servers["gunicorn"].run("--no-control-socket", "-b", address, "site_:application", cwd=both.place("gunicorn"))
        assert server.wait_exit() == 1
        assert len(server.lines("Connection in use")) == 5, server.log()
    server = both.servers["gunicorn"].run("--no-such-option", cwd=both.place("gunicorn"))
    assert server.wait_exit() == 2
    server = both.servers["rwsgi"].run("--no-such-option", "--strict", cwd=both.place("rwsgi"))
    assert server.wait_exit() == 1


def test_names_of_statsd(both):
    wanted = {
        "gunicorn": [rb"site\.gunicorn\.requests:1\|c", rb"site\.gunicorn\.request\.duration:", rb"site\.gunicorn\.request\.status\.200:1\|c"],
        "rwsgi": [rb"site\.worker\.1\.requests:\d+\|g", rb"site\.worker\.1\.avg_response_time:", rb"site\.socket\.0\.listen_queue:"],
    }
    for which in ("gunicorn", "rwsgi"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
            statsd.bind(("127.0.0.1", 0))
            statsd.settimeout(0.2)
            at = f"127.0.0.1:{statsd.getsockname()[1]}"
            options = ["--statsd-host", at, "--statsd-prefix", "site"]
            if which == "rwsgi":
                options = ["--stats-push", f"statsd:{at},site", "--statsd-all-gauges", "--stats-pusher-default-freq", "1"]
            _, _ = both.start(which, *options)
            got: list[bytes] = []

            def have_come() -> bool:
                try:
                    got.append(statsd.recv(65536))
                except socket.timeout:
                    pass
                return all(any(re.search(pattern, packet) for packet in got) for pattern in wanted[which])

            until(have_come, f"the names of {which}", context=lambda: repr(got[-30:]))
