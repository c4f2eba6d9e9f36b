"""Decorators for applications that run in rwsgi: background jobs, timers, signals, locks.

They are uWSGI's, by name and behaviour, and work inside the server alone.
"""

try:
    import uwsgi
except ImportError:
    raise ImportError(
        "uwsgidecorators works inside the server only: there is no module 'uwsgi' here. "
        "Start the application with rwsgi, or call its functions without their decorators"
    ) from None

_after_fork = []


def _run_after_fork():
    for function in _after_fork:
        function()


uwsgi.post_fork_hook = _run_after_fork


class postfork:
    """Calls the function in every worker after its fork: `@postfork`, or in one alone: `@postfork(2)`."""

    def __init__(self, function):
        self.worker, self.function = (0, function) if callable(function) else (function, None)
        _after_fork.append(self)

    def __call__(self, *args, **kwargs):
        if self.function is None:
            self.function = args[0]
            return None
        if self.worker in (0, uwsgi.worker_id()):
            return self.function()
        return None
