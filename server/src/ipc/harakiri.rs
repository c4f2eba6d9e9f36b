//! What the master sends a worker thread whose request runs too long: a signal, which reaches a thread that is stuck in
//! the application. It carries the moment at which that request began, for when it is delivered the thread may have ended
//! it and have another.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Pid, getuid};

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

/// A `siginfo_t` of a queued signal as the kernel lays it out (`asm-generic/siginfo.h`, 64 bits).
#[repr(C)]
struct QueuedSignal {
    number: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    /// What follows is aligned for a pointer.
    pad: libc::c_int,
    sender: libc::pid_t,
    user: libc::uid_t,
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<QueuedSignal>() == size_of::<libc::siginfo_t>());

/// Has a thread of a child of ours answer the request that began then. When it has ended a moment ago the signal is lost
/// harmlessly.
///
/// # Errors
/// When there is no such thread.
pub(crate) fn end_request(pid: Pid, thread: Pid, started: MonotonicNanos) -> nix::Result<()> {
    let signal = QueuedSignal {
        number: answer_signal(),
        errno: 0,
        code: libc::SI_QUEUE,
        pad: 0,
        sender: Pid::this().as_raw(),
        user: getuid().as_raw(),
        value: started.as_nanos(),
        rest: [0; 12],
    };
    // SAFETY: `signal` is laid out as the system call wants it, and lives through it.
    let sent = unsafe {
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid.as_raw(), thread.as_raw(), answer_signal(), &raw const signal)
    };
    Errno::result(sent).map(drop)
}

/// When the request began that a signal is about; `None` for one that [`end_request`] has not sent.
///
/// # Safety
/// `info` must be what a handler with `SA_SIGINFO` was given.
pub(crate) unsafe fn request_of(info: *const libc::siginfo_t) -> Option<MonotonicNanos> {
    // SAFETY: whatever is in it, these are numbers, and the sizes are the same; the caller says that it is there.
    let signal = unsafe { &*info.cast::<QueuedSignal>() };
    (signal.code == libc::SI_QUEUE).then(|| MonotonicNanos::from_nanos(signal.value))
}
