//! Samples for programs: a line of JSON, or rows of CSV. Values are in base units: µs, bytes, fractions from 0 to 1.
//!
//! The keys come from the tables of metrics and of columns, so they cannot drift from what the screen shows.

use serde_json::{Map, Value, json};

use crate::model::columns::{COLUMNS, Column, Key, Raw, Row};
use crate::model::{Counts, Finding, PHASES, Percentiles, PhaseCounts, Pool, RULES, RouteRow, Sample, routes};
use rwsgi_assertions::Teller;
use rwsgi_assertions::Window;
use rwsgi_assertions::{METRICS, Unit};

pub(super) fn number(value: f64) -> Value {
    // Whole numbers without a point: counters are what most of these are.
    if value.fract() == 0.0 && value.abs() < 9e15 { json!(value as i64) } else { json!((value * 1e6).round() / 1e6) }
}

fn value(key: Key) -> Value {
    match key {
        Key::Nothing => Value::Null,
        Key::Number(value) => number(value),
        Key::Text(text) => Value::String(text),
    }
}

/// The columns that have a raw value of their own.
fn raw_columns() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(|column| column.raw != Raw::Nothing)
}

/// What a column's raw value is, and who tells it.
fn raw_help(column: &Column) -> String {
    let help = if let Raw::As(help) = column.raw { help } else { column.help };
    match column.teller {
        Teller::Both => help.to_owned(),
        Teller::MemoryReport => format!("{help} (uWSGI: 0 without --memory-report)"),
        Teller::Rwsgi => format!("{help} (rwsgi only)"),
    }
}

fn rows(sample: &Sample) -> impl Iterator<Item = Row<'_>> {
    let pairs = sample.snapshot.workers.iter().zip(&sample.workers).enumerate();
    pairs.map(|(place, (worker, rates))| Row { place, worker, rates, core: None, merged: false })
}

/// One sample as a JSON object in one line.
pub(crate) fn json_line(pool: &Pool, sample: &Sample, window: &Window) -> String {
    let totals: Map<String, Value> = METRICS
        .iter()
        .map(|metric| (metric.name.to_owned(), (metric.value)(window).map_or(Value::Null, number)))
        .collect();
    let workers: Vec<Value> = rows(sample)
        .map(|row| raw_columns().map(|column| (column.name.to_owned(), value((column.key)(&row)))).collect())
        .map(Value::Object)
        .collect();
    let snapshot = &sample.snapshot;
    let line = json!({
        "target": pool.label,
        "time": sample.clock.0 as f64 / 1e6,
        "window": sample.window,
        "server": snapshot.server.as_deref().unwrap_or("uwsgi"),
        "version": snapshot.version,
        "pid": snapshot.pid,
        "requests_total": sample.totals.requests,
        "queue": sample.totals.queue,
        "totals": totals,
        "routes": sample.snapshot.routes.as_ref().map(|_| routes(&[sample]).iter().map(route).collect::<Vec<_>>()),
        "phases": sample.totals.phases.as_ref().map(phases),
        "findings": sample.findings.iter().map(finding).collect::<Vec<_>>(),
        "workers": workers,
    });
    one_line_json(&line)
}

/// What a line has of a route: its key, and what it is.
const ROUTE_KEYS: [(&str, &str); 14] = [
    ("requests_total", "requests since its row began"),
    ("errors_total", "responses of 500 and more"),
    ("exceptions_total", "requests in which the application raised an exception"),
    ("tx_total", "bytes sent"),
    ("rps", "requests per second"),
    ("share", "share of the busy time of all routes, 0 to 1"),
    ("gil", "share of its busy time that waited for Python's global lock, 0 to 1"),
    ("p50", "median latency, µs"),
    ("p95", "95th percentile of latency, µs"),
    ("p99", "99th percentile of latency, µs"),
    ("growth", "bytes that a request makes its process grow by (workers of one thread alone)"),
    ("last_exception", "class and text of its last exception"),
    ("slowest", "how long the slowest request of the last minutes took, µs"),
    ("slowest_request", "that request"),
];

