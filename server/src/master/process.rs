//! The master's child processes as the system knows them: how they ended, and signals to them.

#![allow(unsafe_code)]

use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
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
pub(crate) struct Reaped {
    /// Its process id.
    pub(crate) pid: Pid,
    /// How it ended.
    pub(crate) end: End,
    /// Processor time that it used, user and system.
    pub(crate) processor_time: Duration,
}

/// What has become of a child.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// It has ended.
    Ended(Reaped),
    /// A signal has stopped it.
    Stopped(Pid),
    /// It goes on after that.
    Continued(Pid),
}

/// What has become of a child, if anything has that was not reported yet. Never blocks.
///
/// Not `rustix` or `nix`: neither has the call that returns the processor time as well.
pub(crate) fn next_change() -> Option<Change> {
    let options = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
    loop {
        let mut status = 0;
        // SAFETY: all-zero is a valid `rusage`, and both pointers are to locals that live through the call.
        let (pid, usage) = unsafe {
            let mut usage = std::mem::zeroed::<libc::rusage>();
            (libc::wait4(-1, &raw mut status, options, &raw mut usage), usage)
        };
        let pid = match pid {
            -1 if Errno::last() == Errno::EINTR => continue,
            ..=0 => return None,
            pid => Pid::from_raw(pid),
        };
        let end = if libc::WIFSTOPPED(status) {
            return Some(Change::Stopped(pid));
        } else if libc::WIFCONTINUED(status) {
            return Some(Change::Continued(pid));
        } else if libc::WIFSIGNALED(status) {
            End::Killed(libc::WTERMSIG(status))
        } else {
            End::Exited(libc::WEXITSTATUS(status))
        };
        let time =
            |time: libc::timeval| Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1_000);
        let processor_time = time(usage.ru_utime) + time(usage.ru_stime);
        return Some(Change::Ended(Reaped { pid, end, processor_time }));
    }
}

/// Sends a signal to a child of ours. One that ended a moment ago is still there to be reaped, so that the process id
/// is no other's, and the signal is lost harmlessly.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// The thread of that name in a process.
pub(crate) fn thread_named(pid: Pid, name: &str) -> Option<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads.flatten().find_map(|thread| {
        let found = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        let id = thread.file_name().to_str()?.parse().ok()?;
        (found.trim_end() == name).then_some(Pid::from_raw(id))
    })
}

/// Sends a signal to one thread of a child of ours. When it has ended a moment ago the signal is lost harmlessly.
pub(crate) fn signal_thread(pid: Pid, thread: Pid, number: i32) {
    // SAFETY: a system call without memory of ours.
    unsafe { libc::syscall(libc::SYS_tgkill, pid.as_raw(), thread.as_raw(), number) };
}
