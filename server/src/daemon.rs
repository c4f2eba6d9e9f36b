//! Going to the background: `daemonize` and `daemonize2`.
//!
//! The process that was started waits until the one in the background says that it runs, so that its exit status is
//! to be trusted; and when it fails to start, it shows what was logged.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, getppid, pipe2, setsid};

use crate::identity::Identity;
use crate::owned_file;
use rwsgi_config::Config;

/// Notifies the process that waits for the start. If this process ends without a notice, the start has failed.
#[derive(Debug, Default)]
pub(crate) struct Starter {
    waiting: Option<File>,
    /// The application must be loaded first.
    pub after_loading: bool,
}

impl Starter {
    /// The server runs.
    pub(crate) fn notify(&mut self) {
        if let Some(mut waiting) = self.waiting.take() {
            // Who waited may have been stopped.
            let _ = waiting.write_all(&std::process::id().to_le_bytes());
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        // The failure is still to be logged, and who waits shows the log: it must not see the end before the process
        // does.
        std::mem::forget(self.waiting.take());
    }
}

/// What came of [`daemonize`].
pub(crate) enum Side {
    /// The process that was started, and its exit status.
    Foreground(i32),
    /// The process that serves.
    Background(Starter),
}

/// Opens a log file to append to. `user` is who the server becomes.
///
/// # Errors
/// When it cannot be opened, or is not to be trusted.
pub(crate) fn open_log(path: &Path, user: Option<&Identity>) -> std::io::Result<File> {
    owned_file::open_to_write(path, OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NOCTTY, user).map(|(file, _)| file)
}

/// Has what this process writes to its standard output and error go to `log`.
///
/// # Errors
/// Never on an open file.
pub(crate) fn redirect(log: &File) -> nix::Result<()> {
    dup2_stdout(log)?;
    dup2_stderr(log)
}

/// Goes to the background, when that is configured. Must be called by a process with one thread.
///
/// # Errors
/// When a supervisor runs this process, which would lose sight of it; when the log cannot be opened.
pub(crate) fn daemonize(config: &Config) -> anyhow::Result<Side> {
    let (option, path) = match (&config.daemonize, &config.daemonize2) {
        (Some(path), _) => ("daemonize", path),
        (None, Some(path)) => ("daemonize2", path),
        (None, None) => return Ok(Side::Background(Starter::default())),
    };
    if let Some(supervisor) = supervisor() {
        bail!(
            "{option}: this process was started by {supervisor}, which watches over it and would take it for dead: \
             leave {option} out, and use logto for a log file"
        );
    }
    let log = open_log(path, Identity::of(config)?.as_ref())
        .with_context(|| format!("{option}: cannot open the log file '{}'", path.display()))?;
    let logged = log.metadata()?.len();
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread, so that the child may do anything that the parent may.
    match unsafe { fork() }.with_context(|| format!("{option}: cannot fork"))? {
        ForkResult::Parent { child } => {
            drop(writer);
            waitpid(child, None)?;
            let mut pid = [0; 4];
            if File::from(reader).read_exact(&mut pid).is_ok() {
                return Ok(Side::Foreground(0));
            }
            show(&log, logged);
            Ok(Side::Foreground(1))
        }
        ForkResult::Child => {
            drop(reader);
            setsid()?;
            // The leader of the new session leaves, so that no terminal can become ours again.
            // SAFETY: as above.
            if let ForkResult::Parent { .. } = unsafe { fork() }? {
                // SAFETY: `_exit` runs no handler of the process that this one is a copy of.
                unsafe { nix::libc::_exit(0) };
            }
            dup2_stdin(File::open("/dev/null")?)?;
            redirect(&log)?;
            let after_loading = config.daemonize.is_none();
            Ok(Side::Background(Starter { waiting: Some(writer.into()), after_loading }))
        }
    }
}

/// Shows what was logged since the file was `from` bytes long.
fn show(log: &File, from: u64) {
    let mut text = Vec::new();
    // It was opened to be written, and its name may stand for another by now.
    let read = File::open(format!("/proc/self/fd/{}", log.as_raw_fd())).and_then(|mut log| {
        log.seek(SeekFrom::Start(from))?;
        log.read_to_end(&mut text)
    });
    if read.is_ok() {
        // If this fails, nobody is left to notify.
        let _ = std::io::stderr().write_all(&text);
    }
}

/// Who watches over this process and would lose sight of it.
fn supervisor() -> Option<&'static str> {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_set("SUPERVISOR_ENABLED") {
        Some("supervisord")
    } else if is_set("NOTIFY_SOCKET") || (getppid().as_raw() == 1 && is_set("INVOCATION_ID")) {
        Some("systemd")
    } else {
        None
    }
}
