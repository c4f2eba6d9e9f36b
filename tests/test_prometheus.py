"""`/metrics` as a real Prometheus, promtool and Prometheus's own Python client read it."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from rig import http, stats
from rig.addresses import tcp
from rig.prometheus import promtool
from rig.waiting import until

pytestmark = pytest.mark.only_rwsgi(why="uWSGI has no /metrics")

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"

TEXT = "text/plain;version=0.0.4"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

# What changes without a request.
RESTLESS = ("_memory_bytes", "_cpu_seconds_total", "_busy_seconds_total", "_gil_wait_seconds_total", "scrape", "cgroup")

APPLICATION = """
import time, uwsgi
uwsgi.metric_set("sold", -5)

def application(environ, start_response):
    uwsgi.cache_get(environ["QUERY_STRING"])
    time.sleep(float(environ["QUERY_STRING"] or 0))
    status = "500 No" if environ["PATH_INFO"] == "/fail" else "200 OK"
    start_response(status, [("Content-Length", "2")])
    return [b"ok"]
"""


class Paced:
    """A server of which each request takes as long as it says, and its stats."""

    def __init__(self, serve, directory, *options: object) -> None:
        application = directory / "paced.py"
        application.write_text(APPLICATION)
        self.address, self.stats = tcp(), tcp()
        self.server = serve(
            "--http", self.address, "--wsgi-file", application, "--processes", 2, "--threads", 2, "--disable-logging",
            "--cache2", "name=c,items=8", "--metric", "name=sold,type=gauge", "--gc-stats",
            "--stats", self.stats, "--stats-http", *options,
        )  # fmt: skip
        self.sent = 0

    def load(self) -> None:
        """Requests of many lengths, a few of which fail."""
        for nth in range(80):
            target = f"/fail?{nth / 4000}" if nth % 20 == 0 else f"/users/{nth}/?{nth / 4000}"
            assert http.get(self.address, target).status == (500 if nth % 20 == 0 else 200)
        self.sent += 80

    def document(self) -> stats.Document:
        """The document in which every request is counted, and every worker idle again."""

        def counted() -> stats.Document | None:
            document = stats.read_http(self.stats)
            is_idle = all(worker["status"] == "idle" for worker in document["workers"])
            return document if is_idle and stats.total(document, "requests") == self.sent else None

        return until(counted, f"{self.sent} requests counted")

    def metrics(self, accept: str | None = None) -> http.Response:
        answer = http.get(self.stats, "/metrics", {"Accept": accept} if accept else {})
        assert answer.status == 200, answer
        return answer


class Relay:
    """Passes `/metrics` on as if Prometheus accepted nothing but `accept`: 2.42 always prefers OpenMetrics to text."""

    def __init__(self, upstream: str, accept: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = http.get(upstream, self.path, {"Accept": accept})
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.header("Content-Type") or "")
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def samples(families) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What does not change without a request, of what one of the client's parsers read; no series is there twice."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            if not any(word in sample.name for word in RESTLESS):
                found[key] = sample.value
    return found


def quantile(encoded: str, share: float) -> float:
    """A quantile of a histogram of the document, s."""
    counts = stats.histogram_counts(encoded)
    left = share * sum(counts)
    for index, count in enumerate(counts):
        left -= count
        if left <= 0:
            bucket = max((index >> 7) - 1, 0)
            return ((index - (bucket << 7)) << bucket) / 1e6
    raise AssertionError("nothing was counted")


@pytest.fixture(scope="module")
def paced(serve_module, tmp_path_factory):
    paced = Paced(serve_module, tmp_path_factory.mktemp("paced"))
    paced.load()
    paced.document()
    return paced


def test_a_client_that_asks_for_nothing_gets_text_and_others_what_they_ask_for(paced):
    for accept, content_type in [
        (None, "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8"),
        (f"{OPENMETRICS};escaping=allow-utf-8;q=0.5,{TEXT};q=0.2", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (f"{PROTOBUF};escaping=allow-utf-8;q=0.6,{OPENMETRICS};q=0.5", PROTOBUF.replace(";", "; ")),
    ]:
        answer = paced.metrics(accept)
        assert answer.header("Content-Type") == content_type
        assert answer.header("Vary") == "Accept"


def test_prometheus_s_own_client_reads_both_texts_alike(paced):
    plain = samples(parse_text(paced.metrics(TEXT).text))
    openmetrics = samples(parse_openmetrics(paced.metrics(OPENMETRICS).text))
    assert plain == openmetrics
    requests = [value for (name, _), value in plain.items() if name == "rwsgi_worker_requests_total"]
    assert len(requests) == 2 and sum(requests) == paced.sent
    assert plain["rwsgi_application_metric", frozenset({("name", "sold")})] == -5
    assert plain["rwsgi_request_duration_seconds_count", frozenset()] == paced.sent
    assert {dict(labels)["phase"] for name, labels in plain if name == "rwsgi_phase_duration_seconds_count"} == {
        "queue", "body", "gil", "application", "write"
    }  # fmt: skip


def test_promtool_finds_nothing_to_complain_of(paced):
    checked = promtool("check", "metrics", stdin=paced.metrics().text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_real_prometheus_reads_every_format(paced, prometheus):
    document = paced.document()
    with Relay(paced.stats, TEXT) as text, Relay(paced.stats, OPENMETRICS) as openmetrics:
        server = prometheus(
            {"text": [text.address], "openmetrics": [openmetrics.address], "protobuf": [paced.stats]},
            features=["native-histograms"],
        )
        moment = server.good_moment()

        def by_job(expression: str) -> dict[str, float]:
            return {sample["metric"]["job"]: float(sample["value"][1]) for sample in server.query(expression, time=moment)}

        all_jobs = ("text", "openmetrics", "protobuf")
        assert by_job("sum by (job) (rwsgi_worker_requests_total)") == dict.fromkeys(all_jobs, paced.sent)
        failed = by_job('sum by (job) (rwsgi_worker_responses_total{class="5xx"})')
        assert failed == dict.fromkeys(all_jobs, stats.responses(document)["5xx"])
        assert by_job("rwsgi_saturation") == dict.fromkeys(all_jobs, 0)

        # Classic buckets in the texts, a native histogram in protobuf.
        classic = by_job('rwsgi_request_duration_seconds_bucket{le="+Inf"}')
        assert classic == {"text": paced.sent, "openmetrics": paced.sent}
        assert by_job("histogram_count(rwsgi_request_duration_seconds)") == {"protobuf": paced.sent}
        for share in (0.1, 0.5, 0.9, 0.99):
            exact = quantile(document["latency"], share)
            found = by_job(f"histogram_quantile({share}, rwsgi_request_duration_seconds)")["protobuf"]
            # Half of each is a bucket of 2.2 %, and a counter of 0.8 %.
            assert found == pytest.approx(exact, rel=0.03), share
        [total] = by_job("histogram_sum(rwsgi_request_duration_seconds)").values()
        assert total == pytest.approx(by_job("rwsgi_request_duration_seconds_sum")["text"])
        phases = server.values('histogram_quantile(0.5, rwsgi_phase_duration_seconds{phase="application"})', time=moment)
        assert phases == [
            pytest.approx(quantile(document["phases"]["application"], 0.5), rel=0.03)
        ]


def test_a_prometheus_without_native_histograms_has_the_classic_ones(paced, prometheus):
    server = prometheus({"app": [paced.stats]})
    moment = server.good_moment()
    assert server.values('rwsgi_request_duration_seconds_bucket{le="+Inf"}', time=moment) == [paced.sent]
    routes = server.values('count(rwsgi_route_duration_seconds_bucket{le="1.0"})', time=moment)
    assert routes == [len(paced.document()["routes"])]


def quantiles() -> dict[str, str]:
    """Each query for a quantile of a histogram in the rules and the dashboards."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / "recording.yml").read_text())["groups"]
    found = {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}
    for board in ("server.json", "fleet.json"):
        for panel in json.loads((DEPLOY / "grafana" / board).read_text())["panels"]:
            found |= {f"{board}, {panel['title']}, {each['refId']}": each["expr"] for each in panel.get("targets", [])}
    return {name: query for name, query in found.items() if "histogram_quantile" in query}


