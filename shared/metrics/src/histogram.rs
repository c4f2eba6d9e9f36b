//! Histograms of durations: from the document's counters of µs to the buckets of Prometheus.

use std::sync::LazyLock;

use rwsgi_stats::latency::{self, BUCKETS, value_of};

use crate::model::seconds;

/// Upper bounds of the classic buckets, seconds; what is above is in one more.
pub(crate) const BOUNDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// Fewer, for what there are hundreds of.
pub(crate) const FEW_BOUNDS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

/// The finest schema of a native histogram: 32 buckets for each power of two, where the document has 128 counters. A
/// quantile is off by half a bucket at most, 1.1 %.
const FINEST: i32 = 5;
/// The most buckets of a native histogram. Where durations are spread over more, its schema is coarser.
const MOST_BUCKETS: usize = 160;

/// How often durations were seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds of the classic buckets, seconds, ascending, without the infinite one.
    pub bounds: &'static [f64],
    /// Counters of [`latency`]'s layout that are not 0, with their places, ascending.
    counts: Vec<(u16, u64)>,
    total: u64,
}

/// The buckets of a native histogram: of each power of two, `2^schema`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeBuckets {
    /// How fine the buckets are.
    pub schema: i32,
    /// Where there are buckets.
    pub spans: Vec<Span>,
    /// The buckets' counts, each as the difference to the one before.
    pub deltas: Vec<i64>,
}

/// Buckets that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Buckets between this span and the one before; of the first, its first bucket's number.
    pub offset: i32,
    /// How many buckets.
    pub length: u32,
}

impl Histogram {
    /// Of the document's form. `None` when it cannot be read, or counts more than a number can hold.
    pub(crate) fn decode(bounds: &'static [f64], text: &str) -> Option<Self> {
        Self::sum(bounds, [text])
    }

    /// Several of the document's histograms together.
    pub(crate) fn sum<'a>(bounds: &'static [f64], texts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut texts = texts.into_iter();
        let mut counts = texts.next().map_or(Some(Vec::new()), |text| latency::decode_counts(text).ok())?;
        for text in texts {
            for (index, count) in latency::decode_counts(text).ok()? {
                match counts.binary_search_by_key(&index, |known| known.0) {
                    Ok(at) => counts[at].1 = counts[at].1.checked_add(count)?,
                    Err(at) => counts.insert(at, (index, count)),
                }
            }
        }
        let total = counts.iter().try_fold(0_u64, |total, (_, count)| total.checked_add(*count))?;
        // Differences of counts are signed.
        (total <= i64::MAX as u64).then_some(Self { bounds, counts, total })
    }

    /// How many durations were seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Their sum, seconds: each stands for the middle of its counter.
    #[must_use]
    pub fn total_seconds(&self) -> f64 {
        self.counts.iter().map(|&(index, count)| middle(index.into()) * count as f64).sum()
    }

    /// The classic buckets: each bound with how many durations were not above it; the infinite one at last.
    pub fn classic(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut counts = self.counts.iter().peekable();
        let mut below = 0;
        self.bounds.iter().copied().chain([f64::INFINITY]).map(move |bound| {
            while let Some((_, count)) = counts.next_if(|(index, _)| seconds(value_of((*index).into())) <= bound) {
                below += count;
            }
            (bound, below)
        })
    }

    /// The buckets of a native histogram.
    #[must_use]
    pub fn native(&self) -> NativeBuckets {
        let mut buckets: Vec<(i32, u64)> = Vec::with_capacity(MOST_BUCKETS);
        for &(index, count) in &self.counts {
            add(&mut buckets, NUMBERS[usize::from(index)].into(), count);
        }
        let mut schema = FINEST;
        while buckets.len() > MOST_BUCKETS {
            let finer = std::mem::replace(&mut buckets, Vec::with_capacity(MOST_BUCKETS));
            for (number, count) in finer {
                // Bounds are inclusive above: buckets 1 and 2 become 1.
                add(&mut buckets, (number + 1) >> 1, count);
            }
            schema -= 1;
        }
        let (mut spans, mut deltas): (Vec<Span>, _) = (Vec::new(), Vec::with_capacity(buckets.len()));
        let (mut next, mut before) = (0, 0);
        for (number, count) in buckets {
            match spans.last_mut() {
                Some(span) if number == next => span.length += 1,
                _ => spans.push(Span { offset: number - next, length: 1 }),
            }
            deltas.push(count as i64 - before);
            (next, before) = (number + 1, count as i64);
        }
        NativeBuckets { schema, spans, deltas }
    }
}

/// Adds to the last bucket, or to a new one behind it.
fn add(buckets: &mut Vec<(i32, u64)>, number: i32, count: u64) {
    match buckets.last_mut() {
        Some((last, sum)) if *last == number => *sum += count,
        _ => buckets.push((number, count)),
    }
}

