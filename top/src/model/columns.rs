//! What is told of a worker: ONE table of name, title, width, alignment, value, sort key, raw form, who tells it, and help.
//! The screen, plain tables, CSV, JSON, the configuration file and the docs are made from it.
//!
//! A column whose value nobody has (uWSGI knows no percentiles) takes no room. When the pane is too narrow, columns
//! drop out from the highest `rank` down.

use jiff::tz::TimeZone;
use rwsgi_assertions::Teller;
use rwsgi_stats::{Core, Worker};

use super::{Rates, Sample};
use crate::format;

/// What a row of the table is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    /// The worker's place in the document.
    pub(crate) place: usize,
    /// The worker.
    pub(crate) worker: &'a Worker,
    /// What it did in the window.
    pub(crate) rates: &'a Rates,
    /// The core, when cores have rows of their own, and its place in the worker.
    pub(crate) core: Option<(usize, &'a Core)>,
    /// The core's row tells its worker's values too.
    pub(crate) merged: bool,
}

/// What values need to know beside the row.
#[derive(Debug)]
pub(crate) struct Context {
    /// Requests of all workers, for the share.
    pub(crate) requests: u64,
    /// When the sample was taken, unix seconds.
    pub(crate) now: u64,
    /// For times of day.
    pub(crate) zone: TimeZone,
}

/// What a column sorts by.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub(crate) enum Key {
    /// Nothing known: below everything.
    Nothing,
    /// Numbers sort from the largest first, unless their column is ascending.
    Number(f64),
    /// Words sort from A first.
    Text(String),
}

type Value = fn(&Row<'_>, &Context) -> Option<String>;

/// What `--json` and `--csv` have of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    /// Its key, which is what `help` says.
    Same,
    /// Its key, which is this: the screen shows another unit.
    As(&'static str),
    /// Nothing: it follows from another column.
    Nothing,
}

/// A row of the table of columns.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name in the configuration, in CSV and JSON, and in sort options.
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
    /// What is shown of a worker.
    pub(crate) worker: Value,
    /// What is shown of a core; `None` where a core has nothing of its own.
    pub(crate) core: Option<Value>,
    /// What it sorts by, in base units: µs, bytes, fractions from 0 to 1.
    pub(crate) key: fn(&Row<'_>) -> Key,
    /// Its numbers sort from the smallest first.
    pub(crate) ascending: bool,
    /// What becomes of its key in `--json` and `--csv`.
    pub(crate) raw: Raw,
    /// Whether a first sample promises values that need a second one to subtract from.
    pub(crate) awaited: fn(&Worker) -> bool,
    /// Which servers tell it.
    pub(crate) teller: Teller,
    /// A line for help and docs.
    pub(crate) help: &'static str,
}

fn number(value: impl Into<Option<u64>>) -> Key {
    value.into().map_or(Key::Nothing, |value| Key::Number(value as f64))
}

fn fraction(value: Option<f64>) -> Key {
    value.map_or(Key::Nothing, Key::Number)
}

fn text(value: Option<String>) -> Key {
    value.filter(|value| !value.is_empty()).map_or(Key::Nothing, Key::Text)
}

fn requests(row: &Row<'_>) -> u64 {
    row.core.map_or(row.worker.requests, |(_, core)| core.requests)
}

fn share(row: &Row<'_>, context: &Context) -> Option<String> {
    let share = if context.requests == 0 { 0.0 } else { requests(row) as f64 / context.requests as f64 };
    Some(format::tenths(share * 100.0))
}

fn rps(row: &Row<'_>) -> Option<f64> {
    match row.core {
        Some((place, _)) => row.rates.cores.get(place).copied(),
        None => row.rates.rps,
    }
}

/// The core in question: the row's own, or the one with the oldest request.
fn request_core<'a>(row: &Row<'a>) -> Option<&'a Core> {
    match row.core {
        Some((_, core)) => Some(core).filter(|core| core.in_request != 0),
        None => Sample::oldest_request(row.worker),
    }
}

fn request(row: &Row<'_>) -> Option<String> {
    let info = &request_core(row)?.req_info;
    let uri = format::one_line(info.uri.as_deref()?);
    Some(match &info.method {
        Some(method) => format!("{} {uri}", format::one_line(method)),
        None => uri,
    })
}

fn age(row: &Row<'_>) -> Option<u64> {
    request_core(row)?.req_info.elapsed
}

fn exception(row: &Row<'_>) -> Option<String> {
    let exception = row.worker.last_exception.as_ref()?;
    let kind = format::one_line(&exception.kind);
    Some(if exception.message.is_empty() { kind } else { format!("{kind}: {}", format::one_line(&exception.message)) })
}