def test_rules_and_dashboards_have_quantiles_while_prometheus_keeps_both_kinds_of_a_histogram(paced, prometheus):
    # What `always_scrape_classic_histograms` makes of one scrape, here by two of one server.
    labels = [{"target_label": name, "replacement": value} for name, value in (("job", "app"), ("instance", "web1"))]
    with Relay(paced.stats, TEXT) as text:
        server = prometheus(
            {"native": [paced.stats], "classic": [text.address]}, features=["native-histograms"], job={"relabel_configs": labels}
        )
        for series in ("rwsgi_request_duration_seconds", 'rwsgi_request_duration_seconds_bucket{le="1.0"}'):
            server.wait(f"rate({series}[1m])")
        paced.load()
        server.wait("histogram_count(rate(rwsgi_request_duration_seconds[1m])) > 0")
        asked = {name: re.sub(r"\$(job|instance)", ".*", query) for name, query in quantiles().items()}
        asked = {name: query.replace("$__rate_interval", "1m") for name, query in asked.items()}
        assert len(asked) > 8

        # Those of the two scrapes that have not come yet since the load, or were late, come with the next.
        def without() -> list[str]:
            return [name for name, query in asked.items() if not server.query(query)]

        until(lambda: not without(), "each query has a value", context=lambda: repr(without()))