/// The middle of a counter's durations, seconds.
fn middle(index: usize) -> f64 {
    let (low, next) = (value_of(index), value_of(index + 1));
    seconds(low + (next - low) / 2)
}

/// The bucket of the finest native histogram that each counter of the document belongs to.
static NUMBERS: LazyLock<Vec<i16>> = LazyLock::new(|| {
    let steps = f64::from(1 << FINEST);
    // Bucket n ends at 2^(n / steps); the first counter is of 0 µs, which is never counted.
    (0..BUCKETS).map(|index| (middle(index).max(1e-6).log2() * steps).ceil() as i16).collect()
});

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rwsgi_stats::latency::{encode_counts, index_of};

    fn of(durations: &[u64]) -> Histogram {
        let mut counts = vec![0; BUCKETS];
        durations.iter().for_each(|micros| counts[index_of(*micros)] += 1);
        Histogram::decode(BOUNDS, &encode_counts(&counts)).unwrap()
    }

    /// Each bucket's upper end, seconds, and its count.
    fn ends(buckets: &NativeBuckets) -> Vec<(f64, i64)> {
        let (mut number, mut count) = (0, 0);
        let mut deltas = buckets.deltas.iter();
        let mut ends = Vec::new();
        for span in &buckets.spans {
            number += span.offset;
            for _ in 0..span.length {
                count += deltas.next().unwrap();
                ends.push(((f64::from(number) / f64::from(1 << buckets.schema)).exp2(), count));
                number += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        ends
    }

    #[test]
    fn a_native_histogram_has_few_buckets_however_far_durations_are_apart() {
        let everywhere: Vec<_> =
            (0..BUCKETS).map(value_of).filter(|micros| (1..=latency::HIGHEST).contains(micros)).collect();
        let native = of(&everywhere).native();
        assert!(native.deltas.len() <= MOST_BUCKETS, "{}", native.deltas.len());
        assert_eq!(native.schema, 2);
        let near = of(&[1_000, 1_001, 1_100, 2_000]).native();
        assert_eq!((near.schema, near.deltas.len()), (FINEST, 3), "{near:?}");
        assert_eq!(of(&[]).native(), NativeBuckets { schema: FINEST, spans: vec![], deltas: vec![] });
    }

    #[test]
    fn counts_that_cannot_be_added_up_are_none() {
        assert_eq!(Histogram::decode(BOUNDS, &encode_counts(&[0, u64::MAX, u64::MAX])), None);
        let half = encode_counts(&[0, 1 << 62]);
        assert_eq!(Histogram::sum(BOUNDS, [&half[..], &half]), None);
        assert_eq!(Histogram::decode(BOUNDS, "no histogram"), None);
    }

    proptest! {
        #[test]
        fn every_duration_is_in_the_bucket_that_ends_next_above_it(micros in 1..latency::HIGHEST) {
            let ends = ends(&of(&[micros]).native());
            prop_assert_eq!(ends.len(), 1);
            let (end, count) = ends[0];
            // The counters of the document are 1/128 wide at most, a bucket is 1/32 of a power of two.
            let took = seconds(micros);
            prop_assert!(count == 1 && took <= end * 1.008 && took > end * (-1.0_f64 / 32.0).exp2() / 1.008, "{took} {end}");
        }

        #[test]
        fn nothing_is_lost_between_the_forms(durations in prop::collection::vec(1..latency::HIGHEST, 0..300)) {
            let histogram = of(&durations);
            let all = durations.len() as u64;
            prop_assert_eq!(histogram.count(), all);
            prop_assert_eq!(histogram.classic().last(), Some((f64::INFINITY, all)));
            prop_assert_eq!(ends(&histogram.native()).iter().map(|(_, count)| count).sum::<i64>() as u64, all);
            for (bound, below) in histogram.classic() {
                let exact = durations.iter().filter(|micros| seconds(value_of(index_of(**micros))) <= bound).count();
                prop_assert_eq!(below, exact as u64);
            }
            let exact: f64 = durations.iter().map(|micros| seconds(*micros)).sum();
            prop_assert!((histogram.total_seconds() - exact).abs() <= exact * 0.01 + 1e-6);
            let both = Histogram::sum(BOUNDS, [&encoded(&durations)[..], &encoded(&durations)]).unwrap();
            prop_assert_eq!(both.count(), 2 * all);
        }
    }

    fn encoded(durations: &[u64]) -> String {
        let mut counts = vec![0; BUCKETS];
        durations.iter().for_each(|micros| counts[index_of(*micros)] += 1);
        encode_counts(&counts)
    }
}
