//! Requests by route, in the text for Prometheus. There are at most as many values of the label as the stats have routes.

use std::fmt;

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use rwsgi_stats::{Route, Snapshot, latency};

use super::workers::classes;
use crate::encoder::{Encoder, buckets, seconds};

/// Upper bounds of the latency buckets, seconds: fewer than of all requests together, since each route has them.
const BOUNDS: [f64; 8] = [0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, f64::INFINITY];

/// A figure of every route: its name, what it is, its unit, and its value.
type Figure = (&'static str, &'static str, Option<Unit>, Value);

enum Value {
    Count(fn(&Route) -> u64),
    /// µs.
    Time(fn(&Route) -> u64),
}

#[rustfmt::skip]
const FIGURES: &[Figure] = &[
    ("requests", "Requests completed, by route", None, Value::Count(|route| route.requests)),
    ("exceptions", "Requests in which the application raised an exception, by route", None, Value::Count(|route| route.exceptions)),
    ("sent", "Bytes sent to clients, heads included, by route", Some(Unit::Bytes), Value::Count(|route| route.tx)),
    ("busy", "Time in completed requests, by route", Some(Unit::Seconds), Value::Time(|route| route.busy_time)),
    ("gil_wait", "Time that requests waited for Python's global lock, by route", Some(Unit::Seconds), Value::Time(|route| route.gil_wait)),
];

/// Writes the metrics of routes.
pub(crate) fn encode(out: &mut Encoder<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
    let Some(routes) = &snapshot.routes else { return Ok(()) };
    for (name, help, unit, value) in FIGURES {
        let name = format!("route_{name}");
        let mut metric = out.0.encode_descriptor(&name, help, unit.as_ref(), MetricType::Counter)?;
        for route in routes {
            let labels = [("route", route.route.as_str())];
            let mut metric = metric.encode_family(&labels)?;
            match value {
                Value::Count(of) => metric.encode_counter::<NoLabelSet, _, f64>(&of(route), None)?,
                Value::Time(of) => metric.encode_counter::<NoLabelSet, _, f64>(&seconds(of(route)), None)?,
            }
        }
    }
    let help = "Responses by route and class of status code";
    let mut metric = out.0.encode_descriptor("route_responses", help, None, MetricType::Counter)?;
    for route in routes {
        for (class, count) in classes(&route.responses).into_iter().filter(|(_, count)| *count > 0) {
            let labels = [("route", route.route.as_str()), ("class", class)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
    }
    let help = "Latency of requests, by route";
    let mut metric = out.0.encode_descriptor("route_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for route in routes {
        // Our own snapshot's text always reads back.
        let histogram = latency::decode(&route.latency).unwrap_or_else(|_| latency::empty());
        let (sum, buckets) = buckets(BOUNDS, &histogram);
        let labels = [("route", route.route.as_str())];
        metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, histogram.len(), &buckets, None)?;
    }
    Ok(())
}
