"""rwsgi: a WSGI application server. The server itself is the extension module beside this file."""

import os
import signal
import sys


def main():
    """The console command. Never returns."""
    from ._rwsgi import main as run

    # The server has its own way with Ctrl-C. Python's would raise KeyboardInterrupt when everything is done.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    launch = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launch.py")
    sys.exit(run(sys.argv, sys.executable, [launch]))
