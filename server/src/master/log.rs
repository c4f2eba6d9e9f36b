//! The log's one writer, the master: the other processes write to a pipe that the master reads, so that files can be
//! rotated or opened again while they run, and lines can go to loggers.
//!
//! A thread of its own reads and writes, so that the loop waits neither for a slow disk nor for those who write fast. With
//! loggers, routes or encoders, the master's own standard error is that pipe, too.
//!
//! Without a log file, a logger and `log-master` everybody writes to the standard error that the server was given.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use rwsgi_config::{Config, LOGGERS};
use tracing::{Level, error, info};

use super::alarm_lines::LineWatch;
use super::events::Events;
use crate::daemon::redirect;
use crate::identity::Identity;
use crate::log_text;
use crate::loggers::{Fallback, FileRules, LineCopy, LineKind, LogFile, Loggers, Remark};

/// What is read from a pipe at once, bytes.
const AT_ONCE: usize = 64 * 1024;
/// Reads of what waits at the end: more than a pipe holds.
const LAST_READS: usize = 32;
/// How long the end of a line is awaited, ms.
const LINE_END: u16 = 1_000;
/// Orders to the thread.
const REOPEN: u8 = b'r';
const ROTATE: u8 = b'o';
const FINISH: u8 = b'q';

/// The thread that writes the log.
#[derive(Debug)]
pub(super) struct Log {
    orders: File,
    thread: Option<JoinHandle<()>>,
    /// Where workers write the access log, when it has loggers of its own.
    requests: Option<OwnedFd>,
    /// The standard error before it became the pipe.
    before: Option<File>,
}

impl Log {
    /// Takes over the log, when there is a file or a logger to write to or `log-master` says so; also returns what the
    /// other processes are to write to. A `path` is opened; `None` keeps the file that `daemonize` has opened. `copy` sees
    /// each line.
    ///
    /// # Errors
    /// When the file cannot be opened, or the thread not started.
    pub(super) fn open(
        config: &Config,
        user: Option<&Identity>,
        events: &Events,
        copy: Option<LineCopy>,
    ) -> anyhow::Result<Option<(Self, OwnedFd)>> {
        if config.logs.list {
            info!("loggers: {}", LOGGERS.join(", "));
        }
        let options = [
            ("logto2", &config.logto2),
            ("logto", &config.logto),
            ("daemonize", &config.daemonize),
            ("daemonize2", &config.daemonize2),
        ];
        let named = options.into_iter().find_map(|(option, path)| path.as_ref().map(|path| (option, path)));
        let watch = LineWatch::new(config, events);
        let is_routed = config.logs.is_routed() || copy.is_some();
        if named.is_none() && !config.log_master && !is_routed && watch.is_none() {
            return Ok(None);
        }
        let rules = FileRules::new(config, user);
        let file = named.map(|(option, path)| {
            let backup = config.log_backupname.clone();
            let about = rwsgi_config::LogFile { path: path.clone(), max_size: config.log_maxsize, backup };
            let file = LogFile::open("log-maxsize", &about, &rules, user);
            let file = file.with_context(|| format!("{option}: cannot open '{}'", path.display()))?;
            redirect(file.file())?;
            anyhow::Ok(file)
        });
        let file = file.transpose()?;
        let mut remarks = Vec::new();
        let loggers = is_routed.then(|| Loggers::open(&config.logs, &rules, user, &mut remarks).with_copy(copy));
        for (level, text) in remarks {
            say(level, &text);
        }
        let (reader, writer) = reading_pipe()?;
        let (orders, order) = pipe2(OFlag::O_CLOEXEC)?;
        let requests = config.logs.has_request_stream().then(reading_pipe).transpose()?;
        let (request_pipe, requests) = requests.map_or((None, None), |(reader, writer)| (Some(reader), Some(writer)));
        let before = loggers.is_some().then(|| std::io::stderr().as_fd().try_clone_to_owned()).transpose()?;
        let before = before.map(File::from);
        let log = Writer {
            main: Main { file, standard_error: before.as_ref().map(File::try_clone).transpose()?, watch },
            loggers,
            pipe: reader,
            request_pipe,
            orders: orders.into(),
        };
        if before.is_some() {
            redirect(&File::from(writer.try_clone()?))?;
        }
        let thread = std::thread::Builder::new().name("rwsgi log".into()).spawn(move || log.run());
        // From here on, standard error is given back when this fails.
        let mut log = Self { orders: order.into(), thread: None, requests, before };
        log.thread = Some(thread.context("cannot start the thread that writes the log")?);
        Ok(Some((log, writer)))
    }

