//! What every process beside the workers does first, before its own work begins.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::Signal;
use pyo3::Python;
use tracing::info;

use crate::api::{self, AfterFork};
use crate::config::Config;
use crate::ipc::{Auxiliary, AuxiliaryKind, Setup};
use crate::stats::scoreboard::Scoreboard;
use crate::worker::stop::on_terminate;
use crate::wsgi::interpreter;
use crate::{mule, procname, spooler};

/// What an auxiliary process is forked with.
pub(crate) struct Context {
    /// Which one it is.
    pub who: Auxiliary,
    /// What its fork server was told.
    pub setup: Setup,
    /// The scoreboard.
    pub scoreboard: Scoreboard,
    /// Whether the fork server has loaded the application.
    pub is_loaded: bool,
}

/// What an auxiliary process works with.
pub(crate) struct Work {
    /// Which one it is.
    pub who: Auxiliary,
    /// The configuration in force.
    pub config: Config,
    /// The scoreboard.
    pub scoreboard: Scoreboard,
    /// Whether the fork server has loaded the application.
    pub is_loaded: bool,
    /// Says when to leave.
    pub end: End,
}

/// The order to leave, and the master's end, which means the same.
pub(crate) struct End {
    stop: EventFd,
    liveness: OwnedFd,
}

impl End {
    /// The descriptors to wait for: when one has something to say, ask [`Self::has_come`].
    pub(crate) fn poll_fds(&self) -> [PollFd<'_>; 2] {
        use std::os::fd::AsFd;
        [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN), PollFd::new(self.liveness.as_fd(), PollFlags::empty())]
    }

    /// Whether it is time to leave.
    pub(crate) fn has_come(&self) -> bool {
        let mut fds = self.poll_fds();
        loop {
            match poll(&mut fds, PollTimeout::ZERO) {
                Err(Errno::EINTR) => {}
                // Nothing that a wait for descriptors of ours could fail with will pass by waiting longer.
                outcome => return outcome.map_or(true, |ready| ready > 0),
            }
        }
    }
}

/// Works until it is told to leave; returns the exit status.
///
/// # Errors
/// When what was inherited cannot be used.
pub(crate) fn run(py: Python<'_>, context: Context) -> anyhow::Result<i32> {
    let Context { who, mut setup, scoreboard, is_loaded } = context;
    let name = std::ffi::CString::new(who.short_name()).unwrap_or_default();
    let _ = nix::sys::prctl::set_name(&name);
    procname::set(&procname::title(&setup.config.procname, &format!("rwsgi {who}")));
    let end =
        End { stop: on_terminate().context("cannot watch for the order to leave")?, liveness: setup.liveness.take()? };
    if setup.config.no_orphans {
        // A master that is gone already is seen by the liveness pipe.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("no-orphans: cannot watch the master")?;
    }
    if who.kind == AuxiliaryKind::Spooler {
        scoreboard.spooler(who.number - 1).take_over(std::process::id() as i32);
    }
    // It accepts nothing, and must not keep a socket open that the others have closed.
    for listener in &mut setup.listeners {
        drop(listener.fd.take()?);
    }
    for module in &setup.config.shared_import {
        interpreter::import(py, module);
    }
    info!("{who} started (pid {})", std::process::id());
    let work = Work { who, config: setup.config, scoreboard, is_loaded, end };
    if who.kind == AuxiliaryKind::Mule {
        mule::prepare(py, &work)?;
    }
    if let AfterFork::Exit(status) = api::after_fork(py) {
        api::finish(py);
        return Ok(status);
    }
    let status = match who.kind {
        AuxiliaryKind::Mule => mule::run(py, &work),
        AuxiliaryKind::Spooler => spooler::run(py, &work),
    };
    api::finish(py);
    status.map(|()| 0)
}
