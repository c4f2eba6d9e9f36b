//! What processes of one generation add up to, living or ended.

use super::cell::{Counters, Errors, LatencyCounts, ThreadCell};

/// What processes of one generation add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenerationSums {
    /// Counters.
    pub counters: Counters,
    /// Latency of every request.
    pub latency: LatencyCounts,
    /// Exceptions by class.
    pub errors: Errors,
}

impl GenerationSums {
    /// Adds a thread, whose cell said this.
    pub fn add(&mut self, counters: Counters, latency: &LatencyCounts, cell: &ThreadCell) {
        self.counters += counters;
        self.latency.add(latency);
        // The page that has them is not touched for a thread that never raised. One may be counted just now.
        if counters.exceptions > 0 {
            cell.errors.add_to(&mut self.errors, counters.exceptions.saturating_add(1));
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.counters += other.counters;
        self.latency.add(&other.latency);
        self.errors.merge(&other.errors);
    }
}
