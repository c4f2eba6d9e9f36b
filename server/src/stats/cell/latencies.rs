//! Latency histograms in shared memory, and their sums.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rwsgi_stats::latency;

use super::counters::add;

/// Counters of a latency histogram, laid out as [`rwsgi_stats::latency`] says.
#[repr(C)]
pub struct Latencies {
    /// A bit for each block of counters in which one is in use, so that a reader need not look at all of them.
    touched: AtomicU64,
    counts: [AtomicU64; latency::BUCKETS],
}

/// Counters in a block, as a power of two: a block for each bit, and as small as that allows.
const BLOCK: u32 = latency::BUCKETS.div_ceil(u64::BITS as usize).next_power_of_two().ilog2();
/// The bits that have a block.
const BLOCKS: u64 = u64::MAX >> (u64::BITS as usize - latency::BUCKETS.div_ceil(1 << BLOCK));

impl Latencies {
    /// Counts one latency, in µs.
    #[inline]
    pub fn record(&self, micros: u64) {
        let index = latency::index_of(micros);
        add(&self.counts[index], 1);
        let (block, touched) = (1 << (index >> BLOCK), self.touched.load(Relaxed));
        if touched & block == 0 {
            self.touched.store(touched | block, Relaxed);
        }
    }

    /// Adds every count to `sums`.
    pub fn add_to(&self, sums: &mut LatencyCounts) {
        let sums = &mut sums.0;
        // A bit that has no block is none that was set here.
        let mut touched = self.touched.load(Relaxed) & BLOCKS;
        let used = (((u64::BITS - touched.leading_zeros()) as usize) << BLOCK).min(latency::BUCKETS);
        if sums.len() < used {
            sums.resize(used, 0);
        }
        while touched != 0 {
            let start = (touched.trailing_zeros() as usize) << BLOCK;
            touched &= touched - 1;
            // The last block may have fewer counters than it has space for.
            for (sum, count) in sums[start..].iter_mut().zip(&self.counts[start..]).take(1 << BLOCK) {
                *sum = sum.saturating_add(count.load(Relaxed));
            }
        }
    }

    /// Forgets everything.
    pub(super) fn reset(&self) {
        self.counts.iter().chain([&self.touched]).for_each(|count| count.store(0, Relaxed));
    }
}

/// Counts of latencies, of one histogram or added up: laid out as [`rwsgi_stats::latency`] says, up to the highest in
/// use. What is beyond the largest number stays at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencyCounts(Vec<u64>);

impl LatencyCounts {
    /// Forgets everything, but for the space.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds latencies that are shorter than a µs.
    pub(super) fn add_zeros(&mut self, count: u64) {
        let index = latency::index_of(0);
        if count > 0 && self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        if let Some(zeros) = self.0.get_mut(index) {
            *zeros = zeros.saturating_add(count);
        }
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (sum, count) in self.0.iter_mut().zip(&other.0) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// How many latencies were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The stats document's form of it.
    #[must_use]
    pub fn encode(&self) -> String {
        latency::encode_counts(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_hold_every_latency_once_and_stay_at_the_largest_number() {
        let cell = Latencies { touched: AtomicU64::new(0), counts: [const { AtomicU64::new(0) }; latency::BUCKETS] };
        [0, 1, 99, 1_000_000, latency::HIGHEST, u64::MAX].into_iter().for_each(|micros| cell.record(micros));
        let mut counts = LatencyCounts::default();
        cell.add_to(&mut counts);
        assert_eq!(counts.total(), 6);
        let mut twice = LatencyCounts::default();
        twice.add(&counts);
        twice.add(&counts);
        assert_eq!(twice.total(), 12);
        assert_eq!(latency::decode(&twice.encode()).unwrap().len(), 12);
        cell.counts[0].store(u64::MAX, Relaxed);
        cell.add_to(&mut twice);
        cell.add_to(&mut twice);
        assert_eq!(twice.total(), u64::MAX);
        cell.reset();
        let mut none = LatencyCounts::default();
        cell.add_to(&mut none);
        assert_eq!(none.total(), 0);
    }
}
