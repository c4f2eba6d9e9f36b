//! The stats document as Prometheus reads it (OpenMetrics text). What to tell of a worker is a table; times are
//! seconds and names are `rwsgi_*`, as is the custom there.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use rwsgi_stats::{Recycled, Responses, Snapshot, Worker, latency};

use super::{shared_metrics, spooler_metrics};

/// The type of [`text()`]'s result.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

/// A figure of every worker.
struct Figure {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: Value,
}

enum Value {
    /// Only grows.
    Count(fn(&Worker) -> u64),
    /// µs that only grow.
    Time(fn(&Worker) -> Option<u64>),
    /// Comes and goes.
    Level(fn(&Worker) -> u64),
}

const fn figure(name: &'static str, help: &'static str, unit: Option<Unit>, value: Value) -> Figure {
    Figure { name, help, unit, value }
}

#[rustfmt::skip]
const FIGURES: &[Figure] = &[
    figure("requests", "Requests completed", None, Value::Count(|w| w.requests)),
    figure("exceptions", "Requests in which the application raised an exception", None, Value::Count(|w| w.exceptions)),
    figure("harakiri", "Requests ended for running too long", None, Value::Count(|w| w.harakiri_count)),
    figure("starts", "Processes started for the worker", None, Value::Count(|w| w.respawn_count)),
    figure("sent", "Bytes sent to clients, heads included", Some(Unit::Bytes), Value::Count(|w| w.tx)),
    figure("read_errors", "Requests that could not be read whole", None, Value::Count(|w| threads(w, |c| c.read_errors))),
    figure("write_errors", "Responses that could not be sent whole", None, Value::Count(|w| threads(w, |c| c.write_errors))),
    figure("busy", "Time in requests, summed over threads, requests in progress included", Some(Unit::Seconds), Value::Time(|w| w.busy_time)),
    figure("cpu", "Processor time, user and system", Some(Unit::Seconds), Value::Time(|w| w.cpu_time)),
    figure("gil_wait", "Time that threads waited for Python's global lock", Some(Unit::Seconds), Value::Time(|w| w.gil_wait)),
    figure("up", "1 when the worker has a process", None, Value::Level(|w| u64::from(w.pid > 0))),
    figure("accepting", "1 when the worker takes new requests", None, Value::Level(|w| w.accepting.into())),
    figure("cores", "Threads", None, Value::Level(|w| w.cores.len() as u64)),
    figure("cores_busy", "Threads in a request", None, Value::Level(|w| threads(w, |c| c.in_request.into()))),
    figure("resident_memory", "Resident memory", Some(Unit::Bytes), Value::Level(|w| w.rss)),
    figure("virtual_memory", "Address space", Some(Unit::Bytes), Value::Level(|w| w.vsz)),
    figure("proportional_memory", "Resident memory, shared pages divided among those who share them", Some(Unit::Bytes), Value::Level(|w| w.pss.unwrap_or(0))),
    figure("unique_memory", "Memory that only this process has", Some(Unit::Bytes), Value::Level(|w| w.uss.unwrap_or(0))),
    figure("start_time", "When the process started, unix time", Some(Unit::Seconds), Value::Level(|w| w.last_spawn)),
];

fn threads(worker: &Worker, count: fn(&rwsgi_stats::Core) -> u64) -> u64 {
    worker.cores.iter().map(count).sum()
}

