//! Auxiliary processes, one of each at a time: [`spooler`]s and [`mule`]s. Here is what
//! all of them do first and last.

mod mule;
mod spooler;
mod work;

use std::fs::File;
use std::io::Write as _;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pyo3::Python;
use tracing::{error, info};

use self::work::{StopSignal, Work};
use crate::api::{self, AfterFork};
use crate::hooks::{self, EXIT_HOOK_FAILED};
use crate::ids::ChildId;
use crate::ipc::{Auxiliary, AuxiliaryKind, Notice, Setup};
use crate::procname;
use crate::stats::scoreboard::Scoreboard;
use crate::worker::stop::on_terminate;
use rwsgi_config::hooks::Phase;

/// What an auxiliary process is forked with.
pub(crate) struct AuxiliaryContext {
    /// Which one it is.
    pub(crate) who: Auxiliary,
    /// By which number the master knows it.
    pub(crate) child: ChildId,
    /// The setup that its fork server received.
    pub(crate) setup: Setup,
    /// The scoreboard.
    pub(crate) scoreboard: Scoreboard,
    /// Whether the fork server has loaded the application.
    pub(crate) is_loaded: bool,
}

/// Works until it is told to leave; returns the exit status.
///
/// # Errors
/// When what was inherited cannot be used.
pub(crate) fn run(py: Python<'_>, context: AuxiliaryContext) -> anyhow::Result<i32> {
    let child = context.child;
    let (work, notices) = enter(context)?;
    let tell_ready = || {
        let sent = (&notices).write_all(&Notice::Ready(child).encode());
        sent.context("cannot notify the master that it is ready")
    };
    let who = work.who;
    info!("{who} started (pid {})", std::process::id());
    if who.kind == AuxiliaryKind::Mule {
        mule::prepare(py, &work)?;
        // Before its hook, which may be all that it ever does.
        tell_ready()?;
    }
    let outcome = match (api::after_fork(py), who.kind) {
        (AfterFork::Work, AuxiliaryKind::Mule) => match hooks::run_in_python(py, Phase::AsMule, &work.config) {
            Ok(()) => mule::run(py, &work).map(|()| 0),
            Err(failure) => {
                error!("{who}: {failure:#}");
                Ok(EXIT_HOOK_FAILED)
            }
        },
        (AfterFork::Work, AuxiliaryKind::Spooler) => {
            tell_ready()?;
            spooler::run(py, &work).map(|()| 0)
        }
        // The hook may be all that it does, and end on an order.
        (AfterFork::Exit(status), _) => {
            if !mule::is_leaving() && !work.end.has_come() {
                error!("{who}: uwsgi.post_fork_hook has ended it with status {status}");
            }
            Ok(status)
        }
    };
    mule::leave_in_peace();
    api::finish(py);
    outcome
}

/// Sets the process up for its work; also returns the pipe for its notices to the master.
fn enter(py: Python<'_>, context: AuxiliaryContext) -> anyhow::Result<(Work, File)> {
    let AuxiliaryContext { who, child: _, mut setup, scoreboard, is_loaded } = context;
    // The workers' alone.
    drop(setup.routes.take().map(|mut fd| fd.take()).transpose()?);
    let name = std::ffi::CString::new(who.short_name()).unwrap_or_default();
    let _ = nix::sys::prctl::set_name(&name);
    procname::set(&procname::title(&setup.config.procname, &format!("rwsgi {who}")));
    let end = StopSignal {
        stop: on_terminate().context("cannot watch for the order to leave")?,
        liveness: setup.liveness.take()?,
    };
    if setup.config.no_orphans {
        // A master that is gone already is seen by the liveness pipe.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("no-orphans: cannot watch the master")?;
    }
    if who.kind == AuxiliaryKind::Spooler {
        scoreboard.spooler(who.number - 1).take_over(Pid::this());
    }
    // It accepts nothing, and must not keep a socket open that the others have closed.
    for listener in &mut setup.listeners {
        drop(listener.fd.take()?);
    }
    let notices = File::from(setup.notices.take()?);
    Ok((Work { who, config: setup.config, scoreboard, is_loaded, end }, notices))
}