    /// Opens files again by their names, after somebody has moved them away.
    pub(super) fn reopen(&self) {
        self.order(REOPEN);
    }

    /// Puts files aside and opens new ones.
    pub(super) fn rotate(&self) {
        self.order(ROTATE);
    }

    /// Whether the master's own lines go through the pipe, too.
    pub(super) fn has_own_lines(&self) -> bool {
        self.before.is_some()
    }

    /// Where workers write the access log, when it has loggers of its own.
    pub(super) fn requests(&self) -> Option<BorrowedFd<'_>> {
        self.requests.as_ref().map(AsFd::as_fd)
    }

    /// The thread is there until it is told to finish.
    fn order(&self, order: u8) {
        let _ = (&self.orders).write_all(&[order]);
    }
}

/// Writes what waits, at the server's end, and gives standard error back. What outlives it, and still writes, is not waited
/// for.
impl Drop for Log {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = redirect(before);
        }
        self.order(FINISH);
        if let Some(thread) = self.thread.take() {
            // A panic of it has been logged, as far as it could be.
            let _ = thread.join();
        }
    }
}

/// A pipe: its end for reading, which does not block, and that for writing.
fn reading_pipe() -> nix::Result<(File, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader.into(), writer))
}

/// The log file, or the standard error that the server was given.
struct Main {
    file: Option<LogFile>,
    /// `None` when it is still this process's.
    standard_error: Option<File>,
    /// Raises alarms for lines.
    watch: Option<LineWatch>,
}

impl Main {
    /// Writes, and returns what there is to say of that.
    fn put(&mut self, bytes: &[u8]) -> Option<Remark> {
        // A full disk is no reason to stop serving, and there is nowhere left to say so.
        match (&mut self.file, &mut self.standard_error) {
            (Some(file), _) => return file.write(bytes).ok().flatten(),
            (None, Some(standard_error)) => drop(standard_error.write_all(bytes)),
            (None, None) => drop(std::io::stderr().write_all(bytes)),
        }
        None
    }

    fn reopen(&mut self) -> Option<Remark> {
        let file = self.file.as_mut()?;
        let remark = file.reopen();
        self.follow();
        Some(remark)
    }

    fn rotate(&mut self) -> Option<Remark> {
        let remark = self.file.as_mut()?.rotate("touch-logrotate");
        self.follow();
        Some(remark)
    }

    /// Has this process's standard error be the file, when it is not the pipe.
    fn follow(&self) {
        if let (Some(file), None) = (&self.file, &self.standard_error) {
            // Never fails on an open file.
            let _ = redirect(file.file());
        }
    }
}

impl Fallback for Main {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(remark) = self.put(bytes) {
            self.follow();
            self.tell(remark);
        }
    }

    fn tell(&mut self, (level, text): Remark) {
        if self.standard_error.is_none() {
            return say(level, &text);
        }
        // This thread reads what it would write there.
        let line = log_text::line(level, &text);
        if let Some(watch) = &self.watch {
            watch.look_at_line(line.trim_ascii_end());
        }
        // What there is to say of that is for the next line.
        drop(self.put(&line));
    }
}

fn say(level: Level, text: &str) {
    match level {
        Level::ERROR => error!("{text}"),
        _ => info!("{text}"),
    }
}

