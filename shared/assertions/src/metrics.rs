//! The metrics that can be asserted: ONE table of name, unit, rule, who tells it, value and meaning. The docs are made from it.

use std::io;

use super::window::{Told, Window};
use crate::Counts;
use crate::noise::Statistic;
use crate::numbers as format;
use crate::servers::{AGGREGATES, States};

/// What a metric is counted in; the units that a threshold may have follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
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

/// Which servers tell a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// uWSGI and rwsgi.
    Both,
    /// Both; uWSGI only with `--memory-report`.
    MemoryReport,
    /// rwsgi alone.
    Rwsgi,
}

/// What a metric is over several servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The sum of what each adds up to in time.
    Total,
    /// The sum of each one's rate, or of each one's highest or lowest level.
    Sum,
    /// The highest of any.
    Worst,
    /// The value over all servers' counts and histograms put together.
    Merged,
}

/// Why a metric has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// These servers, by their places, do not send what it is made from.
    NotTold(Vec<usize>),
    /// It needs requests, and there were none.
    NoRequests,
}

/// A row of the table.
#[derive(Debug)]
pub struct Metric {
    /// Its name in assertions, JSON and CSV.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// What it is over several servers.
    pub rule: Rule,
    /// Which servers tell it.
    pub teller: Teller,
    /// Workers have values of their own.
    pub of_workers: bool,
    /// Where one of the servers does not tell responses by status, exceptions are counted of all.
    pub falls_back: bool,
    /// Its value over a window; `Missing::NotTold` names nobody.
    pub value: fn(&Window) -> Result<f64, Missing>,
    /// A line for the docs.
    pub help: &'static str,
}

const NOT_TOLD: Missing = Missing::NotTold(Vec::new());

fn level(value: &Told<u64>) -> Result<f64, Missing> {
    value.get().map(|value| *value as f64).ok_or(NOT_TOLD)
}

fn quantile(counts: &Told<Counts>, quantile: f64) -> Result<f64, Missing> {
    counts.get().ok_or(NOT_TOLD)?.quantile(quantile).map(|micros| micros as f64).ok_or(Missing::NoRequests)
}

fn per_request(window: &Window, count: u64) -> Result<f64, Missing> {
    if window.requests == 0 { Err(Missing::NoRequests) } else { Ok(count as f64 / window.requests as f64) }
}

fn per_second(window: &Window, count: u64) -> f64 {
    if window.seconds > 0.0 { count as f64 / window.seconds } else { 0.0 }
}

/// What `error_rate` counts: failed responses, or exceptions where one of the servers does not tell those.
fn errors(window: &Window) -> u64 {
    window.failed.get().map_or(window.exceptions, |[_, server]| *server)
}

macro_rules! metrics {
    ($($name:literal $unit:ident $rule:ident $teller:ident $of:ident $help:literal $value:expr;)*) => {
        &[$(Metric {
            name: $name, unit: Unit::$unit, rule: Rule::$rule, teller: Teller::$teller,
            of_workers: metrics!(@workers $of), falls_back: metrics!(@falls_back $of), value: $value, help: $help,
        }),*]
    };
    (@workers server) => { false };
    (@workers $other:ident) => { true };
    (@falls_back responses) => { true };
    (@falls_back $other:ident) => { false };
}

impl Metric {
    /// How it is held against that of the generation before; `None` when it is not.
    pub(crate) fn statistic(&self) -> Option<Statistic> {
        Some(match self.name {
            "p50" => Statistic::Quantile(0.5),
            "p90" => Statistic::Quantile(0.9),
            "p95" => Statistic::Quantile(0.95),
            "p99" => Statistic::Quantile(0.99),
            "p99.9" => Statistic::Quantile(0.999),
            "error_rate" => Statistic::Share(|window| Some(errors(window))),
            "client_error_rate" => Statistic::Share(|window| window.failed.get().map(|[client, _]| *client)),
            "exception_rate" => Statistic::Share(|window| Some(window.exceptions)),
            "pss.mean" => Statistic::Level,
            _ => return None,
        })
    }

    /// Whether it is one number, of which nobody knows the noise.
    pub(crate) fn is_level(&self) -> bool {
        matches!(self.statistic(), Some(Statistic::Level))
    }

    /// Whether one generation can be held against another by it.
    #[must_use]
    pub fn compares_generations(&self) -> bool {
        self.statistic().is_some()
    }

    /// Whether the stats document tells it of a generation.
    #[must_use]
    pub fn is_told_of_generations(&self) -> bool {
        self.compares_generations() || ["requests", "latency.max", "errors", "exceptions"].contains(&self.name)
    }

    /// Whether it grows with the time that is judged.
    pub fn is_total(&self) -> bool {
        // `errors` is one over all servers' counts.
        self.rule == Rule::Total || (self.rule == Rule::Merged && self.unit == Unit::Number)
    }
}

