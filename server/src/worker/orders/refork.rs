//! A worker forks a fork server. All processes that are forked from that one share what the application has loaded and
//! cached in it, as with Shopify's pitchfork.
//!
//! The new process is a child like one that the application forks: it closes all that is the worker's
//! (`super::super::release`), but keeps copies of what a fork server hands on. Then it returns to where the worker was
//! forked, and takes orders there as the fork server did. So it is safe where a fork by the application is: with one
//! thread, between two requests. The application first closes what two processes must not share, such as connections to
//! databases, in `uwsgi.before_refork` or `os.register_at_fork(before=…)`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::PoisonError;

use anyhow::{Context, bail, ensure};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{SockType, SockaddrStorage, getpeername, getsockopt, sockopt};
use nix::unistd::Pid;
use pyo3::prelude::*;

use super::super::release::{borrow, is_ours, open_descriptors};
use super::super::state::Worker;
use super::memory;
use crate::api::{self, here};
use crate::fork::{Forked, fork_announced};
use crate::ipc::calls::{self, CallPacket, CallRequest};
use crate::ipc::inherit::InheritedFd;
use crate::ipc::worker_order::OrderNumber;
use crate::ipc::{Setup, channel};
use crate::process_setup::ignore;
use crate::procfs;
use crate::stats::scoreboard::Scoreboard;
use crate::wsgi::interpreter;

/// What the new process has for those that are forked from it.
pub(in crate::worker) struct Reforked {
    channel: OwnedFd,
    scoreboard: OwnedFd,
    liveness: OwnedFd,
    notices: OwnedFd,
    request_log: Option<OwnedFd>,
    listeners: Vec<OwnedFd>,
}

/// What a fork server goes on with in the process that a worker has forked.
pub(crate) struct NextForkServer {
    /// Its channel to the master.
    pub(crate) channel: OwnedFd,
    /// What it hands on.
    pub(crate) setup: Setup,
    /// The scoreboard.
    pub(crate) scoreboard: Scoreboard,
    /// The application, with what it has in memory.
    pub(crate) application: Py<PyAny>,
}

/// Forks. Returns `None` in the worker, which has told the master then.
///
/// # Errors
/// Why it is not done.
pub(super) fn fork(py: Python<'_>, worker: &Worker, order: OrderNumber) -> anyhow::Result<Option<Reforked>> {
    refuse_configuration(worker)?;
    ensure!(
        !memory::is_tracing(py)?,
        "memory is traced in it, and would be in all others: end that with trace-stop first"
    );
    // They begin again when they are needed.
    worker.end_watcher();
    worker.streams.end_sender();
    refuse_threads(py)?;
    api::before_refork(py);
    refuse_connections(worker)?;
    refuse_threads(py)?;
    interpreter::flush(py)?;
    let (Some(server), Some(role)) = (here::server(), here::role()) else { bail!("it is no process of a server") };
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
    let (masters, channel) = channel()?;
    let reforked = Reforked {
        channel,
        scoreboard: copy(worker.scoreboard.memory())?,
        liveness: copy(worker.liveness.as_fd())?,
        notices: copy(worker.notices.as_fd())?,
        request_log: worker.request_log.as_ref().map(|log| copy(log.as_fd())).transpose()?,
        listeners: worker.listeners.iter().map(|own| copy(own.socket.fd.as_fd())).collect::<Result<_, _>>()?,
    };
    let kept = || worker.kept_in_child.lock().unwrap_or_else(PoisonError::into_inner);
    *kept() = reforked.numbers();
    kept().extend(worker.peers.iter().flat_map(|peers| peers.queue.numbers()));
    let announce = |pid: Pid| {
        let what = CallRequest::Reforked { role, order, pid: pid.as_raw() };
        calls::send(server.calls.as_fd(), &CallPacket { generation: server.generation, what }, Some(masters.as_fd()))
    };
    let forked = fork_announced(py, announce);
    kept().clear();
    match forked.context("it cannot fork")? {
        Forked::Parent => Ok(None),
        Forked::Child => Ok(Some(reforked)),
    }
}

impl Reforked {
    fn numbers(&self) -> Vec<RawFd> {
        let all = [&self.channel, &self.scoreboard, &self.liveness, &self.notices];
        all.into_iter().chain(&self.request_log).chain(&self.listeners).map(AsRawFd::as_raw_fd).collect()
    }

