//! The metrics that can be asserted: ONE table of name, unit, value and meaning. The docs are made from it.

use std::io;

use super::window::Window;
use crate::format;

/// What a metric is counted in; the units that a threshold may have follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A plain number.
    Number,
    /// Per second.
    PerSecond,
    /// µs.
    Time,
    /// 0 to 1, written as a percentage.
    Fraction,
    /// Bytes.
    Bytes,
}

/// Why a metric has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The server does not send what it is made from.
    NotTold,
    /// It needs requests, and there were none.
    NoRequests,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Metric {
    /// Its name in assertions, JSON and CSV.
    pub(crate) name: &'static str,
    /// What it is counted in.
    pub(crate) unit: Unit,
    /// Its value over a window.
    pub(crate) value: fn(&Window) -> Result<f64, Missing>,
    /// A line for the docs.
    pub(crate) help: &'static str,
}

fn known(value: Option<u64>) -> Result<f64, Missing> {
    value.map(|value| value as f64).ok_or(Missing::NotTold)
}

fn quantile(window: &Window, quantile: f64) -> Result<f64, Missing> {
    let latency = window.latency.as_ref().ok_or(Missing::NotTold)?;
    latency.quantile(quantile).map(|micros| micros as f64).ok_or(Missing::NoRequests)
}

fn waiting(window: &Window, quantile: f64) -> Result<f64, Missing> {
    let waiting = window.waiting.as_ref().ok_or(Missing::NotTold)?;
    waiting.quantile(quantile).map(|micros| micros as f64).ok_or(Missing::NoRequests)
}

fn per_request(window: &Window, count: u64) -> Result<f64, Missing> {
    if window.requests == 0 { Err(Missing::NoRequests) } else { Ok(count as f64 / window.requests as f64) }
}

fn per_second(window: &Window, count: u64) -> f64 {
    if window.seconds > 0.0 { count as f64 / window.seconds } else { 0.0 }
}

macro_rules! metrics {
    ($($name:literal $unit:ident $help:literal $value:expr;)*) => {
        &[$(Metric { name: $name, unit: Unit::$unit, value: $value, help: $help }),*]
    };
}

/// Every metric.
pub(crate) const METRICS: &[Metric] = metrics! {
    "rps" PerSecond "requests completed per second" |w| Ok(per_second(w, w.requests));
    "requests" Number "requests completed" |w| Ok(w.requests as f64);
    "p50" Time "half of the requests took at most this long" |w| quantile(w, 0.5);
    "p90" Time "90 of 100 requests took at most this long" |w| quantile(w, 0.9);
    "p95" Time "95 of 100 requests took at most this long" |w| quantile(w, 0.95);
    "p99" Time "99 of 100 requests took at most this long" |w| quantile(w, 0.99);
    "p99.9" Time "999 of 1,000 requests took at most this long" |w| quantile(w, 0.999);
    "latency.max" Time "no request took longer" |w| quantile(w, 1.0);
    "error_rate" Fraction
        "share of requests that were answered with 5xx, or, where the server does not count those, raised an exception"
        |w| per_request(w, w.server_errors.unwrap_or(w.exceptions));
    "errors" Number "requests that error_rate counts" |w| Ok(w.server_errors.unwrap_or(w.exceptions) as f64);
    "client_error_rate" Fraction "share of requests that were answered with 4xx"
        |w| per_request(w, w.client_errors.ok_or(Missing::NotTold)?);
    "exceptions" Number "requests in which the application raised an exception" |w| Ok(w.exceptions as f64);
    "exception_rate" Fraction "share of requests in which the application raised an exception"
        |w| per_request(w, w.exceptions);
    "harakiri" Number "requests ended for running too long" |w| Ok(w.harakiri as f64);
    "respawns" Number "worker processes started" |w| Ok(w.respawns as f64);
    "utilization" Fraction "share of all cores' time spent in requests"
        |w| w.busy.filter(|(_, all)| *all > 0.0).map(|(busy, all)| busy / all).ok_or(Missing::NotTold);
    "cpu" Fraction "processor time of all workers; 100% is one processor"
        |w| w.cpu.filter(|_| w.seconds > 0.0).map(|cpu| cpu / w.seconds).ok_or(Missing::NotTold);
    "rss.max" Bytes "the most resident memory of any one worker" |w| known(w.rss_max);
    "rss.sum" Bytes "the most resident memory of all workers together" |w| known(w.rss_sum);
    "pss.sum" Bytes "the most memory of all workers, shared pages counted once" |w| known(w.pss_sum);
    "queue.max" Number "the most connections and requests that waited" |w| known(w.queue_max);
    "queue.refused" Number "refused because a queue was full" |w| Ok(w.refused as f64);
    "queue.p95" Time "95 of 100 requests waited at most this long before a worker took them" |w| waiting(w, 0.95);
    "tx" Bytes "bytes sent" |w| Ok(w.tx as f64);
    "workers.min" Number "the fewest workers that had a process" |w| known(w.workers_min);
    "restarts" Number "times that a server began anew; unless this is asserted, a restart means: not measured"
        |w| Ok(w.restarts as f64);
};

/// The metric of a name.
pub(crate) fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Prints the table, for people.
pub(crate) fn list_metrics(out: &mut impl io::Write) -> io::Result<()> {
    for metric in METRICS {
        writeln!(out, "{:<18} {}", metric.name, metric.help)?;
    }
    Ok(())
}

impl Unit {
    /// A value as it is shown.
    pub(crate) fn show(self, value: f64) -> String {
        let whole = |value: f64| if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") };
        match self {
            Self::Number => whole(value),
            Self::PerSecond => format!("{}/s", whole(value)),
            Self::Time => format::micros(value as u64),
            Self::Fraction => {
                format!("{}%", format!("{:.3}", value * 100.0).trim_end_matches('0').trim_end_matches('.'))
            }
            Self::Bytes => format::size(value as u64),
        }
    }

    /// The units that a threshold may be written in, each with what it is worth; the first is what a bare number is.
    pub(crate) fn spellings(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Number => &[("", 1.0), ("k", 1e3), ("M", 1e6)],
            Self::PerSecond => &[("", 1.0), ("/s", 1.0), ("k", 1e3), ("k/s", 1e3)],
            Self::Time => &[("ms", 1e3), ("us", 1.0), ("µs", 1.0), ("s", 1e6), ("m", 6e7)],
            Self::Fraction => &[("", 1.0), ("%", 0.01)],
            Self::Bytes => &[
                ("", 1.0),
                ("B", 1.0),
                ("kB", 1e3),
                ("MB", 1e6),
                ("GB", 1e9),
                ("K", 1024.0),
                ("M", 1048576.0),
                ("G", 1073741824.0),
                ("KiB", 1024.0),
                ("MiB", 1048576.0),
                ("GiB", 1073741824.0),
            ],
        }
    }
}
