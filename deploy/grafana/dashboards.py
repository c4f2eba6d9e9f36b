#!/usr/bin/env python3
"""Writes the dashboards beside it: python3 deploy/grafana/dashboards.py"""

from __future__ import annotations

import json
from pathlib import Path

from panels import (
    CHOSEN, Json, dashboard, heat, histogram, lines, number, quantile, query, rate, row, states, sums, table, total,
)

REQUEST = "rwsgi_request_duration_seconds"
ROUTE = "rwsgi_route_duration_seconds"
PHASE = "rwsgi_phase_duration_seconds"

REQUESTS = total("rwsgi_worker_requests_total")
FAILED = total("rwsgi_worker_responses_total", more=', class="5xx"')

RELOADS = ("Reload", "blue", f"changes(rwsgi_generation{{{CHOSEN}}}[1m]) > 0", "{{instance}} loaded the application again")
STARTS = ("Start", "purple", f"changes(rwsgi_start_time_seconds{{{CHOSEN}}}[1m]) > 0", "{{instance}} was started again")

YES = {"0": {"text": "no", "color": "red", "index": 0}, "1": {"text": "yes", "color": "green", "index": 1}}


def level(metric: str, more: str = "") -> str:
    """The chosen servers' series of a gauge."""
    return f"{metric}{{{CHOSEN}{more}}}"


def summed(metric: str, by: str = "") -> str:
    """The sum of those."""
    return f"sum{f' by ({by})' if by else ''} ({level(metric)})"


