//! What is wrong with a cell that holds what no writer of ours leaves there.

use crate::clock::MonotonicNanos;

/// Something has written where it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// The cell changed during every one of many reads.
    #[error("its counters never stand still")]
    Unsteady,
    /// A request or a job began later than now.
    #[error("it holds what begins in the future")]
    Future,
    /// The protocol of a request is none that there is.
    #[error("it holds a request of no known protocol")]
    Protocol,
    /// A counter is beyond everything that can have happened, or two do not fit together.
    #[error("it counts what cannot have happened")]
    Counters,
    /// A job is a path that leads out of the spooler's directory.
    #[error("it holds a job that is no file of its directory")]
    Job,
}

impl Corrupt {
    /// Refuses counts of events, or of ns that one thread has spent, that are more than the ns that the machine has
    /// been up.
    pub(super) fn refuse_beyond(now: MonotonicNanos, counts: &[u64]) -> Result<(), Self> {
        if counts.iter().all(|count| *count <= now.as_nanos()) { Ok(()) } else { Err(Self::Counters) }
    }

    /// Refuses what began after now.
    pub(super) fn refuse_future(now: MonotonicNanos, started: Option<MonotonicNanos>) -> Result<(), Self> {
        if started.is_none_or(|started| started <= now) { Ok(()) } else { Err(Self::Future) }
    }
}
