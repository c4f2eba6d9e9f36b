"""Decorators for applications that run in rwsgi: background jobs, timers, signals, locks.

They are uWSGI's, by name and behaviour, and work inside the server alone.
"""

import functools
import pickle
import sys
import threading

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


class signal:
    """Has the function handle a signal: `@signal(17, target="workers")`. It is called with the signal's number."""

    def __init__(self, num, *, target=""):
        self.num, self.target = num, target

    def __call__(self, function):
        uwsgi.register_signal(self.num, self.target, function)
        return function


def get_free_signal():
    """The lowest signal that has no handler yet."""
    for number in range(256):
        if not uwsgi.signal_registered(number):
            return number
    raise RuntimeError("all 256 signals have handlers: name a signum")


class _Raised(signal):
    """A signal of the function's own, raised by something that a subclass adds."""

    def __init__(self, *, target="", signum=None):
        super().__init__(get_free_signal() if signum is None else signum, target=target)

    def __call__(self, function):
        super().__call__(function)
        self.arm()
        return function


class timer(_Raised):
    """Calls the function every N seconds, in the first worker that is free, or in `target`."""

    def __init__(self, secs, **where):
        super().__init__(**where)
        self.secs = secs

    def arm(self):
        uwsgi.add_timer(self.num, self.secs)


class rbtimer(timer):
    """The same; uWSGI keeps these in another table."""

    def arm(self):
        uwsgi.add_rb_timer(self.num, self.secs)


class cron(_Raised):
    """Calls the function at times of the calendar: -1 stands for each, -5 for those that 5 divides."""

    def __init__(self, minute, hour, day, month, dayweek, **where):
        super().__init__(**where)
        self.when = (minute, hour, day, month, dayweek)

    def arm(self):
        uwsgi.add_cron(self.num, *self.when)


class filemon(_Raised):
    """Calls the function when a file, or a file in a directory, changes."""

    def __init__(self, fsobj, **where):
        super().__init__(**where)
        self.fsobj = fsobj

    def arm(self):
        uwsgi.add_file_monitor(self.num, self.fsobj)


class thread:
    """Starts the function in a daemon thread of its own when it is called, after the fork with `@postfork` above it."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        threading.Thread(target=self.function, args=args, daemon=True).start()
        return self.function


class lock:
    """Lets one process at a time run the function. A spooler, which may not lock, does not run it."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args, **kwargs):
        if uwsgi.i_am_the_spooler():
            return None
        uwsgi.lock()
        try:
            return self.function(*args, **kwargs)
        finally:
            uwsgi.unlock()


