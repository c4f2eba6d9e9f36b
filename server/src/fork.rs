//! Forking a process so that it becomes the master's child.
//!
//! A process forks twice and the middle one exits, so that the new one is adopted by the nearest subreaper,
//! which is the master. Forking is sound here because the fork server has one thread of its own, and holds the GIL: no
//! lock of ours or of Python's can be held by a thread that the child does not have. Threads that the application starts
//! while it is loaded are brought to rest first (`forkserver`). Python's own bookkeeping brackets the fork, as `os.fork()`
//! does it.
//!
//! The new process does nothing before the master knows it: it waits for a byte from the fork server, and exits when
//! the fork server exits without sending it. So the master knows that an unreported process does not run, and can give
//! its slot to another.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use pyo3::{Python, ffi};

/// Which process returned from [`fork_announced`].
pub(crate) enum Forked {
    /// The fork server.
    Parent,
    /// The new process.
    Child,
}

/// Forks a grandchild, which begins when `announce` has reported its process id. Must be called by a process with one
/// thread.
///
/// # Errors
/// When the system has no process or descriptor left, or `announce` fails: there is no new process then.
pub(crate) fn fork_announced(_py: Python<'_>, announce: impl FnOnce(Pid) -> io::Result<()>) -> io::Result<Forked> {
    let (id_reader, id_writer) = pipe2(OFlag::O_CLOEXEC)?;
    let (word_reader, word_writer) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the GIL is held (`_py`), as the three hooks require, and they are called in the order of `os.fork()`.
    unsafe { ffi::PyOS_BeforeFork() };
    // SAFETY: our code has one thread in this process, so that the child may do anything that the parent may; threads
    // of the application's hold no lock of ours, and wait for the GIL, or are in code that `os.fork()` is as risky for.
    let middle = match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            // SAFETY: as above; the middle process never touches Python.
            match unsafe { fork() } {
                Ok(ForkResult::Child) => {
                    drop((id_reader, id_writer, word_writer));
                    if File::from(word_reader).read_exact(&mut [0]).is_err() {
                        exit(1);
                    }
                    // SAFETY: the counterpart of `PyOS_BeforeFork`, in the process that goes on with Python.
                    unsafe { ffi::PyOS_AfterFork_Child() };
                    return Ok(Forked::Child);
                }
                Ok(ForkResult::Parent { child }) => leave(id_writer, child.as_raw()),
                Err(error) => leave(id_writer, -(error as i32)),
            }
        }
        Ok(ForkResult::Parent { child }) => Ok(child),
        Err(error) => Err(error),
    };
    // SAFETY: the counterpart of `PyOS_BeforeFork`, in the parent.
    unsafe { ffi::PyOS_AfterFork_Parent() };
    let middle = middle?;
    drop((id_writer, word_reader));
    let mut bytes = [0; 4];
    let read = File::from(id_reader).read_exact(&mut bytes);
    wait_for(middle)?;
    read?;
    match i32::from_le_bytes(bytes) {
        pid if pid > 0 => announce(Pid::from_raw(pid))?,
        error => return Err(io::Error::from_raw_os_error(-error)),
    }
    // It may have been killed meanwhile, which the master learns.
    let _ = File::from(word_writer).write_all(&[1]);
    Ok(Forked::Parent)
}

/// Waits for the end of the middle process, when the new one is the master's.
fn wait_for(middle: Pid) -> nix::Result<()> {
    loop {
        match waitpid(middle, None) {
            Err(Errno::EINTR) => {}
            // The application ignores SIGCHLD, or reaps whatever ends: the process has ended all the same.
            Ok(_) | Err(Errno::ECHILD) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The end of the middle process: reports the result of the second fork to the fork server.
fn leave(writer: OwnedFd, outcome: i32) -> ! {
    // The reader sees end-of-file if this fails, and reports that.
    let _ = File::from(writer).write_all(&outcome.to_le_bytes());
    exit(0)
}

/// The end of a process that has not begun.
fn exit(status: i32) -> ! {
    // SAFETY: `_exit` runs no handler of the process that this one is a copy of.
    unsafe { nix::libc::_exit(status) }
}
