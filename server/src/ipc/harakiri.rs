//! What the master sends a worker thread whose request runs too long: a signal, which reaches a thread that is stuck in
//! the application. It carries the moment at which that request began, for when it is delivered the thread may have ended
//! it and have another.

#![allow(unsafe_code)]

use nix::libc;
use nix::unistd::Pid;

use super::thread_signal;
use crate::clock::MonotonicNanos;
use crate::ids::{ThreadIndex, WorkerId};

/// The signal that has a thread answer 504. Real-time ones are nobody's by default.
#[must_use]
pub(crate) fn answer_signal() -> i32 {
    libc::SIGRTMIN() + 4
}

/// The signal that has a thread print its Python stack.
#[must_use]
pub(crate) fn stack_signal() -> i32 {
    libc::SIGRTMIN() + 5
}

/// The name of a worker's thread, by which the master finds it in `/proc`.
#[must_use]
pub(crate) fn thread_name(worker: WorkerId, thread: ThreadIndex) -> String {
    format!("rwsgi w{worker}c{thread}")
}

/// Has a thread of a child of ours answer the request that began then. When it has ended a moment ago the signal is lost
/// harmlessly.
///
/// # Errors
/// When there is no such thread.
pub(crate) fn end_request(pid: Pid, thread: Pid, started: MonotonicNanos) -> nix::Result<()> {
    thread_signal::send(pid, thread, answer_signal(), started.as_nanos())
}

/// When the request began that a signal is about; `None` for one that [`end_request`] has not sent.
///
/// # Safety
/// `info` must be what a handler with `SA_SIGINFO` was given.
pub(crate) unsafe fn request_of(info: *const libc::siginfo_t) -> Option<MonotonicNanos> {
    // SAFETY: the caller says so.
    unsafe { thread_signal::value_of(info) }.map(MonotonicNanos::from_nanos)
}