fn route(row: &RouteRow) -> Value {
    let whole = |value: u64| Some(json!(value));
    let latency = |of: fn(&Percentiles) -> u64| row.latency.as_ref().map(|latency| json!(of(latency)));
    let exception = row.last_exception.as_ref().map(|exception| format!("{}: {}", exception.kind, exception.message));
    let slowest = row.slowest.as_ref();
    let values = [
        whole(row.requests),
        whole(row.errors),
        whole(row.exceptions),
        whole(row.tx),
        row.rps.map(number),
        row.share.map(number),
        row.gil.map(number),
        latency(|p| p.p50),
        latency(|p| p.p95),
        latency(|p| p.p99),
        row.growth().map(number),
        exception.map(Value::from),
        slowest.map(|slowest| json!(slowest.elapsed)),
        slowest.map(|slowest| json!(slowest.request)),
    ];
    let pairs =
        ROUTE_KEYS.iter().zip(values).map(|((key, _), value)| ((*key).to_owned(), value.unwrap_or(Value::Null)));
    let names = [("route", json!(row.route)), ("named", json!(row.named))];
    Value::Object(names.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(pairs).collect())
}

fn phases(PhaseCounts(phases): &PhaseCounts) -> Value {
    let percentiles = |counts: &Counts| match counts.percentiles() {
        Some(Percentiles { p50, p95, p99, max }) => json!({"p50": p50, "p95": p95, "p99": p99, "max": max}),
        None => Value::Null,
    };
    Value::Object(PHASES.iter().zip(phases).map(|(name, counts)| ((*name).to_owned(), percentiles(counts))).collect())
}

fn finding(finding: &Finding) -> Value {
    json!({
        "rule": finding.rule().name,
        "sentence": finding.sentence,
        "advice": finding.advice,
        "evidence": finding.evidence,
    })
}

/// A value as a line of JSON that a terminal can take.
pub(super) fn one_line_json(value: &Value) -> String {
    let mut line = Vec::new();
    // Memory takes everything, and a value has no keys but texts.
    let _ = rwsgi_stats::write_json(&mut line, value);
    line.push(b'\n');
    String::from_utf8(line).unwrap_or_default()
}

/// The JSON Schema of [`json_line`].
pub(crate) fn json_schema() -> Value {
    let unit = |unit: Unit| match unit {
        Unit::Number => "count",
        Unit::PerSecond => "per second",
        Unit::Time => "µs",
        Unit::Fraction => "0 to 1",
        Unit::Bytes => "bytes",
    };
    let totals: Map<String, Value> = METRICS
        .iter()
        .map(|metric| {
            let description = format!("{} ({})", metric.help, unit(metric.unit));
            (metric.name.to_owned(), json!({"type": ["number", "null"], "description": description}))
        })
        .collect();
    let workers: Map<String, Value> = raw_columns()
        .map(|column| {
            (column.name.to_owned(), json!({"type": ["number", "string", "null"], "description": raw_help(column)}))
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of rtop --json",
        "description": "One sample of one server. Times are µs, sizes bytes, shares 0 to 1; null is what the server does not tell, or what needs requests when there were none.",
        "type": "object",
        "required": ["target", "time", "window", "server", "version", "pid", "requests_total", "queue", "totals", "routes", "phases", "findings", "workers"],
        "properties": {
            "target": {"type": "string", "description": "the address as it was typed"},
            "time": {"type": "number", "description": "when the sample was taken, unix seconds"},
            "window": {"type": ["number", "null"], "description": "seconds since the sample before it"},
            "server": {"type": "string", "description": "the server program: uwsgi or rwsgi"},
            "version": {"type": "string", "description": "its version"},
            "pid": {"type": "integer", "description": "process id of the master"},
            "requests_total": {"type": "integer", "description": "requests since the server started"},
            "queue": {"type": "integer", "description": "connections and requests that wait"},
            "totals": {"type": "object", "description": "what happened in the window", "properties": totals},
            "routes": {"type": ["array", "null"], "description": "requests by route (rwsgi only)", "items": route_schema()},
            "phases": {"type": ["object", "null"], "description": "how long the phases of the window's requests took, µs: p50, p95, p99 and max of each (rwsgi only)"},
            "findings": {"type": "array", "description": "what is wrong, the most important first", "items": finding_schema()},
            "workers": {"type": "array", "items": {"type": "object", "properties": workers}},
        },
    })
}

