"""Many rwsgi servers beside each other, by the recording rules."""

from __future__ import annotations

from panels import dashboard, heat, Json, lines, number, query, row, table
from queries import level, PHASE, quantile, rate, RELOADS, REQUEST, REQUESTS, STARTS, sums, total


def fleet() -> Json:
    """Many rwsgi servers, by the recording rules."""
    requests = f"sum({level('instance:rwsgi_requests:rate5m')})"
    errors = f"sum({level('instance:rwsgi_errors:rate5m')})"
    job = 'job=~"$job"'

    some_waited = rate("rwsgi_cgroup_pressure_seconds_total", ', kind="some"')

    def by_server(metric: str) -> str:
        return f"max by (instance) ({level(metric)})"

    failed = f"{by_server('instance:rwsgi_errors:rate5m')} / {by_server('instance:rwsgi_requests:rate5m')}"

    def worst(title: str, description: str, expr: str, unit: str = "short") -> Json:
        return lines(title, description, query(f"topk(10, {expr})"), unit=unit)

    panels = [
        number("Servers", "That answered the last scrape.", f"count({level('rwsgi_generation')})"),
        number(
            "Do not answer",
            "Servers of the chosen jobs whose scrape failed.",
            f"count({level('up')} == 0) or vector(0)",
            steps=(1, 2),
        ),
        number("Requests", "Requests completed, a second.", requests, "reqps"),
        number("Errors", "The part of responses that are 5xx.", f"{errors} / {requests}", "percentunit", (0.001, 0.01)),
        number("p99", "Of all requests of all chosen servers.", quantile(0.99, REQUEST), "s"),
        number(
            "Most saturated",
            "The server with the most requests in progress and waiting, divided by threads.",
            f"max({level('rwsgi_saturation')})",
            "percentunit",
            (0.8, 1),
        ),
        table(
            "Servers",
            "A click on a server opens its own dashboard. Columns without numbers need the rules of recording.yml.",
            "instance",
            [
                ("saturation", "percentunit", by_server("rwsgi_saturation")),
                ("requests", "reqps", by_server("instance:rwsgi_requests:rate5m")),
                ("errors", "percentunit", failed),
                ("p50", "s", by_server("instance:rwsgi_request_duration_seconds:p50_5m")),
                ("p99", "s", by_server("instance:rwsgi_request_duration_seconds:p99_5m")),
                ("utilization", "percentunit", by_server("instance:rwsgi_utilization:ratio5m")),
                ("waiting", "short", by_server("rwsgi_queue_depth")),
                ("memory", "bytes", by_server("instance:rwsgi_memory:bytes")),
                ("generation", "none", by_server("rwsgi_generation")),
                ("loaded", "dateTimeFromNow", f"1000 * {by_server('rwsgi_generation_start_time_seconds')}"),
            ],
            "/d/rwsgi-server?${datasource:queryparam}&${job:queryparam}&var-instance=${__value.text}",
        ),
        row("Requests"),
        lines(
            "Requests by server",
            "A second.",
            query(by_server("instance:rwsgi_requests:rate5m")),
            unit="reqps",
            stacked=True,
        ),
        worst(
            "Errors by server", "The part of responses that are 5xx: the ten servers with most.", failed, "percentunit"
        ),
        worst(
            "p99 by server",
            "The ten slowest servers.",
            by_server("instance:rwsgi_request_duration_seconds:p99_5m"),
            "s",
        ),
        heat("Latency, all requests", "How many requests took how long, of all chosen servers.", REQUEST),
        lines(
            "Error budget",
            "How many times too fast errors use up the budget (rwsgi:error_budget:ratio), over windows of"
            " different length. From 1 on it does not last.",
            *(
                query(
                    f"job:rwsgi_errors:ratio{window}{{{job}}} / scalar(rwsgi:error_budget:ratio)",
                    f"{{{{job}}}}, {window}",
                )
                for window in ("5m", "1h", "6h", "3d")
            ),
        ),
        row("Load"),
        worst(
            "Saturation by server",
            "Requests in progress and waiting, divided by threads: the ten servers with most.",
            by_server("rwsgi_saturation"),
            "percentunit",
        ),
        worst(
            "Utilization by server",
            "The part of their threads' time in requests: the ten servers with most.",
            by_server("instance:rwsgi_utilization:ratio5m"),
            "percentunit",
        ),
        worst(
            "Waiting by server",
            "Requests that wait for a thread: the ten servers with most.",
            by_server("rwsgi_queue_depth"),
        ),
        worst(
            "Turned away by server",
            "Requests and connections refused because a queue was full.",
            total("rwsgi_queue_rejected_total", "instance"),
            "ops",
        ),
        lines(
            "Where the time goes",
            "The mean of each phase, of all requests.",
            query(f"({sums(PHASE, 'phase')}) / scalar({REQUESTS})", "{{phase}}"),
            unit="s",
            stacked=True,
        ),
        worst(
            "Waiting for the GIL by server",
            "Threads that wait for Python's global lock, on average.",
            total("rwsgi_worker_gil_wait_seconds_total", "instance"),
        ),
        row("Workers and routes"),
        worst(
            "Memory by server",
            "Shared pages counted once: the ten servers with most.",
            by_server("instance:rwsgi_memory:bytes"),
            "bytes",
        ),
        lines(
            "Restarts by reason",
            "Worker processes that ended, of all chosen servers.",
            query(total("rwsgi_worker_recycled_total", "reason", function="increase"), "{{reason}}"),
            stacked=True,
            bars=True,
        ),
        lines(
            "Routes by cost",
            "The threads that each route keeps busy, of all chosen servers: the ten with most.",
            query(f"topk(10, {total('rwsgi_route_busy_seconds_total', 'route')})", "{{route}}"),
            stacked=True,
        ),
        row("Deploys"),
        lines(
            "Generation by server",
            "It begins at 1 when a server starts.",
            query(by_server("rwsgi_generation")),
            least=None,
        ),
        lines(
            "Age of the code by server",
            "How long ago each loaded its application. A server above the others missed a deploy.",
            query(f"time() - {by_server('rwsgi_generation_start_time_seconds')}"),
            unit="s",
        ),
        lines(
            "Versions",
            "Servers by version.",
            query(f"count by (version, python) ({level('rwsgi_server_info')})", "{{version}}, Python {{python}}"),
            stacked=True,
        ),
        row("Control groups (a container's or a unit's limits)"),
        worst(
            "Memory by its limit",
            "The ten servers nearest to their limit.",
            f"{by_server('rwsgi_cgroup_memory_bytes')} / {by_server('rwsgi_cgroup_memory_limit_bytes')}",
            "percentunit",
        ),
        worst(
            "Throttled by server",
            "The time that the CPU quota held processes up, a second.",
            total("rwsgi_cgroup_throttled_seconds_total", "instance"),
            "s",
        ),
        lines(
            "Pressure by server",
            "The part of the time that some processes waited for a resource: the ten with most.",
            query(f"topk(10, max by (instance, resource) ({some_waited}))", "{{instance}}, {{resource}}"),
            unit="percentunit",
        ),
    ]
    return dashboard(
        "rwsgi-fleet",
        "rwsgi: a fleet",
        "Many rwsgi servers beside each other. Needs the recording rules of" " deploy/prometheus/recording.yml.",
        panels,
        "rwsgi_generation",
        True,
        (RELOADS, STARTS),
    )
