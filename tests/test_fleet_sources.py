"""Where rtop's fleet comes from: lists, names, machines behind ssh, Prometheus; and that no server holds up another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rig import http, processes, stats
from rig.addresses import tcp
from rig.pretended import Pretended
from rig.sshd import Sshd
from rig.waiting import until


@pytest.fixture
def pretended():
    """Many servers."""
    servers = Pretended()
    yield servers
    servers.stop()


@pytest.fixture
def sshd(tmp_path):
    """Another machine."""
    directory = tmp_path / "sshd"
    directory.mkdir()
    server = Sshd(directory)
    yield server
    server.stop()


@pytest.fixture
def watching(rtop):
    """An rtop that watches until the test ends: `watching(*arguments)`."""
    started = []

    def start(*arguments) -> subprocess.Popen:
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [rtop, *map(str, arguments), "--servers", "-n", "1000000"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, processes.MARK: mark},
        )
        process.mark = mark
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def listed(rtop, *arguments) -> dict[str, dict]:
    """What `--servers --json` says, by server."""
    # It ends when all have answered. With a short interval, who is late is slow.
    interval = [] if "-f" in arguments else ["-f", 20]
    command = [rtop, *map(str, [*arguments, *interval]), "--servers", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == (0 if lines and all(line["state"] == "up" for line in lines) and not done.stderr else 1), done
    return {line["server"]: line for line in lines}


def test_a_list_names_the_servers_and_what_is_known_of_them(rtop, pretended, tmp_path):
    targets = tmp_path / "targets.txt"
    nobody = tcp()
    targets.write_text(f"# ours\n{pretended.at('127.0.0.2')} web2 rack=a\n\n{nobody} # not yet\n")
    servers = listed(rtop, f"@{targets}")
    assert set(servers) == {"web2", nobody}
    assert (servers["web2"]["state"], servers["web2"]["labels"]) == ("up", {"rack": "a"})
    assert servers[nobody]["state"] == "dead" and "refused" in servers[nobody]["why"]


def test_prometheus_s_own_list_is_read_as_well(rtop, pretended, tmp_path):
    targets = tmp_path / "targets.json"
    targets.write_text(json.dumps([{"targets": [pretended.at("127.0.0.2")], "labels": {"env": "prod"}}]))
    [server] = listed(rtop, f"@{targets}").values()
    assert (server["state"], server["labels"]) == ("up", {"env": "prod"})


def test_servers_of_a_list_may_speak_http_or_answer_a_control_socket(rtop, serve, stats_at, tmp_path):
    control = tmp_path / "control.sock"
    more = ["--stats", stats_at, "--stats-http", "--control", control]
    server = serve("--http-socket", tcp(), "--wsgi-file", "probe.py", "--processes", 2, *more)
    until(lambda: stats.read_http(stats_at)["generation"] == 1, "the application is loaded", context=server.log)
    targets = tmp_path / "targets.txt"
    targets.write_text(f"http://{stats_at}/ by-http\n{control} by-control\n")
    servers = listed(rtop, f"@{targets}")
    assert {name: (server["state"], server["generation"]) for name, server in servers.items()} == {
        "by-http": ("up", 1),
        "by-control": ("up", 1),
    }


def test_a_list_is_read_again_when_it_changes(pretended, watching, tmp_path):
    targets = tmp_path / "targets.txt"
    targets.write_text(pretended.at("127.0.0.2"))
    watching(f"@{targets}", "-f", 0.05)
    asked = pretended.asked
    until(lambda: asked.get("127.0.0.2", 0) > 2, "the first server is asked")
    targets.write_text(f"{pretended.at('127.0.0.3')} # another\n")
    until(lambda: asked.get("127.0.0.3", 0) > 2, "the new server is asked")
    # It may have been asked once more on the way.
    before, other = asked["127.0.0.2"] + 1, asked["127.0.0.3"]
    until(lambda: asked["127.0.0.3"] > other + 10, "the new server is asked ten times more")
    assert asked["127.0.0.2"] <= before


def test_a_list_with_a_mistake_says_where_and_a_missing_one_that_it_is_missing(rtop, tmp_path):
    targets = tmp_path / "targets.txt"
    targets.write_text(":1\n9191\n")
    done = subprocess.run([rtop, f"@{targets}", "--servers"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "line 2: '9191'" in done.stderr
    done = subprocess.run([rtop, "@none.txt", "--servers"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "there is no such file" in done.stderr


def test_each_address_of_a_name_is_a_server(rtop, pretended):
    servers = listed(rtop, f"dns:localhost:{pretended.port}")
    assert servers[pretended.at("127.0.0.1")]["state"] == "up"
    done = subprocess.run([rtop, "dns:no.such.name.invalid", "--servers"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "dns:no.such.name.invalid" in done.stderr


def test_slow_and_dead_servers_hold_nothing_up(pretended, watching, tmp_path):
    hosts = {kind: [f"127.{net}.0.{n}" for n in range(1, 31)] for net, kind in enumerate(("up", "silent", "truncated"), 1)}
    nobody = tcp().split(":")[1]
    pretended.answers.update({host: kind for kind in ("silent", "truncated") for host in hosts[kind]})
    lines = [pretended.at(host) for kind in hosts for host in hosts[kind]] + [f"127.4.0.{n}:{nobody}" for n in range(1, 31)]
    targets = tmp_path / "targets.txt"
    targets.write_text("\n".join(lines))
    process = watching(f"@{targets}", "-f", 0.1, "--timeout", 60)
    asked = pretended.asked
    until(lambda: all(asked.get(host, 0) > 20 for host in hosts["up"]), "all that answer were asked 20 times")
    # The silent ones are still being waited for, and those that break off are asked less and less often.
    assert {asked[host] for host in hosts["silent"]} == {1}
    assert max(asked[host] for host in hosts["truncated"]) < 15
    # No thread for each.
    assert len(os.listdir(f"/proc/{process.pid}/task")) < 8


def test_a_silent_server_is_slow_and_one_that_breaks_off_is_dead(rtop, pretended, tmp_path):
    pretended.answers.update({"127.0.0.2": "silent", "127.0.0.3": "truncated"})
    addresses = [pretended.at(f"127.0.0.{n}") for n in (2, 3, 4)]
    # By then the third one has answered, on a busy machine too.
    servers = listed(rtop, *addresses, "-f", 6, "--timeout", 60)
    assert [servers[address]["state"] for address in addresses] == ["slow", "dead", "up"]
    assert servers[addresses[1]]["why"] == "truncated response (50 bytes)"


def test_sockets_of_another_machine_share_one_ssh(rtop, serve, sshd, pretended, tmp_path):
    told, control = tmp_path / "stats.sock", tmp_path / "control.sock"
    serve("--http-socket", tcp(), "--wsgi-file", "probe.py", "--processes", 2, "--stats", told, "--control", control)
    here = pretended.at("127.0.0.2")
    far = [f"ssh://machine{told}", f"ssh://machine{control}", f"ssh://machine/{pretended.at('127.0.0.3')}"]
    runs = []

    def all_up() -> bool:
        # Five seconds each, in which ssh may not have connected yet.
        runs.append(listed(rtop, *far, here, "--ssh-config", sshd.config, "-f", 0.2, "-n", 25))
        assert set(runs[-1]) == {*far, here}
        return all(server["state"] == "up" for server in runs[-1].values()) and "rps" in runs[-1][far[2]]["figures"]

    until(all_up, "all are up", context=lambda: f"{runs[-1]}\n{sshd.log()}")
    assert 1 <= sshd.logins() <= len(runs)


def test_a_server_of_another_machine_is_a_pool_like_any_other(rtop, serve, sshd, tmp_path):
    told = tmp_path / "stats.sock"
    serve("--http-socket", tcp(), "--wsgi-file", "probe.py", "--processes", 2, "--stats", told).wait_workers(2)
    # ssh has to connect first.
    command = [rtop, f"ssh://machine{told}", "--ssh-config", sshd.config, "--batch", "-n", "1", "--timeout", "30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"ssh://machine{told}" in done.stdout and "2 idle" in done.stdout, done


def test_what_ssh_says_is_told(rtop, sshd, tmp_path):
    closed = f"ssh://machine/{tcp()}"
    last = []

    def told(config: Path, why: str) -> bool:
        last[:] = [listed(rtop, closed, "--ssh-config", config, "-f", 0.2, "-n", 25)[closed]]
        return last[0]["state"] == "dead" and why in last[0]["why"]

    until(lambda: told(sshd.config, "Connection refused"), "nobody listens there", context=lambda: str(last))
    stranger = sshd.client("stranger")
    until(lambda: told(stranger, "Permission denied (publickey"), "ssh is not let in", context=lambda: str(last))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ssh_ends_with_rtop(rtop, sshd, pretended, watching, number):
    process = watching(f"ssh://machine/{pretended.at('127.0.0.2')}", "--ssh-config", sshd.config, "-f", 0.1)
    until(lambda: pretended.asked.get("127.0.0.2", 0) > 2, "the server is asked through ssh", context=sshd.log)
    assert "ssh" in {each.name for each in processes.marked(process.mark)}
    process.send_signal(number)
    process.wait(30)
    until(lambda: not processes.marked(process.mark), "nothing of it is left")


class UwsgiExporter(BaseHTTPRequestHandler):
    """What `uwsgi_exporter` says of a uWSGI of two workers; each scrape is ten requests later."""

    requests = 0

    def do_GET(self):
        UwsgiExporter.requests += 10
        count, uri = UwsgiExporter.requests, 'stats_uri="tcp://127.0.0.1:1717"'
        lines = [f"uwsgi_up 1\nuwsgi_listen_queue_length{{{uri}}} 3"]
        for worker in (1, 2):
            labels = f'{{{uri},worker_id="{worker}"}}'
            lines += [f"uwsgi_worker_requests_total{labels} {count}", f"uwsgi_worker_exceptions_total{labels} {count // 10}"]
            lines += [f"uwsgi_worker_running_time_seconds{labels} {count * 0.005}", f"uwsgi_worker_cores{labels} 1"]
            lines += [f"uwsgi_worker_rss_bytes{labels} 1000000"]
        text = "\n".join(lines).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def exporter():
    """The address of an exporter for uWSGI."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), UwsgiExporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_real_prometheus_gives_a_row_for_each_server_that_it_scraped(rtop, serve, prometheus, exporter):
    webs, told = [tcp(), tcp()], [tcp(), tcp()]
    for web, at in zip(webs, told):
        serve("--http-socket", web, "--wsgi-file", "probe.py", "--processes", 2, "--stats", at, "--stats-http")
    nobody = tcp()
    scraper = prometheus({"app": [*told, exporter, nobody], "other": [told[0]]})

    def rate(job: str, instance: str, name: str) -> list[float]:
        return scraper.values(f'sum(rate({name}{{job="{job}",instance="{instance}"}}[1m])) > 0')

    def measured() -> bool:
        for web in webs:
            http.get(web, "/pid")
        known = all(rate("app", at, "rwsgi_worker_requests_total") for at in told)
        return known and bool(rate("app", exporter, "uwsgi_worker_requests_total"))

    until(measured, "Prometheus knows rates of all", context=lambda: f"{scraper.targets()}")
    servers: dict[str, dict] = {}

    def all_up() -> bool:
        # On a busy machine a scrape takes longer than its second, and then the server is down until the next one.
        servers.update(listed(rtop, f"prometheus://{scraper.address}/?job=app", "-f", 0.2, "-n", 8))
        assert set(servers) == {*told, exporter, nobody}
        return measured() and all(servers[at]["state"] == "up" for at in (*told, exporter))

    until(all_up, "all that are there are up", context=lambda: f"{servers}")
    for at in told:
        figures = servers[at]["figures"]
        assert servers[at]["state"] == "up" and servers[at]["generation"] == 1
        assert figures["rps"] > 0 and figures["p99"] > figures["p50"] > 0 and figures["rss"] > 1 << 20, figures
        assert figures["error_rate"] == 0
        # Where its metrics are scraped, a closer look finds its stats.
        assert servers[at]["address"] == f"http://{at}/"
    figures = servers[exporter]["figures"]
    assert figures["mean"] == pytest.approx(5000) and figures["error_rate"] == pytest.approx(0.1, rel=0.2)
    assert (figures["waiting"], figures["rss"]) == (3, 2_000_000) and figures["rps"] > 0
    assert (servers[nobody]["state"], servers[nobody]["why"]) == ("dead", "Prometheus cannot scrape it")
    # A point of the past, and what it knows now.
    assert servers[told[0]]["points"] >= 2
    assert set(listed(rtop, f"prometheus://{scraper.address}/?job=other")) == {told[0]}
    command = [rtop, f"prometheus://{scraper.address}/?job=none", "--servers"]
    none = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert none.returncode == 1 and "no server with these labels" in none.stderr


def test_a_prometheus_that_is_not_there_or_is_none_is_said_to_be_so(rtop, exporter):
    for address, told in [(tcp(), "refused"), (exporter, "HTTP status 501")]:
        command = [rtop, f"prometheus://{address}/?job=app", "--servers"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and told in done.stderr, done
