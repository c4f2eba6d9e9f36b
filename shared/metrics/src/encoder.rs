//! How metrics are written for Prometheus: numbers, and histograms with its buckets.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use rwsgi_stats::latency;

/// Upper bounds of the latency buckets, seconds; the last one is for everything above.
const BOUNDS: [f64; 18] = [
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    60.0,
    f64::INFINITY,
];

/// Writes metrics one after another.
pub(crate) struct Encoder<'a, 'b>(pub(super) &'a mut DescriptorEncoder<'b>);

impl Encoder<'_, '_> {
    /// A number that comes and goes.
    pub(crate) fn level(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A counter of every worker that has several kinds.
    pub(crate) fn split<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        workers: impl Iterator<Item = (u32, [(&'static str, u64); N])>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (id, kinds) in workers {
            for (kind, count) in kinds {
                let labels = (&[("worker", id)][..], &[(label, kind)][..]);
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
            }
        }
        Ok(())
    }

    /// A histogram of µs in the document's form.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, encoded: Option<&str>) -> fmt::Result {
        // Our own snapshot's text always reads back.
        let histogram = encoded.and_then(|text| latency::decode(text).ok()).unwrap_or_else(latency::empty);
        self.distribution(name, help, &histogram)
    }

    /// A histogram of µs.
    pub(crate) fn distribution(&mut self, name: &str, help: &str, histogram: &latency::Histogram) -> fmt::Result {
        // A sum that overflows says nothing.
        let none = latency::empty();
        let histogram = if histogram.len() == u64::MAX { &none } else { histogram };
        let (sum, buckets) = buckets(BOUNDS, histogram);
        self.0
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, histogram.len(), &buckets, None)
    }
}

/// The sum of a histogram of µs, and the counts up to each bound, both in seconds.
pub(crate) fn buckets<const N: usize>(bounds: [f64; N], histogram: &latency::Histogram) -> (f64, [(f64, u64); N]) {
    let mut buckets = bounds.map(|bound| (bound, 0));
    let mut sum = 0.0;
    for step in histogram.iter_recorded() {
        let (value, count) = (step.value_iterated_to(), step.count_since_last_iteration());
        sum += seconds(histogram.median_equivalent(value)) * count as f64;
        let lowest = seconds(histogram.lowest_equivalent(value));
        if let Some(bucket) = buckets.iter_mut().find(|(bound, _)| lowest <= *bound) {
            bucket.1 += count;
        }
    }
    (sum, buckets)
}

/// µs as Prometheus wants them.
pub(crate) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
