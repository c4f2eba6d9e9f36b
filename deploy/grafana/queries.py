"""Texts of PromQL, for the servers that are chosen at the top of a dashboard."""

from __future__ import annotations

# Wherever a query asks for series: those of the servers that are chosen.
CHOSEN = 'job=~"$job", instance=~"$instance"'


def rate(metric: str, more: str = "", function: str = "rate") -> str:
    """Growth a second of the chosen servers' series of a counter."""
    return f"{function}({metric}{{{CHOSEN}{more}}}[$__rate_interval])"


def total(metric: str, by: str = "", more: str = "", function: str = "rate") -> str:
    """The sum of those."""
    return f"sum{f' by ({by})' if by else ''} ({rate(metric, more, function)})"


def histogram(metric: str, by: str = "", function: str = "rate") -> str:
    """A histogram, with buckets or native: only one of them is there."""
    names = ", ".join(filter(None, ("le", by)))
    return f"{total(f'{metric}_bucket', names, '', function)} or {total(metric, by, '', function)}"


def quantile(number: float, metric: str, by: str = "") -> str:
    """A percentile of a histogram, native or with buckets. Prometheus may keep both, which have no quantile together."""
    buckets = total(f"{metric}_bucket", ", ".join(filter(None, ("le", by))))
    return f"histogram_quantile({number}, {total(metric, by)}) or histogram_quantile({number}, {buckets})"


def sums(metric: str, by: str = "") -> str:
    """Growth a second of a histogram's sum."""
    return f"{total(f'{metric}_sum', by)} or histogram_sum({total(metric, by)})"


def level(metric: str, more: str = "") -> str:
    """The chosen servers' series of a gauge."""
    return f"{metric}{{{CHOSEN}{more}}}"


def summed(metric: str, by: str = "") -> str:
    """The sum of those."""
    return f"sum{f' by ({by})' if by else ''} ({level(metric)})"


REQUEST = "rwsgi_request_duration_seconds"
ROUTE = "rwsgi_route_duration_seconds"
PHASE = "rwsgi_phase_duration_seconds"

REQUESTS = total("rwsgi_worker_requests_total")
FAILED = total("rwsgi_worker_responses_total", more=', class="5xx"')

# Annotations: a name, a colour, a query, a title.
RELOADS = (
    "Reload",
    "blue",
    f"changes(rwsgi_generation{{{CHOSEN}}}[1m]) > 0",
    "{{instance}} loaded the application again",
)
STARTS = ("Start", "purple", f"changes(rwsgi_start_time_seconds{{{CHOSEN}}}[1m]) > 0", "{{instance}} was started again")
