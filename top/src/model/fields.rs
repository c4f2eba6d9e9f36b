//! What is told of routes and of slow requests: a table of fields each, as [`COLUMNS`](super::columns::COLUMNS) is of workers.
//! The screen and the docs are made from them.

use std::sync::Arc;

use jiff::tz::TimeZone;
use rwsgi_stats::SlowRequest;

use super::RouteRow;
use super::columns::Key;
use super::slow::{PHASES, phase_times};
use crate::format;

/// For times of day.
#[derive(Debug)]
pub(crate) struct Clock {
    /// When the sample was taken, unix seconds.
    pub(crate) now: u64,
    /// The user's.
    pub(crate) zone: TimeZone,
}

/// A row of a table of fields.
#[derive(Debug)]
pub(crate) struct Field<T> {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its title on the screen.
    pub(crate) title: &'static str,
    /// Characters that it always takes.
    pub(crate) width: u16,
    /// Numbers stand to the right.
    pub(crate) right: bool,
    /// Takes what room is left.
    pub(crate) grows: bool,
    /// 0 stays longest when the pane narrows.
    pub(crate) rank: u8,
    /// What is shown; `None` where nothing is known.
    pub(crate) text: fn(&T, &Clock) -> Option<String>,
    /// What it sorts by: numbers from the largest, texts from A.
    pub(crate) key: fn(&T) -> Key,
    /// A line for help and docs.
    pub(crate) help: &'static str,
}

fn number(value: impl Into<Option<u64>>) -> Key {
    value.into().map_or(Key::Nothing, |value| Key::Number(value as f64))
}

fn fraction(value: Option<f64>) -> Key {
    value.map_or(Key::Nothing, Key::Number)
}

fn text(value: &str) -> Key {
    if value.is_empty() { Key::Nothing } else { Key::Text(value.to_owned()) }
}

fn told(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn exception(row: &RouteRow) -> Option<String> {
    let exception = row.last_exception.as_ref()?;
    let kind = exception.kind.clone();
    Some(if exception.message.is_empty() { kind } else { format!("{kind}: {}", exception.message) })
}

/// Bytes with their sign.
pub(crate) fn signed_size(bytes: f64) -> String {
    let sign = if bytes < 0.0 { "-" } else { "+" };
    format!("{sign}{}", format::size(bytes.abs() as u64))
}

macro_rules! fields {
    ($($name:literal $title:literal $width:literal $align:ident $rank:literal $help:literal $text:expr, $key:expr;)*) => {
        &[$(Field {
            name: $name, title: $title, width: $width, right: fields!(@right $align), grows: fields!(@grows $align),
            rank: $rank, text: $text, key: $key, help: $help,
        }),*]
    };
    (@right right) => { true };
    (@right $other:ident) => { false };
    (@grows grows) => { true };
    (@grows $other:ident) => { false };
}

/// What is told of a route.
pub(crate) const ROUTE_FIELDS: &[Field<RouteRow>] = fields! {
    "route" "ROUTE" 20 grows 0 "the application's name of the route, or the path with {} for its variable parts"
        |row, _| Some(row.route.clone()), |row| text(&row.route);
    "rps" "RPS" 5 right 1 "requests per second"
        |row, _| row.rps.map(format::rate), |row| fraction(row.rps);
    "share" "TIME%" 5 right 0 "share of the busy time of all routes, percent"
        |row, _| row.share.map(format::percent), |row| fraction(row.share);
    "p50" "P50" 6 right 6 "median latency"
        |row, _| row.latency.map(|latency| format::micros(latency.p50)), |row| number(row.latency.map(|l| l.p50));
    "p95" "P95" 6 right 4 "95th percentile of latency"
        |row, _| row.latency.map(|latency| format::micros(latency.p95)), |row| number(row.latency.map(|l| l.p95));
    "p99" "P99" 6 right 2 "99th percentile of latency"
        |row, _| row.latency.map(|latency| format::micros(latency.p99)), |row| number(row.latency.map(|l| l.p99));
    "req" "REQ" 7 right 8 "requests completed"
        |row, _| Some(format::count(row.requests)), |row| number(row.requests);
    "5xx" "5XX" 4 right 3 "responses of 500 and more"
        |row, _| Some(format::count(row.errors)), |row| number(row.errors);
    "exc" "EXC" 4 right 5 "requests in which the application raised an exception"
        |row, _| Some(format::count(row.exceptions)), |row| number(row.exceptions);
    "tx" "TX" 6 right 10 "bytes sent"
        |row, _| Some(format::size(row.tx)), |row| number(row.tx);
    "gil" "GIL%" 5 right 7 "share of its busy time that waited for Python's global lock, percent"
        |row, _| row.gil.map(format::percent), |row| fraction(row.gil);
    "grows" "GROWS" 7 right 9 "by how much a request makes its process grow (workers of one thread alone)"
        |row, _| row.growth().map(signed_size), |row| fraction(row.growth());
    "exception" "LAST EXCEPTION" 16 grows 11 "the last exception of its requests"
        |row, _| exception(row), |row| exception(row).map_or(Key::Nothing, Key::Text);
};

/// A slow request as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct SlowRow {
    /// The record.
    pub(crate) record: Arc<SlowRequest>,
    /// The run of its server.
    pub(crate) run: u64,
    /// The server's place and name, of several.
    pub(crate) server: Option<(usize, String)>,
}

