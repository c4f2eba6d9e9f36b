//! The workers.

use rwsgi_stats::{Core, Recycled, Responses, Snapshot, Worker};

use crate::model::{Family, Kind, Label, Value};
use crate::server::Figure;

#[rustfmt::skip]
const FIGURES: &[Figure<Worker>] = &[
    ("rwsgi_worker_requests_total", "Requests completed", Kind::Counter, |w| Some(Value::Integer(w.requests))),
    ("rwsgi_worker_exceptions_total", "Requests in which the application raised an exception", Kind::Counter, |w| Some(Value::Integer(w.exceptions))),
    ("rwsgi_worker_harakiri_total", "Requests ended for running too long", Kind::Counter, |w| Some(Value::Integer(w.harakiri_count))),
    ("rwsgi_worker_starts_total", "Processes started for the worker", Kind::Counter, |w| Some(Value::Integer(w.respawn_count))),
    ("rwsgi_worker_sent_bytes_total", "Bytes sent to clients, heads included", Kind::Counter, |w| Some(Value::Integer(w.tx))),
    ("rwsgi_worker_read_errors_total", "Requests that could not be read whole", Kind::Counter, |w| threads(w, |c| c.read_errors)),
    ("rwsgi_worker_write_errors_total", "Responses that could not be sent whole", Kind::Counter, |w| threads(w, |c| c.write_errors)),
    // uWSGI counts a request's time at its end.
    ("rwsgi_worker_busy_seconds_total", "Time in requests, summed over threads, requests in progress included", Kind::Counter, |w| Some(Value::seconds(w.busy_time.unwrap_or(w.running_time)))),
    ("rwsgi_worker_cpu_seconds_total", "Processor time, user and system", Kind::Counter, |w| w.cpu_time.map(Value::seconds)),
    ("rwsgi_worker_gil_wait_seconds_total", "Time that threads waited for Python's global lock", Kind::Counter, |w| w.gil_wait.map(Value::seconds)),
    ("rwsgi_worker_gc_seconds_total", "Time in garbage collections", Kind::Counter, |w| w.gc.map(|gc| Value::seconds(gc.time))),
    ("rwsgi_worker_up", "1 when the worker has a process", Kind::Gauge, |w| Some(Value::flag(w.pid > 0))),
    ("rwsgi_worker_accepting", "1 when the worker takes new requests", Kind::Gauge, |w| Some(Value::Integer(w.accepting.into()))),
    ("rwsgi_worker_cores", "Threads", Kind::Gauge, |w| threads(w, |_| 1)),
    ("rwsgi_worker_cores_busy", "Threads in a request", Kind::Gauge, |w| threads(w, |c| c.in_request.into())),
    ("rwsgi_worker_resident_memory_bytes", "Resident memory", Kind::Gauge, |w| known(w.rss)),
    ("rwsgi_worker_virtual_memory_bytes", "Address space", Kind::Gauge, |w| known(w.vsz)),
    ("rwsgi_worker_proportional_memory_bytes", "Resident memory, shared pages divided among those who share them", Kind::Gauge, |w| known(w.pss?)),
    ("rwsgi_worker_unique_memory_bytes", "Memory that only this process has", Kind::Gauge, |w| known(w.uss?)),
    ("rwsgi_worker_start_time_seconds", "When the process started, unix time", Kind::Gauge, |w| known(w.last_spawn)),
];

/// What is never 0 of a process, and is 0 when it is not known or there is none.
fn known(value: u64) -> Option<Value> {
    (value > 0).then_some(Value::Integer(value))
}

/// A sum over threads; `None` when the document leaves them out.
fn threads(worker: &Worker, count: fn(&Core) -> u64) -> Option<Value> {
    let sum = worker.cores.iter().fold(0_u64, |sum, core| sum.saturating_add(count(core)));
    (!worker.cores.is_empty()).then_some(Value::Integer(sum))
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

/// The workers that have a number: uWSGI sends 0 for each that never ran.
pub(crate) fn numbered(snapshot: &Snapshot) -> impl Iterator<Item = &Worker> {
    snapshot.workers.iter().filter(|worker| worker.id > 0)
}

/// Adds the families of workers.
pub(crate) fn add<'a>(families: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    let count = snapshot.workers.len();
    for &(name, help, kind, value) in FIGURES {
        let mut family = Family::new(name, help, kind, &["worker"], count);
        for worker in numbered(snapshot) {
            if let Some(value) = value(worker) {
                family.push([Label::Number(worker.id)], value);
            }
        }
        families.push(family);
    }
    let help = "Responses by class of status code";
    let name = "rwsgi_worker_responses_total";
    let mut family = Family::new(name, help, Kind::Counter, &["worker", "class"], 5 * count);
    for worker in numbered(snapshot) {
        for (class, count) in worker.responses.as_ref().map(classes).into_iter().flatten() {
            family.push([Label::Number(worker.id), Label::Text(class)], Value::Integer(count));
        }
    }
    families.push(family);
    let help = "Garbage collections, by generation of objects";
    let name = "rwsgi_worker_gc_collections_total";
    let mut family = Family::new(name, help, Kind::Counter, &["worker", "generation"], 3 * count);
    for worker in numbered(snapshot) {
        for (generation, count) in (0..).zip(worker.gc.iter().flat_map(|gc| gc.by_generation)) {
            family.push([Label::Number(worker.id), Label::Number(generation)], Value::Integer(count));
        }
    }
    families.push(family);
    let help = "Processes that ended, by reason";
    let name = "rwsgi_worker_recycled_total";
    let mut family = Family::new(name, help, Kind::Counter, &["worker", "reason"], 8 * count);
    for worker in numbered(snapshot) {
        for (reason, count) in worker.recycled.as_ref().map(reasons).into_iter().flatten() {
            family.push([Label::Number(worker.id), Label::Text(reason)], Value::Integer(count));
        }
    }
    families.push(family);
}
