//! What is told of each server of a fleet: a row of values, and ONE table of fields as [`COLUMNS`](super::columns::COLUMNS) is of
//! workers. The screen, plain tables, JSON, CSV and the docs are made from it.

use std::sync::Arc;

use super::columns::Key;
use super::fields::{Clock, Field};
use super::fleet::{Fleet, State, Tally, Tracked};
use super::outliers::Outliers;
use crate::format;
use crate::source::Monotonic;
use crate::source::fleet::{Figure, Figures, ServerId};
use rwsgi_assertions::Percentiles;

/// A server at the end of a sweep.
#[derive(Clone, Debug)]
pub(crate) struct ServerRow {
    /// Which it is.
    pub(crate) id: ServerId,
    /// What it is called.
    pub(crate) name: String,
    /// Its state in a word: `up`, `draining`, `slow`, `dead`, `new`.
    pub(crate) state: &'static str,
    /// For how long it has been silent, seconds.
    pub(crate) silent: Option<u64>,
    /// Why it is dead, else in what it stands out, else what its source says of it.
    pub(crate) note: String,
    /// It stands out from its peers.
    pub(crate) stands_out: bool,
    /// Rates and levels; of a silent server they are its last, and not shown.
    pub(crate) figures: Figures,
    /// Threads in requests, and all.
    pub(crate) threads: Option<(u32, u32)>,
    /// Its workers serve several generations.
    pub(crate) mixed: bool,
    /// Program and version.
    pub(crate) version: Option<String>,
    /// For how long it runs, seconds.
    pub(crate) uptime: Option<u64>,
    /// Requests completed since its start.
    pub(crate) requests: Option<u64>,
    /// How often it was restarted while it was watched.
    pub(crate) restarts: u64,
}

impl ServerRow {
    fn of(server: &Tracked, outliers: &Outliers, at: Monotonic) -> Self {
        let sample = server.sample.as_deref();
        let draining = sample.is_some_and(|sample| sample.draining == Some(true));
        let found: Vec<&str> =
            outliers.found().iter().filter(|outlier| outlier.id == server.id).map(|o| o.rule().name).collect();
        let labels = || {
            let labels = server.server.labels.iter().map(|(name, value)| format!("{name}={value}"));
            labels.collect::<Vec<_>>().join(" ")
        };
        let note = match &server.state {
            State::Dead { why, .. } => why.clone(),
            _ if !found.is_empty() => format!("! {}", found.join(", ")),
            _ => labels(),
        };
        let uptime = sample.and_then(|sample| sample.now?.checked_sub(sample.run.started_at?)).map(|up| up / 1_000_000);
        let version = sample.map(|sample| {
            format!("{}-{}", if sample.run.is_rwsgi { "rwsgi" } else { "uwsgi" }, format::one_line(&sample.run.version))
        });
        Self {
            id: server.id,
            name: server.server.name.clone(),
            state: match &server.state {
                State::New => "new",
                State::Up if draining => "draining",
                State::Up => "up",
                State::Slow { .. } => "slow",
                State::Dead { .. } => "dead",
            },
            silent: server.silent_since().map(|since| at.since(since).as_secs()),
            note,
            stands_out: !found.is_empty(),
            figures: server.figures,
            threads: sample.map(|sample| (sample.busy_threads, sample.threads)),
            mixed: sample.is_some_and(|sample| sample.mixed_generations),
            version,
            uptime,
            requests: sample.map(|sample| sample.requests),
            restarts: server.restarts,
        }
    }

    /// A figure, while the server answers.
    pub(crate) fn get(&self, figure: Figure) -> Option<f64> {
        self.figures.get(figure).filter(|_| self.answers())
    }

    /// Whether what it tells is of now.
    pub(crate) fn answers(&self) -> bool {
        matches!(self.state, "up" | "draining")
    }
}

/// All servers, in the order in which they became known.
pub(crate) fn server_rows(fleet: &Fleet, outliers: &Outliers, at: Monotonic) -> Vec<Arc<ServerRow>> {
    fleet.servers().map(|server| Arc::new(ServerRow::of(server, outliers, at))).collect()
}

