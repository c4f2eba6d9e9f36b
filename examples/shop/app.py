"""A small shop with four faults, to be found with rtop: docs/find-it.md shows how.

    /                       what there is
    /products/42            as it should be
    /orders/42              a slow query: the table has no index
    /login/anna             a leak: sessions are kept for ever
    /reports/2026           a GIL hog: a long computation in Python
    /invoices/42            a stuck lock: an error leaves it locked, and the next request waits for ever
"""

import re

from shop import invoices, orders, products, reports, sessions

ROUTES = [
    (re.compile(r"/products/(\d+)"), products.show),
    (re.compile(r"/orders/(\d+)"), orders.show),
    (re.compile(r"/login/(\w+)"), sessions.login),
    (re.compile(r"/reports/(\d+)"), reports.year),
    (re.compile(r"/invoices/(\d+)"), invoices.show),
]


def find(path):
    for pattern, view in ROUTES:
        match = pattern.fullmatch(path)
        if match:
            return view(match.group(1))
    return __doc__ if path == "/" else None


def application(environ, start_response):
    page = find(environ["PATH_INFO"])
    start_response("404 Not Found" if page is None else "200 OK", [("Content-Type", "text/plain")])
    return [(page or "no such page\n").encode()]
