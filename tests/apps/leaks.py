"""Lists the descriptors that a program gets which is executed from here, wherever here is: `close_fds=False`, as
`os.system` and C libraries have it."""

import json
import os
import subprocess
import sys

import uwsgi

# What the listing itself opens is gone again when it is looked at.
LIST = """
import json, os

def link(number):
    try:
        return os.readlink("/proc/self/fd/" + number)
    except OSError:
        return None

print(json.dumps({number: link(number) for number in os.listdir("/proc/self/fd")}))
"""


def note(where):
    """Writes down what a program finds open."""
    listed = subprocess.run([sys.executable, "-c", LIST], close_fds=False, capture_output=True, check=True).stdout
    path = os.path.join(os.environ["LEAKS"], where)
    with open(path + ".new", "w") as file:
        json.dump({int(n): link for n, link in json.loads(listed).items() if link}, file)
    os.rename(path + ".new", path)


def spooler(job):
    note("spooler")
    return uwsgi.SPOOL_OK


def mule(message):
    note("mule")


uwsgi.spooler = spooler
uwsgi.mule_msg_hook = mule
uwsgi.register_signal(17, "", lambda number: note("signal"))
note("loading")


def application(environ, start_response):
    note("worker")
    uwsgi.spool({b"a": b"b"})
    uwsgi.mule_msg(b"now")
    uwsgi.signal(17)
    start_response("200 OK", [])
    return [b"noted"]
