//! Starting the master's processes by exec, and learning how they ended.

#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::supervisor::VARIABLES;
use crate::ipc::inherit::InheritedFd;
use crate::ipc::{Setup, channel, send_message};
use crate::procname;

/// How to enter [`crate::run`] again in a fresh process.
#[derive(Debug)]
pub struct Launcher {
    /// The program.
    pub program: OsString,
    /// What comes before our own arguments: the Python package's path, when the program is Python.
    pub prefix: Vec<OsString>,
    /// Where it writes its standard output and error; `None` for where this process does.
    pub output: Option<OwnedFd>,
}

impl Launcher {
    /// One that starts `program` with `prefix` before our own arguments.
    #[must_use]
    pub fn new(program: OsString, prefix: Vec<OsString>) -> Self {
        Self { program, prefix, output: None }
    }
}

/// The first argument of a process that the master started; the descriptor of its channel follows it.
pub const FORKSERVER_ROLE: &str = "@forkserver";
/// The same for the router.
pub const ROUTER_ROLE: &str = "@http";

impl Launcher {
    /// Starts a process in `role` and sends it its setup. Returns its id and the master's end of the channel.
    ///
    /// `home` is a virtual environment whose Python is to run it, when Python runs it at all.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&self, role: &str, home: Option<&Path>, setup: &Setup) -> io::Result<(Pid, OwnedFd)> {
        let (ours, theirs) = channel()?;
        let program = match home {
            Some(home) if !self.prefix.is_empty() => home.join("bin/python").into_os_string(),
            _ => self.program.clone(),
        };
        let number = InheritedFd::lend(theirs.as_fd())?.number().to_string();
        // The child is reaped with all others, by `reap`.
        let mut command = Command::new(&program);
        command.args(&self.prefix).args([OsStr::new(role), OsStr::from_bytes(number.as_bytes())]);
        command.arg(procname::padding(&setup.config.procname));
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        if let Some(output) = &self.output {
            command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        }
        let child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("'{}': {error}", program.display())))?;
        // The next process that is started gets its own set, and what nobody owns there would stay open for ever.
        for fd in setup.descriptors() {
            fd.close_on_exec()?;
        }
        send_message(ours.as_fd(), setup)?;
        Ok((Pid::from_raw(child.id() as i32), ours))
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Killed(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by signal {number} ({signal})"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// A child that ended.
#[derive(Clone, Copy, Debug)]
pub struct Reaped {
    /// Its process id.
    pub pid: Pid,
    /// How it ended.
    pub end: End,
    /// Processor time that it used, user and system.
    pub processor_time: Duration,
}

/// The next child that has ended, if one has. Never blocks.
pub fn reap() -> Option<Reaped> {
    loop {
        let mut status = 0;
        // SAFETY: all-zero is a valid `rusage`, and both pointers are to locals that live through the call.
        let (pid, usage) = unsafe {
            let mut usage = std::mem::zeroed::<libc::rusage>();
            (libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage), usage)
        };
        match pid {
            -1 if Errno::last() == Errno::EINTR => {}
            ..=0 => return None,
            pid => {
                let end = if libc::WIFSIGNALED(status) {
                    End::Killed(libc::WTERMSIG(status))
                } else if libc::WIFEXITED(status) {
                    End::Exited(libc::WEXITSTATUS(status))
                } else {
                    continue;
                };
                let time = |time: libc::timeval| {
                    Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1_000)
                };
                let processor_time = time(usage.ru_utime) + time(usage.ru_stime);
                return Some(Reaped { pid: Pid::from_raw(pid), end, processor_time });
            }
        }
    }
}

/// The thread of that name in a process.
pub(super) fn thread_named(pid: Pid, name: &str) -> Option<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads.flatten().find_map(|thread| {
        let found = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        let id = thread.file_name().to_str()?.parse().ok()?;
        (found.trim_end() == name).then_some(Pid::from_raw(id))
    })
}

/// Sends a signal to one thread of a child of ours. When it has ended a moment ago the signal is lost harmlessly.
pub(super) fn signal_thread(pid: Pid, thread: Pid, number: i32) {
    // SAFETY: a system call without memory of ours.
    unsafe { libc::syscall(libc::SYS_tgkill, pid.as_raw(), thread.as_raw(), number) };
}
