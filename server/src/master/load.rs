//! The load of the workers at one moment, and what was seen of it before.

use std::time::Instant;

use super::busyness;
use super::task::Task;

/// The load at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) at: Instant,
    /// Time that all threads were ever busy, ns.
    pub(super) busy: u64,
    /// Requests that are in progress or were ever served.
    pub(super) requests: u64,
    /// Connections and requests that wait for a worker.
    pub(super) waiting: u64,
    /// Workers that serve and have a thread to spare.
    pub(super) idle: u32,
}

/// What was seen and decided before.
#[derive(Debug, Default)]
pub(super) struct LoadWatch {
    /// What was seen at the last look that was decided by.
    pub(super) last: Option<Load>,
    /// Since when connections wait without a break.
    pub(super) waiting_since: Option<Instant>,
    /// Since when a worker more runs than is needed.
    pub(super) quiet_since: Option<Instant>,
    pub(super) busyness: busyness::Watch,
    /// When a request was last seen.
    pub(super) active_at: Option<Instant>,
    /// No worker runs until somebody connects: the tasks that wait for that.
    pub(super) asleep: Option<Vec<Task>>,
}
