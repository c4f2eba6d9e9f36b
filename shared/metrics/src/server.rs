//! What there is one sample of for a whole server, and what it has of each socket and phase.

use rwsgi_stats::{Phases, Queue, Snapshot, TempFiles};

use crate::histogram::{BOUNDS, Histogram};
use crate::model::{Family, Kind, Label, Value};

/// A figure of the server: its name, what it is, how it behaves, and its value.
pub(crate) type Figure<T> = (&'static str, &'static str, Kind, fn(&T) -> Option<Value>);

#[rustfmt::skip]
const FIGURES: &[Figure<Snapshot>] = &[
    ("rwsgi_start_time_seconds", "When the master started, unix time", Kind::Gauge, |s| s.started_at.map(|at| Value::Integer(at / 1_000_000))),
    ("rwsgi_generation", "The generation (load of the application) that serves; it grows by one at each reload", Kind::Gauge, |s| s.generation.map(|number| Value::Integer(number.into()))),
    ("rwsgi_generation_start_time_seconds", "When the application that serves was loaded, unix time", Kind::Gauge, loaded_at),
    ("rwsgi_saturation", "Busy threads and waiting requests, divided by all threads", Kind::Gauge, |s| rwsgi_stats::saturation(s).map(Value::Real)),
    ("rwsgi_ready", "1 when the server wants new requests", Kind::Gauge, |s| s.ready.map(Value::flag)),
    ("rwsgi_draining", "1 when the server was told to stop: it still accepts (drain-delay), or finishes what it has", Kind::Gauge, |s| s.draining.map(Value::flag)),
    ("rwsgi_request_duration_seconds", "Latency of requests", Kind::Histogram, |s| histogram(s.latency.as_deref()?)),
    ("rwsgi_queue_depth", "Connections and requests that wait", Kind::Gauge, |s| of_queue(s, s.listen_queue, |queue| queue.depth)),
    ("rwsgi_queue_capacity", "The most connections and requests that may wait", Kind::Gauge, |s| s.queue.as_ref().map(|queue| Value::Integer(queue.capacity))),
    ("rwsgi_queue_rejected_total", "Connections and requests turned away because a queue was full", Kind::Counter, |s| of_queue(s, s.listen_queue_errors, |queue| queue.rejected)),
    ("rwsgi_queue_waiting_seconds", "How long requests waited in the http router", Kind::Histogram, |s| histogram(&s.queue.as_ref()?.waiting)),
    ("rwsgi_temp_files_bytes", "Bytes in temporary files", Kind::Gauge, |s| files(s, |files| files.bytes)),
    ("rwsgi_temp_files_limit_bytes", "The most that temporary files may hold; 0 for no limit", Kind::Gauge, |s| files(s, |files| files.limit)),
    ("rwsgi_temp_files_refused_total", "Request bodies that got 503 because there was no space for them", Kind::Counter, |s| files(s, |files| files.refused)),
    ("rwsgi_reload_on_rss_bytes", "A worker is replaced above this resident memory", Kind::Gauge, |s| s.limits.as_ref().map(|limits| limits.reload_on_rss).filter(|bytes| *bytes > 0).map(Value::Integer)),
    ("rwsgi_slow_clients_total", "Connections closed because the client was too slow", Kind::Counter, |s| s.slow_clients.map(Value::Integer)),
];

/// A phase of requests, and its histogram.
type Phase = (&'static str, fn(&Phases) -> &str);

const PHASES: [Phase; 5] = [
    ("queue", |phases| &phases.queue),
    ("body", |phases| &phases.body),
    ("gil", |phases| &phases.gil),
    ("application", |phases| &phases.application),
    ("write", |phases| &phases.write),
];

fn histogram(text: &str) -> Option<Value> {
    Some(Value::Histogram(Box::new(Histogram::decode(BOUNDS, text)?)))
}

/// Servers of a fleet are compared by it: the number of a generation begins at 1 with each start.
fn loaded_at(snapshot: &Snapshot) -> Option<Value> {
    let serving =
        snapshot.generations.as_ref()?.iter().find(|generation| Some(generation.generation) == snapshot.generation)?;
    Some(Value::seconds(serving.started_at))
}

/// A number of our queue; of uWSGI, which has none, what it says instead. An emperor has none of either.
fn of_queue(snapshot: &Snapshot, else_of_uwsgi: u64, of: fn(&Queue) -> u64) -> Option<Value> {
    let is_server = snapshot.vassals.is_none();
    snapshot.queue.as_ref().map(of).or(is_server.then_some(else_of_uwsgi)).map(Value::Integer)
}

fn files(snapshot: &Snapshot, of: fn(&TempFiles) -> u64) -> Option<Value> {
    snapshot.temp_files.as_ref().map(of).map(Value::Integer)
}

/// Adds a family for each figure.
pub(crate) fn add_figures<T>(families: &mut Vec<Family<'_>>, figures: &[Figure<T>], of: &T) {
    for &(name, help, kind, value) in figures {
        if let Some(value) = value(of) {
            let mut family = Family::new(name, help, kind, &[], 1);
            family.push([], value);
            families.push(family);
        }
    }
}

/// Adds the server's families.
pub(crate) fn add<'a>(families: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    let mut info = Family::new(
        "rwsgi_server_info",
        "Versions and name of the server: always 1",
        Kind::Info,
        &["version", "python", "hostname"],
        1,
    );
    let text = |text: &'a Option<String>| Label::Text(text.as_deref().unwrap_or_default());
    info.push([Label::Text(&snapshot.version), text(&snapshot.python), text(&snapshot.hostname)], Value::Integer(1));
    families.push(info);
    add_figures(families, FIGURES, snapshot);

    let help = "Reloads of the application, by outcome";
    let mut reloads = Family::new("rwsgi_reloads_total", help, Kind::Counter, &["result"], 2);
    if let Some(counts) = snapshot.reloads {
        reloads.push([Label::Text("done")], Value::Integer(counts.done));
        reloads.push([Label::Text("failed")], Value::Integer(counts.failed));
    }
    families.push(reloads);

    let help = "How long the phases of requests took";
    let mut durations = Family::new("rwsgi_phase_duration_seconds", help, Kind::Histogram, &["phase"], PHASES.len());
    if let Some(phases) = &snapshot.phases {
        for (phase, of) in PHASES {
            if let Some(value) = histogram(of(phases)) {
                durations.push([Label::Text(phase)], value);
            }
        }
    }
    families.push(durations);

    let help = "Connections that wait to be accepted";
    let count = snapshot.sockets.len();
    let mut backlog = Family::new("rwsgi_socket_backlog", help, Kind::Gauge, &["socket"], count);
    for (at, socket) in snapshot.sockets.iter().enumerate() {
        // uWSGI lists a socket once for each protocol.
        if snapshot.sockets[..at].iter().all(|other| other.name != socket.name) {
            backlog.push([Label::Text(&socket.name)], Value::Integer(socket.queue));
        }
    }
    families.push(backlog);
}
