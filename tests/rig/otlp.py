"""A collector of OpenTelemetry: takes OTLP over HTTP, and decodes it with OpenTelemetry's own protobufs."""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rig.waiting import until

REQUESTS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


@dataclass
class Export:
    """A request that has come."""

    path: str
    headers: dict[str, str]
    message: Any
    at: float
    status: int


@dataclass
class Answer:
    """What the collector answers."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Collector:
    """Listens on a port of its own. `answer` says what each request gets, by its path; `None` for none ever."""

    def __init__(self, port: int = 0, certificate: Any = None) -> None:
        self.exports: list[Export] = []
        self.answer: Callable[[str], Answer | None] = lambda path: Answer()
        self.released = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/x-protobuf"
                answer = collector.answer(self.path)
                message = REQUESTS[self.path]()
                message.ParseFromString(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = answer.status if answer else 0
                collector.exports.append(Export(self.path, headers, message, time.monotonic(), status))
                if answer is None:
                    collector.released.wait()
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.cert, certificate.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.scheme = "https" if certificate else "http"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        """Ends it."""
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def taken(self, signal: str) -> list[Export]:
        """What was taken of a signal: `traces`, `metrics`, `logs`."""
        return [export for export in list(self.exports) if export.path == f"/v1/{signal}" and export.status == 200]

    def spans(self) -> list[Any]:
        """All spans."""
        scopes = [scope for export in self.taken("traces") for of in export.message.resource_spans for scope in of.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def lines(self) -> list[Any]:
        """All records of the log."""
        scopes = [scope for export in self.taken("logs") for of in export.message.resource_logs for scope in of.scope_logs]
        return [record for scope in scopes for record in scope.log_records]

    def metrics(self) -> dict[str, Any]:
        """The metrics of the last export, by name."""
        scopes = [scope for of in self.taken("metrics")[-1].message.resource_metrics for scope in of.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def wait(self, condition: Callable[[], Any], what: str, log: Callable[[], str] = str) -> Any:
        """Waits for something of what has come."""
        return until(condition, what, context=lambda: f"{[(e.path, e.status) for e in self.exports]}\n{log()}")

    def trace(self, condition: Callable[[Any], bool], log: Callable[[], str] = str) -> dict[str, Any]:
        """The spans of the first trace of whose SERVER spans one meets the condition, by their names: that span is
        `server`."""
        def found() -> dict[str, Any] | None:
            spans = self.spans()
            server = next((span for span in spans if span.kind == span.SPAN_KIND_SERVER and condition(span)), None)
            if server is None:
                return None
            return {span.name: span for span in spans if span.trace_id == server.trace_id} | {"server": server}

        return self.wait(found, "the trace", log)


def attributes(holder: Any) -> dict[str, Any]:
    """Attributes by name."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}
