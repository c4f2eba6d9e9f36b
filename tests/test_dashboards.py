"""Grafana's dashboards, and the rules for Prometheus, on what real servers under load tell a real Prometheus."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest
import yaml

from rig import http, processes, stats
from rig.addresses import listening, tcp
from rig.alertmanager import Alertmanager, Receiver
from rig.cgroup import FakeGroup
from rig.load import Load
from rig.prometheus import Prometheus, Result, scrape_config
from rig.server import Program, Server, Servers
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="dashboards of rwsgi")

ROOT = Path(__file__).resolve().parent.parent
DASHBOARDS = ROOT / "deploy" / "grafana"
RULES = [ROOT / "deploy" / "prometheus" / name for name in ("recording.yml", "alerts.yml")]
NAMES = ["server.json", "fleet.json", "uwsgi.json"]

# What Grafana puts into a query. Many times the second between two scrapes, since a busy machine loses some.
INTERVAL = "15s"
# For scrapes that must succeed, s: many do not while the machine is busy.
PATIENCE = 120
# What stays 0 here: connections that wait for a moment, and what only clients or disks of another kind bring about.
MAY_BE_ZERO = "rwsgi_socket_backlog|rwsgi_slow_clients_total|rwsgi_temp_files_refused_total|_errors_total|rwsgi_draining"
MAY_BE_ZERO_OF = {"uwsgi.json": MAY_BE_ZERO + "|rwsgi_queue_rejected_total"}

APPLICATION = """
import os, time

STATUS = {"/missing": "404 Not Found", "/broken": "503 Broken"}


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/die":
        os.kill(os.getpid(), 9)
    if path == "/fail":
        raise ValueError("failed")
    sum(range(10_000))
    time.sleep(60 if path == "/hang" else 0.03)
    start_response(STATUS.get(path, "200 OK"), [("Content-Length", "2")])
    return [b"ok"]
