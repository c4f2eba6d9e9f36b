//! What rwsgi does in another way than uWSGI although the option is there: one table, for `rwsgi migrate` and for
//! `docs/moving-from-uwsgi.md`.

use std::fmt;

use super::given::Given;

/// One difference that somebody may notice.
pub(super) struct Difference {
    /// Where one meets it.
    pub(super) topic: &'static str,
    pub(super) uwsgi: &'static str,
    pub(super) rwsgi: &'static str,
    /// What to write, or to do, to have it as before; empty where nothing is to be done.
    pub(super) keep: &'static str,
    /// Does this configuration meet it?
    pub(super) applies: fn(&Given<'_>) -> bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    uWSGI: {}\n    rwsgi: {}", self.topic, self.uwsgi, self.rwsgi)?;
        if !self.keep.is_empty() {
            write!(f, "\n    as before: {}", self.keep)?;
        }
        Ok(())
    }
}

/// Those that this configuration meets, those that bite most first.
pub(super) fn that_apply(given: &Given<'_>) -> impl Iterator<Item = &'static Difference> {
    DIFFERENCES.iter().filter(|difference| (difference.applies)(given))
}

/// Every difference, those that bite most first.
pub(super) static DIFFERENCES: &[Difference] = &[
    Difference {
        topic: "SIGTERM",
        uwsgi: "reloads, without die-on-term",
        rwsgi: "stops: requests in progress are finished first",
        keep: "brutal-reload-on-term = true",
        applies: |given| {
            !given.has(&["die-on-term", "exit-on-term", "brutal-reload-on-term", "emperor"])
                && !given.says("hook-master-start", "unix_signal:15")
        },
    },
    Difference {
        topic: "SIGINT, SIGQUIT",
        uwsgi: "cut requests in progress off",
        rwsgi: "let requests in progress finish, within reload-mercy; a second one ends the server at once",
        keep: "",
        applies: |given| !given.has(&["emperor"]),
    },
    Difference {
        topic: "Reload (SIGHUP, touch-reload, the fifo's r)",
        uwsgi: "stops the workers, then loads the application; if that fails, nothing is served any more",
        rwsgi: "loads the new application beside the old one, which serves until the new one is ready, and goes on serving \
                when it cannot be loaded; both are in memory meanwhile",
        keep: "",
        applies: |given| !given.has(&["emperor"]),
    },
    Difference {
        topic: "An application that cannot be loaded",
        uwsgi: "the server runs and answers 500, without need-app",
        rwsgi: "the start fails with status 22",
        keep: "",
        applies: |given| !given.has(&["need-app", "emperor"]),
    },
    Difference {
        topic: "No master",
        uwsgi: "one process without a master: nobody starts it again when it dies",
        rwsgi: "always a master, which starts workers again, and a process that loads the application",
        keep: "",
        applies: |given| !given.has(&["master", "emperor"]),
    },
    Difference {
        topic: "Threads of the application",
        uwsgi: "do not run between requests, without enable-threads",
        rwsgi: "always run",
        keep: "",
        applies: |given| !given.has(&["enable-threads", "threads", "emperor"]),
    },
    Difference {
        topic: "Several mounts",
        uwsgi: "each application has an interpreter of its own, without single-interpreter",
        rwsgi: "all are in one interpreter: modules and settings of the same name are shared (two Django projects need two \
                servers)",
        keep: "",
        applies: |given| given.config.mounts.len() > 1 && !given.has(&["single-interpreter"]),
    },
    Difference {
        topic: "uid without gid",
        uwsgi: "keeps root's group",
        rwsgi: "takes the group and the additional groups of that user",
        keep: "gid = root",
        applies: |given| given.has(&["uid"]) && !given.has(&["gid"]),
    },
    Difference {
        topic: "harakiri",
        uwsgi: "closes the connection without a response, and kills what the worker's other threads are doing",
        rwsgi: "answers 504; the requests beside it are finished",
        keep: "",
        applies: |given| given.has(&["harakiri"]),
    },
    Difference {
        topic: "Request bodies",
        uwsgi: "the application reads while the client sends; a slow upload holds a worker, without post-buffering",
        rwsgi: "the application is called when the body is there; beyond 1 MB it waits in a temporary file (temp-dir, \
                temp-size)",
        keep: "",
        applies: |given| !given.has(&["post-buffering", "emperor"]),
    },
    Difference {
        topic: "Slow clients",
        uwsgi: "a client may take as long as it likes if it sends something before each timeout",
        rwsgi: "a client that moves less than 500 bytes a second over 30 seconds is closed",
        keep: "body-min-rate = 0 and response-min-rate = 0",
        applies: |given| given.has_public_http() && !given.has(&["body-min-rate", "response-min-rate"]),
    },
    Difference {
        topic: "Connections that stay open",
        uwsgi: "are closed after each response, without http-keepalive",
        rwsgi: "stay open for 60 seconds",
        keep: "http-keepalive = 0",
        applies: |given| given.has_http() && !given.has(&["http-keepalive"]),
    },
    Difference {
        topic: "listen",
        uwsgi: "100 connections may wait in the backlog",
        rwsgi: "as many as the system allows (net.core.somaxconn)",
        keep: "listen = 100",
        applies: |given| !given.has(&["listen", "emperor"]),
    },
    Difference {
        topic: "Dot segments in paths",
        uwsgi: "PATH_INFO has bare ones resolved and escaped ones kept: /a/../b is /b",
        rwsgi: "PATH_INFO has them as they were sent",
        keep: "path-normalize = nginx resolves both; path-normalize = reject refuses both",
        applies: |given| given.has_http() && !given.has(&["path-normalize"]),
    },
    Difference {
        topic: "Lines of the access log",
        uwsgi: "[pid: 8|app: 0|req: 1/2] 192.0.2.7 () {36 vars in 414 bytes} … => generated 13 bytes in 2 msecs …",
        rwsgi: "2026-01-31T23:59:59.123Z worker 1 thread 0 192.0.2.7 \"GET / HTTP/1.1\" 200 120 bytes 2.345 ms",
        keep: "access-log-format = uwsgi",
        applies: |given| !given.has(&["log-format", "logformat", "access-log-format", "disable-logging", "emperor"]),
    },
    Difference {
        topic: "Stats",
        uwsgi: "show every variable of the requests in progress, cookies and passwords too",
        rwsgi: "show no cookies, keys and values of queries",
        keep: "show-request = all",
        applies: |given| given.has(&["stats", "stats-server"]),
    },
];