/// Every metric.
pub const METRICS: &[Metric] = metrics! {
    "rps" PerSecond Sum Both workers "requests completed per second" |w| Ok(per_second(w, w.requests));
    "requests" Number Total Both workers "requests completed" |w| Ok(w.requests as f64);
    "p50" Time Merged Rwsgi workers "half of the requests took at most this long" |w| quantile(&w.latency, 0.5);
    "p90" Time Merged Rwsgi workers "90 of 100 requests took at most this long" |w| quantile(&w.latency, 0.9);
    "p95" Time Merged Rwsgi workers "95 of 100 requests took at most this long" |w| quantile(&w.latency, 0.95);
    "p99" Time Merged Rwsgi workers "99 of 100 requests took at most this long" |w| quantile(&w.latency, 0.99);
    "p99.9" Time Merged Rwsgi workers "999 of 1,000 requests took at most this long" |w| quantile(&w.latency, 0.999);
    "latency.max" Time Merged Rwsgi workers "no request took longer" |w| quantile(&w.latency, 1.0);
    "error_rate" Fraction Merged Both responses
        "share of requests that were answered with 5xx, or, where one of the servers does not count those, raised an exception"
        |w| per_request(w, errors(w));
    "errors" Number Merged Both responses "requests that error_rate counts" |w| Ok(errors(w) as f64);
    "client_error_rate" Fraction Merged Rwsgi workers "share of requests that were answered with 4xx"
        |w| per_request(w, w.failed.get().ok_or(NOT_TOLD)?[0]);
    "exceptions" Number Total Both workers "requests in which the application raised an exception"
        |w| Ok(w.exceptions as f64);
    "exception_rate" Fraction Merged Both workers "share of requests in which the application raised an exception"
        |w| per_request(w, w.exceptions);
    "harakiri" Number Total Both workers "requests ended for running too long" |w| Ok(w.harakiri as f64);
    "respawns" Number Total Both workers "worker processes started beyond each worker's first" |w| Ok(w.respawns as f64);
    "utilization" Fraction Merged Rwsgi workers "share of all cores' time spent in requests"
        |w| w.busy.get().filter(|(_, all)| *all > 0.0).map(|(busy, all)| busy / all).ok_or(NOT_TOLD);
    "cpu" Fraction Sum Rwsgi workers "processor time of all workers; 100% is one processor"
        |w| w.cpu.get().filter(|_| w.seconds > 0.0).map(|cpu| cpu / w.seconds).ok_or(NOT_TOLD);
    "rss.max" Bytes Worst MemoryReport workers "the most resident memory of any one worker" |w| level(&w.rss_max);
    "rss.sum" Bytes Sum MemoryReport workers "the most resident memory of all workers together" |w| level(&w.rss_sum);
    "pss.sum" Bytes Sum Rwsgi workers "the most memory of all workers, shared pages counted once"
        |w| level(&w.pss_sum);
    "pss.mean" Bytes Worst Rwsgi server "the most memory of a worker on average, shared pages divided"
        |w| level(&w.pss_mean);
    "queue.max" Number Sum Both server "the most connections and requests that waited" |w| level(&w.queue_max);
    "queue.refused" Number Total Both server "refused because a queue was full" |w| Ok(w.refused as f64);
    "queue.p95" Time Merged Rwsgi server "95 of 100 requests waited at most this long before a worker took them"
        |w| quantile(&w.waiting, 0.95);
    "tx" Bytes Total Both workers "bytes sent" |w| Ok(w.tx as f64);
    "workers.min" Number Sum Both server "the fewest workers that had a process" |w| level(&w.workers_min);
    "restarts" Number Total Both server
        "times that a server was restarted; unless this is asserted, a restart means: not measured"
        |w| Ok(w.restarts as f64);
    "findings" Number Sum Both server "the most that was found wrong at once, in plain words" |w| level(&w.findings);
};

/// Every metric of a route, such as `route("/users/{}").p99`, over the window of that route alone.
pub const ROUTE_METRICS: &[Metric] = metrics! {
    "route.rps" PerSecond Sum Rwsgi server "its requests completed per second" |w| Ok(per_second(w, w.requests));
    "route.requests" Number Total Rwsgi server "its requests completed" |w| Ok(w.requests as f64);
    "route.share" Fraction Merged Rwsgi server "its share of the busy time of all routes"
        |w| w.busy.get().filter(|(_, all)| *all > 0.0).map(|(busy, all)| busy / all).ok_or(Missing::NoRequests);
    "route.p50" Time Merged Rwsgi server "half of its requests took at most this long" |w| quantile(&w.latency, 0.5);
    "route.p90" Time Merged Rwsgi server "90 of 100 of its requests took at most this long" |w| quantile(&w.latency, 0.9);
    "route.p95" Time Merged Rwsgi server "95 of 100 of its requests took at most this long" |w| quantile(&w.latency, 0.95);
    "route.p99" Time Merged Rwsgi server "99 of 100 of its requests took at most this long" |w| quantile(&w.latency, 0.99);
    "route.max" Time Merged Rwsgi server "none of its requests took longer" |w| quantile(&w.latency, 1.0);
    "route.errors" Number Total Rwsgi server "its requests that were answered with 5xx" |w| Ok(errors(w) as f64);
    "route.error_rate" Fraction Merged Rwsgi server "share of its requests that were answered with 5xx"
        |w| per_request(w, errors(w));
    "route.exceptions" Number Total Rwsgi server "its requests in which the application raised an exception"
        |w| Ok(w.exceptions as f64);
    "route.tx" Bytes Total Rwsgi server "bytes sent" |w| Ok(w.tx as f64);
};