"""


def read(name: str) -> dict:
    return json.loads((DASHBOARDS / name).read_text())


# The files themselves


def test_the_dashboards_are_those_that_the_program_beside_them_makes(tmp_path):
    for source in DASHBOARDS.glob("*.py"):
        shutil.copy(source, tmp_path)
    subprocess.run([sys.executable, tmp_path / "dashboards.py"], check=True, timeout=60)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == sorted(NAMES)
    for name in NAMES:
        same = (tmp_path / name).read_text() == (DASHBOARDS / name).read_text()
        assert same, f"{name} is not up to date: run python3 deploy/grafana/dashboards.py"


needs_types = pytest.mark.skipif(sys.version_info < (3, 11), reason="grafana-foundation-sdk wants Python 3.11")


@needs_types
@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_is_what_grafanas_schema_allows(name):
    from rig import grafana

    assert grafana.faults(read(name)) == []


@needs_types
@pytest.mark.parametrize("spoil", [
    lambda board: board.update(titel="x"),
    lambda board: board.pop("templating"),
    lambda board: board["panels"][1].update(gridPos={"w": "wide", "h": 8, "x": 0, "y": 0}),
    lambda board: board["panels"][1]["targets"][0].pop("expr"),
    lambda board: board["panels"][1]["options"].update(colorMode="loud"),
    lambda board: board["panels"][1]["fieldConfig"]["defaults"].update(units="s"),
    lambda board: board["panels"][7]["fieldConfig"]["defaults"]["custom"].update(drawStyle="lines"),
    lambda board: board["templating"]["list"][1].update(refresh=9),
    lambda board: board["annotations"]["list"][0].update(expression="up"),
])
def test_grafanas_schema_notices_a_mistake(spoil):
    from rig import grafana

    board = read("server.json")
    assert board["panels"][7]["type"] == "timeseries"
    spoil(board)
    assert len(grafana.faults(board)) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_what_a_reader_needs_and_lie_side_by_side(name):
    taken = set()
    for panel in read(name)["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"] and panel["description"] and panel["targets"], panel


# What a Prometheus answers


def alertmanager_config(receiver: str) -> str:
    """The example, in seconds where it waits for minutes, with a receiver of ours."""
    text = (ROOT / "deploy" / "prometheus" / "alertmanager.yml").read_text()
    changes = {"127.0.0.1:8080": receiver, "group_wait: 30s": "group_wait: 1s", "group_interval: 5m": "group_interval: 1s"}
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


class Scene:
    """Two rwsgi servers and a uWSGI with an exporter, under load, with all the misfortunes that panels show; and two
    Prometheus servers that scraped them, one of which reads native histograms."""

    def __init__(self, program: Program, rtop: str, uwsgi: Program, directory: Path, stack: ExitStack) -> None:
        self.directory, self.stack = directory, stack
        servers = Servers(program, directory)
        stack.callback(servers.stop_all)
        self.app = directory / "app.py"
        self.app.write_text(APPLICATION)
        self.group = FakeGroup(directory / "cgroup", memory_max=str(1 << 30), cpu_max="150000 100000")
        self._wear_down_group(1)
        self.sites, told = (tcp(), tcp()), (tcp(), tcp())
        self._serve = lambda number: servers(
            "--http", self.sites[number], "--stats", told[number], "--stats-http", "--wsgi-file", self.app, "--processes", 2,
            "--threads", 2, "--listen", 16, "--harakiri", 1, "--reload-on-rss", 512, "--disable-logging", env=self.group.env,
        )
        self.servers = [self._serve(number) for number in range(2)]
        other_directory = directory / "uwsgi"
        other_directory.mkdir()
        other = Servers(uwsgi, other_directory)
        stack.callback(other.stop_all)
        self.uwsgi_site, self.uwsgi_stats, exporter = tcp(), tcp(), tcp()
        self.uwsgi = other(
            "--http-socket", self.uwsgi_site, "--wsgi-file", self.app, "--master", "--processes", 2, "--memory-report",
            "--harakiri", 1, "--disable-logging", "--stats", self.uwsgi_stats,
        )
        self._exporter(rtop, exporter)
        found = {"http_sd_configs": [{"url": f"http://{exporter}/sd", "refresh_interval": "1s"}]}
        self.receiver = Receiver()
        stack.callback(self.receiver.stop)
        self.alertmanager = Alertmanager(directory, alertmanager_config(self.receiver.address))
        stack.callback(self.alertmanager.stop)
        jobs = [*scrape_config({"app": told}), {"job_name": "old-app", **found}]
        self.classic, self.native = (self._prometheus(name, jobs, features) for name, features in
                                     (("classic", []), ("native", ["native-histograms"])))
        self.begun = time.time()

    def _prometheus(self, name: str, jobs: list, features: list[str]) -> Prometheus:
        place = self.directory / name
        place.mkdir()
        started = Prometheus(place, {}, rules=RULES, features=features, config={
            "scrape_configs": jobs,
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [self.alertmanager.address]}]}]},
        })
        self.stack.callback(started.stop)
        return started

    def _exporter(self, rtop: str, address: str) -> None:
        with (self.directory / "exporter.log").open("wb") as log:
            process = subprocess.Popen([rtop, self.uwsgi_stats, "--exporter", address], stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log)
        self.stack.callback(lambda: (process.terminate(), process.wait(30)))
        until(lambda: listening(address), "the exporter listens", context=(self.directory / "exporter.log").read_text)

    def _wear_down_group(self, times: int) -> None:
        pressure = "\n".join(f"{kind} avg10=0.00 avg60=0.00 avg300=0.00 total={times * 90_000}" for kind in ("some", "full"))
        self.group.write(
            memory_current=str(900 << 20), memory_events=f"oom_kill {times}",
            cpu_stat=f"nr_throttled {times}\nthrottled_usec {times * 300_000}",
            cpu_pressure=pressure, memory_pressure=pressure, io_pressure=pressure,
        )

    def live(self) -> None:
        """Lets everything happen, each at a time when both Prometheus servers have seen what was before."""
        self._next(2)
        self.servers[0].stop()
        for prometheus in (self.classic, self.native):
            prometheus.wait("up == 0")
        self.servers[0] = self._serve(0)
        sites = (*self.sites, self.uwsgi_site)
        targets = (("/page", 6), ("/missing", 1), ("/broken", 1), ("/fail", 1))
        loads = [Load(site, target, clients=clients, expect=bool).start() for site in sites for target, clients in targets]
        self._next(2)
        self._wear_down_group(2)
        # The one whose starts a dashboard shows: which worker gets a request is chance.
        (first,) = (worker["pid"] for worker in self.uwsgi.stats()["workers"] if worker["id"] == 1)
        assert first > 0
        processes.kill(first)
        for site in sites:
            self._send(site, "/die")
        for server in self.servers:
            self._told(server, lambda document: sum(w["recycled"]["crash"] for w in document["workers"]), "a crash")
        self.uwsgi.wait_stats(
            lambda document: all(w["respawn_count"] > 1 for w in document["workers"] if w["id"] == 1), "uWSGI's crash"
        )
        for site in sites:
            for target in ("/hang", *["/page"] * 40):
                self._send(site, target)
        for server, site in zip(self.servers, self.sites):
            self._refused(server, site)
        for server in self.servers:
            self._told(server, lambda document: sum(w["harakiri_count"] for w in document["workers"]), "a harakiri")
        self.uwsgi.wait_stats(lambda document: sum(w["harakiri_count"] for w in document["workers"]), "uWSGI's harakiri")
        self._next(2)
        for server in self.servers:
            server.send(signal.SIGHUP)
        for server in self.servers:
            self._told(server, lambda document: document["reloads"]["done"] == 1 and document["generation"] == 2, "a reload")
        self.app.write_text("raise RuntimeError('broken deploy')\n")
        for server in self.servers:
            server.send(signal.SIGHUP)
            self._told(server, lambda document: document["reloads"]["failed"] == 1, "a reload that failed")
        self.app.write_text(APPLICATION)
        self._next(3)
        self.ended = self._good_moment(time.time())
        for load in loads:
            load.stop()

    @staticmethod
    def _told(server: Server, condition: Callable[[stats.Document], object], what: str) -> None:
        """Waits until a server that speaks HTTP says so."""
        until(lambda: condition(stats.read_http(server.stats_address)), what, context=server.log)

    def _send(self, site: str, target: str) -> None:
        """Sends a request and waits for no answer."""
        connection = http.Connection(site)
        connection.send(http.head("GET", target))
        self.stack.callback(connection.close)

    @staticmethod
    def _refused(server: Server, site: str) -> None:
        """Sends more at once than may wait, until the server has refused some."""

        def refused() -> int:
            with ExitStack() as burst:
                for _ in range(40):
                    burst.enter_context(http.Connection(site)).send(http.head("GET", "/page"))
                return stats.read_http(server.stats_address)["queue"]["rejected"]

        until(refused, "requests are refused", context=server.log)

    def _good_moment(self, begun: float) -> float:
        """Waits for a moment after `begun` at which no server is without values, and the rules have seen them: a scrape that
        takes longer than its second leaves none until the next one."""

        def found() -> float | None:
            # Scrapes that began before it have ended.
            moment = time.time() - 2
            answers = [prometheus.query("min_over_time(up[3s])", time=moment) for prometheus in (self.classic, self.native)]
            is_good = all(len(samples) == 3 and {sample["value"][1] for sample in samples} == {"1"} for samples in answers)
            return moment if moment > begun and is_good else None

        return until(found, "every server was scraped three times in a row", PATIENCE)

    def _next(self, scrapes: int) -> None:
        """Waits until every target was scraped so many times more."""
        for prometheus in (self.classic, self.native):
            before = counts(prometheus.query(SCRAPES))
            prometheus.wait(SCRAPES, lambda now: len(now) == 3 and all(
                count >= before.get(instance, 0) + scrapes for instance, count in counts(now).items()
            ), PATIENCE)


SCRAPES = "sum_over_time(up[1h])"


def counts(samples: Result) -> dict[str, int]:
    """The number of each server."""
    return {sample["metric"]["instance"]: int(sample["value"][1]) for sample in samples}


@pytest.fixture(scope="module")
def scene(program, rtop, venv_bin, tmp_path_factory):
    with ExitStack() as stack:
        made = Scene(program, rtop, Program(str(venv_bin / "uwsgi")), tmp_path_factory.mktemp("scene"), stack)
        made.live()
        yield made


def chosen(board: dict, query: str, variables: dict[str, str]) -> str:
    """A query as Grafana sends it."""
    values = {**variables, "__rate_interval": INTERVAL, "__interval": "1s", "__range": "1m"}
    sent = re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], query)
    assert "$" not in sent, sent
    return sent


def numbers(prometheus: Prometheus, query: str, instant: bool, scene: Scene) -> list[float]:
    """All numbers of an answer; of a native histogram, its counts."""
    if instant:
        series = prometheus.query(query, time=scene.ended)
    else:
        series = prometheus.api("query_range", query=query, start=scene.begun, end=scene.ended, step=1)["result"]
    found = []
    for each in series:
        found += [float(value) for _, value in [*each.get("values", []), *([each["value"]] if "value" in each else [])]]
        found += [float(native["count"]) for _, native in each.get("histograms", [])]
    return [number for number in found if not math.isnan(number)]


def test_every_query_of_every_panel_gives_data(scene):
    faults, asked = [], 0
    for name in NAMES:
        board = read(name)
        job = "old-app" if name == "uwsgi.json" else "app"
        for kind, prometheus in (("classic", scene.classic), ("native", scene.native)):
            variables = {"job": job, "instance": ".*" if name != "server.json" else scene.servers[0].stats_address}
            faults += variable_faults(board, prometheus, variables)
            queries = [(panel["title"], target["expr"], target.get("instant", False))
                       for panel in board["panels"] for target in panel.get("targets", [])]
            queries += [(f"annotation {each['name']}", each["expr"], False) for each in board["annotations"]["list"]]
            for title, query, instant in queries:
                asked += 1
                found = numbers(prometheus, chosen(board, query, variables), instant, scene)
                if not found:
                    faults.append(f"{name}, {kind}, {title}: no data for {query}")
                elif not any(found) and not re.search(MAY_BE_ZERO_OF.get(name, MAY_BE_ZERO), query):
                    faults.append(f"{name}, {kind}, {title}: nothing but 0 for {query}")
    assert not faults, "\n".join(faults)
    assert asked > 150


def variable_faults(board: dict, prometheus: Prometheus, variables: dict[str, str]) -> list[str]:
    """Variables that do not offer what the test has chosen."""
    faults = []
    for variable in board["templating"]["list"][1:]:
        metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
        offered = prometheus.api(f"label/{label}/values", **{"match[]": chosen(board, metric, variables)})
        wanted = variables[variable["name"]]
        if wanted not in offered and (wanted != ".*" or not offered):
            faults.append(f"{board['title']}: {variable['name']} offers {offered}")
    return faults


def names_in(expression: str) -> set[str]:
    """Metrics in an expression of PromQL."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|without|on|ignoring|group_left|group_right) \([^)]*\)", " ", expression)
    words = set(re.findall(r"(?<![\w:$])[a-z_][\w:]*", bare)) - set(re.findall(r"(\w+)\s*\(", bare))
    return words - {"and", "or", "unless", "by", "without", "on", "group_left"}