def server() -> Json:
    """One rwsgi server, or several added up."""
    panels = [
        number("Ready", "Whether the server wants requests (/-/ready).", f"min({level('rwsgi_ready')})", words=YES),
        number("Requests", "Requests completed, a second.", REQUESTS, "reqps"),
        number("Errors", "The part of responses that are 5xx.", f"{FAILED} / {REQUESTS}", "percentunit", (0.001, 0.01)),
        number("p99", "99 of 100 requests took less.", quantile(0.99, REQUEST), "s"),
        number("Saturation", "Requests in progress and waiting, by threads. From 1 on, requests wait.",
               f"max({level('rwsgi_saturation')})", "percentunit", (0.8, 1)),
        number("Version", "Of the server.", level("rwsgi_server_info"), legend="{{version}}, Python {{python}}"),
        row("Requests"),
        lines("Requests", "Responses by class of status, a second.",
              query(total("rwsgi_worker_responses_total", "class"), "{{class}}"), unit="reqps", stacked=True),
        lines("Errors", "Responses 5xx, and requests in which the application raised an exception, as part of all.",
              query(f"{FAILED} / {REQUESTS}", "5xx"),
              query(f"{total('rwsgi_worker_exceptions_total')} / {REQUESTS}", "exceptions"), unit="percentunit"),
        lines("Latency", "From a request's arrival at its worker to its end.",
              *(query(quantile(share, REQUEST), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)), unit="s"),
        heat("Latency, all requests", "How many requests took how long.", REQUEST),
        lines("Where the time goes", "The mean of each phase, of all requests (docs/slow-requests.md says what they are).",
              query(f"({sums(PHASE, 'phase')}) / scalar({REQUESTS})", "{{phase}}"), unit="s", stacked=True),
        row("Load"),
        lines("Saturation", "Requests in progress and waiting, by threads. From 1 on, requests wait.",
              query(level("rwsgi_saturation"), "{{instance}}"), unit="percentunit"),
        lines("Threads", "Busy at the scrapes, busy on average, and all.",
              query(summed("rwsgi_worker_cores_busy"), "busy"), query(total("rwsgi_worker_busy_seconds_total"), "busy, mean"),
              query(summed("rwsgi_worker_cores"), "threads")),
        lines("Queue", "Requests and connections that wait for a thread, and how many may.",
              query(summed("rwsgi_queue_depth"), "waiting"), query(summed("rwsgi_queue_capacity"), "capacity")),
        lines("Waiting time", "How long requests waited in the http router.",
              *(query(quantile(share, "rwsgi_queue_waiting_seconds"), f"p{share * 100:g}") for share in (0.5, 0.99)), unit="s"),
        lines("Turned away", "What the server refused: requests because a queue was full, slow clients, and bodies for which"
              " temporary files had no space.",
              query(total("rwsgi_queue_rejected_total"), "queue full"), query(total("rwsgi_slow_clients_total"), "slow client"),
              query(total("rwsgi_temp_files_refused_total"), "no space"), unit="ops"),
        lines("Sockets", "Connections that wait to be accepted.", query(summed("rwsgi_socket_backlog", "socket"), "{{socket}}")),
        row("Workers"),
        lines("Utilization by worker", "The part of its threads' time that a worker spends in requests.",
              query(f"{total('rwsgi_worker_busy_seconds_total', 'worker')} / {summed('rwsgi_worker_cores', 'worker')}",
                    "worker {{worker}}"), unit="percentunit"),
        lines("Memory by worker", "Resident memory. What workers share is in that of each.",
              query(summed("rwsgi_worker_resident_memory_bytes", "worker"), "worker {{worker}}"), unit="bytes"),
        lines("Restarts by reason", "Worker processes that ended.",
              query(total("rwsgi_worker_recycled_total", "reason", function="increase"), "{{reason}}"), stacked=True, bars=True),
        lines("Waiting for the GIL, by worker", "The part of its threads' time that a worker waits for Python's global lock.",
              query(f"{total('rwsgi_worker_gil_wait_seconds_total', 'worker')} / {summed('rwsgi_worker_cores', 'worker')}",
                    "worker {{worker}}"), unit="percentunit"),
        lines("Processors by worker", "Processors that a worker keeps busy.",
              query(total("rwsgi_worker_cpu_seconds_total", "worker"), "worker {{worker}}")),
        lines("Harakiri and failed clients", "Requests that ran too long, requests that could not be read whole, responses that"
              " could not be sent whole.",
              query(total("rwsgi_worker_harakiri_total"), "harakiri"), query(total("rwsgi_worker_read_errors_total"), "reading"),
              query(total("rwsgi_worker_write_errors_total"), "writing"), unit="ops"),
        row("Routes"),
        lines("Routes by cost", "The threads that each route keeps busy: the ten with most.",
              query(f"topk(10, {total('rwsgi_route_busy_seconds_total', 'route')})", "{{route}}"), stacked=True, width=12),
        lines("Slowest routes", "p95: the ten that are slowest.", query(f"topk(10, {quantile(0.95, ROUTE, 'route')})", "{{route}}"),
              unit="s", width=12),
        routes(),
        row("Deploys"),
        lines("Generation", "Which load of the application serves; it begins at 1 when the server starts.",
              query(level("rwsgi_generation"), "{{instance}}"), least=None),
        lines("Reloads", "By outcome. After one that failed the code before it serves on.",
              query(total("rwsgi_reloads_total", "result", function="increase"), "{{result}}"), stacked=True, bars=True),
        states("Ready, draining", "Whether the server wants requests; whether it was told to stop.",
               query(level("rwsgi_ready"), "ready"), query(level("rwsgi_draining"), "draining"), words=YES),
        row("Control group (a container's or a unit's limits)"),
        lines("Memory", "Used by the control group, without what the kernel can drop at once, and its limit.",
              query(summed("rwsgi_cgroup_memory_bytes"), "used"), query(summed("rwsgi_cgroup_memory_limit_bytes"), "limit"),
              unit="bytes"),
        lines("Throttled", "The time that the CPU quota held processes up, a second.",
              query(total("rwsgi_cgroup_throttled_seconds_total"), "held up"), unit="s"),
        lines("Pressure", "The part of the time that some (or all) processes waited for a resource (PSI).",
              query(f"max by (resource, kind) ({rate('rwsgi_cgroup_pressure_seconds_total')})", "{{resource}}, {{kind}}"),
              unit="percentunit"),
        lines("Killed for want of memory", "Processes of the control group.",
              query(total("rwsgi_cgroup_oom_kills_total", function="increase"), "killed"), bars=True),
    ]
    return dashboard("rwsgi-server", "rwsgi: a server", "One rwsgi server: requests, load, workers, routes, deploys.", panels,
                     "rwsgi_generation", False, (RELOADS, STARTS))


