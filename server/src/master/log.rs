//! The log file: one writer, the master. The other processes write to a pipe that the master reads, so that the file
//! can be rotated or opened again while they run.
//!
//! A thread of its own reads and writes, so that the loop waits neither for a slow disk nor for those who write fast.
//!
//! Without a log file (and without `log-master`) everybody writes to the standard error that the server was given.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use rwsgi_config::Config;
use tracing::{error, info};

use super::alarms::LineWatch;
use super::events::Events;
use crate::clock::UnixMicros;
use crate::daemon::{open_log, redirect};
use crate::identity::Identity;
use crate::owned_file::{Last, Place};

/// What is read from the pipe at once, bytes.
const AT_ONCE: usize = 64 * 1024;
/// Reads of what waits at the end: more than a pipe holds.
const LAST_READS: usize = 32;
/// Orders to the thread.
const REOPEN: u8 = b'r';
const ROTATE: u8 = b'o';
const FINISH: u8 = b'q';

/// The thread that writes the log.
#[derive(Debug)]
pub(super) struct Log {
    orders: File,
    thread: JoinHandle<()>,
}

impl Log {
    /// Takes over the log, when there is a file to write or `log-master` says so; also returns what the other processes
    /// are to write to. A `path` is opened; `None` keeps the file that `daemonize` has opened.
    ///
    /// # Errors
    /// When the file cannot be opened, or the thread not started.
    pub(super) fn open(
        config: &Config,
        user: Option<&Identity>,
        events: &Events,
    ) -> anyhow::Result<Option<(Self, OwnedFd)>> {
        let options = [
            ("logto2", &config.logto2),
            ("logto", &config.logto),
            ("daemonize", &config.daemonize),
            ("daemonize2", &config.daemonize2),
        ];
        let named = options.into_iter().find_map(|(option, path)| path.as_ref().map(|path| (option, path)));
        let watch = LineWatch::new(config, events);
        if named.is_none() && !config.log_master && watch.is_none() {
            return Ok(None);
        }
        let file = named.map(|(option, path)| {
            let file = open_log(path, user).with_context(|| format!("{option}: cannot open '{}'", path.display()))?;
            redirect(&file)?;
            anyhow::Ok(file)
        });
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (orders, order) = pipe2(OFlag::O_CLOEXEC)?;
        let log = Writer {
            path: named.map(|(_, path)| path.clone()),
            file: file.transpose()?,
            pipe: reader.into(),
            orders: orders.into(),
            max_size: config.log_maxsize,
            backup: config.log_backupname.clone(),
            is_stuck: false,
            watch,
        };
        let thread = std::thread::Builder::new().name("rwsgi log".into()).spawn(move || log.run());
        let thread = thread.context("cannot start the thread that writes the log")?;
        Ok(Some((Self { orders: order.into(), thread }, writer)))
    }

    /// Opens the file again by its name, after somebody has moved it away.
    pub(super) fn reopen(&self) {
        self.order(REOPEN);
    }

    /// Puts the file aside and opens a new one.
    pub(super) fn rotate(&self) {
        self.order(ROTATE);
    }

    /// Writes what waits, at the server's end. What outlives it, and still writes, is not waited for.
    pub(super) fn finish(self) {
        self.order(FINISH);
        // A panic of it has been logged, as far as it could be.
        let _ = self.thread.join();
    }

    /// The thread is there until it is told to finish.
    fn order(&self, order: u8) {
        let _ = (&self.orders).write_all(&[order]);
    }
}

/// What the thread works with.
struct Writer {
    /// `None` for the standard error that the server was given.
    path: Option<PathBuf>,
    file: Option<File>,
    /// What the other processes write. It has no end as long as the master is there, which starts them with the other
    /// end of it.
    pipe: File,
    orders: File,
    /// Bytes after which the file is put aside; 0 for never.
    max_size: u64,
    /// Where it is put.
    backup: Option<PathBuf>,
    /// Rotating it failed, and that was logged.
    is_stuck: bool,
    /// Raises alarms for lines.
    watch: Option<LineWatch>,
}

impl Writer {
    fn run(mut self) {
        let mut bytes = vec![0; AT_ONCE];
        loop {
            let (has_text, has_order) = match self.wait() {
                Ok(ready) => ready,
                Err(failure) => return error!("log: cannot wait for what is to be written: {failure}"),
            };
            let mut order = [0];
            if has_order && self.orders.read_exact(&mut order).is_ok() {
                match order[0] {
                    REOPEN => self.reopen(),
                    ROTATE => self.rotate("touch-logrotate"),
                    _ => return self.write_last(&mut bytes),
                }
            }
            if has_text {
                self.write_once(&mut bytes);
            }
        }
    }

    /// Whether there is something to write, and an order.
    fn wait(&self) -> nix::Result<(bool, bool)> {
        let mut fds = [self.pipe.as_fd(), self.orders.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => Ok((fds[0].any() == Some(true), fds[1].any() == Some(true))),
            Err(Errno::EINTR) => Ok((false, false)),
            Err(failure) => Err(failure),
        }
    }

    /// Writes what one read has; returns whether it had anything.
    fn write_once(&mut self, bytes: &mut [u8]) -> bool {
        let count = match self.pipe.read(bytes) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(failure) if failure.kind() == ErrorKind::Interrupted => return true,
            Err(_) => return false,
        };
        // A full disk is no reason to stop serving, and there is nowhere left to say so.
        let _ = match &mut self.file {
            Some(file) => file.write_all(&bytes[..count]),
            None => std::io::stderr().write_all(&bytes[..count]),
        };
        if let Some(watch) = &mut self.watch {
            watch.look(&bytes[..count]);
        }
        self.rotate_if_large();
        true
    }

    fn write_last(&mut self, bytes: &mut [u8]) {
        for _ in 0..LAST_READS {
            if !self.write_once(bytes) {
                return;
            }
        }
    }

    fn rotate_if_large(&mut self) {
        if self.path.is_none() {
            return;
        }
        let size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |file| file.len());
        if self.max_size == 0 || size <= self.max_size || self.is_stuck {
            return;
        }
        self.rotate("log-maxsize");
    }

    fn rotate(&mut self, option: &str) {
        let Some(path) = &self.path else { return };
        let backup = self.backup.clone().unwrap_or_else(|| dated(path));
        match put_aside(path, &backup) {
            Ok(()) => {
                self.reopen();
                info!("{option}: the log before this one is '{}'", backup.display());
            }
            Err(failure) => {
                error!(
                    "{option}: cannot move '{}' to '{}': {failure}: it goes on growing",
                    path.display(),
                    backup.display()
                );
                self.is_stuck = true;
            }
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        self.is_stuck = false;
        // Privileges are dropped by now, or never.
        match open_log(path, None).and_then(|file| redirect(&file).map(|()| file).map_err(Into::into)) {
            Ok(file) => {
                self.file = Some(file);
                info!("log file opened");
            }
            Err(failure) => error!("log: cannot open '{}' again: {failure}: going on with the old one", path.display()),
        }
    }
}

fn put_aside(path: &Path, backup: &Path) -> std::io::Result<()> {
    let find = |path| Place::find(path, Last::Keep, None);
    find(path)?.move_to(&find(backup)?)
}

/// The name of a log that was put aside now, as uWSGI gives it.
fn dated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", UnixMicros::now().as_secs()));
    name.into()
}