# What timonwong/uwsgi_exporter 1.3 makes of a document, by pkg/collector/exporter.go: names, types, and where values are.
GAUGE, COUNTER = "gauge", "counter"
OF_SERVER = {
    "listen_queue_length": (GAUGE, lambda d: d["listen_queue"]),
    "listen_queue_errors": (GAUGE, lambda d: d["listen_queue_errors"]),
    "signal_queue_length": (GAUGE, lambda d: d["signal_queue"]),
    "workers": (GAUGE, lambda d: len([w for w in d["workers"] if w["id"]])),
}
OF_SOCKET = {
    "queue_length": (GAUGE, lambda s: s["queue"]),
    "max_queue_length": (GAUGE, lambda s: s["max_queue"]),
    "shared": (GAUGE, lambda s: s["shared"]),
    "can_offload": (GAUGE, lambda s: s["can_offload"]),
}
OF_WORKER = {
    "accepting": (GAUGE, lambda w: w["accepting"]),
    "delta_requests": (GAUGE, lambda w: w["delta_requests"]),
    "signal_queue_length": (GAUGE, lambda w: w["signal_queue"]),
    "rss_bytes": (GAUGE, lambda w: w["rss"]),
    "vsz_bytes": (GAUGE, lambda w: w["vsz"]),
    "running_time_seconds": (GAUGE, lambda w: w["running_time"] / 1e6),
    "last_spawn_time_seconds": (GAUGE, lambda w: w["last_spawn"]),
    "average_response_time_seconds": (GAUGE, lambda w: w["avg_rt"] / 1e6),
    "apps": (GAUGE, lambda w: len(w["apps"])),
    "cores": (GAUGE, lambda w: len(w["cores"])),
    "requests_total": (COUNTER, lambda w: w["requests"]),
    "exceptions_total": (COUNTER, lambda w: w["exceptions"]),
    "harakiri_count_total": (COUNTER, lambda w: w["harakiri_count"]),
    "signals_total": (COUNTER, lambda w: w["signals"]),
    "respawn_count_total": (COUNTER, lambda w: w["respawn_count"]),
    "transmitted_bytes_total": (COUNTER, lambda w: w["tx"]),
    "busy": (GAUGE, lambda w: w["status"] == "busy"),
    "idle": (GAUGE, lambda w: w["status"] == "idle"),
    "cheap": (GAUGE, lambda w: w["status"] == "cheap"),
}
OF_APP = {
    "startup_time_seconds": (GAUGE, lambda a: a["startup_time"]),
    "requests_total": (COUNTER, lambda a: a["requests"]),
    "exceptions_total": (COUNTER, lambda a: a["exceptions"]),
}
OF_CORE = {
    "busy": (GAUGE, lambda c: c["in_request"]),
    "requests_total": (COUNTER, lambda c: c["requests"]),
    "static_requests_total": (COUNTER, lambda c: c["static_requests"]),
    "routed_requests_total": (COUNTER, lambda c: c["routed_requests"]),
    "offloaded_requests_total": (COUNTER, lambda c: c["offloaded_requests"]),
    "write_errors_total": (COUNTER, lambda c: c["write_errors"]),
    "read_errors_total": (COUNTER, lambda c: c["read_errors"]),
}
OF_CACHE = {
    "hits": (COUNTER, lambda c: c["hits"]),
    "misses": (COUNTER, lambda c: c["miss"]),
    "full": (COUNTER, lambda c: c["full"]),
    "items": (GAUGE, lambda c: c["items"]),
    "max_items": (GAUGE, lambda c: c["max_items"]),
}
# Of its own work; their values are not a document's.
OF_EXPORTER = {
    "uwsgi_exporter_scrapes_total": COUNTER,
    "uwsgi_exporter_scrape_errors_total": COUNTER,
    "uwsgi_exporter_scrape_duration_seconds": "summary",
    "uwsgi_exporter_last_scrape_error": GAUGE,
    "uwsgi_up": GAUGE,
}


