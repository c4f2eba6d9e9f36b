//! What one snapshot leaves for the next: its clock, what has been shown and must not be shown lower, and open files.

use std::os::fd::BorrowedFd;

use rwsgi_stats::Address;
use tokio::runtime::Handle;
use tracing::warn;

use super::backlog::{Backlog, Backlogs};
use super::cell::{LatencyCounts, PhaseCounts};
use super::drops::Drops;
use super::generations::Living;
use super::memory_sampler::MemorySampler;
use crate::clock::Clock;
use crate::ids::WorkerId;

/// Kept by the master from its start, for every call of [`super::snapshot::take`].
#[derive(Debug)]
pub struct SnapshotState {
    /// The snapshots' clock.
    pub clock: Clock,
    pub(super) memory: MemorySampler,
    backlogs: Backlogs,
    backlog_failed: bool,
    pub(super) drops: Drops,
    floors: Vec<Floor>,
    /// Latencies of one cell, of one worker, and of all: kept to reuse their memory.
    pub(super) cell_latency: LatencyCounts,
    pub(super) worker_latency: LatencyCounts,
    pub(super) all_latency: LatencyCounts,
    /// The phases of all requests.
    pub(super) phases: PhaseCounts,
    /// What the last snapshot saw of each generation's processes.
    pub living: Living,
}

/// The highest values shown of a worker.
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    busy: u64,
    processor: u64,
}

impl SnapshotState {
    /// For the first snapshot. What would hold up the caller's loop is done by `runtime`'s other threads.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self {
            clock: Clock::default(),
            memory: MemorySampler::new(runtime),
            backlogs: Backlogs::default(),
            backlog_failed: false,
            drops: Drops::new(),
            floors: Vec::new(),
            cell_latency: LatencyCounts::default(),
            worker_latency: LatencyCounts::default(),
            all_latency: LatencyCounts::default(),
            phases: PhaseCounts::default(),
            living: Living::default(),
        }
    }

    /// The accept queue of a listening socket; empty when the kernel does not say, which is logged once.
    pub fn backlog(&mut self, address: &Address, listener: BorrowedFd<'_>) -> Backlog {
        match self.backlogs.read(address, listener) {
            Ok(backlog) => backlog,
            Err(error) => {
                if !self.backlog_failed {
                    self.backlog_failed = true;
                    warn!(
                        "stats: the kernel does not say how many connections wait on {address} ({error}): shown as 0"
                    );
                }
                Backlog::default()
            }
        }
    }

    /// Busy and processor time (ns) of a worker, never below what was shown before.
    ///
    /// A reader's clock is a moment ahead of the one that ends a request, and a process that is dying reports nothing
    /// of its processor time until it is reaped: what was shown then stands until more is known.
    pub(super) fn never_lower(&mut self, worker: WorkerId, busy: u64, processor: u64) -> (u64, u64) {
        if self.floors.len() <= worker.index() {
            self.floors.resize(worker.index() + 1, Floor::default());
        }
        let floor = &mut self.floors[worker.index()];
        floor.busy = floor.busy.max(busy);
        floor.processor = floor.processor.max(processor);
        (floor.busy, floor.processor)
    }
}
