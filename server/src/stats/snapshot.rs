//! From the scoreboard and `/proc` to the stats document.

use std::os::fd::BorrowedFd;

use nix::unistd::Pid;
use rwsgi_stats::Address;

use super::scoreboard::Scoreboard;
use super::totals::Totals;
use crate::config::Config;

/// What the master knows of the server beyond the scoreboard; everything that a snapshot is made of.
pub struct Subject<'a> {
    /// The scoreboard.
    pub scoreboard: &'a Scoreboard,
    /// The configuration in force.
    pub config: &'a Config,
    /// When the master started, unix µs.
    pub started_at: u64,
    /// The generation that serves.
    pub generation: u32,
    /// Version of the interpreter; empty until the first generation is loaded.
    pub python: &'a str,
    /// The sockets that requests arrive on.
    pub sockets: Vec<SocketView<'a>>,
    /// The workers, in the order of their ids.
    pub workers: Vec<WorkerView<'a>>,
}

/// A listening socket.
pub struct SocketView<'a> {
    /// Where it is bound.
    pub address: &'a Address,
    /// `http` or `uwsgi`.
    pub protocol: &'static str,
    /// The socket.
    pub fd: BorrowedFd<'a>,
}

/// A worker: its past and its lives.
pub struct WorkerView<'a> {
    /// From 1.
    pub id: u32,
    /// What its past lives add up to.
    pub totals: &'a Totals,
    /// Its living processes: the newest first, which is the one shown; those that finish their last requests beside a
    /// successor behind it. Empty for a worker that has no process.
    pub lives: Vec<LifeView>,
}

/// A living worker process.
#[derive(Clone, Copy, Debug)]
pub struct LifeView {
    /// Its slot on the scoreboard.
    pub slot: u32,
    /// Its process id.
    pub pid: Pid,
    /// The generation that it serves.
    pub generation: u32,
    /// When it started, unix seconds.
    pub spawned_at: u64,
}