def by_exporter(document: stats.Document, uri: str, cores: bool) -> dict[tuple[str, frozenset[tuple[str, str]]], tuple[str, float]]:
    """What the exporter makes of a document: name and labels of each sample, with its type and value."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], tuple[str, float]] = {}

    def collect(prefix, table, thing, **labels) -> None:
        labels = {"stats_uri": uri, **{name: str(value) for name, value in labels.items()}}
        for name, (kind, value) in table.items():
            found[f"uwsgi_{prefix}{name}", frozenset(labels.items())] = (kind, float(value(thing)))

    collect("", OF_SERVER, document)
    for socket in reversed(document["sockets"]):
        collect("socket_", OF_SOCKET, socket, name=socket["name"], proto=socket["proto"])
    for worker in document["workers"]:
        if worker["id"] == 0:
            continue
        collect("worker_", OF_WORKER, worker, worker_id=worker["id"])
        for app in worker["apps"]:
            labels = {"app_id": app["id"], "mountpoint": app["mountpoint"], "chdir": app["chdir"]}
            collect("worker_app_", OF_APP, app, worker_id=worker["id"], **labels)
        for core in worker["cores"] if cores else ():
            collect("worker_core_", OF_CORE, core, worker_id=worker["id"], core_id=core["id"])
    for cache in document.get("caches", ()):
        collect("cache_", OF_CACHE, cache, name=cache["name"])
    return found


def of_text(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], tuple[str, float]]:
    """The same of a text 0.0.4, names as they stand there: the client's parser gives every counter its `_total`."""
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE "))
    found = {}
    for line in text.splitlines():
        if line.startswith("uwsgi_"):
            name = line.split("{")[0].split(" ")[0]
            [family] = parse_text(f"# TYPE {name} gauge\n{line}\n")
            [sample] = family.samples
            kind = kinds.get(name) or kinds[name.removesuffix("_sum").removesuffix("_count")]
            found[name, frozenset(sample.labels.items())] = (kind, sample.value)
    return found


@pytest.mark.parametrize("cores", [False, True], ids=["usual", "with cores"])
def test_metrics_compat_has_every_name_of_uwsgi_exporter_with_its_type_labels_and_value(serve, tmp_path, cores):
    paced = Paced(serve, tmp_path, "--metrics-compat", "uwsgi_exporter,cores" if cores else "uwsgi_exporter")
    paced.load()
    document = paced.document()
    text = paced.metrics().text
    found = of_text(text)
    own = {key: found.pop(key) for key in list(found) if key[0].startswith(("uwsgi_exporter_", "uwsgi_up"))}
    expected = by_exporter(document, f"http://{paced.stats}", cores)
    assert expected.keys() == found.keys()

    def steady(all_samples):
        # Memory is read again for each document.
        return {key: value for key, value in all_samples.items() if not key[0].endswith(("rss_bytes", "vsz_bytes"))}

    assert steady(found) == steady(expected)
    assert {name.removesuffix("_sum").removesuffix("_count"): kind for (name, _), (kind, _) in own.items()} == OF_EXPORTER
    assert own["uwsgi_up", frozenset()] == (GAUGE, 1)
    assert own["uwsgi_exporter_scrapes_total", frozenset()] == (COUNTER, 1)
    assert "\nrwsgi_worker_requests_total{" in text, "ours are there too"
    # The series are the same for a Prometheus that reads OpenMetrics.
    openmetrics = samples(parse_openmetrics(paced.metrics(OPENMETRICS).text))
    names = {name for name, _ in openmetrics}
    assert {"uwsgi_cache_hits", "uwsgi_worker_requests_total", "uwsgi_listen_queue_errors"} <= names
    assert {key for key in openmetrics if key[0].startswith("uwsgi_worker_")} == {
        key for key in found if key[0].startswith("uwsgi_worker_")
    }


def test_metrics_compat_is_of_uwsgi_exporter_alone(serve):
    server = serve.run("--http", tcp(), "--wsgi-file", "foobar.py", "--metrics-compat", "other_exporter")
    assert server.process.returncode != 0
    assert server.lines("metrics-compat") and server.lines("uwsgi_exporter"), json.dumps(server.log())