/// What more there is of each server of several, such as `server.up.count`.
pub const SERVER_METRICS: &[Metric] = metrics! {
    "server.up" Number Total Both server "it answered whenever it was asked" |w| state(w, |states| states.up);
    "server.slow" Number Total Both server "it answered too late at least once" |w| state(w, |states| states.slow);
    "server.dead" Number Total Both server "it did not answer at least once" |w| state(w, |states| states.dead);
    "server.draining" Number Total Rwsgi server "it was draining at least once" |w| state(w, |states| states.draining);
    "server.saturation" Fraction Worst Both server "the highest saturation: busy threads and waiting requests, divided by all threads"
        |w| w.saturation.get().copied().ok_or(NOT_TOLD);
    "server.outliers" Number Sum Both server "the most rules by which it stood out from its peers at once" |w| level(&w.outliers);
};

fn state(window: &Window, of: fn(&States) -> bool) -> Result<f64, Missing> {
    window.states.get().map(|states| f64::from(u8::from(of(states)))).ok_or(NOT_TOLD)
}

impl Metric {
    /// What is written after `route("…").` or `server.`; its name where it is of neither.
    #[must_use]
    pub fn of_route(&self) -> &'static str {
        self.name.strip_prefix("route.").or_else(|| self.name.strip_prefix("server.")).unwrap_or(self.name)
    }
}

/// The metric of a route that is written so after it.
#[must_use]
pub fn route_metric(name: &str) -> Option<&'static Metric> {
    ROUTE_METRICS.iter().find(|metric| metric.of_route() == name)
}

/// The metric of a name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// A metric over several servers' windows of the same time, by its rule.
///
/// # Errors
/// When a server does not tell it, or there were no requests where it needs some.
pub fn measure<'a>(metric: &Metric, servers: impl Iterator<Item = &'a Window> + Clone) -> Result<f64, Missing> {
    let values: Vec<_> = servers.clone().map(metric.value).collect();
    let untold = |(place, value): (usize, &_)| matches!(value, Err(Missing::NotTold(_))).then_some(place);
    let untold: Vec<usize> = values.iter().enumerate().filter_map(untold).collect();
    if !untold.is_empty() {
        return Err(Missing::NotTold(untold));
    }
    let known = values.into_iter().flatten();
    match metric.rule {
        Rule::Total | Rule::Sum => Ok(known.sum()),
        Rule::Worst => known.reduce(f64::max).ok_or(NOT_TOLD),
        Rule::Merged => {
            let mut all = Window::default();
            servers.for_each(|window| all.beside(window));
            (metric.value)(&all)
        }
    }
}

/// Prints the table, for people: name, what it is over several servers, meaning.
pub fn list_metrics(out: &mut impl io::Write) -> io::Result<()> {
    for metric in METRICS {
        let teller = if metric.teller == Teller::Rwsgi { " (rwsgi only)" } else { "" };
        writeln!(out, "{:<18} {:<6} {}{teller}", metric.name, metric.rule.words(), metric.help)?;
    }
    writeln!(out, "\nof a route, as route(\"/users/{{}}\").p99 (rwsgi only):")?;
    for metric in ROUTE_METRICS {
        writeln!(out, "{:<18} {:<6} {}", metric.of_route(), metric.rule.words(), metric.help)?;
    }
    writeln!(out, "\nof each server of several, as server.p99.max or server.up.count; beside the metrics above:")?;
    for metric in SERVER_METRICS {
        writeln!(out, "{:<18}        {}", metric.of_route(), metric.help)?;
    }
    writeln!(out, "\nwhat is made of the servers' values:")?;
    for (_, name, help) in AGGREGATES {
        writeln!(out, "{name:<18}        {help}")?;
    }
    Ok(())
}

impl Rule {
    /// The rule in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Total | Self::Sum => "sum",
            Self::Worst => "worst",
            Self::Merged => "merged",
        }
    }
}

impl Unit {
    /// A value as it is shown.
    pub fn show(self, value: f64) -> String {
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
    pub fn spellings(self) -> &'static [(&'static str, f64)] {
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