/// The phase that took most of a request, its time in µs.
pub(crate) fn largest_phase(record: &SlowRequest) -> Option<(&'static str, u64)> {
    let times = phase_times(&record.phases);
    let largest = PHASES.into_iter().zip(times).max_by_key(|(_, time)| *time)?;
    (largest.1 > 0).then_some(largest)
}

fn what(row: &SlowRow) -> String {
    let SlowRequest { method, uri, .. } = &*row.record;
    format!("{method} {uri}")
}

/// The status code; without one, how it ended.
fn status(row: &SlowRow) -> String {
    let record = &row.record;
    match record.outcome.as_str() {
        "" | "done" if record.status == 0 => "-".to_owned(),
        "" | "done" => record.status.to_string(),
        other => other.to_owned(),
    }
}

/// What is told of a slow request.
pub(crate) const SLOW_FIELDS: &[Field<SlowRow>] = fields! {
    "when" "WHEN" 8 left 0 "when it ended"
        |row, clock| Some(format::time_of_day((row.record.started.saturating_add(row.record.elapsed)) / 1_000_000, clock.now, &clock.zone)),
        |row| number(row.record.started.saturating_add(row.record.elapsed));
    "took" "TOOK" 6 right 0 "how long it took"
        |row, _| Some(format::micros(row.record.elapsed)), |row| number(row.record.elapsed);
    "status" "STATUS" 6 left 1 "status code; `harakiri` or `died` when its process was ended or did"
        |row, _| Some(status(row)), |row| Key::Text(status(row));
    "worker" "WID" 3 right 3 "number of the worker"
        |row, _| Some(row.record.worker.to_string()), |row| number(u64::from(row.record.worker));
    "phase" "LARGEST PHASE" 17 left 2 "where most of its time went"
        |row, _| largest_phase(&row.record).map(|(name, time)| format!("{name} {}", format::micros(time))),
        |row| largest_phase(&row.record).map_or(Key::Nothing, |(name, _)| text(name));
    "server" "SERVER" 8 left 6 "its server, of several"
        |row, _| row.server.as_ref().map(|(_, label)| label.clone()),
        |row| row.server.as_ref().map_or(Key::Nothing, |(_, label)| text(label));
    "request" "REQUEST" 16 grows 0 "method and URI"
        |row, _| Some(what(row)), |row| Key::Text(what(row));
    "route" "ROUTE" 12 grows 4 "its route"
        |row, _| told(&row.record.route), |row| text(&row.record.route);
    "exception" "EXCEPTION" 12 grows 5 "what the application raised"
        |row, _| told(&row.record.exception), |row| text(&row.record.exception);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_room_for_its_title_and_a_line_of_help() {
        let routes = ROUTE_FIELDS.iter().map(|field| (field.name, field.title, field.width, field.help));
        let slow = SLOW_FIELDS.iter().map(|field| (field.name, field.title, field.width, field.help));
        for (name, title, width, help) in routes.chain(slow) {
            assert!(usize::from(width) >= title.len() || name == "exception", "{name}");
            assert!(!help.is_empty(), "{name}");
        }
    }
}
