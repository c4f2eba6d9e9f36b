//! A fleet after a sweep, for programs and for files: a line of JSON, rows of CSV, a plain table.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::lines::{csv, no_formula, number, one_line_json};
use crate::format;
use crate::model::columns::Key;
use crate::model::fields::{Clock, Field};
use crate::model::fleet::{Fleet, State};
use crate::model::outliers::{Began, Outlier, Outliers, RULES};
use crate::model::{FleetTotals, SERVER_FIELDS, ServerRow, server_list, share};
use crate::source::{LocalMicros, Monotonic};

type Row = Arc<ServerRow>;

/// What a line has of a server beside the fields: keys and what they are.
const MORE: [(&str, &str); 4] = [
    ("silent", "for how long it has not answered, seconds"),
    ("threads", "its threads"),
    ("mixed_generations", "its workers serve more than one generation"),
    ("why", "why it is dead"),
];

fn value(field: &Field<Row>, row: &Row) -> Value {
    match (field.name, (field.key)(row)) {
        ("state", _) => json!(row.state),
        (_, Key::Nothing) => Value::Null,
        (_, Key::Number(value)) => number(value),
        (_, Key::Text(text)) => Value::String(text),
    }
}

/// What a field is in JSON and CSV.
fn raw_help(field: &Field<Row>) -> String {
    match field.name {
        "state" => "up, draining, slow, dead or new".to_owned(),
        "busy" => "threads in requests".to_owned(),
        "uptime" => "for how long it runs, seconds".to_owned(),
        "generation" => "the generation that serves".to_owned(),
        "mean" | "p50" | "p95" | "p99" => format!("{}, µs", field.help),
        "errors" | "saturation" | "utilization" => format!("{}, 0 to 1", field.help.trim_end_matches(", percent")),
        "rss" => format!("{}, bytes", field.help),
        _ => field.help.to_owned(),
    }
}

/// A fleet as a JSON object in one line.
pub(super) fn json_line(
    fleet: &Fleet,
    outliers: &Outliers,
    rows: &[Row],
    totals: &FleetTotals,
    (at, taken): (Monotonic, LocalMicros),
) -> String {
    let server = |row: &Row| {
        let fields = SERVER_FIELDS.iter().map(|field| (field.name.to_owned(), value(field, row)));
        let tracked = fleet.get(row.id);
        let why = tracked
            .and_then(|server| if let State::Dead { why, .. } = &server.state { Some(why.clone()) } else { None });
        let labels: Map<String, Value> = tracked
            .into_iter()
            .flat_map(|server| &server.server.labels)
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let more = [json!(row.silent), json!(row.threads.map(|(_, all)| all)), json!(row.mixed), json!(why)];
        let more = MORE.iter().zip(more).map(|((key, _), value)| ((*key).to_owned(), value));
        Value::Object(fields.chain(more).chain([("labels".to_owned(), Value::Object(labels))]).collect())
    };
    let percentiles = totals.percentiles;
    let tally = totals.tally;
    let sources = fleet.troubles().map(|(source, why)| json!({"source": source, "why": why})).collect::<Vec<_>>();
    // Which moment of this machine's clock a moment of rtop's was.
    let unix = |seconds: f64| (taken.0 as f64 - at.as_micros() as f64) / 1e6 + seconds;
    one_line_json(&json!({
        "time": taken.0 as f64 / 1e6,
        "fleet": {
            "servers": rows.len(), "up": tally.up, "slow": tally.slow, "dead": tally.dead, "new": tally.new,
            "draining": totals.draining,
        },
        "totals": {
            "rps": number(totals.rps),
            "error_rate": totals.errors.map(number),
            "p50": percentiles.map(|all| all.p50),
            "p95": percentiles.map(|all| all.p95),
            "p99": percentiles.map(|all| all.p99),
            "saturation": totals.saturation.map(number),
            "waiting": totals.waiting,
            "rss": totals.rss,
            "worst": totals.worst.as_ref().map(|(name, micros)| json!({"server": name, "p99": number(*micros)})),
        },
        "outliers": outliers.found().iter().map(|found| outlier(found, unix)).collect::<Vec<_>>(),
        "servers": rows.iter().map(server).collect::<Vec<_>>(),
        "sources": sources,
    }))
}

fn outlier(outlier: &Outlier, unix: impl Fn(f64) -> f64) -> Value {
    let generation = if let Began::Generation(number) = outlier.began { Some(number) } else { None };
    json!({
        "server": outlier.server,
        "rule": outlier.rule().name,
        "sentence": outlier.sentence,
        "advice": outlier.advice,
        "evidence": outlier.evidence,
        "since": outlier.since.map(|since| number((unix(since) * 1e3).round() / 1e3)),
        "began_with": match outlier.began {
            Began::Alone => Value::Null,
            Began::Generation(_) => json!("generation"),
            Began::Start => json!("start"),
        },
        "generation": generation,
    })
}

