"""One rwsgi server, or several added up."""

from __future__ import annotations

from panels import dashboard, heat, Json, lines, number, query, row, states, table, YES
from queries import FAILED, level, PHASE, quantile, rate, RELOADS, REQUEST, REQUESTS, ROUTE, STARTS, summed, sums, total


def server() -> Json:
    """One rwsgi server, or several added up."""
    panels = [
        number("Ready", "Whether the server wants requests (/-/ready).", f"min({level('rwsgi_ready')})", words=YES),
        number("Requests", "Requests completed, a second.", REQUESTS, "reqps"),
        number("Errors", "The part of responses that are 5xx.", f"{FAILED} / {REQUESTS}", "percentunit", (0.001, 0.01)),
        number("p99", "99 of 100 requests took less.", quantile(0.99, REQUEST), "s"),
        number(
            "Saturation",
            "Requests in progress and waiting, divided by threads. From 1 on, requests wait.",
            f"max({level('rwsgi_saturation')})",
            "percentunit",
            (0.8, 1),
        ),
        number("Version", "Of the server.", level("rwsgi_server_info"), legend="{{version}}, Python {{python}}"),
        row("Requests"),
        lines(
            "Requests",
            "Responses by class of status, a second.",
            query(total("rwsgi_worker_responses_total", "class"), "{{class}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Errors",
            "Responses 5xx, and requests in which the application raised an exception, as part of all.",
            query(f"{FAILED} / {REQUESTS}", "5xx"),
            query(f"{total('rwsgi_worker_exceptions_total')} / {REQUESTS}", "exceptions"),
            unit="percentunit",
        ),
        lines(
            "Latency",
            "From a request's arrival at its worker to its end.",
            *(query(quantile(share, REQUEST), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
            unit="s",
        ),
        heat("Latency, all requests", "How many requests took how long.", REQUEST),
        lines(
            "Where the time goes",
            "The mean of each phase, of all requests (docs/slow-requests.md says what they are).",
            query(f"({sums(PHASE, 'phase')}) / scalar({REQUESTS})", "{{phase}}"),
            unit="s",
            stacked=True,
        ),
        row("Load"),
        lines(
            "Saturation",
            "Requests in progress and waiting, divided by threads. From 1 on, requests wait.",
            query(level("rwsgi_saturation")),
            unit="percentunit",
        ),
        lines(
            "Threads",
            "Busy at the scrapes, busy on average, and all.",
            query(summed("rwsgi_worker_cores_busy"), "busy"),
            query(total("rwsgi_worker_busy_seconds_total"), "busy, mean"),
            query(summed("rwsgi_worker_cores"), "threads"),
        ),
        lines(
            "Queue",
            "Requests and connections that wait for a thread, and how many may.",
            query(summed("rwsgi_queue_depth"), "waiting"),
            query(summed("rwsgi_queue_capacity"), "capacity"),
        ),
        lines(
            "Waiting time",
            "How long requests waited in the http router.",
            *(query(quantile(share, "rwsgi_queue_waiting_seconds"), f"p{share * 100:g}") for share in (0.5, 0.99)),
            unit="s",
        ),
        lines(
            "Turned away",
            "What the server refused: requests because a queue was full, slow clients, and bodies for which"
            " temporary files had no space.",
            query(total("rwsgi_queue_rejected_total"), "queue full"),
            query(total("rwsgi_slow_clients_total"), "slow client"),
            query(total("rwsgi_temp_files_refused_total"), "no space"),
            unit="ops",
        ),
        lines(
            "Sockets",
            "Connections that wait to be accepted.",
            query(summed("rwsgi_socket_backlog", "socket"), "{{socket}}"),
        ),
        row("Workers"),
        lines(
            "Utilization by worker",
            "The part of its threads' time that a worker spends in requests.",
            query(
                f"{total('rwsgi_worker_busy_seconds_total', 'worker')} / {summed('rwsgi_worker_cores', 'worker')}",
                "worker {{worker}}",
            ),
            unit="percentunit",
        ),
        lines(
            "Memory by worker",
            "Resident memory. What workers share is in that of each.",
            query(summed("rwsgi_worker_resident_memory_bytes", "worker"), "worker {{worker}}"),
            unit="bytes",
        ),
        lines(
            "Restarts by reason",
            "Worker processes that ended.",
            query(total("rwsgi_worker_recycled_total", "reason", function="increase"), "{{reason}}"),
            stacked=True,
            bars=True,
        ),
        lines(
            "Waiting for the GIL, by worker",
            "The part of its threads' time that a worker waits for Python's global lock.",
            query(
                f"{total('rwsgi_worker_gil_wait_seconds_total', 'worker')} / {summed('rwsgi_worker_cores', 'worker')}",
                "worker {{worker}}",
            ),
            unit="percentunit",
        ),
        lines(
            "Processors by worker",
            "Processors that a worker keeps busy.",
            query(total("rwsgi_worker_cpu_seconds_total", "worker"), "worker {{worker}}"),
        ),
        lines(
            "Harakiri and failed clients",
            "Requests that ran too long, requests that could not be read whole, responses that"
            " could not be sent whole.",
            query(total("rwsgi_worker_harakiri_total"), "harakiri"),
            query(total("rwsgi_worker_read_errors_total"), "reading"),
            query(total("rwsgi_worker_write_errors_total"), "writing"),
            unit="ops",
        ),
        row("Routes"),
        lines(
            "Routes by cost",
            "The threads that each route keeps busy: the ten with most.",
            query(f"topk(10, {total('rwsgi_route_busy_seconds_total', 'route')})", "{{route}}"),
            stacked=True,
            width=12,
        ),
        lines(
            "Slowest routes",
            "p95: the ten that are slowest.",
            query(f"topk(10, {quantile(0.95, ROUTE, 'route')})", "{{route}}"),
            unit="s",
            width=12,
        ),
        routes(),
        row("Deploys"),
        lines(
            "Generation",
            "Which load of the application serves; it begins at 1 when the server starts.",
            query(level("rwsgi_generation")),
            least=None,
        ),
        lines(
            "Reloads",
            "By outcome. After one that failed the code before it serves on.",
            query(total("rwsgi_reloads_total", "result", function="increase"), "{{result}}"),
            stacked=True,
            bars=True,
        ),
        states(
            "Ready, draining",
            "Whether the server wants requests; whether it was told to stop.",
            query(level("rwsgi_ready"), "ready"),
            query(level("rwsgi_draining"), "draining"),
            words=YES,
        ),
        row("Control group (a container's or a unit's limits)"),
        lines(
            "Memory",
            "Used by the control group, without what the kernel can drop at once, and its limit.",
            query(summed("rwsgi_cgroup_memory_bytes"), "used"),
            query(summed("rwsgi_cgroup_memory_limit_bytes"), "limit"),
            unit="bytes",
        ),
        lines(
            "Throttled",
            "The time that the CPU quota held processes up, a second.",
            query(total("rwsgi_cgroup_throttled_seconds_total"), "held up"),
            unit="s",
        ),
        lines(
            "Pressure",
            "The part of the time that some (or all) processes waited for a resource (PSI).",
            query(f"max by (resource, kind) ({rate('rwsgi_cgroup_pressure_seconds_total')})", "{{resource}}, {{kind}}"),
            unit="percentunit",
        ),
        lines(
            "Killed for want of memory",
            "Processes of the control group.",
            query(total("rwsgi_cgroup_oom_kills_total", function="increase"), "killed"),
            bars=True,
        ),
    ]
    return dashboard(
        "rwsgi-server",
        "rwsgi: a server",
        "One rwsgi server: requests, load, workers, routes, deploys.",
        panels,
        "rwsgi_generation",
        False,
        (RELOADS, STARTS),
    )


def routes() -> Json:
    """A table of routes."""
    of_route = {
        name: total(f"rwsgi_route_{name}_total", "route") for name in ("requests", "busy_seconds", "gil_wait_seconds")
    }
    return table(
        "Routes",
        "What each route costs.",
        "route",
        [
            ("threads", "short", of_route["busy_seconds"]),
            ("requests", "reqps", of_route["requests"]),
            ("mean", "s", f"{of_route['busy_seconds']} / {of_route['requests']}"),
            ("p95", "s", quantile(0.95, ROUTE, "route")),
            ("waits for the GIL", "percentunit", f"{of_route['gil_wait_seconds']} / {of_route['busy_seconds']}"),
            ("errors", "ops", total("rwsgi_route_responses_total", "route", ', class="5xx"')),
            ("exceptions", "ops", total("rwsgi_route_exceptions_total", "route")),
        ],
    )
