//! The one table of names: everything that uWSGI 2.0's module has in Python, and what becomes of it here.
//! `docs/python-api.md` is made from it.

/// What becomes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there; what it does, or gives.
    Works(&'static str),
    /// The application may assign it; what the server does with it then.
    Assigned(&'static str),
    /// It is not; what to use.
    Not(&'static str),
}
use Standing::{Assigned, Not, Works};

/// In the order of the reference: by concern.
#[rustfmt::skip]
pub(super) static NAMES: &[(&str, Standing)] = &[
    // settings.rs
    ("version", Works("the uWSGI that this module is like, and rwsgi's own version, bytes")),
    ("version_info", Works("the same as a tuple; the last item is rwsgi's own")),
    ("hostname", Works("bytes")),
    ("pidfile", Works("bytes; there only when `pidfile` is set")),
    ("opt", Works("the options as they were given: bytes, or True for one without a value; the last of several, as in uWSGI")),
    ("magic_table", Works("what the magic variables of configuration files stand for")),
    ("numproc", Works("number of workers")),
    ("cores", Works("threads in each worker")),
    ("has_threads", Works("always 1")),
    ("buffer_size", Works("the largest request head, bytes")),
    ("sockets", Works("descriptors of the listening sockets")),
    ("started_on", Works("when the server started, unix seconds")),
    ("is_a_reload", Works("whether the application was loaded by a reload")),
    ("applications", Works("None; mount applications with `mount`")),
    ("loop", Works("None: there is one loop")),
    ("unbit", Works("None")),
    // process.rs
    ("worker_id", Works("the worker's number; 0 outside of workers")),
    ("i_am_the_spooler", Works("True in a spooler, else None")),
    ("masterpid", Works("the process id of the master")),
    ("log", Works("writes a line to the log")),
    ("mem", Works("resident memory and address space of this process, bytes")),
    ("micros", Works("microseconds since 1970")),
    ("setprocname", Works("changes what `ps` shows for this process")),
    ("is_connected", Works("whether the other end of a socket is still there")),
    ("close", Works("closes a descriptor")),
    // signals.rs
    ("register_signal", Works("registers a handler; an unknown target is a ValueError")),
    ("signal_registered", Works("True when a signal has a handler, else None")),
    ("signal", Works("raises a signal; not one of another server's")),
    ("signal_wait", Works("waits until this process has handled a signal")),
    ("signal_received", Works("the signal that this thread waited for last")),
    ("add_timer", Works("raises a signal every so many seconds; the same timer added again, by another worker say, is one timer")),
    ("add_rb_timer", Works("the same, with a number of times")),
    ("add_cron", Works("raises a signal at times of the calendar")),
    ("add_file_monitor", Works("raises a signal when a file changes")),
    // spool.rs
    ("spool", Works("queues a job for the spooler; there only with the option `spooler`, as all that follow")),
    ("send_to_spooler", Works("the same as spool")),
    ("spoolers", Works("the spoolers' directories, a tuple of bytes")),
    ("spooler_jobs", Works("the files of the jobs that wait or run, those of priorities too")),
    ("spooler_get_task", Works("what a job's file says; None when there is no such job")),
    ("spooler_pid", Works("the process id of the first spooler")),
    ("spooler_pids", Works("the process ids of all spoolers")),
    ("set_spooler_frequency", Works("sets `spooler-frequency`")),
    ("SPOOL_OK", Works("a spool function's result: the job is done")),
    ("SPOOL_RETRY", Works("a spool function's result: try the job again")),
    ("SPOOL_IGNORE", Works("a spool function's result: the job is not for this process")),
    // locks.rs
    ("lock", Works("waits for a lock; one that this thread has already is a RuntimeError instead of a wait without end")),
    ("unlock", Works("gives a lock back")),
    ("is_locked", Works("whether somebody has a lock")),
    // cache/
    ("cache_get", Works("a key's value, or None; what has expired is gone at once")),
    ("cache_set", Works("sets a key that has no value: True or None")),
    ("cache_update", Works("sets a key: True or None")),
    ("cache_del", Works("True when there was something, else None")),
    ("cache_exists", Works("True or None")),
    ("cache_clear", Works("empties a cache")),
    ("cache_inc", Works("adds to a number of 64 bits")),
    ("cache_dec", Works("takes from it")),
    ("cache_mul", Works("multiplies it")),
    ("cache_div", Works("divides it; by 0 it becomes 0")),
    ("cache_num", Works("reads it; 0 when there is none")),
    ("cache_keys", Works("every key of a cache")),
    // metrics.rs
    ("metric_get", Works("a metric's value; 0 when there is none")),
    ("metric_set", Works("sets a metric: True, or None when there is none of this name")),
    ("metric_inc", Works("adds to it")),
    ("metric_dec", Works("takes from it")),
    ("metric_mul", Works("multiplies it")),
    ("metric_div", Works("divides it; None for a division by 0")),
    ("metric_set_max", Works("sets it if it is lower")),
    ("metric_set_min", Works("sets it if it is higher, and the value above its first")),
    // mules.rs
    ("mule_id", Works("the mule's number; 0 outside of mules")),
    ("mule_msg", Works("sends a message to a mule or farm: False when there is no room")),
    ("mule_get_msg", Works("waits for a message, in a mule; signals are handled in a thread of their own meanwhile")),
    ("farm_msg", Works("sends a message to a farm")),
    ("farm_get_msg", Works("waits for a message to a farm, in a mule")),
    ("in_farm", Works("True when this mule is in the farm, else None")),
    // rpc.rs
    ("register_rpc", Works("gives a function a name")),
    ("rpc", Works("calls a function of this process by its name; not one of another server's")),
    ("call", Works("the same")),
    ("rpc_list", Works("the names")),
    // What the application assigns.
    ("spooler", Assigned("called with each job, a dictionary, in a spooler")),
    ("post_fork_hook", Assigned("called in every worker, mule and spooler after its fork")),
    ("atexit", Assigned("called before a worker, mule or spooler ends by itself")),
    ("mule_msg_hook", Assigned("called with every message to a mule")),
    // Not to be had.
    ("alarm", Not("watch the log, or the metrics that stats gives")),
];

/// What becomes of this name; `None` when uWSGI has none like it.
pub(super) fn find(name: &str) -> Option<Standing> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, standing)| *standing)
}