fn classes(responses: &Responses) -> [(&'static str, u64); 5] {
    let Responses { informational, success, redirect, client_error, server_error } = *responses;
    [("1xx", informational), ("2xx", success), ("3xx", redirect), ("4xx", client_error), ("5xx", server_error)]
}

fn reasons(recycled: &Recycled) -> [(&'static str, u64); 8] {
    let Recycled { max_requests, rss, address_space, lifetime, harakiri, crash, reload, idle } = *recycled;
    [
        ("max_requests", max_requests),
        ("rss", rss),
        ("as", address_space),
        ("lifetime", lifetime),
        ("harakiri", harakiri),
        ("crash", crash),
        ("reload", reload),
        ("idle", idle),
    ]
}

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

        for Figure { name, help, unit, value } in FIGURES {
            let name = format!("worker_{name}");
            let kind = if matches!(value, Value::Level(_)) { MetricType::Gauge } else { MetricType::Counter };
            let mut metric = out.0.encode_descriptor(&name, help, unit.as_ref(), kind)?;
            for worker in &snapshot.workers {
                let labels = [("worker", worker.id)];
                let mut metric = metric.encode_family(&labels)?;
                match value {
                    Value::Count(of) => metric.encode_counter::<NoLabelSet, _, f64>(&of(worker), None)?,
                    Value::Time(of) => {
                        metric.encode_counter::<NoLabelSet, _, f64>(&seconds(of(worker).unwrap_or(0)), None)?;
                    }
                    Value::Level(of) => metric.encode_gauge(&of(worker))?,
                }
            }
        }
        let split = snapshot.workers.iter().map(|w| (w.id, classes(&w.responses.unwrap_or_default())));
        out.split("worker_responses", "Responses by class of status code", "class", split)?;
        let split = snapshot.workers.iter().map(|w| (w.id, reasons(&w.recycled.unwrap_or_default())));
        out.split("worker_recycled", "Processes that ended, by reason", "reason", split)?;

        out.histogram("request_duration", "Latency of requests", snapshot.latency.as_deref())?;
        let queue = snapshot.queue.clone().unwrap_or_default();
        out.level("queue_depth", "Connections and requests that wait", None, queue.depth)?;
        out.level("queue_capacity", "The most that may wait", None, queue.capacity)?;
        out.0
            .encode_descriptor("queue_rejected", "Turned away because a queue was full", None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&queue.rejected, None)?;
        out.histogram("queue_waiting", "How long requests waited in the router", Some(&queue.waiting))?;

        let mut metric = out.0.encode_descriptor(
            "socket_backlog",
            "Connections that wait to be accepted",
            None,
            MetricType::Gauge,
        )?;
        for socket in &snapshot.sockets {
            metric.encode_family(&[("socket", socket.name.as_str())])?.encode_gauge(&socket.queue)?;
        }
        spooler_metrics::encode(&mut out, snapshot)?;
        shared_metrics::encode(&mut out, snapshot)
    }
}

pub(super) struct Encoder<'a, 'b>(pub(super) &'a mut DescriptorEncoder<'b>);

impl Encoder<'_, '_> {
    fn level(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A counter of every worker that has several kinds.
    fn split<const N: usize>(
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

    fn histogram(&mut self, name: &str, help: &str, encoded: Option<&str>) -> fmt::Result {
        // Our own snapshot's text always reads back.
        let histogram = encoded.and_then(|text| latency::decode(text).ok()).unwrap_or_else(latency::empty);
        self.distribution(name, help, &histogram)
    }

    /// A histogram of µs.
    pub(super) fn distribution(&mut self, name: &str, help: &str, histogram: &latency::Histogram) -> fmt::Result {
        let mut buckets = BOUNDS.map(|bound| (bound, 0));
        let mut sum = 0.0;
        for step in histogram.iter_recorded() {
            let (value, count) = (step.value_iterated_to(), step.count_since_last_iteration());
            sum += seconds(histogram.median_equivalent(value)) * count as f64;
            let lowest = seconds(histogram.lowest_equivalent(value));
            if let Some(bucket) = buckets.iter_mut().find(|(bound, _)| lowest <= *bound) {
                bucket.1 += count;
            }
        }
        self.0
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, histogram.len(), &buckets, None)
    }
}

pub(super) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_line() {
        let mut counts = vec![0; latency::BUCKETS];
        counts[latency::index_of(2_000)] = 3;
        counts[latency::index_of(90_000_000)] = 1;
        let worker = Worker {
            id: 2,
            pid: 9,
            requests: 4,
            busy_time: Some(1_500_000),
            responses: Some(Responses { success: 3, server_error: 1, ..Responses::default() }),
            ..Worker::default()
        };
        let snapshot = Snapshot {
            version: "1.2".into(),
            workers: vec![worker],
            latency: Some(latency::encode_counts(&counts)),
            ..Snapshot::default()
        };
        let text = text(snapshot);
        for line in [
            "rwsgi_server_info{version=\"1.2\",python=\"\",hostname=\"\"} 1",
            "rwsgi_worker_requests_total{worker=\"2\"} 4",
            "rwsgi_worker_busy_seconds_total{worker=\"2\"} 1.5",
            "rwsgi_worker_responses_total{worker=\"2\",class=\"5xx\"} 1",
            "rwsgi_worker_recycled_total{worker=\"2\",reason=\"crash\"} 0",
            "rwsgi_request_duration_seconds_bucket{le=\"0.001\"} 0",
            "rwsgi_request_duration_seconds_bucket{le=\"0.0025\"} 3",
            "rwsgi_request_duration_seconds_bucket{le=\"60.0\"} 3",
            "rwsgi_request_duration_seconds_bucket{le=\"+Inf\"} 4",
            "rwsgi_request_duration_seconds_count 4",
            "rwsgi_queue_depth 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|known| known == line), "no {line} in\n{text}");
        }
    }
}
