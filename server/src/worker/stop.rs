//! The order to leave, SIGTERM, as a descriptor for the epoll set.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Where the handler writes; -1 before there is anything.
static EVENT: AtomicI32 = AtomicI32::new(-1);
/// The worker's process.
static WORKER: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(_: libc::c_int) {
    // A child of the application inherits the handler, and the event that its worker waits for. It is the child that is
    // to end then: by the signal that is sent again, and let through when this returns. SAFETY: all three may be called
    // by a signal handler.
    unsafe {
        if libc::getpid() != WORKER.load(Ordering::Relaxed) {
            libc::signal(libc::SIGTERM, libc::SIG_DFL);
            libc::raise(libc::SIGTERM);
            return;
        }
    }
    let one = 1u64.to_ne_bytes();
    let saved = nix::errno::Errno::last_raw();
    // SAFETY: `write` is async-signal-safe, the buffer lives through the call, and the descriptor is never closed: it
    // belongs to the worker until its process ends. `errno` is restored for the interrupted code.
    unsafe { libc::write(EVENT.load(Ordering::Relaxed), one.as_ptr().cast(), one.len()) };
    nix::errno::Errno::set_raw(saved);
}

/// Whether this process is the worker, and not a child that its application has forked.
pub(super) fn is_worker() -> bool {
    nix::unistd::getpid().as_raw() == WORKER.load(Ordering::Relaxed)
}

/// In a child that takes no orders: SIGTERM ends it.
pub(super) fn by_default() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of this process. It cannot fail for a signal that there is.
    let _ = unsafe { sigaction(Signal::SIGTERM, &default) };
}

/// The descriptor that the handler writes to; -1 before there is one.
pub(super) fn descriptor() -> RawFd {
    EVENT.load(Ordering::Relaxed)
}

/// From now on SIGTERM writes to the returned event.
///
/// # Errors
/// When the system has no descriptor left.
pub(crate) fn on_terminate() -> std::io::Result<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let event = EventFd::from_flags(flags)?;
    // The handler has a descriptor of its own, which is never closed, whatever becomes of the returned one.
    let for_handler = event.as_fd().try_clone_to_owned()?;
    WORKER.store(nix::unistd::getpid().as_raw(), Ordering::Relaxed);
    match EVENT.load(Ordering::Relaxed) {
        -1 => EVENT.store(for_handler.into_raw_fd(), Ordering::Relaxed),
        // A worker that was forked from a worker has the number of that one, and nothing behind it.
        number => {
            // SAFETY: the number is the handler's alone, and stays open.
            let replaced = unsafe { libc::dup3(for_handler.as_raw_fd(), number, libc::O_CLOEXEC) };
            nix::errno::Errno::result(replaced)?;
        }
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does only what a signal handler may.
    unsafe { sigaction(Signal::SIGTERM, &action)? };
    Ok(event)
}
