//! Stopping: first the router finishes what it has, then the workers, then the fork servers go. What takes longer than
//! the mercy that is configured is killed; a second request to stop kills everything at once.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::Master;
use super::pool::Fate;
use super::workers::signal;

/// Processes that do not leave in time are killed one by one, each with a line in the log; what is left then, so much
/// later, is killed together.
const AFTER_THE_LATE: Duration = Duration::from_millis(100);

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Not stopping.
    Serving,
    /// The router finishes what it has; the workers still serve it.
    RouterLeaves,
    /// The workers finish what they have.
    WorkersLeave,
    /// Everything was told to end at once.
    Killed,
}

impl Master {
    /// Somebody asked the server to stop.
    pub(super) fn stop(&mut self, by: &str) {
        if self.phase != Phase::Serving {
            warn!("{by} again: stopping at once");
            self.kill_all();
            return;
        }
        info!("{by}: stopping after the requests in progress");
        self.begin_stop();
    }

    /// Somebody asked the server to stop without finishing anything.
    pub(super) fn stop_at_once(&mut self, by: &str) {
        info!("{by}: stopping at once");
        if self.phase == Phase::Serving {
            self.begin_stop();
        }
        self.kill_all();
    }

    /// The server cannot go on: it stops with this exit status.
    pub(super) fn fail(&mut self, status: i32) {
        self.exit_status = status;
        if self.phase == Phase::Serving {
            self.begin_stop();
        }
    }

    fn begin_stop(&mut self) {
        self.phase = Phase::RouterLeaves;
        self.supervisor.tell("STOPPING=1");
        self.killed_at = Some(Instant::now() + Duration::from_secs(self.config.reload_mercy.into()) + AFTER_THE_LATE);
        self.router.due = None;
        self.reload_due = None;
        self.cheaper.due = None;
        if let Some((pid, _)) = self.router.process {
            signal(pid, Signal::SIGTERM);
        }
        self.proceed_with_stop();
    }

    /// Goes as far as what has ended allows.
    pub(super) fn proceed_with_stop(&mut self) {
        if self.phase == Phase::RouterLeaves && self.router.process.is_none() {
            self.phase = Phase::WorkersLeave;
            for generation in &mut self.generations {
                generation.dismiss();
                // One that is still loading would not look at its channel for a while.
                if generation.python.is_none() {
                    signal(generation.pid, Signal::SIGKILL);
                }
            }
            let slots: Vec<_> = self.pool.lives.iter().map(|life| life.slot).collect();
            for slot in slots {
                self.send_away(slot, Fate::Stop);
            }
            self.dismiss_auxiliaries(Instant::now());
        }
        if self.phase != Phase::Killed && self.killed_at.is_some_and(|at| at <= Instant::now()) {
            warn!("not everything has stopped in time: killing the rest");
            self.kill_all();
        }
    }

    fn kill_all(&mut self) {
        self.phase = Phase::Killed;
        self.killed_at = None;
        let router = self.router.process.as_ref().map(|(pid, _)| *pid);
        let workers = self.pool.lives.iter().filter_map(|life| life.pid);
        let fork_servers = self.generations.iter().map(|generation| generation.pid);
        for pid in workers.chain(router).chain(fork_servers).chain(self.auxiliary_pids()) {
            signal(pid, Signal::SIGKILL);
        }
        for life in &mut self.pool.lives {
            life.fate = Some(Fate::Stop);
            life.killed_at = None;
        }
    }

    /// Whether workers are to be started. While the router finishes what it has it needs some, which a supervisor that
    /// stops the whole group at once takes away.
    pub(super) fn may_fork(&self) -> bool {
        self.phase == Phase::Serving || (self.phase == Phase::RouterLeaves && self.pool.lives.is_empty())
    }

    /// Whether nothing is left to wait for.
    pub(super) fn is_over(&self) -> bool {
        // A life without a process id is one whose fork server was gone before it could tell: it has no process, or
        // one that sees the liveness pipe end.
        self.phase >= Phase::WorkersLeave
            && self.router.process.is_none()
            && self.generations.is_empty()
            && self.auxiliary_pids().next().is_none()
            && self.pool.lives.iter().all(|life| life.pid.is_none())
    }
}
