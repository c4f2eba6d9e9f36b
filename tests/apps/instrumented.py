"""An application with OpenTelemetry's own instrumentation, which exports to OTEL_EXPORTER_OTLP_ENDPOINT itself."""

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "inside"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)


def plain(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


application = OpenTelemetryMiddleware(plain)