fn route_schema() -> Value {
    let keys = ROUTE_KEYS
        .iter()
        .map(|(key, help)| ((*key).to_owned(), json!({"type": ["number", "string", "null"], "description": help})));
    let names = [
        ("route", json!({"type": "string", "description": "its name"})),
        ("named", json!({"type": "boolean", "description": "the application has named it"})),
    ];
    let properties: Map<String, Value> =
        names.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(keys).collect();
    json!({"type": "object", "properties": properties})
}

fn finding_schema() -> Value {
    let rules: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    json!({"type": "object", "properties": {
        "rule": {"enum": rules, "description": "the rule that found it"},
        "sentence": {"type": "string", "description": "what is wrong"},
        "advice": {"type": "string", "description": "what to do"},
        "evidence": {"type": "array", "items": {"type": "string"}, "description": "the numbers that it rests on"},
    }})
}

/// Rows as CSV (RFC 4180), lines ending as everything else here.
pub(super) fn csv(rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        // Memory takes everything, and rows are as long as each other.
        let _ = writer.write_record(row);
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

/// The first line of CSV.
pub(crate) fn csv_header() -> String {
    let names = raw_columns().map(|column| column.name.to_owned());
    csv(std::iter::once(["time", "target"].map(str::to_owned).into_iter().chain(names).collect()))
}

/// A text that no spreadsheet takes for a formula: those begin with one of these. Numbers are no texts.
pub(super) fn no_formula(text: String) -> String {
    if text.trim_start().starts_with(['=', '+', '-', '@', '\'']) { format!("'{text}") } else { text }
}

/// One sample as CSV: a row for each worker.
pub(crate) fn csv_rows(pool: &Pool, sample: &Sample) -> String {
    let cell = |value: Value| match value {
        Value::Null => String::new(),
        Value::String(text) => no_formula(text),
        other => other.to_string(),
    };
    let time = format!("{:.6}", sample.clock.0 as f64 / 1e6);
    let target = no_formula(pool.label.clone());
    csv(rows(sample).map(|row| {
        let cells = raw_columns().map(|column| cell(value((column.key)(&row))));
        [time.clone(), target.clone()].into_iter().chain(cells).collect()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::window::Steps;
    use crate::source::{LocalMicros, Monotonic, Poll, parse};

    fn two_samples() -> (Pool, Window) {
        let mut pool = Pool::new("web1:9191".into(), None);
        let (mut steps, mut window) = (Steps::default(), Window::default());
        for (second, requests) in [(0, 10), (2, 30)] {
            let document = format!(
                r#"{{"version":"2","pid":7,"workers":[{{"id":1,"pid":8,"requests":{requests},"status":"busy","cores":[{{"id":0,
                "in_request":1,"vars":["REQUEST_METHOD=GET","REQUEST_URI=/a,\"b"]}}]}}]}}"#
            );
            let outcome = Ok(parse(document.into_bytes()).unwrap());
            let (at, taken) = (Monotonic::from_micros(second * 1_000_000), LocalMicros(second * 1_000_000));
            pool.ingest(Poll { target: 0, at, taken, outcome });
            window.then(&steps.step(&pool, taken).unwrap().whole);
        }
        (pool, window)
    }

    #[test]
    fn a_line_of_json_has_rates_and_raw_numbers() {
        let (pool, window) = two_samples();
        let line = json_line(&pool, pool.current.as_ref().unwrap(), &window);
        assert_eq!(line.matches('\n').count(), 1);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["totals"]["rps"], 10);
        assert_eq!(line["totals"]["p99"], Value::Null);
        assert_eq!(line["workers"][0]["request"], "GET /a,\"b");
        let schema = json_schema();
        for key in schema["required"].as_array().unwrap() {
            assert!(line.get(key.as_str().unwrap()).is_some(), "{key}");
        }
    }

    #[test]
    fn csv_has_as_many_cells_as_its_header_and_quotes_what_clients_send() {
        let (pool, _) = two_samples();
        let rows = csv_rows(&pool, pool.current.as_ref().unwrap());
        assert!(rows.contains("\"GET /a,\"\"b\""), "{rows}");
        let plain = rows.replace("\"GET /a,\"\"b\"", "x");
        assert_eq!(plain.trim_end().split(',').count(), csv_header().trim_end().split(',').count());
    }

    #[test]
    fn the_schema_in_the_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rtop-json.schema.json");
        let made = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
        if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == made,
            "docs/ is behind: run the tests with RWSGI_WRITE_DOCS=1"
        );
    }
}
