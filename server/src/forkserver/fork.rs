//! Forking a worker so that it becomes the master's child.
//!
//! The fork server forks twice and the middle process exits, so that the worker is adopted by the nearest subreaper,
//! which is the master. Forking is sound here because the fork server has one thread of its own, and holds the GIL: no
//! lock of ours or of Python's can be held by a thread that the child does not have. An application that starts threads
//! while it is loaded is warned. Python's own bookkeeping brackets the fork, as `os.fork()` does it.

#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, pipe2};
use pyo3::{Python, ffi};

/// Which process returned from [`fork_worker`].
pub(super) enum Forked {
    /// The fork server; the worker runs under this process id.
    Parent(Pid),
    /// The worker.
    Worker,
}

/// Forks a grandchild. Must be called by a process with one thread.
///
/// # Errors
/// When the system has no process or descriptor left; the fork server goes on.
pub(super) fn fork_worker(_py: Python<'_>) -> std::io::Result<Forked> {
    let (reader, writer) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // SAFETY: the GIL is held (`_py`), as the three hooks require, and they are called in the order of `os.fork()`.
    unsafe { ffi::PyOS_BeforeFork() };
    // SAFETY: our code has one thread in this process, so that the child may do anything that the parent may; threads of
    // the application's hold no lock of ours, and wait for the GIL, or are in code that `os.fork()` is as risky for.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            // SAFETY: as above; the middle process never touches Python.
            match unsafe { fork() } {
                Ok(ForkResult::Child) => {
                    // SAFETY: the counterpart of `PyOS_BeforeFork`, in the process that goes on with Python.
                    unsafe { ffi::PyOS_AfterFork_Child() };
                    Ok(Forked::Worker)
                }
                Ok(ForkResult::Parent { child }) => leave(writer, child.as_raw()),
                Err(error) => leave(writer, -(error as i32)),
            }
        }
        forked => {
            // SAFETY: the counterpart of `PyOS_BeforeFork`, in the parent.
            unsafe { ffi::PyOS_AfterFork_Parent() };
            let middle = match forked {
                Ok(ForkResult::Parent { child }) => child,
                Ok(ForkResult::Child) => getpid(),
                Err(error) => return Err(error.into()),
            };
            drop(writer);
            let mut bytes = [0; 4];
            let read = std::fs::File::from(reader).read_exact(&mut bytes);
            waitpid(middle, None)?;
            read?;
            match i32::from_le_bytes(bytes) {
                pid if pid > 0 => Ok(Forked::Parent(Pid::from_raw(pid))),
                error => Err(std::io::Error::from_raw_os_error(-error)),
            }
        }
    }
}

/// The end of the middle process: tells the fork server what came of the second fork.
fn leave(writer: OwnedFd, outcome: i32) -> ! {
    // The reader sees end-of-file if this fails, and reports that.
    let _ = std::fs::File::from(writer).write_all(&outcome.to_le_bytes());
    // SAFETY: `_exit` runs no handler of the process that this one is a copy of.
    unsafe { nix::libc::_exit(0) }
}
