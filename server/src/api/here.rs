//! Which process this is, and what every process of ours knows of its server.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context;
use nix::unistd::Pid;

use crate::ids::{GenerationNumber, SlotId, WorkerId};
use crate::ipc::{Auxiliary, AuxiliaryKind, Role, Setup};
use crate::log_text;
use crate::share::Share;
use crate::stats::scoreboard::Scoreboard;
use rwsgi_config::Config;

/// What does not change while the process runs.
#[derive(Debug)]
pub(crate) struct ServerContext {
    /// The configuration in force.
    pub(crate) config: Config,
    /// The generation that this process is of.
    pub(crate) generation: GenerationNumber,
    /// The master.
    pub(crate) master: Pid,
    /// The call socket, this process's end.
    pub(crate) calls: OwnedFd,
    /// What the processes share.
    pub(crate) share: Share,
    /// The counters of all workers.
    pub(crate) scoreboard: Scoreboard,
}

static SERVER: OnceLock<ServerContext> = OnceLock::new();
// Whoever looks at it is attached to Python, and no fork begins before all threads but one have detached or stand still between two
// steps of Python: so no fork leaves it locked in the child.
static ROLE: Mutex<Option<Role>> = Mutex::new(None);

/// In a fork server, before anything else here.
///
/// # Errors
/// When the scoreboard cannot be mapped once more.
pub(crate) fn settle(setup: &mut Setup, scoreboard: &Scoreboard) -> anyhow::Result<()> {
    let memory = scoreboard.memory().try_clone_to_owned()?;
    let server = ServerContext {
        config: setup.config.clone(),
        generation: setup.generation.context("the master has given the fork server no generation")?,
        // The fork server was started by it; what is forked is adopted by it.
        master: Pid::parent(),
        share: Share::take(&mut setup.share, &setup.config.between)?,
        calls: setup.calls.take()?,
        scoreboard: Scoreboard::map(setup.layout, memory)?,
    };
    // There is one fork server to a process.
    let _ = SERVER.set(server);
    log_text::follow_level(|| SERVER.get().map_or(0, |server| server.scoreboard.limits().log_level()));
    Ok(())
}

/// In a process that was forked, first of all.
pub(crate) fn enter(role: Role) {
    *ROLE.lock().unwrap_or_else(PoisonError::into_inner) = Some(role);
}

/// What this process is; `None` in the fork server, which loads the application.
#[must_use]
pub(crate) fn role() -> Option<Role> {
    *ROLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The worker's number and slot, in a worker.
#[must_use]
pub(crate) fn worker() -> Option<(WorkerId, SlotId)> {
    match role() {
        Some(Role::Worker { worker, slot }) => Some((worker, slot)),
        _ => None,
    }
}

/// The number of an auxiliary process of this kind, in one.
#[must_use]
pub(crate) fn auxiliary(kind: AuxiliaryKind) -> Option<u32> {
    match role() {
        Some(Role::Auxiliary(Auxiliary { kind: found, number })) if found == kind => Some(number),
        _ => None,
    }
}

/// The server that this process belongs to; `None` in the unit tests alone.
#[must_use]
pub(crate) fn server() -> Option<&'static ServerContext> {
    SERVER.get()
}
