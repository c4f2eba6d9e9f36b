//! Why a process leaves.

use rwsgi_stats::Recycled;

/// Why a process gives its place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A newer generation takes over.
    Reload,
    /// Its successor is forked from a warmed worker.
    Refork,
    /// It has served as many requests as it may.
    MaxRequests,
    /// The application has raised what `reload-on-exception` names.
    Exception,
    /// Its resident memory is too large.
    Rss,
    /// Its address space is too large.
    AddressSpace,
    /// It has run as long as it may.
    Lifetime,
    /// It holds a request (or a job) that runs too long.
    Harakiri,
    /// There is nothing to do for it; it has no successor.
    Idle,
    /// It has written where it must not.
    Corrupt,
    /// It shows no sign of life.
    Unresponsive,
    /// An operator has asked for it.
    Recycle,
}

impl Reason {
    /// Where ends for this reason are counted.
    pub(super) fn count(self, recycled: &mut Recycled) -> &mut u64 {
        match self {
            // The schema has no words of its own for the others.
            Self::Reload | Self::Refork | Self::Exception | Self::Recycle => &mut recycled.reload,
            Self::MaxRequests => &mut recycled.max_requests,
            Self::Rss => &mut recycled.rss,
            Self::AddressSpace => &mut recycled.address_space,
            Self::Lifetime => &mut recycled.lifetime,
            Self::Harakiri | Self::Unresponsive => &mut recycled.harakiri,
            Self::Idle => &mut recycled.idle,
            // The schema has no word of its own for it.
            Self::Corrupt => &mut recycled.crash,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reload => "reload",
            Self::Refork => "refork",
            Self::MaxRequests => "max-requests",
            Self::Exception => "reload-on-exception",
            Self::Rss => "resident memory",
            Self::AddressSpace => "address space",
            Self::Lifetime => "max-worker-lifetime",
            Self::Harakiri => "harakiri",
            Self::Idle => "idle",
            Self::Corrupt => "corrupt shared memory",
            Self::Unresponsive => "no sign of life",
            Self::Recycle => "recycle",
        })
    }
}

/// Why a process was told to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// For this reason.
    For(Reason),
    /// The server stops.
    Stop,
}
