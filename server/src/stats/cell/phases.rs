//! How long the phases of requests took: of the one that a thread holds, and of all as histograms.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, fence};

use rwsgi_stats::{PhaseTimes, Phases};

use super::corrupt::Corrupt;
use super::latencies::{Latencies, LatencyCounts};

/// Phases of a request, ns each. Together they are the time from when the request was there to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseNanos {
    /// Waiting before a thread took it.
    pub queue: u64,
    /// Reading the body.
    pub body: u64,
    /// Waiting for Python's global lock before the application was called.
    pub gil: u64,
    /// In the application.
    pub application: u64,
    /// Sending what the application has returned.
    pub write: u64,
}

/// How many there are.
const COUNT: usize = 5;

impl PhaseNanos {
    /// In the order of the fields.
    #[inline]
    fn all(&self) -> [u64; COUNT] {
        [self.queue, self.body, self.gil, self.application, self.write]
    }

    /// All together, ns; of what no thread of ours has measured, anything.
    #[must_use]
    #[inline]
    pub fn total(&self) -> u64 {
        self.all().into_iter().fold(0, u64::wrapping_add)
    }

    /// As the stats document has them.
    #[must_use]
    pub fn in_micros(&self) -> PhaseTimes {
        let [queue, body, gil, application, write] = self.all().map(|nanos| nanos / 1_000);
        PhaseTimes { queue, body, gil, application, write }
    }
}

/// The phases of a thread's requests.
#[repr(C)]
pub struct PhaseCell {
    /// Those before the application, of the request in progress: queue, body, GIL.
    before: [AtomicU64; 3],
    /// Of all. What took less than a µs is not counted here: it is what requests there are beside these.
    histograms: [Latencies; COUNT],
}

impl PhaseCell {
    /// The thread is about to take a request that has waited for so long.
    #[inline]
    pub fn begin(&self, waited: &PhaseNanos) {
        for (place, nanos) in self.before.iter().zip([waited.queue, waited.body, waited.gil]) {
            place.store(nanos, Relaxed);
        }
    }

    /// What the request in progress had waited; what cannot be is 0.
    #[must_use]
    pub fn waited(&self) -> PhaseNanos {
        /// A day: more than any request waits.
        const MOST: u64 = 86_400_000_000_000;
        let [queue, body, gil] = self.before.each_ref().map(|place| place.load(Relaxed));
        let believed = |nanos: u64| if nanos <= MOST { nanos } else { 0 };
        PhaseNanos { queue: believed(queue), body: believed(body), gil: believed(gil), ..PhaseNanos::default() }
    }

    /// A request has ended.
    #[inline]
    pub fn record(&self, took: &PhaseNanos) {
        let [_, _, _, application, _] = &self.histograms;
        if took.application >= 1_000 {
            application.record(took.application / 1_000);
        }
        // Of most requests, all of these are shorter.
        if took.queue | took.body | took.gil | took.write >= 1_000 {
            self.record_others(took);
        }
    }

    fn record_others(&self, took: &PhaseNanos) {
        let [queue, body, gil, _, write] = &self.histograms;
        for (histogram, nanos) in [(queue, took.queue), (body, took.body), (gil, took.gil), (write, took.write)] {
            if nanos >= 1_000 {
                histogram.record(nanos / 1_000);
            }
        }
    }

    /// Adds the phases of a thread that had served so many requests to `sums`. `served` says how many it has served by now:
    /// the thread goes on while this is read.
    ///
    /// # Errors
    /// When that is more than one for each request; some of it may have been added.
    pub(super) fn add_to(
        &self,
        requests: u64,
        served: impl Fn() -> u64,
        sums: &mut PhaseCounts,
    ) -> Result<(), Corrupt> {
        let mut counts = LatencyCounts::default();
        for (histogram, sum) in self.histograms.iter().zip(&mut sums.0) {
            counts.clear();
            histogram.add_to(&mut counts);
            fence(Acquire);
            // One is counted on one side and not yet on the other.
            if counts.total() > served().saturating_add(1) {
                return Err(Corrupt::Counters);
            }
            counts.add_zeros(requests.saturating_sub(counts.total()));
            sum.add(&counts);
        }
        Ok(())
    }
}

/// Counts of phases, of several threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PhaseCounts([LatencyCounts; COUNT]);

impl PhaseCounts {
    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, more)| sum.add(more));
    }

    /// The stats document's form of it.
    #[must_use]
    pub fn encode(&self) -> Phases {
        let [queue, body, gil, application, write] = self.0.each_ref().map(LatencyCounts::encode);
        Phases { queue, body, gil, application, write }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_memory::zeroed;
    use rwsgi_stats::latency;

    #[test]
    fn each_request_is_once_in_each_histogram_also_where_a_phase_took_no_time() {
        let cell = zeroed::<PhaseCell>();
        let slow = PhaseNanos { queue: 5_000_000, application: 2_000_000_000, ..PhaseNanos::default() };
        cell.record(&slow);
        cell.record(&PhaseNanos { application: 999, ..PhaseNanos::default() });
        let mut counts = PhaseCounts::default();
        cell.add_to(2, || 2, &mut counts).unwrap();
        let phases = counts.encode();
        for (encoded, longest) in [(&phases.queue, 5_000), (&phases.body, 0), (&phases.application, 2_000_000)] {
            let histogram = latency::decode(encoded).unwrap();
            assert_eq!(histogram.len(), 2);
            assert!(histogram.max() >= longest && histogram.max() <= longest.max(1) * 101 / 100, "{histogram:?}");
        }
        assert_eq!(slow.total(), 2_005_000_000);
    }

    #[test]
    fn more_phases_than_requests_are_not_believed() {
        let cell = zeroed::<PhaseCell>();
        (0..3).for_each(|_| cell.record(&PhaseNanos { write: 5_000, ..PhaseNanos::default() }));
        assert_eq!(cell.add_to(1, || 1, &mut PhaseCounts::default()), Err(Corrupt::Counters));
        cell.begin(&PhaseNanos { queue: u64::MAX, gil: 7, ..PhaseNanos::default() });
        assert_eq!(cell.waited(), PhaseNanos { gil: 7, ..PhaseNanos::default() });
    }
}