/// uwsgitop's word for a core: a busy worker's idle core is not busy.
pub(crate) fn status_word<'a>(row: &Row<'a>) -> &'a str {
    match row.core {
        Some((_, core)) if core.in_request != 0 => "busy",
        Some(_) if !row.merged => "idle",
        Some(_) if row.worker.status == "busy" => "-",
        _ => &row.worker.status,
    }
}

/// The same for people: a worker that is idle because nothing is given to it, as when it is drained, is told apart.
fn status_shown<'a>(row: &Row<'a>) -> &'a str {
    let worker = row.worker;
    match status_word(row) {
        // uWSGI's word for it is another.
        "idle"
            if (row.core.is_none() || row.merged)
                && worker.pid > 0
                && worker.accepting == 0
                && worker.generation.is_some() =>
        {
            "closed"
        }
        word => word,
    }
}

/// For most columns: what can be told, a first sample tells.
fn at_once(_: &Worker) -> bool {
    false
}

fn always(_: &Worker) -> bool {
    true
}

fn counts_busy_time(worker: &Worker) -> bool {
    // A server that counts the one counts latencies too.
    worker.busy_time.is_some()
}

macro_rules! columns {
    ($($name:literal $title:literal $width:literal $align:ident $rank:literal $teller:ident $help:literal
        $worker:expr, $core:expr, $key:expr $(, raw $raw:expr)? $(, awaited $awaited:expr)? $(, ascending $ascending:expr)?;)*) => {
        &[$(Column {
            name: $name, title: $title, width: $width, right: columns!(@right $align), grows: columns!(@grows $align),
            rank: $rank, worker: $worker, core: $core, key: $key,
            ascending: columns!(@or false $(, $ascending)?), raw: columns!(@or Raw::Same $(, $raw)?),
            awaited: columns!(@or at_once $(, $awaited)?), teller: Teller::$teller, help: $help,
        }),*]
    };
    (@right right) => { true };
    (@right $other:ident) => { false };
    (@grows grows) => { true };
    (@grows $other:ident) => { false };
    (@or $usual:expr) => { $usual };
    (@or $usual:expr, $other:expr) => { $other };
}

