"""rwsgi: a WSGI application server. The server itself is the extension module beside this file.

Inside the server `import rwsgi` gives what the application can ask of it, the same as `import uwsgi`; this file is what
it gives elsewhere.
"""

import os
import signal
import sys


def main():
    """The console command. Never returns."""
    from ._rwsgi import main as run

    # The server has its own way with Ctrl-C. Python's would raise KeyboardInterrupt when everything is done.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    launch = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launch.py")
    if _has_company():
        _begin_alone(launch)
    sys.exit(run(sys.argv, sys.executable, [launch]))


def _has_company():
    """Whether something has started in this interpreter before us, as the launchers of monitoring agents have it."""
    try:
        # Those that Python has not started count too.
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        threads = 1
    return threads > 1 or ("PYTHONPATH" in os.environ and "sitecustomize" in sys.modules)


def _begin_alone(launch):
    """Executes the server in the environment that this process was given, without what the environment brings along.

    The master runs no Python and is no place for an agent: the processes that load the application are. They get the
    environment whole: an agent may have taken itself out, so that what the application starts is not monitored.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            given = dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry)
    except OSError:
        given = os.environb
    os.execve(sys.executable, [sys.executable, "-S", launch, *sys.argv[1:]], given)


def __getattr__(name):
    raise AttributeError(
        f"module 'rwsgi' has no attribute '{name}' here: what an application asks of the server is there inside it only"
    )