def test_rules_and_dashboards_name_only_what_servers_tell(scene):
    told = {prometheus: set(prometheus.api("label/__name__/values")) for prometheus in (scene.classic, scene.native)}
    rules = [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    expressions = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules}
    for name in NAMES:
        for panel in read(name)["panels"]:
            for target in panel.get("targets", []):
                expressions[f"{name}, {panel['title']}, {target['refId']}"] = target["expr"]
    assert names_in(expressions["RwsgiAllDown"]) == {"job:rwsgi_servers:count"}
    everywhere = set.union(*told.values())
    unknown = {where: names_in(expression) - everywhere for where, expression in expressions.items()}
    assert {where: names for where, names in unknown.items() if names} == {}


def test_the_page_says_which_alerts_can_fire_of_uwsgi(scene):
    told = set(scene.classic.api("label/__name__/values", **{"match[]": '{__name__=~".+", job=~"old-app|"}'}))
    rules = [rule for group in yaml.safe_load(RULES[1].read_text())["groups"] for rule in group["rules"]]
    page = re.search(r"these can fire:(.*?)\.\n", (ROOT / "docs" / "prometheus.md").read_text(), re.DOTALL)[1]
    assert set(re.findall(r"Rwsgi\w+", page)) == {rule["alert"] for rule in rules if names_in(rule["expr"]) <= told}


