//! The stats as metrics of OTLP: names of OpenTelemetry's conventions where there is one, `rwsgi.*` elsewhere. All sums are
//! cumulative since the server's start.

use std::collections::HashMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};
use rwsgi_stats::{Phases, Snapshot, Worker, latency, saturation};

use super::values::{attribute, number, text};

/// The bounds that the conventions advise for the duration of requests, s.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// What kind of number a metric is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It only grows.
    Counter,
    /// It adds up over servers, and may fall.
    UpDown,
    /// A measurement.
    Gauge,
}

/// What a number of a worker is: its name, unit, description, kind, and where it is found.
type OfWorker = (&'static str, &'static str, &'static str, Kind, fn(&Worker) -> Option<f64>);

fn of_micros(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[rustfmt::skip]
const WORKERS: &[OfWorker] = &[
    ("rwsgi.worker.requests", "{request}", "Requests completed", Kind::Counter, |w| Some(w.requests as f64)),
    ("rwsgi.worker.exceptions", "{exception}", "Requests in which the application raised an exception", Kind::Counter, |w| Some(w.exceptions as f64)),
    ("rwsgi.worker.harakiri", "{request}", "Requests that were ended for running too long", Kind::Counter, |w| Some(w.harakiri_count as f64)),
    ("rwsgi.worker.starts", "{process}", "Processes started", Kind::Counter, |w| Some(w.respawn_count as f64)),
    ("rwsgi.worker.sent", "By", "Bytes sent to clients", Kind::Counter, |w| Some(w.tx as f64)),
    ("rwsgi.worker.busy_time", "s", "Time in requests, of all threads", Kind::Counter, |w| w.busy_time.map(of_micros)),
    ("rwsgi.worker.gil_wait", "s", "Time that threads waited for Python's global lock", Kind::Counter, |w| w.gil_wait.map(of_micros)),
    ("process.cpu.time", "s", "Processor time of the worker's processes", Kind::Counter, |w| w.cpu_time.map(of_micros)),
    ("process.memory.usage", "By", "Resident memory of the worker's process", Kind::UpDown, |w| Some(w.rss as f64)),
    ("process.memory.virtual", "By", "Address space of the worker's process", Kind::UpDown, |w| Some(w.vsz as f64)),
];

/// Makes metrics of snapshots, one after another.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Of each route, the requests that were counted last, and since when, unix ns: one that loses its row and gets
    /// another begins at 0.
    routes: HashMap<String, (u64, u64)>,
    before: u64,
}

/// Adds metrics that are of one moment.
struct Out {
    list: Vec<Metric>,
    start: u64,
    now: u64,
}

impl Metrics {
    /// The metrics of a snapshot.
    pub(super) fn of(&mut self, snapshot: &Snapshot) -> Vec<Metric> {
        let start = snapshot.started_at.unwrap_or(0).saturating_mul(1_000);
        let now = snapshot.now.unwrap_or(0).saturating_mul(1_000);
        let mut out = Out { list: Vec::new(), start, now };
        self.durations(snapshot, &mut out);
        of_server(snapshot, &mut out);
        for (name, unit, description, kind, value) in WORKERS {
            let points = snapshot
                .workers
                .iter()
                .filter_map(|worker| Some((vec![attribute("rwsgi.worker", number(worker.id))], value(worker)?)));
            out.numbers(name, unit, description, *kind, points.collect());
        }
        responses(snapshot, &mut out);
        phases(snapshot.phases.as_ref(), &mut out);
        if let Some(queue) = &snapshot.queue {
            out.histogram(
                "rwsgi.queue.waiting",
                "How long requests waited in the http router",
                vec![(Vec::new(), queue.waiting.as_str(), start)],
            );
        }
        for (name, metric) in &snapshot.metrics {
            let kind = if metric.kind == 0 { Kind::Counter } else { Kind::Gauge };
            let name = format!("rwsgi.metric.{name}");
            out.numbers(
                &name,
                "",
                "A number that the application keeps",
                kind,
                vec![(Vec::new(), metric.value as f64)],
            );
        }
        self.before = now;
        out.list
    }

    /// The duration of requests, by route where routes are told apart.
    fn durations(&mut self, snapshot: &Snapshot, out: &mut Out) {
        let mut points = Vec::new();
        match &snapshot.routes {
            Some(routes) => {
                self.routes.retain(|name, _| routes.iter().any(|route| route.route == *name));
                for route in routes {
                    // One that was not there last time may have had a row, and lost it, before that.
                    let before = self.before.max(out.start);
                    let seen = self.routes.entry(route.route.clone()).or_insert((0, before));
                    if route.requests < seen.0 {
                        seen.1 = before;
                    }
                    seen.0 = route.requests;
                    let attributes = vec![attribute("http.route", text(route.route.as_str()))];
                    points.push((attributes, route.latency.as_str(), seen.1));
                }
            }
            None => points.extend(snapshot.latency.as_deref().map(|counts| (Vec::new(), counts, out.start))),
        }
        out.histogram("http.server.request.duration", "Duration of requests, with their wait", points);
    }
}

fn of_server(snapshot: &Snapshot, out: &mut Out) {
    let cores = || snapshot.workers.iter().flat_map(|worker| &worker.cores);
    let active = cores().filter(|core| core.in_request != 0).count();
    let sum = |count: fn(&Worker) -> u64| snapshot.workers.iter().map(count).sum::<u64>() as f64;
    let queue = snapshot.queue.clone().unwrap_or_default();
    let flag = |flag: Option<bool>| flag.map(|flag| f64::from(u8::from(flag)));
    #[rustfmt::skip]
    let rows: [(&str, &str, &str, Kind, Option<f64>); 12] = [
        ("http.server.active_requests", "{request}", "Requests in progress", Kind::UpDown, cores().next().map(|_| active as f64)),
        ("rwsgi.requests", "{request}", "Requests completed", Kind::Counter, Some(sum(|worker| worker.requests))),
        ("rwsgi.exceptions", "{exception}", "Requests in which the application raised an exception", Kind::Counter, Some(sum(|worker| worker.exceptions))),
        ("rwsgi.saturation", "1", "Busy threads and waiting requests, divided by all threads", Kind::Gauge, saturation(snapshot)),
        ("rwsgi.workers", "{process}", "Workers that have a process", Kind::UpDown, Some(sum(|worker| u64::from(worker.pid != 0)))),
        ("rwsgi.queue.depth", "{request}", "Requests and connections that wait", Kind::UpDown, Some(queue.depth as f64)),
        ("rwsgi.queue.capacity", "{request}", "The most that may wait", Kind::UpDown, Some(queue.capacity as f64)),
        ("rwsgi.queue.rejected", "{request}", "Turned away because a queue was full", Kind::Counter, Some(queue.rejected as f64)),
        ("rwsgi.slow_clients", "{connection}", "Connections closed because the client was too slow", Kind::Counter, snapshot.slow_clients.map(|count| count as f64)),
        ("rwsgi.generation", "{load}", "The generation (load of the application) that serves; it grows by one at each reload", Kind::Gauge, snapshot.generation.map(f64::from)),
        ("rwsgi.ready", "1", "1 when the server wants new requests", Kind::Gauge, flag(snapshot.ready)),
        ("rwsgi.draining", "1", "1 when the server was told to stop: it still accepts (drain-delay), or finishes what it has", Kind::Gauge, flag(snapshot.draining)),
    ];
    for (name, unit, description, kind, value) in rows {
        out.numbers(name, unit, description, kind, value.map(|value| (Vec::new(), value)).into_iter().collect());
    }
    if let Some(reloads) = snapshot.reloads {
        let points = [("done", reloads.done), ("failed", reloads.failed)];
        let point = |(result, count)| (vec![attribute("rwsgi.result", text(result))], count as f64);
        out.numbers("rwsgi.reloads", "{reload}", "Reloads", Kind::Counter, points.map(point).into());
    }
}

fn responses(snapshot: &Snapshot, out: &mut Out) {
    let mut sums = [0_u64; 5];
    for of in snapshot.workers.iter().filter_map(|worker| worker.responses) {
        let counts = [of.informational, of.success, of.redirect, of.client_error, of.server_error];
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let points = classes.into_iter().zip(sums);
    let points = points.map(|(class, count)| (vec![attribute("rwsgi.status_class", text(class))], count as f64));
    out.numbers("rwsgi.responses", "{response}", "Responses by class of status", Kind::Counter, points.collect());
}

fn phases(phases: Option<&Phases>, out: &mut Out) {
    let Some(Phases { queue, body, gil, application, write }) = phases else { return };
    let all = [("queue", queue), ("body", body), ("gil", gil), ("application", application), ("write", write)];
    let points = all.map(|(name, counts)| (vec![attribute("rwsgi.phase", text(name))], counts.as_str(), out.start));
    out.histogram("rwsgi.phase.duration", "How long the phases of requests took", points.into());
}

impl Out {
    fn numbers(&mut self, name: &str, unit: &str, description: &str, kind: Kind, points: Vec<(Vec<KeyValue>, f64)>) {
        if points.is_empty() {
            return;
        }
        let start = if kind == Kind::Gauge { 0 } else { self.start };
        let data_points = points.into_iter().map(|(attributes, value)| NumberDataPoint {
            attributes,
            start_time_unix_nano: start,
            time_unix_nano: self.now,
            // Counts are whole.
            value: Some(if unit == "s" || kind == Kind::Gauge {
                Value::AsDouble(value)
            } else {
                Value::AsInt(value as i64)
            }),
            ..NumberDataPoint::default()
        });
        let data_points = data_points.collect();
        let data = match kind {
            Kind::Gauge => Data::Gauge(Gauge { data_points }),
            _ => Data::Sum(Sum {
                data_points,
                aggregation_temporality: AggregationTemporality::Cumulative as i32,
                is_monotonic: kind == Kind::Counter,
            }),
        };
        self.add(name, unit, description, data);
    }

    /// Adds a histogram of seconds; `points` are its attributes, the counts as the document has them, and since when they
    /// count, unix ns.
    fn histogram(&mut self, name: &str, description: &str, points: Vec<(Vec<KeyValue>, &str, u64)>) {
        let point = |(attributes, counts, start): (Vec<KeyValue>, &str, u64)| {
            let counts = latency::decode(counts).ok()?;
            let mut bucket_counts = vec![0; BOUNDS.len() + 1];
            let mut sum = 0.0;
            for value in counts.iter_recorded() {
                let (at, count) = (of_micros(value.value_iterated_to()), value.count_since_last_iteration());
                sum += at * count as f64;
                bucket_counts[BOUNDS.partition_point(|bound| *bound < at)] += count;
            }
            let count = bucket_counts.iter().sum();
            Some(HistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: self.now,
                count,
                sum: Some(sum),
                bucket_counts,
                explicit_bounds: BOUNDS.to_vec(),
                ..HistogramDataPoint::default()
            })
        };
        let data_points: Vec<_> = points.into_iter().filter_map(point).collect();
        if data_points.is_empty() {
            return;
        }
        let aggregation_temporality = AggregationTemporality::Cumulative as i32;
        self.add(name, "s", description, Data::Histogram(Histogram { data_points, aggregation_temporality }));
    }

    fn add(&mut self, name: &str, unit: &str, description: &str, data: Data) {
        self.list.push(Metric {
            name: name.to_owned(),
            unit: unit.to_owned(),
            description: description.to_owned(),
            data: Some(data),
            ..Metric::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::{Core, Route};

    fn snapshot(requests: u64) -> Snapshot {
        let latency = latency::encode(&latency::from_counts([(latency::index_of(20_000), requests)]));
        let core = Core { in_request: 1, ..Core::default() };
        Snapshot {
            started_at: Some(5),
            now: Some(10 + requests),
            workers: vec![Worker { id: 1, pid: 9, requests, cores: vec![core], rss: 7, ..Worker::default() }],
            routes: Some(vec![Route { route: "/".into(), requests, latency, ..Route::default() }]),
            ..Snapshot::default()
        }
    }

    fn find<'a>(list: &'a [Metric], name: &str) -> &'a Data {
        list.iter().find(|metric| metric.name == name).and_then(|metric| metric.data.as_ref()).unwrap()
    }

    fn durations(list: &[Metric]) -> HistogramDataPoint {
        let Data::Histogram(histogram) = find(list, "http.server.request.duration") else { panic!() };
        histogram.data_points[0].clone()
    }

    #[test]
    fn metrics_are_cumulative_since_the_start() {
        let list = Metrics::default().of(&snapshot(3));
        let point = durations(&list);
        assert_eq!((point.count, point.start_time_unix_nano, point.time_unix_nano), (3, 5_000, 13_000));
        assert_eq!(point.bucket_counts[2], 3, "20 ms is between 10 and 25");
        assert!((point.sum.unwrap() - 0.06).abs() < 0.001);
        let Data::Sum(sum) = find(&list, "rwsgi.requests") else { panic!() };
        assert!(sum.is_monotonic && sum.aggregation_temporality == AggregationTemporality::Cumulative as i32);
        assert_eq!(sum.data_points[0].value, Some(Value::AsInt(3)));
        let Data::Sum(sum) = find(&list, "http.server.active_requests") else { panic!() };
        assert!(!sum.is_monotonic && sum.data_points[0].value == Some(Value::AsInt(1)));
        let mut names: Vec<_> = list.iter().map(|metric| &metric.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "each once");
    }

    #[test]
    fn a_route_that_begins_again_says_since_when_it_counts() {
        let mut metrics = Metrics::default();
        metrics.of(&snapshot(5));
        assert_eq!(durations(&metrics.of(&snapshot(6))).start_time_unix_nano, 5_000);
        assert_eq!(durations(&metrics.of(&snapshot(1))).start_time_unix_nano, 16_000);
        assert_eq!(durations(&metrics.of(&snapshot(2))).start_time_unix_nano, 16_000);
    }

    #[test]
    fn a_route_that_was_gone_says_since_when_it_counts() {
        let mut metrics = Metrics::default();
        metrics.of(&snapshot(5));
        metrics.of(&Snapshot { routes: Some(Vec::new()), ..snapshot(6) });
        assert_eq!(durations(&metrics.of(&snapshot(7))).start_time_unix_nano, 16_000);
    }
}