    /// The rest of what a fork server is, in the process that was forked, when nothing runs in it any more that was the
    /// worker's. `setup` is what its worker was forked with, whose descriptors were taken.
    ///
    /// # Errors
    /// When the system refuses what it has no reason to.
    pub(in crate::worker) fn into_fork_server(
        self,
        py: Python<'_>,
        mut setup: Setup,
        application: Py<PyAny>,
    ) -> anyhow::Result<NextForkServer> {
        ignore(&[Signal::SIGTERM])?;
        let _ = prctl::set_name(c"rwsgi forksrv");
        // It is there, and relative to where its worker was forked.
        setup.config.chdir2 = None;
        for (listener, fd) in setup.listeners.iter_mut().zip(self.listeners) {
            listener.fd = InheritedFd::keep(fd);
        }
        setup.liveness = InheritedFd::keep(self.liveness);
        setup.notices = InheritedFd::keep(self.notices);
        setup.request_log = self.request_log.map(InheritedFd::keep);
        let scoreboard = Scoreboard::map(setup.layout, self.scoreboard).context("refork: cannot map the scoreboard")?;
        // What was cached is moved out of the collector's sight with all else.
        interpreter::settle(py, setup.config.processes)?;
        Ok(NextForkServer { channel: self.channel, setup, scoreboard, application })
    }
}

/// What the configuration has done to this worker that must not be done to all.
fn refuse_configuration(worker: &Worker) -> anyhow::Result<()> {
    let config = &worker.config;
    ensure!(
        config.threads == 1,
        "it has {} threads, and a fork takes one along: refork is for threads = 1",
        config.threads
    );
    ensure!(
        worker.has_all_listeners,
        "map-socket gives it a part of the sockets, and the others could not have theirs"
    );
    ensure!(
        config.system.cpu_affinity.is_none(),
        "cpu-affinity has bound it, and what is not a worker would be bound too"
    );
    ensure!(config.system.limit_nproc.is_none(), "limit-nproc limits it, and a fork server must not be limited");
    Ok(())
}

/// Threads of the application's would be missing in all others.
fn refuse_threads(py: Python<'_>) -> anyhow::Result<()> {
    let others = procfs::further_threads().context("cannot look for threads")?;
    let (count, mut names) = (others.len(), python_threads(py).unwrap_or_default());
    if names.is_empty() {
        let name = |thread| procfs::thread_status(Pid::this(), thread).map(|status| status.name);
        names = others.into_iter().filter_map(|thread| name(thread).ok()).collect();
    }
    let handles_signals = |name: &String| name.starts_with("rwsgi w") && name.ends_with("sig");
    ensure!(
        !names.iter().any(handles_signals),
        "the application handles signals (uwsgi.register_signal) in it, which takes a thread, and a fork does not take that \
         along"
    );
    let s = if count == 1 { "" } else { "s" };
    let names = names.join(", ");
    ensure!(
        count == 0,
        "the application runs {count} other thread{s} in it ({names}), which a fork does not take along"
    );
    Ok(())
}

/// The names that the application's threads have in Python.
fn python_threads(py: Python<'_>) -> PyResult<Vec<String>> {
    let threading = py.import("threading")?;
    let main = threading.call_method0("main_thread")?;
    let all = threading.call_method0("enumerate")?.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    all.iter().filter(|thread| !thread.is(&main)).map(|thread| thread.getattr("name")?.extract()).collect()
}

/// What two processes read from the same connection, neither understands.
fn refuse_connections(worker: &Worker) -> anyhow::Result<()> {
    for fd in open_descriptors().into_iter().filter(|fd| *fd > 2 && !is_ours(*fd, worker)) {
        let place = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        let is_loop = place == Path::new("anon_inode:[eventpoll]");
        let is_stream = getsockopt(&borrow(fd), sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream);
        let peer = is_stream.then(|| getpeername::<SockaddrStorage>(fd).ok()).flatten();
        let what = match peer {
            Some(peer) => format!("a connection to {peer}"),
            None if is_loop => "an event loop".to_owned(),
            None => continue,
        };
        bail!(
            "the application has {what} open in it (descriptor {fd}), which all others would share: close it in \
             uwsgi.before_refork, as Django's connections.close_all does"
        );
    }
    Ok(())
}
