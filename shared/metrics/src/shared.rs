//! What the application's processes share (its metrics and caches), in the text for Prometheus.

use std::fmt;

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use rwsgi_stats::{Cache, Snapshot};

use crate::encoder::Encoder;

/// A figure of every cache: its name, what it is, whether it only grows, and its value.
type Figure = (&'static str, &'static str, bool, fn(&Cache) -> u64);

#[rustfmt::skip]
const FIGURES: &[Figure] = &[
    ("cache_items", "Items in the cache", false, |cache| cache.items),
    ("cache_capacity", "Items that the cache has space for", false, |cache| cache.max_items),
    ("cache_hits", "Questions that found something", true, |cache| cache.hits),
    ("cache_misses", "Questions that found nothing", true, |cache| cache.miss),
    ("cache_full", "Items that found no space", true, |cache| cache.full),
];

/// Writes the metrics of what processes share.
pub(crate) fn encode(out: &mut Encoder<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
    if !snapshot.caches.is_empty() {
        for (name, help, grows, value) in FIGURES {
            let kind = if *grows { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = out.0.encode_descriptor(name, help, None, kind)?;
            for cache in &snapshot.caches {
                let labels = [("cache", cache.name.as_str())];
                let mut metric = metric.encode_family(&labels)?;
                if *grows {
                    metric.encode_counter::<NoLabelSet, _, f64>(&value(cache), None)?;
                } else {
                    metric.encode_gauge(&value(cache))?;
                }
            }
        }
    }
    if !snapshot.metrics.is_empty() {
        // Whatever the application says of them, it may set them to anything.
        let help = "Numbers that the application keeps";
        let mut metric = out.0.encode_descriptor("application_metric", help, None, MetricType::Gauge)?;
        for (name, found) in &snapshot.metrics {
            metric.encode_family(&[("name", name.as_str())])?.encode_gauge(&found.value)?;
        }
    }
    Ok(())
}
