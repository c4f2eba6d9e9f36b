//! A worker that is drained: it takes no new requests and finishes what it has, until the master says otherwise.

use std::sync::atomic::Ordering::{Acquire, Release};

use pyo3::prelude::*;

use super::worker_thread::WorkerThread;

impl WorkerThread {
    /// Does what the master says in the worker's cell, which is looked at with each sweep. Returns whether the worker is
    /// drained.
    pub(super) fn follow_drain(&mut self, py: Python<'_>, scratch: &mut [u8]) -> anyhow::Result<bool> {
        let cell = self.worker.scoreboard.worker(self.worker.slot);
        let is_drained = cell.drained();
        let is_new = is_drained != self.worker.declining.load(Acquire);
        // Of one that leaves as well nothing is changed.
        if is_new && !self.is_leaving() {
            self.worker.declining.store(is_drained, Release);
            cell.set_accepting(!is_drained);
            if is_drained {
                self.worker.stop_listening()?;
            }
        }
        if is_drained {
            // A request that was on its way when it began is still served: clients are closed from the next look on.
            self.part_with_idle(py, scratch, !is_new)?;
        }
        Ok(is_drained)
    }
}
