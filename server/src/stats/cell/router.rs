//! What the http router reports.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::corrupt::Corrupt;
use super::counters::add;
use super::latencies::{Latencies, LatencyCounts};
use crate::clock::MonotonicNanos;

/// What the http router reports; only its process writes it.
#[repr(C, align(64))]
pub struct RouterCell {
    depth: AtomicU64,
    rejected: AtomicU64,
    connections: AtomicU64,
    /// How long requests waited for a free thread, µs.
    pub waiting: Latencies,
}

/// What the router reported last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterSample {
    /// Requests that wait for a thread.
    pub depth: u64,
    /// Requests that were turned away because the queue was full.
    pub rejected: u64,
    /// Clients that are connected.
    pub connections: u64,
}

impl RouterCell {
    /// This many requests wait for a thread now.
    pub fn set_depth(&self, depth: usize) {
        self.depth.store(depth as u64, Relaxed);
    }

    /// A request was turned away because the queue was full.
    pub fn reject(&self) {
        add(&self.rejected, 1);
    }

    /// This many clients are connected now.
    pub fn set_connections(&self, connections: usize) {
        self.connections.store(connections as u64, Relaxed);
    }

    /// What the router reported last.
    ///
    /// # Errors
    /// When the router cannot have written that.
    pub fn read(&self) -> Result<RouterSample, Corrupt> {
        let [depth, rejected, connections] =
            [&self.depth, &self.rejected, &self.connections].map(|count| count.load(Relaxed));
        // A process has no more descriptors than an `int` has numbers.
        if depth.max(connections) > i32::MAX as u64 {
            return Err(Corrupt::Counters);
        }
        Corrupt::refuse_beyond(MonotonicNanos::now(), &[rejected])?;
        Ok(RouterSample { depth, rejected, connections })
    }

    /// How long requests waited, in place of what `counts` holds.
    ///
    /// # Errors
    /// When the router cannot have counted that.
    pub fn read_waiting(&self, counts: &mut LatencyCounts) -> Result<(), Corrupt> {
        counts.clear();
        self.waiting.add_to(counts);
        Corrupt::refuse_beyond(MonotonicNanos::now(), &[counts.total()])
    }

    /// Makes it empty. What the router counts meanwhile may be lost.
    pub fn reset(&self) {
        [&self.depth, &self.rejected, &self.connections].into_iter().for_each(|count| count.store(0, Relaxed));
        self.waiting.reset();
    }
}