class harakiri:
    """Ends the process when the function takes more seconds than this."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, function):
        @functools.wraps(function)
        def watched(*args, **kwargs):
            uwsgi.set_user_harakiri(self.seconds)
            try:
                return function(*args, **kwargs)
            finally:
                uwsgi.set_user_harakiri(0)

        return watched


class rpc:
    """Lets `uwsgi.rpc` call the function by a name."""

    def __init__(self, name):
        self.name = name

    def __call__(self, function):
        uwsgi.register_rpc(self.name, function)
        return function


_mule_functions = {}


def _call_mule_function(message):
    call = pickle.loads(message)
    if call["service"] == "uwsgi_mulefunc":
        return _mule_functions[call["func"]](*call["args"], **call["kwargs"])
    return None


uwsgi.mule_msg_hook = _call_mule_function


class mulefunc:
    """Has a mule run the function when it is called: `@mulefunc`, `@mulefunc(2)` or, of a farm, `@mulefunc("name")`."""

    def __init__(self, function):
        self.mule, self.name = 0, None
        if callable(function):
            self._take(function)
        else:
            self.mule = function

    def _take(self, function):
        self.name = function.__name__
        _mule_functions[self.name] = function

    def _send(self, *args, **kwargs):
        call = {"service": "uwsgi_mulefunc", "func": self.name, "args": args, "kwargs": kwargs}
        uwsgi.mule_msg(pickle.dumps(call), self.mule)

    def __call__(self, *args, **kwargs):
        if self.name is None:
            self._take(args[0])
            return self._send
        return self._send(*args, **kwargs)


class _InMule:
    """Runs the function in one mule, from its fork on."""

    def __init__(self, num):
        self.num = num

    def __call__(self, function):
        _after_fork.append(lambda: self.run(function) if uwsgi.mule_id() == self.num else None)

    def run(self, function):
        try:
            self.work(function)
        except SystemExit:
            raise
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.exit(1)


class mule(_InMule):
    """Runs the function once in the mule of this number."""

    def work(self, function):
        function()


class muleloop(_InMule):
    """Runs the function over and over in the mule of this number."""

    def work(self, function):
        while True:
            function()


class mulemsg(_InMule):
    """Calls the function with every message to the mule of this number."""

    def work(self, function):
        while True:
            message = uwsgi.mule_get_msg()
            if message:
                function(message)


class farm:
    """Calls the function with every message to the farm of this name, in the mules of the farm."""

    def __init__(self, name=None, **_):
        self.name = name

    def __call__(self, function):
        _after_fork.append(lambda: self.run(function))

    def run(self, function):
        if not uwsgi.mule_id() or not uwsgi.in_farm(self.name):
            return
        while True:
            message = uwsgi.farm_get_msg()
            if message:
                function(message)


class mule_brain:
    """What `@mule` leaves to be called after the fork: runs the function once in the mule of this number."""

    def __init__(self, function, num):
        self.function, self.num = function, num

    def __call__(self):
        if uwsgi.mule_id() == self.num:
            mule(self.num).run(self.function)


class mule_brainloop(mule_brain):
    """The same for `@muleloop`."""

    def __call__(self):
        if uwsgi.mule_id() == self.num:
            muleloop(self.num).run(self.function)
# Jobs for the spooler. What a job says is uWSGI's, so that either server runs what the other left: `ud_spool_func` is
# the function's name, `ud_spool_ret` what to make of its end, `args` and `kwargs` are pickled when it takes arguments.

_spool_functions = {}
_SPOOL_WISHES = ("spooler", "priority", "at", "body")


def _to_bytes(value):
    if isinstance(value, (int, float)):
        value = str(value)
    return value.encode("utf-8") if isinstance(value, str) else value


def _to_text(value):
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _run_job(job):
    job = {_to_text(name): value for name, value in job.items()}
    name = _to_text(job["ud_spool_func"])
    try:
        function = _spool_functions[name]
    except KeyError:
        raise LookupError(
            f"a job is for the function {name!r}, but no such function is decorated for the spooler here: "
            "load the module that has it with spooler-import"
        ) from None
    if "args" in job:
        returned = function(*pickle.loads(job["args"]), **pickle.loads(job["kwargs"]))
    else:
        returned = function({name: _to_text(value) for name, value in job.items()})
    return int(job.get("ud_spool_ret", returned))


uwsgi.spooler = _run_job


class _Spooled:
    """A function that is queued for the spooler when it is called. The function itself is `.f`."""

    result = None

    def __init__(self, function, pass_arguments):
        if not hasattr(uwsgi, "spool"):
            raise RuntimeError(
                f"there is no spooler to run {function.__name__}(): start the server with the option spooler"
            )
        functools.update_wrapper(self, function)
        self.f = function
        self.pass_arguments = pass_arguments
        _spool_functions[function.__name__] = function
        # The older way to queue, from when the decorated function was still the function itself.
        function.spool = self

    def __call__(self, *args, **kwargs):
        job = {"ud_spool_func": self.f.__name__}
        if self.result is not None:
            job["ud_spool_ret"] = self.result
        if self.pass_arguments:
            job.update((name, kwargs.pop(name)) for name in _SPOOL_WISHES if name in kwargs)
            job.update(kwargs.pop("message_dict", {}))
            job.update(args=pickle.dumps(args), kwargs=pickle.dumps(kwargs))
        else:
            job.update(*args[:1], **kwargs)
        return uwsgi.spool({_to_bytes(name): _to_bytes(value) for name, value in job.items()})

    def spool(self, *args, **kwargs):
        """Queues it, as calling does."""
        return self(*args, **kwargs)


class _SpooledOnce(_Spooled):
    result = uwsgi.SPOOL_OK


class _SpooledForever(_Spooled):
    result = uwsgi.SPOOL_RETRY


def _spooled(kind, function, pass_arguments):
    if function is None:
        return functools.partial(kind, pass_arguments=pass_arguments)
    return kind(function, pass_arguments)


def spool(f=None, pass_arguments=False):
    """Calling the function queues it: the spooler runs it once, and again only when it raises."""
    return _spooled(_SpooledOnce, f, pass_arguments)


def spoolraw(f=None, pass_arguments=False):
    """As `spool`; the function returns `uwsgi.SPOOL_OK`, `SPOOL_RETRY` or `SPOOL_IGNORE`."""
    return _spooled(_Spooled, f, pass_arguments)


def spoolforever(f=None, pass_arguments=False):
    """As `spool`; whenever it is done it is queued again."""
    return _spooled(_SpooledForever, f, pass_arguments)
