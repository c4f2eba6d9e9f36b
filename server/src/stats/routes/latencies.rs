//! The latencies of a route: a coarser histogram than a thread's, since there are many, whose counters fall into that
//! one's.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rwsgi_stats::latency::{self, HIGHEST};

/// log2 of the linear steps in a power of two: 32 steps, so that a value is off by 1.6 % at most.
const STEPS: u32 = 5;
/// How many counters there are.
pub(super) const BUCKETS: usize = 28 << STEPS;
/// Counters in a block, as a power of two.
const BLOCK: u32 = 4;
/// The bits that have a block.
const BLOCKS: u64 = u64::MAX >> (u64::BITS as usize - (BUCKETS >> BLOCK));

/// Counters of latencies in shared memory, 3.6 kB. A counter stays at its largest number.
#[repr(C)]
pub(super) struct RouteLatencies {
    /// A bit for each block of counters in which one is in use.
    touched: AtomicU64,
    counts: [AtomicU32; BUCKETS],
}

/// The counter of a latency.
#[inline]
fn index_of(micros: u64) -> usize {
    let value = micros.clamp(1, HIGHEST);
    let octave = 63 - (value | ((2 << STEPS) - 1)).leading_zeros() - STEPS;
    (((octave as usize) << STEPS) + (value >> octave) as usize).min(BUCKETS - 1)
}

/// The middle of what is counted at `index`, µs.
fn middle_of(index: usize) -> u64 {
    let octave = (index >> STEPS).saturating_sub(1);
    let step = (index - (octave << STEPS)) as u64;
    (step << octave) + ((1 << octave) >> 1)
}

impl RouteLatencies {
    /// Counts one latency, in µs.
    #[inline]
    pub(super) fn record(&self, micros: u64) {
        let index = index_of(micros);
        let count = &self.counts[index];
        count.store(count.load(Relaxed).saturating_add(1), Relaxed);
        let (block, touched) = (1 << (index >> BLOCK), self.touched.load(Relaxed));
        if touched & block == 0 {
            self.touched.store(touched | block, Relaxed);
        }
    }

    /// The counters, up to the last block in use.
    pub(super) fn load(&self) -> Vec<u64> {
        // A bit that has no block is none that was set here.
        let mut touched = self.touched.load(Relaxed) & BLOCKS;
        let mut counts = vec![0; ((u64::BITS - touched.leading_zeros()) as usize) << BLOCK];
        while touched != 0 {
            let start = (touched.trailing_zeros() as usize) << BLOCK;
            touched &= touched - 1;
            for (count, cell) in counts[start..].iter_mut().zip(&self.counts[start..]).take(1 << BLOCK) {
                *count = cell.load(Relaxed).into();
            }
        }
        counts
    }

    /// Adds every count to another's, and forgets it here.
    pub(super) fn move_to(&self, other: &Self) {
        for (count, sum) in self.counts.iter().zip(&other.counts) {
            let moved = count.load(Relaxed);
            if moved > 0 {
                sum.store(sum.load(Relaxed).saturating_add(moved), Relaxed);
                count.store(0, Relaxed);
            }
        }
        other.touched.store(other.touched.load(Relaxed) | self.touched.load(Relaxed), Relaxed);
        self.touched.store(0, Relaxed);
    }
}

/// Counters as the stats document has them.
pub(super) fn encode(counts: &[u64]) -> String {
    let last = counts.iter().rposition(|count| *count > 0);
    let mut fine = vec![0u64; last.map_or(0, |last| latency::index_of(middle_of(last)) + 1)];
    for (index, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let place = &mut fine[latency::index_of(middle_of(index))];
        *place = place.saturating_add(*count);
    }
    latency::encode_counts(&fine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_latency_is_counted_once() {
        let cell = super::super::cells::zeroed_row();
        let values = [0, 1, 63, 64, 99, 1_000_000, HIGHEST, u64::MAX];
        values.into_iter().for_each(|micros| cell.latency.record(micros));
        assert_eq!(cell.latency.load().iter().sum::<u64>(), values.len() as u64);
        let read = latency::decode(&encode(&cell.latency.load())).unwrap();
        assert_eq!(read.len(), values.len() as u64);
        let other = super::super::cells::zeroed_row();
        other.latency.record(5);
        cell.latency.move_to(&other.latency);
        assert_eq!(other.latency.load().iter().sum::<u64>(), 9);
        assert_eq!(cell.latency.load(), Vec::<u64>::new());
        assert_eq!(latency::decode(&encode(&[])).unwrap().len(), 0);
    }

    #[test]
    fn counters_beyond_what_there_is_are_not_read() {
        let cell = super::super::cells::zeroed_row();
        cell.latency.touched.store(u64::MAX, Relaxed);
        assert_eq!(cell.latency.load().len(), BUCKETS);
    }

    proptest! {
        #[test]
        fn a_value_is_off_by_two_percent_at_most(value in 1..HIGHEST) {
            let index = index_of(value);
            prop_assert!(index < BUCKETS);
            let mut counts = vec![0; index + 1];
            counts[index] = 1;
            let read = latency::decode(&encode(&counts)).unwrap().max() as f64;
            prop_assert!((read - value as f64).abs() <= (value as f64 * 0.025).max(1.0), "{value} is read as {read}");
        }
    }
}
