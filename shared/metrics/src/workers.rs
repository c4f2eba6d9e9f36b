//! The workers, in the text for Prometheus.

use std::fmt;

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use rwsgi_stats::{Recycled, Responses, Snapshot, Worker};

use crate::encoder::{Encoder, seconds};

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

pub(crate) fn classes(responses: &Responses) -> [(&'static str, u64); 5] {
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

/// Writes the metrics of workers.
pub(crate) fn encode(out: &mut Encoder<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
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
    out.split("worker_recycled", "Processes that ended, by reason", "reason", split)
}
