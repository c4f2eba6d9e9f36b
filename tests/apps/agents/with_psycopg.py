"""A pool of connections in each worker, opened after the fork: its threads and sockets belong to one process."""

import os
import threading

import uwsgi
from psycopg_pool import ConnectionPool
from uwsgidecorators import postfork

pool = ConnectionPool(os.environ["DATABASE"], min_size=1, max_size=4, open=False, kwargs={"autocommit": True})
together = threading.Barrier(2)


@postfork
def open_pool():
    pool.open()
    uwsgi.atexit = pool.close


def application(environ, start_response):
    with pool.connection() as connection:
        if environ["PATH_INFO"] == "/together":
            together.wait(30)
        (backend,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    start_response("200 OK", [])
    return [f"{os.getpid()} {backend}".encode()]