/// The fleet as a whole, of the servers that answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct FleetTotals {
    /// How many servers are in which state.
    pub(crate) tally: Tally,
    /// Those that finish what they have.
    pub(crate) draining: usize,
    /// Requests per second.
    pub(crate) rps: f64,
    /// Share of requests that failed, 0 to 1.
    pub(crate) errors: Option<f64>,
    /// Of all requests together.
    pub(crate) percentiles: Option<Percentiles>,
    /// Busy threads and waiting requests by all threads.
    pub(crate) saturation: Option<f64>,
    /// Connections and requests that wait.
    pub(crate) waiting: u64,
    /// Resident memory, bytes.
    pub(crate) rss: u64,
    /// The server with the highest p99 (mean, where none is told), and what that is, µs.
    pub(crate) worst: Option<(String, f64)>,
}

impl FleetTotals {
    /// Of a fleet and its rows.
    pub(crate) fn of(fleet: &Fleet, rows: &[Arc<ServerRow>]) -> Self {
        let answering = || rows.iter().filter(|row| row.answers());
        let sum = |figure| answering().filter_map(|row| row.get(figure)).sum::<f64>();
        let rps = sum(Figure::Rps);
        let failing =
            answering().filter_map(|row| Some(row.get(Figure::Errors)? * row.get(Figure::Rps)?)).reduce(|a, b| a + b);
        let worst_of = |figure: Figure| {
            let known = answering().filter_map(|row| Some((&row.name, row.get(figure)?)));
            known.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(name, value)| (name.clone(), value))
        };
        // By their threads where those are known; of Prometheus every server counts alike.
        let weighed = answering()
            .filter_map(|row| Some((row.get(Figure::Saturation)?, row.threads.map_or(1.0, |(_, all)| f64::from(all)))));
        let (full, threads) =
            weighed.fold((0.0, 0.0), |sum, (value, threads)| (sum.0 + value * threads, sum.1 + threads));
        Self {
            tally: fleet.tally(),
            draining: rows.iter().filter(|row| row.state == "draining").count(),
            rps,
            errors: failing.filter(|_| rps > 0.0).map(|failing| failing / rps),
            percentiles: fleet.percentiles(),
            saturation: (threads > 0.0).then(|| full / threads),
            waiting: sum(Figure::Waiting) as u64,
            rss: sum(Figure::Rss) as u64,
            worst: worst_of(Figure::P99).or_else(|| worst_of(Figure::Mean)),
        }
    }
}

type Row = Arc<ServerRow>;

fn figure(row: &Row, figure: Figure, show: fn(f64) -> String) -> Option<String> {
    row.get(figure).map(show)
}

fn key(row: &Row, figure: Figure) -> Key {
    row.get(figure).map_or(Key::Nothing, Key::Number)
}

fn micros(value: f64) -> String {
    format::micros(value as u64)
}

/// A share as the screen shows it.
pub(crate) fn share(value: f64) -> String {
    format::percent(value)
}

fn state(row: &Row) -> String {
    match row.silent {
        Some(silent) => format!("{} {}", row.state, format::seconds(silent)),
        None => row.state.to_owned(),
    }
}

/// The worst state first.
fn state_key(row: &Row) -> Key {
    let order = ["up", "new", "draining", "slow", "dead"];
    Key::Number(order.iter().position(|state| *state == row.state).unwrap_or(0) as f64)
}

macro_rules! fields {
    ($($name:literal $title:literal $width:literal $align:ident $rank:literal $help:literal $text:expr, $key:expr;)*) => {
        &[$(Field {
            name: $name, title: $title, width: $width, right: fields!(@right $align), grows: fields!(@grows $align), rank: $rank,
            text: $text, key: $key, help: $help,
        }),*]
    };
    (@right right) => { true };
    (@right $other:ident) => { false };
    (@grows grows) => { true };
    (@grows $other:ident) => { false };
}

