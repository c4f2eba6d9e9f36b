//! What one snapshot leaves for the next: its clock, what has been told and must not be told lower, and open files.

use std::os::fd::BorrowedFd;

use nix::unistd::Pid;
use rwsgi_stats::Address;
use tracing::warn;

use super::backlog::{Backlog, Backlogs};
use super::clock::Clock;
use super::footprint::{Footprint, Footprints};

/// Kept by the master from its start, for every call of [`super::snapshot::take`].
#[derive(Debug, Default)]
pub struct Memory {
    /// The snapshots' clock.
    pub clock: Clock,
    footprints: Footprints,
    backlogs: Backlogs,
    backlog_failed: bool,
    floors: Vec<Floor>,
    /// Sums of one worker's latencies, and of all: kept for their room.
    pub(super) worker_latency: Vec<u64>,
    pub(super) all_latency: Vec<u64>,
}

/// The highest values told of a worker.
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    busy: u64,
    processor: u64,
}

impl Memory {
    /// Reads the memory of these processes at `now` (monotonic ns).
    pub(super) fn look_at(&mut self, pids: impl IntoIterator<Item = Pid>, now: u64) {
        self.footprints.refresh(pids, now);
    }

    /// What [`Self::look_at`] found.
    pub(super) fn footprint(&self, pid: Pid) -> Footprint {
        self.footprints.of(pid)
    }

    /// The accept queue of a listening socket; empty when the kernel does not tell, which is logged once.
    pub(crate) fn backlog(&mut self, address: &Address, listener: BorrowedFd<'_>) -> Backlog {
        match self.backlogs.read(address, listener) {
            Ok(backlog) => backlog,
            Err(error) => {
                if !self.backlog_failed {
                    self.backlog_failed = true;
                    warn!(
                        "stats: the kernel does not tell how many connections wait on {address} ({error}): shown as 0"
                    );
                }
                Backlog::default()
            }
        }
    }

    /// Busy and processor time (ns) of the `index`th worker, never below what was told before.
    ///
    /// A reader's clock is a moment ahead of the one that ends a request, and a process that is dying tells nothing of
    /// its processor time until it is reaped: what was told then stands until more is known.
    pub(super) fn never_lower(&mut self, index: usize, busy: u64, processor: u64) -> (u64, u64) {
        if self.floors.len() <= index {
            self.floors.resize(index + 1, Floor::default());
        }
        let floor = &mut self.floors[index];
        floor.busy = floor.busy.max(busy);
        floor.processor = floor.processor.max(processor);
        (floor.busy, floor.processor)
    }
}
