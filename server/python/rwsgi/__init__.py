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
    sys.exit(run(sys.argv, sys.executable, [launch]))


def __getattr__(name):
    raise AttributeError(
        f"module 'rwsgi' has no attribute '{name}' here: what an application asks of the server is there inside it only"
    )
