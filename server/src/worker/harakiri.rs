//! What happens when a request runs too long while the application holds its thread: a signal handler answers 504
//! instead of the application.
//!
//! The master sends the signal to the very thread that is stuck, so that the handler and the thread are one thread:
//! what they share needs no lock, and the connection cannot be closed under the handler. Neither needs the GIL, so that
//! a request that is stuck in C code is answered as well.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::SigSet;
use pyo3::prelude::*;

use super::kind::Kind;
use crate::clock::MonotonicNanos;
use crate::ipc::harakiri::{answer_signal, request_of, stack_signal};
use rwsgi_protocol::link::{DONE_CLOSE, LEAVING};

/// Without a body: the request may have been a HEAD.
const ANSWER: &[u8] = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What the handler sends on a link: that the thread wants no further request, and the answer as one frame.
const LINK_ANSWER: [u8; 12 + ANSWER.len()] = {
    let mut bytes = [0; 12 + ANSWER.len()];
    let words = [LEAVING.to_le_bytes(), (ANSWER.len() as u32).to_le_bytes()];
    let mut at = 0;
    while at < 8 {
        bytes[at] = words[at / 4][at % 4];
        at += 1;
    }
    while at < 8 + ANSWER.len() {
        bytes[at] = ANSWER[at - 8];
        at += 1;
    }
    let last = DONE_CLOSE.to_le_bytes();
    while at < bytes.len() {
        bytes[at] = last[at - 8 - ANSWER.len()];
        at += 1;
    }
    bytes
};

/// What the present thread's request may still be answered through.
#[derive(Clone, Copy)]
enum Held {
    /// There is none, or the application has begun to answer it.
    Nothing,
    /// The request that began then.
    Client(RawFd, MonotonicNanos),
    Link(RawFd, MonotonicNanos),
    /// The handler has answered.
    Answered,
}

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held::Nothing) };
}

/// Prepares a worker thread: its handlers run on its own stack. The alternative one that the standard library gave it,
/// to report an overflow, is too small for the printing of a Python stack.
pub(super) fn prepare_thread() {
    let none = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: nothing runs on the alternative stack now, and `none` lives through the call. It cannot fail.
    unsafe { libc::sigaltstack(&raw const none, std::ptr::null_mut()) };
}

/// From now on the application has the request of this connection, which began at `started`, and no byte of an answer
/// was sent.
pub(super) fn hold(kind: Kind, fd: RawFd, started: MonotonicNanos) {
    HELD.set(if let Kind::Link(_) = kind { Held::Link(fd, started) } else { Held::Client(fd, started) });
}

/// An answer begins.
///
/// # Errors
/// When the handler has given one before.
pub(super) fn release() -> io::Result<()> {
    match HELD.replace(Held::Nothing) {
        Held::Answered => Err(io::Error::new(io::ErrorKind::TimedOut, "harakiri has answered the request")),
        _ => Ok(()),
    }
}

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel has given it to this handler.
    if let Some(started) = unsafe { request_of(info) } {
        answer(started);
    }
}

/// Answers the request that began then, if the present thread still has that, unanswered. Nothing here may allocate or
/// lock: a signal handler calls it.
fn answer(request: MonotonicNanos) {
    let (fd, started, bytes) = match HELD.get() {
        Held::Client(fd, started) => (fd, started, ANSWER),
        Held::Link(fd, started) => (fd, started, LINK_ANSWER.as_slice()),
        Held::Nothing | Held::Answered => return,
    };
    // The signal was for a request that has ended.
    if started != request {
        return;
    }
    let is_link = matches!(HELD.get(), Held::Link(..));
    HELD.set(Held::Answered);
    let saved = Errno::last_raw();
    // SAFETY: `send` and `shutdown` are async-signal-safe, the bytes are static, and the descriptor is open as long as
    // this thread says that it holds it. `errno` is restored for the interrupted code.
    unsafe {
        libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
        if !is_link {
            libc::shutdown(fd, libc::SHUT_WR);
        }
    }
    Errno::set_raw(saved);
}

/// Installs the handlers, before the worker's threads start.
///
/// The Python stack is printed by `faulthandler`, which needs neither the GIL nor memory: it prints where a thread is
/// that holds the GIL and never releases it, which nothing written in Python could.
///
/// # Errors
/// When the system or Python refuses.
pub(super) fn install(py: Python<'_>, verbose: bool) -> anyhow::Result<()> {
    HELD.set(Held::Nothing);
    // SAFETY: all-zero is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
    action.sa_mask = *SigSet::empty().as_ref();
    // SAFETY: the handler does only what a signal handler may, and `action` lives through the call.
    Errno::result(unsafe { libc::sigaction(answer_signal(), &raw const action, std::ptr::null_mut()) })?;
    if verbose {
        use pyo3::types::IntoPyDict;
        let options = [("all_threads", false)].into_py_dict(py)?;
        options.set_item("file", 2)?;
        py.import("faulthandler")?.call_method("register", (stack_signal(),), Some(&options))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use rwsgi_protocol::SocketProtocol;
    use rwsgi_protocol::link::{Frame, Frames};
    use std::io::Read;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_router_reads_the_answer_as_a_response_of_a_thread_that_leaves() {
        let mut frames = Frames::default();
        let (mut rest, mut data, mut words) = (LINK_ANSWER.as_slice(), Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (consumed, frame) = frames.decode(rest).unwrap();
            match frame {
                Frame::Data(bytes) => data.extend_from_slice(bytes),
                other => words.push(format!("{other:?}")),
            }
            rest = &rest[consumed..];
        }
        assert_eq!(data, ANSWER);
        assert_eq!(words.first().map(String::as_str), Some("Leaving"));
        assert_eq!(words.last().map(String::as_str), Some("Done { keep: false, fast: false }"));
    }

    #[test]
    fn a_request_is_answered_once_by_the_handler_or_by_the_application() {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty()).unwrap();
        let [first, second] = [1, 2].map(MonotonicNanos::from_nanos);
        hold(Kind::Client(SocketProtocol::Http), ours.as_raw_fd(), first);
        assert!(release().is_ok());
        answer(first);
        hold(Kind::Client(SocketProtocol::Http), ours.as_raw_fd(), second);
        answer(first);
        assert!(release().is_ok(), "the signal was for the one before");
        hold(Kind::Client(SocketProtocol::Http), ours.as_raw_fd(), second);
        answer(second);
        answer(second);
        assert!(release().is_err(), "the application comes too late");
        assert!(release().is_ok(), "once");
        drop(ours);
        let mut bytes = Vec::new();
        std::fs::File::from(theirs).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, ANSWER);
    }
}
