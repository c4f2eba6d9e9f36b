"""uWSGI through `rtop --exporter`."""

from __future__ import annotations

from panels import dashboard, Json, lines, number, query, row, YES
from queries import CHOSEN, level, REQUESTS, summed, total


def uwsgi() -> Json:
    """uWSGI through `rtop --exporter`."""
    exceptions = total("rwsgi_worker_exceptions_total")
    busy = total("rwsgi_worker_busy_seconds_total")

    def by_server(metric: str) -> str:
        return total(metric, "instance")

    panels = [
        number("Answers", "Whether uWSGI's stats server answers the exporter.", f"min({level('rwsgi_up')})", words=YES),
        number("Requests", "Requests completed, a second.", REQUESTS, "reqps"),
        number(
            "Exceptions",
            "The part of requests in which the application raised an exception.",
            f"{exceptions} / {REQUESTS}",
            "percentunit",
            (0.001, 0.01),
        ),
        number("Mean", "Mean time in a request. uWSGI does not tell percentiles.", f"{busy} / {REQUESTS}", "s"),
        number(
            "Saturation",
            "Requests in progress and waiting, divided by threads. From 1 on, requests wait.",
            f"max({level('rwsgi_saturation')})",
            "percentunit",
            (0.8, 1),
        ),
        number("Version", "Of uWSGI.", level("rwsgi_server_info"), legend="{{version}}"),
        row("Requests"),
        lines(
            "Requests by server",
            "A second.",
            query(by_server("rwsgi_worker_requests_total")),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Exceptions by server",
            "Requests in which the application raised an exception, as part of all. uWSGI does not count"
            " responses by status.",
            query(f"{by_server('rwsgi_worker_exceptions_total')} / {by_server('rwsgi_worker_requests_total')}"),
            unit="percentunit",
        ),
        lines(
            "Mean time by server",
            "Mean time in a request. uWSGI does not tell percentiles.",
            query(f"{by_server('rwsgi_worker_busy_seconds_total')} / {by_server('rwsgi_worker_requests_total')}"),
            unit="s",
        ),
        row("Load"),
        lines(
            "Saturation by server",
            "Requests in progress and waiting, divided by threads. From 1 on, requests wait.",
            query(level("rwsgi_saturation")),
            unit="percentunit",
        ),
        lines(
            "Threads",
            "Busy at the scrapes, busy on average, and all.",
            query(summed("rwsgi_worker_cores_busy"), "busy"),
            query(busy, "busy, mean"),
            query(summed("rwsgi_worker_cores"), "threads"),
        ),
        lines("Queue by server", "Connections that wait to be accepted.", query(level("rwsgi_queue_depth"))),
        lines(
            "Turned away by server",
            "Attempts to connect that found the listen queue full.",
            query(by_server("rwsgi_queue_rejected_total")),
            unit="ops",
        ),
        lines("Sent", "Bytes a second.", query(by_server("rwsgi_worker_sent_bytes_total")), unit="Bps"),
        lines(
            "Failed clients",
            "Requests that could not be read whole, responses that could not be sent whole.",
            query(total("rwsgi_worker_read_errors_total"), "reading"),
            query(total("rwsgi_worker_write_errors_total"), "writing"),
            unit="ops",
        ),
        row("Workers"),
        lines(
            "Utilization by worker",
            "The part of its threads' time in completed requests.",
            query(
                f"{total('rwsgi_worker_busy_seconds_total', 'instance, worker')} / {summed('rwsgi_worker_cores', 'instance, worker')}",
                "{{instance}}, worker {{worker}}",
            ),
            unit="percentunit",
        ),
        lines(
            "Memory by worker",
            "Resident memory. uWSGI tells it with --memory-report.",
            query(level("rwsgi_worker_resident_memory_bytes"), "{{instance}}, worker {{worker}}"),
            unit="bytes",
        ),
        lines(
            "Starts and harakiri",
            "Worker processes started, and requests that ran too long.",
            query(total("rwsgi_worker_starts_total", function="increase"), "starts"),
            query(total("rwsgi_worker_harakiri_total", function="increase"), "harakiri"),
            bars=True,
        ),
    ]
    starts = (
        "Start",
        "purple",
        f'changes(rwsgi_worker_start_time_seconds{{{CHOSEN}, worker="1"}}[1m]) > 0',
        "worker 1 of {{instance}} was started again",
    )
    return dashboard(
        "rwsgi-uwsgi",
        "uWSGI (rtop --exporter)",
        "uWSGI servers, through rtop --exporter.",
        panels,
        "rwsgi_up",
        True,
        (starts,),
    )
