//! Signals with a number, to one thread of a child: an order to the very thread that it is about, which it carries out
//! whatever the thread is stuck in.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Pid, getuid};

/// The signal that has a thread write what it executes ([`crate::stacks`]).
#[must_use]
pub(crate) fn stacks_signal() -> i32 {
    libc::SIGRTMIN() + 6
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

/// Sends one to a thread of a child of ours, which is not reaped: its number is no other process's.
///
/// # Errors
/// When the process has no such thread, or its user has too many signals queued.
pub(crate) fn send(pid: Pid, thread: Pid, number: i32, value: u64) -> nix::Result<()> {
    let signal = QueuedSignal {
        number,
        errno: 0,
        code: libc::SI_QUEUE,
        pad: 0,
        sender: Pid::this().as_raw(),
        user: getuid().as_raw(),
        value,
        rest: [0; 12],
    };
    // SAFETY: `signal` is laid out as the system call wants it, and lives through it.
    let sent =
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid.as_raw(), thread.as_raw(), number, &raw const signal) };
    Errno::result(sent).map(drop)
}

/// The number that came with a signal; `None` for one that [`send`] has not sent.
///
/// # Safety
/// `info` must be what a handler with `SA_SIGINFO` was given.
pub(crate) unsafe fn value_of(info: *const libc::siginfo_t) -> Option<u64> {
    // SAFETY: whatever is in it, these are numbers, and the sizes are the same; the caller says that it is there.
    let signal = unsafe { &*info.cast::<QueuedSignal>() };
    (signal.code == libc::SI_QUEUE).then_some(signal.value)
}
