"""Requests that are stuck in one way or another until the file that their query names is there."""

import ctypes
import os
import socket
import threading
import time
from itertools import repeat

# Keeps the global lock while it runs.
LIBC = ctypes.PyDLL(None)
LOCK = threading.Lock()
LOCK.acquire()


class Stuck:
    def __init__(self, go):
        self.go = go

    def is_over(self):
        return os.path.exists(self.go)

    def sleep(self):
        while not self.is_over():
            time.sleep(0.2)  # here: sleep

    def lock(self):
        while not self.is_over():
            LOCK.acquire(timeout=0.2)  # here: lock

    def hog(self):
        while not self.is_over():
            LIBC.usleep(500_000)  # here: hog

    def spin(self):
        while not self.is_over():
            # A signal may reach a thread late, at its next system call: with one in each turn, many samples would be there.
            for _ in range(100):
                heavy()
                light()

    def receive(self):
        mine, _theirs = socket.socketpair()
        mine.settimeout(0.2)
        while not self.is_over():
            try:
                mine.recv(1)  # here: receive
            except socket.timeout:  # Python 3.9 has no other name for it.
                pass

    def deep(self, depth=150):
        if depth:
            return self.deep(depth - 1)
        return self.sleep()

    def threads(self, count=3):
        for number in range(count):
            threading.Thread(target=background, args=(self,), name=f"guest-{number}").start()
        self.sleep()

    def crowd(self):
        self.threads(128)

    def interpreters(self):
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        second = interpreters.create()
        self.sleep()
        interpreters.destroy(second)

    def fork(self):
        child = os.fork()
        if child == 0:
            while not self.is_over():
                time.sleep(0.05)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

    def blink(self):
        import signal

        while not self.is_over():
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN + 6})
            time.sleep(0.05)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGRTMIN + 6})

    def take(self):
        import signal

        signal.signal(signal.SIGRTMIN + 6, signal.SIG_DFL)
        self.sleep()

    def own(self):
        import signal

        signal.signal(signal.SIGRTMIN + 6, lambda *_: None)
        self.sleep()


def background(stuck):
    while not stuck.is_over():
        time.sleep(0.1)  # here: background


# Python 3.15 counts faster to a thousand than beyond: it makes these numbers once.
def heavy():
    for _ in repeat(None, 3_000):
        pass


def light():
    for _ in repeat(None, 1_000):
        pass


def application(environ, start_response):
    go = environ["QUERY_STRING"].removeprefix("go=")
    if go:
        getattr(Stuck(go), environ["PATH_INFO"][1:])()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