/// Every column, in the order in which they stand: uwsgitop's where its users look for them, then ours.
pub(crate) const COLUMNS: &[Column] = columns! {
    "wid" "WID" 3 right 0 Both "number of the worker"
        |row, _| Some(row.worker.id.to_string()),
        Some(|row, _| row.core.map(|(_, core)| if row.merged { format!("{}:{}", row.worker.id, core.id) } else { format!(":{}", core.id) })),
        |row| Key::Number(f64::from(row.worker.id)), ascending true;
    "share" "%" 5 right 10 Both "share of all requests, percent"
        share, Some(share), |row| number(requests(row)), raw Raw::Nothing;
    "pid" "PID" 7 right 4 Both "process id"
        |row, _| Some(row.worker.pid.to_string()), None, |row| Key::Number(f64::from(row.worker.pid));
    "req" "REQ" 7 right 1 Both "requests completed"
        |row, _| Some(format::count(requests(row))), Some(|row, _| Some(format::count(requests(row)))),
        |row| number(requests(row));
    "rps" "RPS" 5 right 0 Both "requests per second"
        |row, _| rps(row).map(format::rate), Some(|row, _| rps(row).map(format::rate)), |row| fraction(rps(row)),
        awaited always;
    "exc" "EXC" 4 right 3 Both "requests in which the application raised an exception"
        |row, _| Some(format::count(row.worker.exceptions)), None, |row| number(row.worker.exceptions);
    "sig" "SIG" 3 right 20 Both "uWSGI signals handled"
        |row, _| Some(format::count(row.worker.signals)), None, |row| number(row.worker.signals);
    "status" "STATUS" 6 left 0 Both "idle, busy, cheap, pause, or sig and a number"
        |row, _| Some(format::one_line(status_shown(row))), Some(|row, _| Some(format::one_line(status_word(row)))),
        |row| text(Some(status_word(row).to_owned()));
    "avg" "AVG" 6 right 8 Both "the server's moving average of the response time"
        |row, _| Some(format::micros(row.worker.avg_rt)), None, |row| number(row.worker.avg_rt);
    "rss" "RSS" 6 right 4 MemoryReport "resident memory"
        |row, _| Some(format::size(row.worker.rss)), None, |row| number(row.worker.rss);
    "vsz" "VSZ" 6 right 19 MemoryReport "address space"
        |row, _| Some(format::size(row.worker.vsz)), None, |row| number(row.worker.vsz);
    "tx" "TX" 6 right 12 Both "bytes sent"
        |row, _| Some(format::size(row.worker.tx)), None, |row| number(row.worker.tx);
    "respawn" "ReSpwn" 6 right 9 Both "processes started for this worker"
        |row, _| Some(format::count(row.worker.respawn_count)), None, |row| number(row.worker.respawn_count);
    "hc" "HC" 3 right 6 Both "harakiri: requests ended for running too long"
        |row, _| Some(format::count(row.worker.harakiri_count)), None, |row| number(row.worker.harakiri_count);
    "runt" "RunT" 6 right 18 Both "time spent in requests"
        |row, _| Some(format::micros(row.worker.running_time)), None, |row| number(row.worker.running_time);
    "spawned" "LastSpwn" 8 right 16 Both "when the process started"
        |row, context| Some(format::time_of_day(row.worker.last_spawn, context.now, &context.zone)), None,
        |row| number(row.worker.last_spawn);
    "util" "UTIL%" 5 right 2 Rwsgi "share of its cores' time spent in requests, percent"
        |row, _| row.rates.utilization.map(format::percent), None, |row| fraction(row.rates.utilization),
        raw Raw::As("share of its cores' time spent in requests, 0 to 1"), awaited counts_busy_time;
    "p50" "P50" 6 right 11 Rwsgi "median latency"
        |row, _| row.rates.latency.map(|latency| format::micros(latency.p50)), None,
        |row| number(row.rates.latency.map(|latency| latency.p50)), awaited counts_busy_time;
    "p95" "P95" 6 right 7 Rwsgi "95th percentile of latency"
        |row, _| row.rates.latency.map(|latency| format::micros(latency.p95)), None,
        |row| number(row.rates.latency.map(|latency| latency.p95)), awaited counts_busy_time;
    "p99" "P99" 6 right 5 Rwsgi "99th percentile of latency"
        |row, _| row.rates.latency.map(|latency| format::micros(latency.p99)), None,
        |row| number(row.rates.latency.map(|latency| latency.p99)), awaited counts_busy_time;
    "pss" "PSS" 6 right 9 Rwsgi "memory with shared pages divided among those who share them"
        |row, _| row.worker.pss.filter(|pss| *pss > 0).map(format::size), None, |row| number(row.worker.pss);
    "cpu" "CPU%" 5 right 8 Rwsgi "processor time, percent of one processor"
        |row, _| row.rates.cpu.map(format::percent), None, |row| fraction(row.rates.cpu),
        raw Raw::As("processor time, in processors"), awaited |worker| worker.cpu_time.is_some();
    "gil" "GIL%" 5 right 21 Rwsgi "share of its cores' time spent waiting for Python's global lock, percent"
        |row, _| row.rates.gil.map(format::percent), None, |row| fraction(row.rates.gil),
        raw Raw::As("share of its cores' time spent waiting for Python's global lock, 0 to 1"),
        awaited |worker| worker.gil_wait.is_some();
    "gen" "GEN" 4 right 17 Rwsgi "generation: which load of the application it serves"
        |row, _| row.worker.generation.map(|generation| generation.to_string()), None,
        |row| number(row.worker.generation.map(u64::from));
    "age" "AGE" 6 right 13 Both "how long its oldest request in progress has run"
        |row, _| age(row).map(format::micros), Some(|row, _| age(row).map(format::micros)), |row| number(age(row));
    "request" "REQUEST" 16 grows 14 Both "its oldest request in progress"
        |row, _| request(row), Some(|row, _| request(row)), |row| text(request(row));
    "exception" "LAST EXCEPTION" 16 grows 15 Rwsgi "the last exception that its application raised"
        |row, _| exception(row), None, |row| text(exception(row));
};

/// The column of a name.
pub(crate) fn column(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name)
}

impl Column {
    /// What stands in a row, `None` where there is nothing to know.
    pub(crate) fn text(&self, row: &Row<'_>, context: &Context) -> Option<String> {
        match (row.core, self.core) {
            (None, _) => (self.worker)(row, context),
            (Some(_), Some(core)) => core(row, context),
            (Some(_), None) if row.merged => (self.worker)(row, context),
            (Some(_), None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_column_has_a_name_of_its_own_room_for_its_title_and_a_line_of_help() {
        let mut names = HashSet::new();
        for column in COLUMNS {
            assert!(names.insert(column.name), "{}", column.name);
            assert!(usize::from(column.width) >= column.title.len(), "{}", column.name);
            assert!(!column.help.is_empty(), "{}", column.name);
        }
    }

    #[test]
    fn the_columns_that_uwsgitop_has_stand_in_its_order() {
        let theirs = "WID % PID REQ RPS EXC SIG STATUS AVG RSS VSZ TX ReSpwn HC RunT LastSpwn";
        let ours: Vec<_> =
            COLUMNS.iter().map(|column| column.title).filter(|title| theirs.split(' ').any(|t| t == *title)).collect();
        assert_eq!(ours.join(" "), theirs);
    }
}