def routes() -> Json:
    """A table of routes."""
    of_route = {name: total(f"rwsgi_route_{name}_total", "route") for name in ("requests", "busy_seconds", "gil_wait_seconds")}
    return table("Routes", "What each route costs.", "route", [
        ("threads", "short", of_route["busy_seconds"]),
        ("requests", "reqps", of_route["requests"]),
        ("mean", "s", f"{of_route['busy_seconds']} / {of_route['requests']}"),
        ("p95", "s", quantile(0.95, ROUTE, "route")),
        ("waits for the GIL", "percentunit", f"{of_route['gil_wait_seconds']} / {of_route['busy_seconds']}"),
        ("errors", "ops", total("rwsgi_route_responses_total", "route", ', class="5xx"')),
        ("exceptions", "ops", total("rwsgi_route_exceptions_total", "route")),
    ])


def fleet() -> Json:
    """Many rwsgi servers, by the recording rules."""
    requests, errors = f"sum({level('instance:rwsgi_requests:rate5m')})", f"sum({level('instance:rwsgi_errors:rate5m')})"
    job = 'job=~"$job"'

    def by_server(metric: str) -> str:
        return f"max by (instance) ({level(metric)})"

    def worst(title: str, description: str, expr: str, unit: str = "short") -> Json:
        return lines(title, description, query(f"topk(10, {expr})", "{{instance}}"), unit=unit)

    panels = [
        number("Servers", "That answered the last scrape.", f"count({level('rwsgi_generation')})"),
        number("Do not answer", "Servers of the chosen jobs whose scrape failed.", f"count({level('up')} == 0) or vector(0)",
               steps=(1, 2)),
        number("Requests", "Requests completed, a second.", requests, "reqps"),
        number("Errors", "The part of responses that are 5xx.", f"{errors} / {requests}", "percentunit", (0.001, 0.01)),
        number("p99", "Of all requests of all chosen servers.", quantile(0.99, REQUEST), "s"),
        number("Most saturated", "The server with most requests in progress and waiting, by threads.",
               f"max({level('rwsgi_saturation')})", "percentunit", (0.8, 1)),
        table("Servers", "A click on a server opens its own dashboard. Columns without numbers need the rules of recording.yml.", "instance", [
            ("saturation", "percentunit", by_server("rwsgi_saturation")),
            ("requests", "reqps", by_server("instance:rwsgi_requests:rate5m")),
            ("errors", "percentunit", f"{by_server('instance:rwsgi_errors:rate5m')} / {by_server('instance:rwsgi_requests:rate5m')}"),
            ("p50", "s", by_server("instance:rwsgi_request_duration_seconds:p50_5m")),
            ("p99", "s", by_server("instance:rwsgi_request_duration_seconds:p99_5m")),
            ("utilization", "percentunit", by_server("instance:rwsgi_utilization:ratio5m")),
            ("waiting", "short", by_server("rwsgi_queue_depth")),
            ("memory", "bytes", by_server("instance:rwsgi_memory:bytes")),
            ("generation", "none", by_server("rwsgi_generation")),
            ("loaded", "dateTimeFromNow", f"1000 * {by_server('rwsgi_generation_start_time_seconds')}"),
        ], "/d/rwsgi-server?${datasource:queryparam}&${job:queryparam}&var-instance=${__value.text}"),
        row("Requests"),
        lines("Requests by server", "A second.", query(by_server("instance:rwsgi_requests:rate5m"), "{{instance}}"), unit="reqps",
              stacked=True),
        worst("Errors by server", "The part of responses that are 5xx: the ten servers with most.",
              f"{by_server('instance:rwsgi_errors:rate5m')} / {by_server('instance:rwsgi_requests:rate5m')}", "percentunit"),
        worst("p99 by server", "The ten slowest servers.", by_server("instance:rwsgi_request_duration_seconds:p99_5m"), "s"),
        heat("Latency, all requests", "How many requests took how long, of all chosen servers.", REQUEST),
        lines("Error budget", "How many times too fast errors use up the budget (rwsgi:error_budget:ratio), over windows of"
              " different length. From 1 on it does not last.",
              *(query(f"job:rwsgi_errors:ratio{window}{{{job}}} / scalar(rwsgi:error_budget:ratio)", f"{{{{job}}}}, {window}")
                for window in ("5m", "1h", "6h", "3d"))),
        row("Load"),
        worst("Saturation by server", "Requests in progress and waiting, by threads: the ten servers with most.",
              by_server("rwsgi_saturation"), "percentunit"),
        worst("Utilization by server", "The part of their threads' time in requests: the ten servers with most.",
              by_server("instance:rwsgi_utilization:ratio5m"), "percentunit"),
        worst("Waiting by server", "Requests that wait for a thread: the ten servers with most.", by_server("rwsgi_queue_depth")),
        worst("Turned away by server", "Requests and connections refused because a queue was full.",
              total("rwsgi_queue_rejected_total", "instance"), "ops"),
        lines("Where the time goes", "The mean of each phase, of all requests.",
              query(f"({sums(PHASE, 'phase')}) / scalar({REQUESTS})", "{{phase}}"), unit="s", stacked=True),
        worst("Waiting for the GIL by server", "Threads that wait for Python's global lock, on average.",
              total("rwsgi_worker_gil_wait_seconds_total", "instance")),
        row("Workers and routes"),
        worst("Memory by server", "Shared pages counted once: the ten servers with most.", by_server("instance:rwsgi_memory:bytes"),
              "bytes"),
        lines("Restarts by reason", "Worker processes that ended, of all chosen servers.",
              query(total("rwsgi_worker_recycled_total", "reason", function="increase"), "{{reason}}"), stacked=True, bars=True),
        lines("Routes by cost", "The threads that each route keeps busy, of all chosen servers: the ten with most.",
              query(f"topk(10, {total('rwsgi_route_busy_seconds_total', 'route')})", "{{route}}"), stacked=True),
        row("Deploys"),
        lines("Generation by server", "It begins at 1 when a server starts.", query(by_server("rwsgi_generation"), "{{instance}}"),
              least=None),
        lines("Age of the code by server", "How long ago each loaded its application. A server above the others missed a deploy.",
              query(f"time() - {by_server('rwsgi_generation_start_time_seconds')}", "{{instance}}"), unit="s"),
        lines("Versions", "Servers by version.", query(f"count by (version, python) ({level('rwsgi_server_info')})",
              "{{version}}, Python {{python}}"), stacked=True),
        row("Control groups (a container's or a unit's limits)"),
        worst("Memory by its limit", "The ten servers nearest to their limit.",
              f"{by_server('rwsgi_cgroup_memory_bytes')} / {by_server('rwsgi_cgroup_memory_limit_bytes')}", "percentunit"),
        worst("Throttled by server", "The time that the CPU quota held processes up, a second.",
              total("rwsgi_cgroup_throttled_seconds_total", "instance"), "s"),
        lines("Pressure by server", "The part of the time that some processes waited for a resource: the ten with most.",
              query(f"topk(10, max by (instance, resource) ({rate('rwsgi_cgroup_pressure_seconds_total', ', kind=' + chr(34) + 'some' + chr(34))}))",
                    "{{instance}}, {{resource}}"), unit="percentunit"),
    ]
    return dashboard("rwsgi-fleet", "rwsgi: a fleet", "Many rwsgi servers beside each other. Needs the recording rules of"
                     " deploy/prometheus/recording.yml.", panels, "rwsgi_generation", True, (RELOADS, STARTS))


