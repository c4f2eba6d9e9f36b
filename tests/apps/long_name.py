"""Gives its process a long name, and tells what became of the name and of the environment that C code sees."""

import ctypes
import json
import os

import uwsgi


def environment():
    """Where each string of the environment lies, and what it is."""
    strings = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
    found = []
    while strings[len(found)]:
        found.append((strings[len(found)], ctypes.string_at(strings[len(found)]).decode()))
    return found


def application(environ, start_response):
    before = environment()
    uwsgi.setprocname("n" * 100_000)
    with open("/proc/self/cmdline") as shown:
        name = shown.read().rstrip("\0")
    told = {"is_untouched": environment() == before, "name": name, "last": os.environ.get("LAST")}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
