//! The log file: one writer, the master. The other processes write to a pipe that the master reads, so that the file
//! can be rotated or opened again while they run.
//!
//! Without a log file (and without `log-master`) everybody writes to the standard error that the server was given.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;
use nix::fcntl::OFlag;
use tokio::net::unix::pipe::Receiver;
use tracing::{error, info};

use crate::clock::UnixMicros;
use crate::daemon::{open_log, redirect};
use rwsgi_config::Config;

/// What is read from the pipe at once, bytes.
const AT_ONCE: usize = 64 * 1024;
/// How often it is read before the loop has its turn.
const READS: usize = 8;
/// Turns for what waits at the end: more than a pipe holds.
const LAST_TURNS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Log {
    /// `None` for the standard error that the server was given.
    path: Option<PathBuf>,
    file: RefCell<Option<File>>,
    pipe: Receiver,
    /// Bytes after which the file is put aside; 0 for never.
    max_size: u64,
    /// Where it is put.
    backup: Option<PathBuf>,
    /// Rotating it failed, and that was logged.
    stuck: Cell<bool>,
}

impl Log {
    /// Takes over the log, when there is a file to write or `log-master` says so; also returns what the other processes
    /// are to write to. A `path` is opened; `None` keeps the file that `daemonize` has opened.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn open(config: &Config) -> anyhow::Result<Option<(Rc<Self>, OwnedFd)>> {
        let options = [
            ("logto2", &config.logto2),
            ("logto", &config.logto),
            ("daemonize", &config.daemonize),
            ("daemonize2", &config.daemonize2),
        ];
        let named = options.into_iter().find_map(|(option, path)| path.as_ref().map(|path| (option, path)));
        if named.is_none() && !config.log_master {
            return Ok(None);
        }
        let file = named.map(|(option, path)| {
            let file = open_log(path).with_context(|| format!("{option}: cannot open '{}'", path.display()))?;
            redirect(&file)?;
            anyhow::Ok(file)
        });
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let log = Rc::new(Self {
            path: named.map(|(_, path)| path.clone()),
            file: RefCell::new(file.transpose()?),
            pipe: Receiver::from_owned_fd(reader)?,
            max_size: config.log_maxsize,
            backup: config.log_backupname.clone(),
            stuck: Cell::new(false),
        });
        let task = Rc::clone(&log);
        tokio::task::spawn_local(async move {
            while task.pipe.readable().await.is_ok() {
                // The loop has its turn, however fast others write.
                while task.pump() {
                    tokio::task::yield_now().await;
                }
            }
        });
        Ok(Some((log, writer)))
    }

    /// Writes what waits in the pipe, up to a limit; returns whether there may be more.
    pub(super) fn pump(&self) -> bool {
        let mut bytes = vec![0; AT_ONCE];
        for _ in 0..READS {
            let Ok(count @ 1..) = self.pipe.try_read(&mut bytes) else { return false };
            // A full disk is no reason to stop serving, and there is nowhere left to say so.
            let _ = match &mut *self.file.borrow_mut() {
                Some(file) => file.write_all(&bytes[..count]),
                None => std::io::stderr().write_all(&bytes[..count]),
            };
            self.rotate_if_large();
        }
        true
    }

    /// Writes what waits when the server ends. What outlives it, and still writes, is not waited for.
    pub(super) fn pump_last(&self) {
        for _ in 0..LAST_TURNS {
            if !self.pump() {
                return;
            }
        }
    }

    fn rotate_if_large(&self) {
        let Some(path) = &self.path else { return };
        let size = self.file.borrow().as_ref().and_then(|file| file.metadata().ok()).map_or(0, |file| file.len());
        if self.max_size == 0 || size <= self.max_size || self.stuck.get() {
            return;
        }
        let backup = self.backup.clone().unwrap_or_else(|| dated(path));
        match std::fs::rename(path, &backup) {
            Ok(()) => {
                self.reopen();
                info!("log-maxsize: the log before this one is '{}'", backup.display());
            }
            Err(failure) => {
                self.stuck.set(true);
                error!(
                    "log-maxsize: cannot move '{}' to '{}': {failure}: it goes on growing",
                    path.display(),
                    backup.display()
                );
            }
        }
    }

    /// Opens the file again by its name, after somebody has moved it away.
    pub(super) fn reopen(&self) {
        let Some(path) = &self.path else { return };
        self.stuck.set(false);
        match open_log(path).and_then(|file| redirect(&file).map(|()| file).map_err(Into::into)) {
            Ok(file) => {
                *self.file.borrow_mut() = Some(file);
                info!("log file opened");
            }
            Err(failure) => error!("log: cannot open '{}' again: {failure}: going on with the old one", path.display()),
        }
    }
}

/// The name of a log that was put aside now, as uWSGI gives it.
fn dated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", UnixMicros::now().as_secs()));
    name.into()
}
