//! The stats document as Prometheus reads it (OpenMetrics text). The metrics of a worker are a table; times are
//! seconds and names are `rwsgi_*`, as is the custom there.

mod encoder;
mod routes;
mod shared;
mod spoolers;
#[cfg(test)]
mod tests;
mod workers;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use rwsgi_stats::Snapshot;

use self::encoder::Encoder;

/// The type of [`text()`]'s result.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The document in OpenMetrics text.
#[must_use]
pub fn text(snapshot: Snapshot) -> String {
    let mut registry = Registry::with_prefix("rwsgi");
    registry.register_collector(Box::new(Metrics(snapshot)));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Metrics(Snapshot);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = &self.0;
        let mut out = Encoder(&mut encoder);
        let info = [
            ("version", snapshot.version.as_str()),
            ("python", snapshot.python.as_deref().unwrap_or_default()),
            ("hostname", snapshot.hostname.as_deref().unwrap_or_default()),
        ];
        out.0.encode_descriptor("server", "The server", None, MetricType::Info)?.encode_info(&info)?;
        out.level(
            "start_time",
            "When the master started, unix time",
            Some(&Unit::Seconds),
            snapshot.started_at.unwrap_or(0) / 1_000_000,
        )?;
        out.level("generation", "Loads of the application", None, snapshot.generation.unwrap_or(0).into())?;

        workers::encode(&mut out, snapshot)?;
        out.histogram("request_duration", "Latency of requests", snapshot.latency.as_deref())?;
        routes::encode(&mut out, snapshot)?;
        let queue = snapshot.queue.clone().unwrap_or_default();
        out.level("queue_depth", "Connections and requests that wait", None, queue.depth)?;
        out.level("queue_capacity", "The most that may wait", None, queue.capacity)?;
        out.0
            .encode_descriptor("queue_rejected", "Turned away because a queue was full", None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&queue.rejected, None)?;
        out.histogram("queue_waiting", "How long requests waited in the router", Some(&queue.waiting))?;
        let files = snapshot.temp_files.clone().unwrap_or_default();
        out.level("temp_files", "What temporary files hold", Some(&Unit::Bytes), files.bytes)?;
        out.level("temp_files_limit", "The most that they may hold; 0 for no limit", Some(&Unit::Bytes), files.limit)?;
        for (name, help, count) in [
            ("temp_files_refused", "Request bodies that got 503 because there was no space for them", files.refused),
            ("slow_clients", "Connections closed because the client was too slow", snapshot.slow_clients.unwrap_or(0)),
        ] {
            out.0
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }

        let mut metric = out.0.encode_descriptor(
            "socket_backlog",
            "Connections that wait to be accepted",
            None,
            MetricType::Gauge,
        )?;
        for socket in &snapshot.sockets {
            metric.encode_family(&[("socket", socket.name.as_str())])?.encode_gauge(&socket.queue)?;
        }
        spoolers::encode(&mut out, snapshot)?;
        shared::encode(&mut out, snapshot)
    }
}