/// What is told of a server, in the order in which it stands.
pub(crate) const SERVER_FIELDS: &[Field<Row>] = fields! {
    "server" "SERVER" 12 left 0 "its name: of the list of targets, its instance in Prometheus, or its address"
        |row, _| Some(row.name.clone()), |row| Key::Text(row.name.clone());
    "state" "STATE" 8 left 0 "up, draining, slow (asked, and not answered yet) or dead, and for how long; new before the first answer"
        |row, _| Some(state(row)), state_key;
    "rps" "RPS" 6 right 1 "requests per second"
        |row, _| figure(row, Figure::Rps, format::rate), |row| key(row, Figure::Rps);
    "errors" "5XX%" 5 right 2 "share of requests that were answered with 5xx (uWSGI: that raised an exception), percent"
        |row, _| figure(row, Figure::Errors, share), |row| key(row, Figure::Errors);
    "mean" "MEAN" 6 right 12 "time of a request on average"
        |row, _| figure(row, Figure::Mean, micros), |row| key(row, Figure::Mean);
    "p50" "P50" 6 right 6 "median latency"
        |row, _| figure(row, Figure::P50, micros), |row| key(row, Figure::P50);
    "p95" "P95" 6 right 5 "95th percentile of latency"
        |row, _| figure(row, Figure::P95, micros), |row| key(row, Figure::P95);
    "p99" "P99" 6 right 1 "99th percentile of latency"
        |row, _| figure(row, Figure::P99, micros), |row| key(row, Figure::P99);
    "saturation" "SAT%" 5 right 2 "busy threads and waiting requests by all threads, percent"
        |row, _| figure(row, Figure::Saturation, share), |row| key(row, Figure::Saturation);
    "busy" "BUSY" 7 right 7 "threads in requests, of all"
        |row, _| row.threads.filter(|_| row.answers()).map(|(busy, all)| format!("{busy}/{all}")),
        |row| row.threads.filter(|_| row.answers()).map_or(Key::Nothing, |(busy, _)| Key::Number(f64::from(busy)));
    "utilization" "UTIL%" 5 right 11 "share of all threads' time spent in requests, percent"
        |row, _| figure(row, Figure::Utilization, share), |row| key(row, Figure::Utilization);
    "waiting" "WAIT" 5 right 4 "connections and requests that wait"
        |row, _| figure(row, Figure::Waiting, |value| format::count(value as u64)), |row| key(row, Figure::Waiting);
    "rss" "MEM" 6 right 3 "resident memory of all workers"
        |row, _| figure(row, Figure::Rss, |value| format::size(value as u64)), |row| key(row, Figure::Rss);
    "generation" "GEN" 4 right 4 "the generation that serves; + when its workers serve several"
        |row, _| row.figures.generation.map(|number| format!("{number}{}", if row.mixed { "+" } else { "" })),
        |row| row.figures.generation.map_or(Key::Nothing, |number| Key::Number(f64::from(number)));
    "version" "VERSION" 11 left 8 "program and version"
        |row, _| row.version.clone(), |row| row.version.clone().map_or(Key::Nothing, Key::Text);
    "uptime" "UPTIME" 6 right 7 "for how long it runs"
        |row, _| row.uptime.map(format::seconds), |row| row.uptime.map_or(Key::Nothing, |up| Key::Number(up as f64));
    "restarts" "RST" 3 right 9 "how often it was restarted while rtop watched"
        |row, _| (row.restarts > 0).then(|| row.restarts.to_string()),
        |row| if row.restarts > 0 { Key::Number(row.restarts as f64) } else { Key::Nothing };
    "requests" "REQ" 7 right 10 "requests completed since its start"
        |row, _| row.requests.map(format::count), |row| row.requests.map_or(Key::Nothing, |count| Key::Number(count as f64));
    "note" "NOTE" 16 grows 9 "why it is dead; in what it stands out; else the labels that its source gives it"
        |row, _| (!row.note.is_empty()).then(|| row.note.clone()),
        |row| if row.note.is_empty() { Key::Nothing } else { Key::Text(row.note.clone()) };
};

/// The table as text, of so many rows.
pub(crate) fn server_list(rows: &[Row], clock: &Clock) -> super::List {
    let told: Vec<&Field<Row>> =
        SERVER_FIELDS.iter().filter(|field| rows.iter().any(|row| (field.text)(row, clock).is_some())).collect();
    let cells =
        |row: &Row| told.iter().map(|field| (field.text)(row, clock).unwrap_or_else(|| "-".to_owned())).collect();
    let titles = told.iter().map(|field| field.title).collect();
    super::List { titles, rows: rows.iter().map(|row| (cells(row), super::Mark::Plain)).collect() }
}