def test_the_recording_rules_record_in_a_real_prometheus(scene):
    for prometheus in (scene.classic, scene.native):
        for group in prometheus.api("rules")["groups"]:
            for rule in group["rules"]:
                assert rule["health"] == "ok" and not rule.get("lastError"), rule
        # Both jobs, also the one whose servers tell less.
        for record in ("job:rwsgi_servers:count", "job:rwsgi_errors:ratio1h"):
            assert {sample["metric"]["job"] for sample in prometheus.query(record)} == {"app", "old-app"}, record


def test_what_happened_raises_its_alerts(scene):
    alerts = ("RwsgiWorkerCrashed", "RwsgiReloadFailed", "RwsgiOomKill", "RwsgiRefused")
    expected = {(alert, server.stats_address) for alert in alerts for server in scene.servers}
    for prometheus in (scene.classic, scene.native):
        def fires(samples: Result) -> set[tuple[str, str]]:
            return {(sample["metric"]["alertname"], sample["metric"].get("instance", "")) for sample in samples}

        samples = prometheus.wait('ALERTS{alertstate="firing"}', lambda now: expected <= fires(now))
        wrong = {"RwsgiDown", "RwsgiAllDown", "RwsgiNotReady", "RwsgiVersionMismatch", "RwsgiGenerationMismatch"}
        assert not wrong & {alert for alert, _ in fires(samples)}


def test_alerts_reach_those_who_must_know_by_the_example_of_alertmanager(scene):
    def told(alert: str) -> set[tuple[str, str]]:
        """Who was told that it fires, and of which server, by messages for one job."""
        messages = [sent for sent in scene.receiver.messages if sent[1]["groupLabels"]["alertname"] == alert]
        return {(path, each["labels"]["instance"]) for path, message in messages for each in message["alerts"]}

    servers = [server.stats_address for server in scene.servers]
    for alert, path in (("RwsgiRefused", "/page"), ("RwsgiOomKill", "/page"), ("RwsgiReloadFailed", "/ticket")):
        until(lambda: told(alert) == {(path, at) for at in servers}, f"{path} is told of {alert}",
              context=lambda: f"{scene.receiver.messages}")
    assert {message["groupLabels"]["job"] for _, message in scene.receiver.messages} <= {"app", "old-app"}
