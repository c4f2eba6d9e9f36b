"""OpenTelemetry: metrics, traces of requests and lines of the log reach a collector that decodes them with OpenTelemetry's
own protobufs, and one that is away, slow or full costs the server nothing but what it says it drops."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from rig import http, processes, tls
from rig.addresses import tcp
from rig.otlp import Answer, Collector, attributes
from rig.site import KINDS, every_kind

pytestmark = pytest.mark.only_rwsgi(why="uWSGI does not export")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = (f"00-{TRACE}-{PARENT}-0{flag}" for flag in (1, 0))


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def site(serve, address, stats_at, collector):
    """The application, exporting to the collector."""

    def start(*options, endpoint=None, env=None, workers=1):
        exports = ["--otlp-endpoint", endpoint or collector.url] if endpoint != "" else []
        server = serve(
            "--http-socket", address, "--master", "--wsgi-file", "traced.py", "--stats", stats_at, *exports, *options,
            env={"NO_PROXY": "*"} | (env or {}),
        )
        server.wait_workers(workers)
        return server

    return start


def told(response: http.Response) -> dict[str, str | None]:
    """Which trace the application was told of."""
    return json.loads(response.body)


def get(address: str, target: str = "/", traceparent: str | None = None, **headers: str) -> http.Response:
    return http.request(address, "GET", target, headers | ({"traceparent": traceparent} if traceparent else {}))


def counted_by(server, **counts: int):
    """Waits until the stats count at least so much of what was exported or dropped."""
    return server.wait_stats(lambda d: all(d["otlp"][key] >= count for key, count in counts.items()), f"{counts}")["otlp"]


@pytest.fixture(scope="module")
def traced_sites(serve_module):
    """One server on every kind of socket, which traces what its callers trace."""
    collector = Collector()
    options = ["--wsgi-file", "traced.py", "--threads", 2, "--otlp-endpoint", collector.url, "--otlp-sample", 0]
    yield every_kind(serve_module, *options), collector
    collector.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_is_a_span_with_its_wait_and_the_application_s_call_below(traced_sites, kind):
    sites, collector = traced_sites
    parent = f"c7ad6b716920333{KINDS.index(kind)}"
    sent = {"traceparent": f"00-{TRACE}-{parent}-01", "tracestate": "a=1", "Cookie": "sid=secret", "User-Agent": "probe"}
    answer = sites[kind].get("/users/42?token=secret", sent)
    seen = told(answer)
    spans = collector.trace(lambda span: span.parent_span_id.hex() == parent, sites[kind].server.log)
    server = spans["server"]
    inner = [span for span in collector.spans() if span.parent_span_id == server.span_id]
    assert sorted(span.name for span in inner) == ["application", "queue"]
    application = next(span for span in inner if span.name == "application")
    assert (server.trace_id.hex(), server.trace_state, server.name) == (TRACE, "a=1", "GET /users/{}")
    assert seen == {"traceparent": f"00-{TRACE}-{application.span_id.hex()}-01", "tracestate": "a=1"}
    for span in inner:
        assert server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= server.end_time_unix_nano and span.trace_id == server.trace_id
    found = attributes(server)
    expected = {
        "http.request.method": "GET", "url.path": "/users/42", "url.query": "token=…", "url.scheme": "http",
        "http.route": "/users/{}", "http.response.status_code": 200, "user_agent.original": "probe",
        "client.address": "192.0.2.7" if kind == "socket" else "127.0.0.1", "network.protocol.version": "1.1",
        "http.response.body.size": len(answer.body),
    }
    assert found | expected == found
    assert "secret" not in str(collector.exports[-1].message)


def test_who_is_not_traced_finds_what_it_was_sent(traced_sites):
    sites, collector = traced_sites
    site = sites["http"]
    assert told(site.get("/", {"traceparent": NOT_SAMPLED}))["traceparent"] == NOT_SAMPLED
    assert told(site.get("/"))["traceparent"] is None
    site.get("/last", {"traceparent": SAMPLED.replace("b7ad", "ffff")})
    collector.trace(lambda span: span.parent_span_id.hex().startswith("ffff"), site.server.log)
    assert not [span for span in collector.spans() if span.parent_span_id.hex() == PARENT]


def test_requests_without_a_trace_begin_one_by_the_ratio(site, address, collector):
    server = site("--otlp-sample", "100%")
    for invalid in (None, SAMPLED.upper(), SAMPLED.replace("00-", "ff-"), f"00-{'0' * 32}-{PARENT}-01"):
        seen = told(get(address, "/", invalid, tracestate="of=another"))
        version, trace, parent, flags = seen["traceparent"].split("-")
        assert (version, flags, seen["tracestate"]) == ("00", "01", None) and trace != TRACE
        spans = collector.trace(lambda span: span.trace_id.hex() == trace, server.log)
        assert spans["server"].parent_span_id == b"" and spans["application"].span_id.hex() == parent
        assert spans["server"].trace_state == ""
    # The caller of a trace that it does not record has decided.
    assert told(get(address, "/", NOT_SAMPLED))["traceparent"] == NOT_SAMPLED


@pytest.mark.parametrize(("rule", "same"), [("sample", True), ("ignore", False)])
def test_callers_need_not_decide(site, address, rule, same):
    site("--otlp-sample", 1, "--otlp-parent", rule)
    assert (told(get(address, "/", NOT_SAMPLED))["traceparent"].split("-")[1] == TRACE) == same


def test_a_server_that_exports_nothing_changes_nothing(site, address):
    server = site(endpoint="")
    assert told(get(address, "/", SAMPLED))["traceparent"] == SAMPLED
    assert "otlp" not in server.stats() and "otlp" not in server.log()
    threads = processes.look(server.pid).threads()
    assert threads and not [name for name in threads if "traces" in name or "otlp" in name]


def test_errors_are_told_where_they_happened(site, address, collector):
    server = site("--otlp-sample", 1, "--harakiri", 5, "--processes", 2, workers=2)
    assert get(address, "/raise").status == 500
    assert get(address, "/missing").status == 404
    with ExitStack() as stack:
        for path in ("/die", "/hang"):
            connection = stack.enter_context(http.Connection(address))
            connection.send(http.head("GET", path, {}))

        def of(path):
            return collector.trace(lambda span: attributes(span)["url.path"] == path, server.log)

        raised, missing, died, hung = (of(path) for path in ("/raise", "/missing", "/die", "/hang"))
    error = raised["server"].status.STATUS_CODE_ERROR
    assert raised["server"].status.code == raised["application"].status.code == error
    assert attributes(raised["server"])["error.type"] == "ValueError"
    (event,) = raised["application"].events
    event = attributes(event)
    assert event["exception.type"] == "ValueError" and "traced.py" in event["exception.stacktrace"]
    assert event["exception.message"] == "no, see https://…@example.org/"
    assert (missing["server"].status.code, missing["server"].name) == (0, "GET")
    assert attributes(died["server"])["error.type"] == "worker_died"
    assert attributes(hung["server"])["error.type"] == "harakiri"
    assert {died["server"].status.code, hung["server"].status.code} == {error}


def test_a_route_that_the_application_names_is_the_span_s(site, address, collector):
    server = site("--otlp-sample", 1)
    get(address, "/named/1")
    assert collector.trace(lambda span: attributes(span)["http.route"] == "named.one", server.log)["server"].name == "GET named.one"


def test_metrics_are_sums_since_the_start_by_the_conventions_names(site, address, collector):
    server = site(
        "--otlp-interval", 1, "--otlp-service-name", "shop", "--otlp-attributes", "deployment.environment=test",
        "--otlp-traces=false",
    )
    for _ in range(3):
        get(address, "/users/7")

    def counted():
        metrics = collector.metrics() if collector.taken("metrics") else {}
        # Before the first request there are no durations, and a request is counted before it is no longer active.
        if "http.server.request.duration" not in metrics or metrics["http.server.active_requests"].sum.data_points[0].as_int:
            return False
        points = metrics["http.server.request.duration"].histogram.data_points
        return [point for point in points if attributes(point).get("http.route") == "/users/{}" and point.count == 3]

    (point,) = collector.wait(counted, "three requests are counted", server.log)
    document, metrics = server.stats(), collector.metrics()
    # An export may have come before the route's first request.
    assert document["started_at"] * 1000 <= point.start_time_unix_nano < point.time_unix_nano
    assert sum(point.bucket_counts) == 3 and list(point.explicit_bounds)[:2] == [0.005, 0.01]
    durations = metrics["http.server.request.duration"]
    assert (durations.unit, durations.histogram.aggregation_temporality) == ("s", 2)
    requests = metrics["rwsgi.requests"].sum
    assert (requests.data_points[0].as_int, requests.is_monotonic, requests.aggregation_temporality) == (3, True, 2)
    memory = metrics["process.memory.usage"]
    assert memory.unit == "By" and memory.sum.data_points[0].as_int > 1_000_000 and not memory.sum.is_monotonic
    assert metrics["http.server.active_requests"].sum.data_points[0].as_int == 0
    assert metrics["rwsgi.saturation"].gauge.data_points[0].as_double == 0
    resource = attributes(collector.taken("metrics")[-1].message.resource_metrics[0].resource)
    assert resource["service.name"] == "shop" and resource["deployment.environment"] == "test"
    assert resource["process.pid"] == server.pid and len(resource["service.instance.id"]) == 36
    assert not collector.taken("traces") and told(get(address, "/", SAMPLED))["traceparent"] == SAMPLED


@pytest.mark.parametrize("form", ["rwsgi", "json", "logfmt", "{\"trace\": \"%(trace_id)\", \"span_id\": \"%(span_id)\"}"])
def test_lines_of_the_log_have_their_trace(site, address, collector, form):
    option = "--log-format" if "%" in form else "--access-log-format"
    server = site("--otlp-logs", option, form)
    get(address, "/say", SAMPLED)
    get(address, "/raise", SAMPLED)
    spans = collector.trace(lambda span: attributes(span)["url.path"] == "/say", server.log)
    span = spans["server"].span_id.hex()

    def line(text):
        return next((record for record in collector.lines() if text in record.body.string_value), None)

    access = collector.wait(lambda: line(span), "the line of the request", server.log)
    assert access.span_id.hex() == span and TRACE in access.body.string_value
    assert access.trace_id.hex() == (TRACE if "%" not in form else "")
    if form == "json":
        assert json.loads(access.body.string_value)["trace_id"] == TRACE
    said = collector.wait(lambda: line("of the application"), "what the application has written", server.log)
    assert (said.trace_id.hex(), said.severity_text) == (TRACE, "WARN")
    raised = collector.wait(lambda: line("ValueError"), "the exception", server.log)
    assert raised.severity_text == "ERROR" and "traced.py" in raised.body.string_value, "its traceback is with it"
    # What is exported is logged as before.
    server.logged(span)
    server.logged("of the application")


def test_a_request_that_is_not_traced_has_the_trace_of_its_caller_in_the_log(serve, address):
    server = serve("--http-socket", address, "--wsgi-file", "traced.py", "--log-format", "%(uri) %(trace_id) %(span_id)")
    get(address, "/with", NOT_SAMPLED)
    get(address, "/without")
    server.logged(f"^/with {TRACE} -$")
    server.logged("^/without - -$")


def test_drained_lines_are_not_exported(site, address, collector):
    server = site("--otlp-logs", "--log-drain", "GET /private")
    get(address, "/private")
    get(address, "/public")
    collector.wait(lambda: [r for r in collector.lines() if "/public" in r.body.string_value], "a line", server.log)
    assert not [record for record in collector.lines() if "/private" in record.body.string_value]


def test_a_collector_that_is_away_costs_memory_up_to_a_bound_and_then_lines_that_are_counted(site, address):
    away = tcp()
    server = site("--otlp-logs", "--otlp-sample", 1, endpoint=f"http://{away}")
    before = processes.look(server.pid).rss
    for _ in range(200):
        assert get(address, "/loud").status == 200
    counted = counted_by(server, logs_dropped=30)
    assert counted["logs"] == counted["traces"] == counted["traces_dropped"] == 0
    assert processes.look(server.pid).rss - before < 40 << 20
    server.logged(r"WARN otlp: the collector at http://\S+/v1/traces does not take traces: .*: trying again")
    back = Collector(port=int(away.rpartition(":")[2]))
    try:
        counted = counted_by(server, traces=150, logs=100)
        server.logged("otlp: the collector at .* takes traces again")
        assert len([span for span in back.spans() if span.name == "application"]) >= counted["traces"]
    finally:
        back.close()


def test_a_collector_that_is_full_says_when_it_wants_to_be_asked_again(site, address, collector):
    turns = [Answer(503, {"Retry-After": "2"}), Answer(429, {"Retry-After": "0"})]
    collector.answer = lambda path: turns.pop(0) if turns else Answer()
    server = site("--otlp-sample", 1, "--otlp-metrics=false")
    get(address, "/")
    counted_by(server, traces=1)
    first, second, third = collector.exports
    assert [export.status for export in (first, second, third)] == [503, 429, 200]
    assert second.at - first.at >= 1.9 and third.at - second.at >= 0.9, "no collector is asked without a pause"
    assert first.message == second.message == third.message, "nothing is lost and nothing changed"


def test_what_the_collector_will_never_take_is_dropped_and_counted(site, address, collector):
    rejected = ExportTraceServiceResponse()
    rejected.partial_success.rejected_spans = 1
    rejected.partial_success.error_message = "too old"
    turns = [Answer(400, body=b"no such tenant"), Answer(200, body=rejected.SerializeToString())]
    collector.answer = lambda path: turns.pop(0) if turns else Answer()
    server = site("--otlp-sample", 1, "--otlp-metrics=false")
    get(address, "/")
    counted_by(server, traces_dropped=1)
    server.logged("WARN otlp: 1 traced requests dropped: the collector at .* refuses them: it answers 400 no such tenant")
    get(address, "/")
    counted_by(server, traces_dropped=2)
    get(address, "/")
    assert counted_by(server, traces=1)["traces_dropped"] == 2
    assert len(server.lines("otlp: 1 traced requests dropped")) == 1, "once a minute"


def test_one_signal_that_is_not_taken_holds_up_no_other(site, address, collector):
    collector.answer = lambda path: Answer(503 if path == "/v1/metrics" else 200)
    server = site("--otlp-sample", 1, "--otlp-interval", 1)
    collector.wait(lambda: [e for e in collector.exports if e.status == 503], "metrics are refused", server.log)
    get(address, "/")
    counted_by(server, traces=1)


def test_the_end_of_the_server_sends_what_waits(site, address, collector):
    server = site("--otlp-sample", 1, "--otlp-logs")
    get(address, "/last")
    server.stop()
    # The collector may not have read yet what has come.
    last = [
        lambda: [span for span in collector.spans() if span.kind == 2 and attributes(span)["url.path"] == "/last"],
        lambda: [record for record in collector.lines() if "GET /last" in record.body.string_value],
        lambda: collector.taken("metrics") and collector.metrics()["rwsgi.requests"].sum.data_points[0].as_int == 1,
    ]
    for what in last:
        collector.wait(what, "what was last has come", server.log)


def test_a_collector_that_never_answers_does_not_hold_up_the_end(site, address, collector):
    collector.answer = lambda path: None
    server = site("--otlp-sample", 1)
    get(address, "/")
    collector.wait(lambda: collector.exports, "it has been asked", server.log)
    server.send(signal.SIGTERM)
    server.wait_exit()
    # Whether the export that was in progress outlasts the server or not.
    assert server.lines("otlp: the server ends, and the collector") or server.lines("dropped: the server ends, and the collector")


def test_a_collector_may_speak_tls_and_ask_for_headers(serve, address, stats_at, tmp_path):
    # One that could sign others is none that a server may show.
    certificate = tls.Certificate(tmp_path / "collector.crt", tls.key(tmp_path / "collector.key"))
    extensions = [part for text in ("subjectAltName=IP:127.0.0.1", "basicConstraints=critical,CA:FALSE") for part in ("-addext", text)]
    tls.openssl("req", "-x509", "-new", "-key", certificate.key, "-out", certificate.cert, "-days", 30, "-subj", "/CN=c", *extensions)
    collector = Collector(certificate=certificate)
    options = ["--wsgi-file", "traced.py", "--otlp-sample", 1, "--otlp-endpoint", collector.url]
    try:
        server = serve(
            "--http-socket", address, *options, "--otlp-ca", certificate.cert, "--otlp-headers", "authorization=Bearer%20abc", "--stats", stats_at
        )
        get(address, "/")
        counted_by(server, traces=1)
        assert collector.exports[0].headers["authorization"] == "Bearer abc"
        assert "abc" not in server.log()
        strangers = tls.self_signed(tmp_path, "stranger")
        other = serve("--http-socket", tcp(), *options, env={"SSL_CERT_FILE": str(strangers.cert)})
        get(other.listens[0], "/")
        other.logged("WARN otlp: the collector at .* does not take traces: .*(certificate|UnknownIssuer)")
    finally:
        collector.close()


def test_the_variables_of_opentelemetry_say_what_options_leave_open(site, address, collector):
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "from-env",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a",
    }
    server = site("--otlp", "--otlp-sample", 1, endpoint="", env=env)
    get(address, "/")
    counted_by(server, traces=1)
    export = collector.taken("traces")[0]
    assert export.headers["x-tenant"] == "a"
    assert attributes(export.message.resource_spans[0].resource)["service.name"] == "from-env"


def test_a_variable_that_cannot_be_read_is_named_without_its_text(site, collector):
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer abc,more"}
    server = site("--otlp", endpoint="", env=env)
    server.logged("WARN otlp: OTEL_EXPORTER_OTLP_HEADERS is not used")
    assert "abc" not in server.log()


def test_no_proxy_is_asked_for_a_collector_on_this_machine(site, address, collector):
    env = {"HTTP_PROXY": f"http://{tcp()}", "NO_PROXY": ""}
    server = site("--otlp-sample", 1, env=env)
    get(address, "/")
    assert counted_by(server, traces=1)["traces_dropped"] == 0


def test_the_application_is_not_given_the_keys_of_the_collector(site, address):
    site("--otlp-headers", "authorization=Bearer%20abc", "--otlp-service-name", "shop")
    options = told(get(address, "/options"))
    assert "shop" in options["otlp-service-name"] and "otlp-headers" not in options and "abc" not in str(options)


def test_the_variables_alone_export_nothing(site, collector):
    server = site(endpoint="", env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    assert "otlp" not in server.stats()


def test_the_instrumentation_of_opentelemetry_goes_on_below_our_span(serve, address, collector):
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "NO_PROXY": "*"}
    server = serve("--http", address, "--wsgi-file", "instrumented.py", "--otlp", "--otlp-sample", 1, env=env)
    get(address, "/nested")

    def nested():
        by_id = {span.span_id: span for span in collector.spans()}
        inside = [span for span in by_id.values() if span.kind == 2 and span.parent_span_id in by_id]
        return [(span, by_id[span.parent_span_id]) for span in inside]

    ((span, parent),) = collector.wait(nested, "its span is below ours", server.log)
    assert (parent.name, span.trace_id) == ("application", parent.trace_id)
    assert {attributes(e.message.resource_spans[0].resource)["service.name"] for e in collector.taken("traces")} == {
        "inside", "unknown_service:rwsgi",
    }


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--otlp-ca", "/nowhere", "otlp-ca: cannot read '/nowhere'"),
        ("--otlp-endpoint", "collector:4318", "expected a URL, as in http://collector:4318"),
        ("--otlp-sample", "2", "expected a number from 0 to 1"),
    ],
)
def test_what_cannot_be_meant_ends_the_start(serve, address, option, value, reason):
    server = serve.run("--http-socket", address, "--wsgi-file", "traced.py", "--otlp", option, value)
    assert reason in server.log()
