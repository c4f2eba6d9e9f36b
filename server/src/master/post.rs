//! Posts: the roles of the master's processes.

use crate::ids::WorkerId;
use crate::ipc::Auxiliary;

/// What a process is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Post {
    /// The server's http router.
    HttpRouter,
    /// The emperor beside the server.
    Emperor,
    /// A load of the application, from which workers and auxiliary processes are forked.
    ForkServer,
    /// A worker.
    Worker(WorkerId),
    /// A spooler or a mule.
    Auxiliary(Auxiliary),
}

impl Post {
    /// Whether a successor is started beside the process that it replaces. If not, it is started when that has gone: so
    /// what belongs to the post (a spooler's cell, the router's socket) has one owner at any time.
    pub(super) fn overlaps(self) -> bool {
        matches!(self, Self::Worker(_) | Self::ForkServer)
    }
}

impl std::fmt::Display for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::HttpRouter => f.write_str("http router"),
            Self::Emperor => f.write_str("emperor"),
            Self::ForkServer => f.write_str("fork server"),
            Self::Worker(worker) => write!(f, "worker {worker}"),
            Self::Auxiliary(who) => who.fmt(f),
        }
    }
}
