//! Sparse latency counts: what a histogram holds, without its empty counters.
//!
//! A dense histogram takes 26 kB, and a pool has one for each worker, before and now; most of them touch a few dozen
//! counters. Percentiles always come from counts that were subtracted or merged, never from other percentiles.

use rwsgi_stats::latency;

/// Counts of latencies, by the layout of [`rwsgi_stats::latency`], in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(Vec<(u16, u64)>);

/// What is shown of a window's latencies, in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Half of the requests were at most this slow.
    pub p50: u64,
    /// 95 of 100 were at most this slow.
    pub p95: u64,
    /// 99 of 100 were at most this slow.
    pub p99: u64,
    /// None was slower.
    pub max: u64,
}

impl Counts {
    /// Reads the document's form; `None` when it is damaged.
    pub fn decode(text: &str) -> Option<Self> {
        let counts = Self(latency::decode_counts(text).ok()?);
        // A sum that overflows says nothing.
        (counts.total() < u64::MAX).then_some(counts)
    }

    /// The counters themselves, for the packed form.
    pub fn pairs_mut(&mut self) -> &mut Vec<(u16, u64)> {
        &mut self.0
    }

    #[cfg(test)]
    fn from_histogram(histogram: &latency::Histogram) -> Self {
        let mut counts = Self::default();
        for step in histogram.iter_recorded() {
            let index = latency::index_of(step.value_iterated_to()) as u16;
            match counts.0.last_mut() {
                Some((last, count)) if *last == index => *count += step.count_at_value(),
                _ => counts.0.push((index, step.count_at_value())),
            }
        }
        counts
    }

    /// How many requests were counted.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| *count).fold(0, u64::saturating_add)
    }

    /// `self - earlier`: what happened between two samples; `None` when a count became smaller.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut difference = Vec::new();
        let mut before = earlier.0.iter().peekable();
        for &(index, count) in &self.0 {
            let base = match before.peek() {
                Some(&&(at, _)) if at < index => return None,
                Some(&&(at, base)) if at == index => {
                    before.next();
                    base
                }
                _ => 0,
            };
            match count.checked_sub(base)? {
                0 => {}
                count => difference.push((index, count)),
            }
        }
        before.next().is_none().then_some(Self(difference))
    }

    /// Adds another's counts to these.
    pub fn merge(&mut self, other: &Self) {
        if other.0.is_empty() {
            return;
        }
        let mut merged = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(&&(a, x)), Some(&&(b, y))) if a == b => {
                    left.next();
                    right.next();
                    (a, x.saturating_add(y))
                }
                (Some(&&(a, x)), Some(&&(b, _))) if a < b => {
                    left.next();
                    (a, x)
                }
                (_, Some(&&pair)) => {
                    right.next();
                    pair
                }
                (Some(&&pair), None) => {
                    left.next();
                    pair
                }
                (None, None) => break,
            };
            merged.push(next);
        }
        self.0 = merged;
    }

    /// The latency (µs) that a fraction `quantile` of the requests did not exceed; `None` without requests.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let total = self.total();
        let rank = ((quantile * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.0.iter().find_map(|&(index, count)| {
            seen = u64::saturating_add(seen, count);
            (seen >= rank).then(|| latency::value_of(usize::from(index) + 1) - 1)
        })
    }

    /// The least and the most (µs) that the latency of a rank may be, from 1 for the shortest; `None` beyond the last.
    pub(crate) fn at_rank(&self, rank: u64) -> Option<(u64, u64)> {
        let mut seen = 0;
        self.0.iter().find_map(|&(index, count)| {
            seen = u64::saturating_add(seen, count);
            let index = usize::from(index);
            (seen >= rank).then(|| (latency::value_of(index), latency::value_of(index + 1) - 1))
        })
    }

    /// The usual percentiles; `None` without requests.
    pub fn percentiles(&self) -> Option<Percentiles> {
        Some(Percentiles {
            p50: self.quantile(0.5)?,
            p95: self.quantile(0.95)?,
            p99: self.quantile(0.99)?,
            max: self.quantile(1.0)?,
        })
    }

    /// Latency (µs, the lowest that is counted there) and count of every counter that is not empty.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|&(index, count)| (latency::value_of(usize::from(index)), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn both(values: &[u64]) -> (Counts, latency::Histogram) {
        let mut dense = latency::empty();
        for value in values {
            dense.record(*value).unwrap();
        }
        (Counts::from_histogram(&dense), dense)
    }

    #[test]
    fn nothing_counted_has_no_percentiles() {
        assert_eq!(Counts::default().percentiles(), None);
        assert_eq!(Counts::decode("nonsense"), None);
    }

    #[test]
    fn a_window_is_a_difference_and_a_restart_is_none() {
        let (before, _) = both(&[100, 100, 900]);
        let (after, _) = both(&[100, 100, 900, 5_000]);
        let window = after.since(&before).unwrap();
        assert_eq!(window.total(), 1);
        assert!(window.percentiles().unwrap().p50 >= 5_000);
        assert_eq!(before.since(&after), None);
        assert_eq!(Counts::default().since(&before), None);
    }

    proptest! {
        #[test]
        fn sparse_and_dense_tell_the_same(
            a in prop::collection::vec(1..latency::HIGHEST, 0..60), b in prop::collection::vec(1..100_000u64, 1..60),
        ) {
            let ((mut sparse, mut dense), (more, more_dense)) = (both(&a), both(&b));
            let before = sparse.clone();
            sparse.merge(&more);
            dense.add(&more_dense).unwrap();
            prop_assert_eq!(&sparse, &Counts::from_histogram(&dense));
            prop_assert_eq!(&sparse.since(&before).unwrap(), &more);
            prop_assert_eq!(sparse.total(), dense.len());
            for quantile in [0.01, 0.5, 0.95, 0.99, 1.0] {
                prop_assert_eq!(sparse.quantile(quantile).unwrap(), dense.value_at_quantile(quantile));
            }
            prop_assert_eq!(Counts::decode(&latency::encode(&dense)).unwrap(), sparse);
        }
    }
}
