//! The worker table's columns: ONE table of title, width, alignment, value, sort key and help.
//!
//! A column whose value nobody has (uWSGI knows no percentiles) takes no room. When the pane is too narrow, columns
//! drop out from the highest `rank` down.

use jiff::tz::TimeZone;
use rwsgi_stats::{Core, Worker};

use crate::format;
use crate::model::{Rates, Reading};

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
    /// When the reading was taken, unix seconds.
    pub(crate) now: u64,
    /// For times of day.
    pub(crate) zone: TimeZone,
}

/// What a column sorts by.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub(crate) enum Key {
    /// Nothing known: below everything.
    Nothing,
    /// Numbers sort from the largest first.
    Number(f64),
    /// Words sort from A first.
    Text(String),
}

type Value = fn(&Row<'_>, &Context) -> Option<String>;

/// A row of the table of columns.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name in the configuration, in CSV and in sort options.
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
    /// What it sorts by.
    pub(crate) key: fn(&Row<'_>) -> Key,
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
        None => Reading::oldest_request(row.worker),
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

macro_rules! columns {
    ($($name:literal $title:literal $width:literal $align:ident $rank:literal $help:literal
        $worker:expr, $core:expr, $key:expr;)*) => {
        &[$(Column {
            name: $name, title: $title, width: $width, right: columns!(@right $align), grows: columns!(@grows $align),
            rank: $rank, worker: $worker, core: $core, key: $key, help: $help,
        }),*]
    };
    (@right right) => { true };
    (@right $other:ident) => { false };
    (@grows grows) => { true };
    (@grows $other:ident) => { false };
}

/// Every column, in the order in which they stand: uwsgitop's where its users look for them, then ours.
pub(crate) const COLUMNS: &[Column] = columns! {
    "wid" "WID" 3 right 0 "number of the worker"
        |row, _| Some(row.worker.id.to_string()),
        Some(|row, _| row.core.map(|(_, core)| if row.merged { format!("{}:{}", row.worker.id, core.id) } else { format!(":{}", core.id) })),
        |row| Key::Number(f64::from(row.worker.id));
    "share" "%" 5 right 10 "share of all requests, percent"
        share, Some(share), |row| number(requests(row));
    "pid" "PID" 7 right 4 "process id"
        |row, _| Some(row.worker.pid.to_string()), None, |row| Key::Number(f64::from(row.worker.pid));
    "req" "REQ" 7 right 1 "requests completed"
        |row, _| Some(format::count(requests(row))), Some(|row, _| Some(format::count(requests(row)))),
        |row| number(requests(row));
    "rps" "RPS" 5 right 0 "requests per second"
        |row, _| rps(row).map(format::rate), Some(|row, _| rps(row).map(format::rate)), |row| fraction(rps(row));
    "exc" "EXC" 4 right 3 "requests in which the application raised an exception"
        |row, _| Some(format::count(row.worker.exceptions)), None, |row| number(row.worker.exceptions);
    "sig" "SIG" 3 right 20 "uWSGI signals handled"
        |row, _| Some(format::count(row.worker.signals)), None, |row| number(row.worker.signals);
    "status" "STATUS" 6 left 0 "idle, busy, cheap, pause, or sig and a number"
        |row, _| Some(format::one_line(status_word(row))), Some(|row, _| Some(format::one_line(status_word(row)))),
        |row| text(Some(status_word(row).to_owned()));
    "avg" "AVG" 6 right 8 "the server's moving average of the response time"
        |row, _| Some(format::micros(row.worker.avg_rt)), None, |row| number(row.worker.avg_rt);
    "rss" "RSS" 6 right 4 "resident memory"
        |row, _| Some(format::size(row.worker.rss)), None, |row| number(row.worker.rss);
    "vsz" "VSZ" 6 right 19 "address space"
        |row, _| Some(format::size(row.worker.vsz)), None, |row| number(row.worker.vsz);
    "tx" "TX" 6 right 12 "bytes sent"
        |row, _| Some(format::size(row.worker.tx)), None, |row| number(row.worker.tx);
    "respawn" "ReSpwn" 6 right 9 "processes started for this worker"
        |row, _| Some(format::count(row.worker.respawn_count)), None, |row| number(row.worker.respawn_count);
    "hc" "HC" 3 right 6 "harakiri: requests ended for running too long"
        |row, _| Some(format::count(row.worker.harakiri_count)), None, |row| number(row.worker.harakiri_count);
    "runt" "RunT" 6 right 18 "time spent in requests"
        |row, _| Some(format::micros(row.worker.running_time)), None, |row| number(row.worker.running_time);
    "spawned" "LastSpwn" 8 right 16 "when the process started"
        |row, context| Some(format::time_of_day(row.worker.last_spawn, context.now, &context.zone)), None,
        |row| number(row.worker.last_spawn);
    "util" "UTIL%" 5 right 2 "share of its cores' time spent in requests, percent"
        |row, _| row.rates.utilization.map(format::percent), None, |row| fraction(row.rates.utilization);
    "p50" "P50" 6 right 11 "half of the window's requests took at most this long"
        |row, _| row.rates.latency.map(|latency| format::micros(latency.p50)), None,
        |row| number(row.rates.latency.map(|latency| latency.p50));
    "p95" "P95" 6 right 7 "95 of 100 requests of the window took at most this long"
        |row, _| row.rates.latency.map(|latency| format::micros(latency.p95)), None,
        |row| number(row.rates.latency.map(|latency| latency.p95));
    "p99" "P99" 6 right 5 "99 of 100 requests of the window took at most this long"
        |row, _| row.rates.latency.map(|latency| format::micros(latency.p99)), None,
        |row| number(row.rates.latency.map(|latency| latency.p99));
    "pss" "PSS" 6 right 9 "memory with shared pages divided among those who share them"
        |row, _| row.worker.pss.filter(|pss| *pss > 0).map(format::size), None, |row| number(row.worker.pss);
    "cpu" "CPU%" 5 right 8 "processor time, percent of one processor"
        |row, _| row.rates.cpu.map(format::percent), None, |row| fraction(row.rates.cpu);
    "gil" "GIL%" 5 right 21 "share of its cores' time spent waiting for Python's global lock, percent"
        |row, _| row.rates.gil.map(format::percent), None, |row| fraction(row.rates.gil);
    "gen" "GEN" 4 right 17 "generation: which load of the application it serves"
        |row, _| row.worker.generation.map(|generation| generation.to_string()), None,
        |row| number(row.worker.generation.map(u64::from));
    "age" "AGE" 6 right 13 "how long its oldest request in progress has run"
        |row, _| age(row).map(format::micros), Some(|row, _| age(row).map(format::micros)), |row| number(age(row));
    "request" "REQUEST" 16 grows 14 "its oldest request in progress"
        |row, _| request(row), Some(|row, _| request(row)), |row| text(request(row));
    "exception" "LAST EXCEPTION" 16 grows 15 "the last exception that its application raised"
        |row, _| exception(row), None, |row| text(exception(row));
};

/// The column of a name.
pub(crate) fn column(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name)
}

impl Column {
    /// Whether the first reading promises that there will be values: they need a second to subtract from.
    pub(crate) fn is_awaited(&self, worker: &Worker) -> bool {
        match self.name {
            "rps" => true,
            // A server that counts the one counts the others.
            "util" | "p50" | "p95" | "p99" => worker.busy_time.is_some(),
            "cpu" => worker.cpu_time.is_some(),
            "gil" => worker.gil_wait.is_some(),
            _ => false,
        }
    }

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
