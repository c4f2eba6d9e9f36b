"""Invoices. The fault: when an invoice does not exist, the lock is never released."""

import threading

printing = threading.Lock()


def show(number):
    printing.acquire()
    page = render(number)
    printing.release()
    return page


def render(number):
    if number == "0":
        raise LookupError(f"there is no invoice {number}")
    return f"invoice {number}\n"
