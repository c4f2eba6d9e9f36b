"""Orders. The fault: the query reads the whole table for each order of the customer, for the column has no index."""

import sqlite3
import threading

ORDERS = 70_000
local = threading.local()


def database():
    """A connection for each thread, to a database in memory."""
    if not hasattr(local, "connection"):
        local.connection = sqlite3.connect(":memory:")
        local.connection.execute("create table orders (number integer, customer text, total integer)")
        rows = ((number, f"customer-{number % 1000}", number % 90) for number in range(ORDERS))
        local.connection.executemany("insert into orders values (?, ?, ?)", rows)
    return local.connection


# The orders above the customer's average.
QUERY = """
    select count(*), sum(total) from orders as one
    where customer = ? and total > (select avg(total) from orders where customer = one.customer)
"""


def show(customer):
    count, total = database().execute(QUERY, (f"customer-{customer}",)).fetchone()
    return f"customer {customer}: {count} large orders of {total} in all\n"
