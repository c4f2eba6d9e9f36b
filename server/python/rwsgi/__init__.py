"""rwsgi: a WSGI application server. The server itself is the extension module beside this file.

Inside the server `import rwsgi` gives what the application can ask of it, the same as `import uwsgi`; this file is what
it gives elsewhere.
"""

import os
import sys

# As src/without_python.rs has it.
TOLD = "RWSGI_WITHOUT_PYTHON"


def main():
    """The console command. Never returns."""
    launch = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launch.py")
    if TOLD not in os.environ:
        if _has_company():
            alone = [sys.executable, "-S", launch, *sys.argv[1:]]
            _begin(alone, 2, _given(), launch)
            # Not without Python, then.
            os.execve(sys.executable, alone, _given())
        if _is_the_command():
            # With the same command line, so that it stays what people look for.
            _begin([sys.executable, *sys.argv], 1, os.environ, launch)

    import signal

    from ._rwsgi import main as run

    # The server has its own way with Ctrl-C. Python's would raise KeyboardInterrupt when everything is done.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(run(sys.argv, sys.executable, [launch]))


def _has_company():
    """Whether something has started in this interpreter before us, as the launchers of monitoring agents have it.

    The master is no place for an agent: the processes that load the application are. They get the environment that this
    process was given: an agent may have taken itself out of it, so that what the application starts is not monitored.
    """
    try:
        # Those that Python has not started count too.
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        threads = 1
    return threads > 1 or ("PYTHONPATH" in os.environ and "sitecustomize" in sys.modules)


def _given():
    """The environment that this process was given."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry)
    except OSError:
        return dict(os.environb)


def _is_the_command():
    """Whether this Python runs the console command and nothing else: not another's program that calls us, or a tool that
    watches what the command does here."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read().split(b"\0")[1:-1]
    except OSError:
        return False
    return os.path.basename(sys.argv[0]) == "rwsgi" and words == [os.fsencode(word) for word in sys.argv]


def _begin(command, before, environ, launch):
    """Executes the server in this process without Python, as src/without_python.rs says. Returns where that is not
    possible."""
    import _imp

    paths = [os.path.join(os.path.dirname(launch), "_rwsgi" + suffix) for suffix in _imp.extension_suffixes()]
    library = next(filter(os.path.exists, paths), None)
    if library is None or any(letter.isspace() or letter in ":$" for letter in library):
        return
    environ = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
    others = environ.get(b"LD_PRELOAD")
    environ[b"LD_PRELOAD"] = os.fsencode(library) + (b":" + others if others else b"")
    environ[TOLD.encode()] = os.fsencode(f"{os.getpid()}:{before}:{sys.executable}")
    try:
        # Not by its name: a script in its place would be run by a shell, into which the library cannot be loaded.
        os.execve(os.readlink("/proc/self/exe"), command, environ)
    except OSError:
        pass


def __getattr__(name):
    raise AttributeError(
        f"module 'rwsgi' has no attribute '{name}' here: what an application asks of the server is there inside it only"
    )