def uwsgi() -> Json:
    """uWSGI through `rtop --exporter`."""
    exceptions = total("rwsgi_worker_exceptions_total")
    busy = total("rwsgi_worker_busy_seconds_total")

    def by_server(metric: str) -> str:
        return total(metric, "instance")

    panels = [
        number("Answers", "Whether uWSGI's stats server answers the exporter.", f"min({level('rwsgi_up')})", words=YES),
        number("Requests", "Requests completed, a second.", REQUESTS, "reqps"),
        number("Exceptions", "The part of requests in which the application raised an exception.", f"{exceptions} / {REQUESTS}",
               "percentunit", (0.001, 0.01)),
        number("Mean", "Mean time in a request. uWSGI does not tell percentiles.", f"{busy} / {REQUESTS}", "s"),
        number("Saturation", "Requests in progress and waiting, by threads. From 1 on, requests wait.",
               f"max({level('rwsgi_saturation')})", "percentunit", (0.8, 1)),
        number("Version", "Of uWSGI.", level("rwsgi_server_info"), legend="{{version}}"),
        row("Requests"),
        lines("Requests by server", "A second.", query(by_server("rwsgi_worker_requests_total"), "{{instance}}"), unit="reqps",
              stacked=True),
        lines("Exceptions by server", "Requests in which the application raised an exception, as part of all. uWSGI does not count"
              " responses by status.",
              query(f"{by_server('rwsgi_worker_exceptions_total')} / {by_server('rwsgi_worker_requests_total')}", "{{instance}}"),
              unit="percentunit"),
        lines("Mean time by server", "Mean time in a request. uWSGI does not tell percentiles.",
              query(f"{by_server('rwsgi_worker_busy_seconds_total')} / {by_server('rwsgi_worker_requests_total')}", "{{instance}}"),
              unit="s"),
        row("Load"),
        lines("Saturation by server", "Requests in progress and waiting, by threads. From 1 on, requests wait.",
              query(level("rwsgi_saturation"), "{{instance}}"), unit="percentunit"),
        lines("Threads", "Busy at the scrapes, busy on average, and all.", query(summed("rwsgi_worker_cores_busy"), "busy"),
              query(busy, "busy, mean"), query(summed("rwsgi_worker_cores"), "threads")),
        lines("Queue by server", "Connections that wait to be accepted.", query(level("rwsgi_queue_depth"), "{{instance}}")),
        lines("Turned away by server", "Attempts to connect that found the listen queue full.",
              query(by_server("rwsgi_queue_rejected_total"), "{{instance}}"), unit="ops"),
        lines("Sent", "Bytes a second.", query(by_server("rwsgi_worker_sent_bytes_total"), "{{instance}}"), unit="Bps"),
        lines("Failed clients", "Requests that could not be read whole, responses that could not be sent whole.",
              query(total("rwsgi_worker_read_errors_total"), "reading"), query(total("rwsgi_worker_write_errors_total"), "writing"),
              unit="ops"),
        row("Workers"),
        lines("Utilization by worker", "The part of its threads' time in completed requests.",
              query(f"{total('rwsgi_worker_busy_seconds_total', 'instance, worker')} / {summed('rwsgi_worker_cores', 'instance, worker')}",
                    "{{instance}}, worker {{worker}}"), unit="percentunit"),
        lines("Memory by worker", "Resident memory. uWSGI tells it with --memory-report.",
              query(level("rwsgi_worker_resident_memory_bytes"), "{{instance}}, worker {{worker}}"), unit="bytes"),
        lines("Starts and harakiri", "Worker processes started, and requests that ran too long.",
              query(total("rwsgi_worker_starts_total", function="increase"), "starts"),
              query(total("rwsgi_worker_harakiri_total", function="increase"), "harakiri"), bars=True),
    ]
    starts = ("Start", "purple", f"changes(rwsgi_worker_start_time_seconds{{{CHOSEN}, worker=\"1\"}}[1m]) > 0",
              "worker 1 of {{instance}} was started again")
    return dashboard("rwsgi-uwsgi", "uWSGI (rtop --exporter)", "uWSGI servers, through rtop --exporter.", panels, "rwsgi_up", True,
                     (starts,))


DASHBOARDS = {"server.json": server, "fleet.json": fleet, "uwsgi.json": uwsgi}


def texts() -> dict[str, str]:
    """The text of each file."""
    return {name: json.dumps(make(), indent=1, ensure_ascii=False) + "\n" for name, make in DASHBOARDS.items()}


if __name__ == "__main__":
    for file, content in texts().items():
        Path(__file__).with_name(file).write_text(content, encoding="utf-8")