/// What the thread works with.
struct Writer {
    main: Main,
    /// `None` when all lines go to `main` as they are.
    loggers: Option<Loggers>,
    /// What the other processes write. It has no end as long as the master is there, which starts them with the other
    /// end of it.
    pipe: File,
    request_pipe: Option<File>,
    orders: File,
}

/// What can be read.
struct Readable {
    text: bool,
    requests: bool,
    order: bool,
}

impl Writer {
    fn run(mut self) {
        let mut bytes = vec![0; AT_ONCE];
        loop {
            let ready = match self.wait() {
                Ok(Some(ready)) => ready,
                Ok(None) => {
                    self.flush();
                    continue;
                }
                Err(failure) => {
                    let text = format!("log: cannot wait for what is to be written: {failure}");
                    return self.main.tell((Level::ERROR, text));
                }
            };
            let mut order = [0];
            if ready.order && self.orders.read_exact(&mut order).is_ok() {
                match order[0] {
                    REOPEN => self.reopen(),
                    ROTATE => self.rotate(),
                    _ => return self.write_last(&mut bytes),
                }
            }
            if ready.text {
                self.write_once(LineKind::General, &mut bytes);
            }
            if ready.requests {
                self.write_once(LineKind::Request, &mut bytes);
            }
        }
    }

    /// What there is to do; `None` when the end of a line has not come in time.
    fn wait(&self) -> nix::Result<Option<Readable>> {
        let awaits_end = self.loggers.as_ref().is_some_and(Loggers::has_rest);
        let timeout = if awaits_end { PollTimeout::from(LINE_END) } else { PollTimeout::NONE };
        let requests = self.request_pipe.as_ref().unwrap_or(&self.pipe);
        let mut fds = [&self.pipe, &self.orders, requests].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Ok(0) => Ok(None),
            Ok(_) => {
                let [text, order, requests] = fds.map(|fd| fd.any() == Some(true));
                Ok(Some(Readable { text, requests: requests && self.request_pipe.is_some(), order }))
            }
            Err(Errno::EINTR) => Ok(Some(Readable { text: false, requests: false, order: false })),
            Err(failure) => Err(failure),
        }
    }

    /// Writes what one read has; returns whether it had anything.
    fn write_once(&mut self, kind: LineKind, bytes: &mut [u8]) -> bool {
        let pipe = match kind {
            LineKind::General => Some(&mut self.pipe),
            LineKind::Request => self.request_pipe.as_mut(),
        };
        let Some(pipe) = pipe else { return false };
        let count = match pipe.read(bytes) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(failure) if failure.kind() == ErrorKind::Interrupted => return true,
            Err(_) => return false,
        };
        // As in uWSGI, lines of the access log raise none when they have a way of their own.
        if let (LineKind::General, Some(watch)) = (kind, &mut self.main.watch) {
            watch.look(&bytes[..count]);
        }
        match &mut self.loggers {
            Some(loggers) => loggers.take(kind, &bytes[..count], &mut self.main),
            None => self.main.write(&bytes[..count]),
        }
        true
    }

    fn write_last(&mut self, bytes: &mut [u8]) {
        for kind in [LineKind::Request, LineKind::General] {
            for _ in 0..LAST_READS {
                if !self.write_once(kind, bytes) {
                    break;
                }
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        if let Some(loggers) = &mut self.loggers {
            loggers.flush(&mut self.main);
        }
    }

    fn rotate(&mut self) {
        let of_loggers = self.loggers.as_mut().map(Loggers::rotate).unwrap_or_default();
        for remark in self.main.rotate().into_iter().chain(of_loggers) {
            self.main.tell(remark);
        }
    }

    fn reopen(&mut self) {
        let of_loggers = self.loggers.as_mut().map(Loggers::reopen).unwrap_or_default();
        for remark in self.main.reopen().into_iter().chain(of_loggers) {
            self.main.tell(remark);
        }
    }
}
