"""prometheus_client's multiprocess mode: numbers of all workers in one answer."""

import os

import uwsgi
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess
from uwsgidecorators import postfork

WORK = Counter("work", "Requests that were worked on.")
ALIVE = Gauge("alive", "Workers that live.", multiprocess_mode="livesum")


@postfork
def begin():
    ALIVE.set(1)
    # A worker that ends takes its gauges along; its counters stay.
    uwsgi.atexit = lambda: multiprocess.mark_process_dead(os.getpid())


def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return [generate_latest(registry)]
    WORK.inc()
    return [str(os.getpid()).encode()]