/// The JSON Schema of [`json_line`].
pub(crate) fn json_schema() -> Value {
    let count = |help: &str| json!({"type": "integer", "description": help});
    let maybe = |help: &str| json!({"type": ["number", "null"], "description": help});
    let fields = SERVER_FIELDS.iter().map(|field| (field.name, raw_help(field)));
    let more = MORE.iter().map(|(key, help)| (*key, (*help).to_owned()));
    let mut servers: Map<String, Value> = fields
        .chain(more)
        .map(|(name, help)| {
            let types = json!({"type": ["number", "string", "boolean", "null"], "description": help});
            (name.to_owned(), types)
        })
        .collect();
    servers.insert("labels".to_owned(), json!({"type": "object", "description": "what its source says of it"}));
    let rules: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of rtop --json over a fleet",
        "description": "A fleet at the end of a poll interval. Times are µs unless they are named otherwise, sizes bytes, shares 0 to 1; null is what is not known, or what needs requests when there were none.",
        "type": "object",
        "required": ["time", "fleet", "totals", "outliers", "servers", "sources"],
        "properties": {
            "time": {"type": "number", "description": "when, unix seconds"},
            "fleet": {"type": "object", "description": "how many servers are in which state", "properties": {
                "servers": count("all"), "up": count("that answer"), "slow": count("that have not answered in time"),
                "dead": count("that cannot be read"), "new": count("not read yet"),
                "draining": count("of those that answer: that finish what they have"),
            }},
            "totals": {"type": "object", "description": "of the servers that answer", "properties": {
                "rps": maybe("requests per second"), "error_rate": maybe("share of requests that failed"),
                "p50": maybe("of all requests together, µs"), "p95": maybe("of all requests together, µs"),
                "p99": maybe("of all requests together, µs"),
                "saturation": maybe("busy threads and waiting requests by all threads"),
                "waiting": count("connections and requests that wait"), "rss": count("resident memory, bytes"),
                "worst": {"type": ["object", "null"], "description": "the server with the highest p99 (mean, where none is told)"},
            }},
            "outliers": {"type": "array", "description": "what stands out, the most severe first", "items": {
                "type": "object", "properties": {
                    "server": {"type": "string"},
                    "rule": {"enum": rules, "description": "the rule that found it"},
                    "sentence": {"type": "string", "description": "what stands out, with since when"},
                    "advice": {"type": "string", "description": "what to do"},
                    "evidence": {"type": "array", "items": {"type": "string"}, "description": "the numbers that it rests on"},
                    "since": maybe("since when, unix seconds; null: for longer than is known"),
                    "began_with": {"enum": ["generation", "start", null], "description": "what it began with"},
                    "generation": {"type": ["integer", "null"], "description": "the generation that it began with"},
                },
            }},
            "servers": {"type": "array", "items": {"type": "object", "properties": servers}},
            "sources": {"type": "array", "description": "what is wrong with what names the servers"},
        },
    })
}

/// The first line of CSV.
pub(super) fn csv_header() -> String {
    let names = SERVER_FIELDS.iter().map(|field| field.name.to_owned());
    csv(std::iter::once(std::iter::once("time".to_owned()).chain(names).collect()))
}

/// A fleet as CSV: a row for each server.
pub(super) fn csv_rows(rows: &[Row], taken: LocalMicros) -> String {
    let time = format!("{:.6}", taken.0 as f64 / 1e6);
    let cell = |value: Value| match value {
        Value::Null => String::new(),
        Value::String(text) => no_formula(text),
        other => other.to_string(),
    };
    csv(rows.iter().map(|row| {
        std::iter::once(time.clone()).chain(SERVER_FIELDS.iter().map(|field| cell(value(field, row)))).collect()
    }))
}

/// A fleet as text, the worst servers first, with an empty line after it.
pub(super) fn table(
    fleet: &Fleet,
    outliers: &Outliers,
    mut rows: Vec<Row>,
    totals: &FleetTotals,
    clock: &Clock,
    unicode: bool,
) -> String {
    let tally = totals.tally;
    let time = format::local(clock.now, "%Y-%m-%d %H:%M:%S", &clock.zone);
    let mut text = format!("{} servers  {} up", rows.len(), tally.up);
    for (count, word) in [(totals.draining, "draining"), (tally.slow, "slow"), (tally.dead, "dead"), (tally.new, "new")]
    {
        if count > 0 {
            let _ = write!(text, "  {count} {word}");
        }
    }
    let _ = write!(text, "  {time}  RPS {}", format::rate(totals.rps));
    if let Some(errors) = totals.errors {
        let _ = write!(text, "  5xx {}%", share(errors));
    }
    if let Some(all) = totals.percentiles {
        let [p50, p95, p99] = [all.p50, all.p95, all.p99].map(format::micros);
        let _ = write!(text, "  p50 {p50}  p95 {p95}  p99 {p99}");
    }
    if let Some(saturation) = totals.saturation {
        let _ = write!(text, "  sat {}%", share(saturation));
    }
    if let Some((name, micros)) = &totals.worst {
        let _ = write!(text, "  worst {name} {}", format::micros(*micros as u64));
    }
    text.push('\n');
    for (source, why) in fleet.troubles() {
        let _ = writeln!(text, "! {source}: {why}");
    }
    for outlier in outliers.found() {
        let _ = writeln!(text, "! {} → {}", outlier.sentence, outlier.advice);
    }
    rows.sort_by(|a, b| {
        (b.state == "dead", b.stands_out).cmp(&(a.state == "dead", a.stands_out)).then_with(|| a.name.cmp(&b.name))
    });
    if !rows.is_empty() {
        text.push_str(&server_list(&rows, clock).text());
    }
    text.push('\n');
    let plain = |character: char| if character == '\n' { character } else { format::ascii(character) };
    if unicode { text } else { text.chars().map(plain).collect() }
}
