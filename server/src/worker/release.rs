//! Releasing descriptors that another process is to have alone: of all that is the worker's in a child that the
//! application forks, and of the ports in a worker whose master is gone, so that a new server can be started while it
//! finishes what it holds.
//!
//! A child of `os.fork()`, or of `multiprocessing`, has copies of all that its worker has open: it would hold a port
//! after the server's end, and connections after their close; and one that comes back from the application would go on
//! as a second worker. (`stop` makes sure that it takes no orders for its worker.) Programs that are executed keep
//! nothing: every descriptor is closed on exec.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Weak};

use nix::sys::socket::{SockType, getpeername, getsockopt, sockopt};
use nix::unistd::{getpid, getppid};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyCFunction};

use super::near_end::{Place, near_end};
use super::state::Worker;
use super::{routes, stop};
use crate::io::segment;
use crate::stacks;

/// From now on, children that the application forks have none of this worker's descriptors, counters and orders.
///
/// # Errors
/// When Python raises, which it has no reason to.
pub(super) fn release_in_children(py: Python<'_>, worker: &Arc<Worker>) -> PyResult<()> {
    // Not to be kept alive by Python, which nothing tears down.
    let worker = Arc::downgrade(worker);
    let before = Weak::clone(&worker);
    let rest = PyCFunction::new_closure(py, None, None, move |_, _| {
        // A thread that a fork does not take along must not hold a lock then.
        if let Some(worker) = before.upgrade() {
            worker.end_watcher();
        }
    })?;
    let let_go = PyCFunction::new_closure(py, None, None, move |_, _| let_go(&worker))?;
    register(py, [("before", rest), ("after_in_child", let_go)])
}

/// The same for what the application forks while it is loaded: such children have none of `descriptors`, and SIGTERM
/// ends them, which the fork server does not handle.
///
/// # Errors
/// As [`release_in_children`].
pub(crate) fn release_in_early_children(py: Python<'_>, descriptors: Vec<RawFd>) -> PyResult<()> {
    let loader = getpid();
    let hook = PyCFunction::new_closure(py, None, None, move |_, _| {
        // Workers are forked from here too, twice so that they are the master's, and need all of it; and numbers that
        // they have closed are other files' later.
        if getppid() != loader {
            return;
        }
        stop::by_default();
        if let Ok(nothing) = nothing() {
            descriptors.iter().for_each(|fd| replace(*fd, nothing.as_raw_fd()));
        }
    })?;
    register(py, [("after_in_child", hook)])
}

fn register<const N: usize>(py: Python<'_>, hooks: [(&str, Bound<'_, PyCFunction>); N]) -> PyResult<()> {
    let hooks = hooks.into_py_dict(py)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&hooks)).map(drop)
}

impl Worker {
    /// The master is gone: the next server can bind its addresses.
    pub(super) fn leave_addresses(&self) -> anyhow::Result<()> {
        self.stop_listening()?;
        let nothing = nothing()?;
        for listener in &self.listeners {
            replace(listener.socket.fd.as_raw_fd(), nothing.as_raw_fd());
        }
        Ok(())
    }
}

fn nothing() -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")
}

/// In the child, which has one thread.
fn let_go(worker: &Weak<Worker>) {
    let Some(worker) = worker.upgrade() else { return };
    worker.scoreboard.detach();
    worker.streams.detach();
    stacks::handler::detach();
    segment::leave();
    routes::detach(worker.routes.as_ref());
    worker.traces.iter().for_each(|traces| traces.detach());
    let Ok(nothing) = nothing() else { return };
    let kept = worker.kept_in_child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // All are looked at before any is replaced: a connection is known by its listener.
    let mut replaced = open_descriptors();
    replaced.retain(|fd| is_ours(*fd, &worker) && !kept.contains(fd));
    replaced.iter().for_each(|fd| replace(*fd, nothing.as_raw_fd()));
}

/// The descriptors that this process has open.
pub(super) fn open_descriptors() -> Vec<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a descriptor is the worker's, and not the application's.
pub(super) fn is_ours(fd: RawFd, worker: &Worker) -> bool {
    let own = [
        worker.epoll.0.as_raw_fd(),
        worker.stop.as_raw_fd(),
        worker.liveness.as_raw_fd(),
        worker.notices.as_raw_fd(),
        stop::descriptor(),
        crate::api::signal_descriptor(),
    ];
    let peers = worker.peers.as_ref().is_some_and(|peers| peers.has(fd));
    if peers || own.contains(&fd) || worker.listeners.iter().any(|listener| listener.socket.fd.as_raw_fd() == fd) {
        return true;
    }
    // A connection may be with the application now, where no table of ours has it: it is known by its end.
    let is_stream = getsockopt(&borrow(fd), sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream);
    if !is_stream {
        return false;
    }
    let of_client = near_end(fd).is_some_and(|near| {
        let mut listeners = worker.listeners.iter().filter_map(|listener| near_end(listener.socket.fd.as_raw_fd()));
        listeners.any(|listener| listener.takes_in(&near)) || worker.handed_over.has(&near)
    });
    let router = worker.link.as_ref().map(|link| Place::Abstract(link.name.clone().into_bytes()));
    of_client || (router.is_some() && getpeername(fd).ok().as_ref().and_then(Place::of) == router)
}

#[allow(unsafe_code)]
pub(super) fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: a descriptor that was just listed; one that is not open any more gives an error.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// The number stays taken: its owner in this process closes it one day, and must not close another's.
#[allow(unsafe_code)]
fn replace(fd: RawFd, nothing: RawFd) {
    // SAFETY: the owner of `fd` finds `/dev/null` there, and closes that.
    let replaced = unsafe { nix::libc::dup3(nothing, fd, nix::libc::O_CLOEXEC) };
    // A copy that stays open is what every program without this has.
    let _ = replaced;
}
