//! `docs/stats.schema.json` and `docs/stats.md` are made from the types and their comments, and are current.
//!
//! `RWSGI_WRITE_DOCS=1 cargo test -p rwsgi-stats --test documentation` writes them instead of comparing them.

#![allow(clippy::unwrap_used, reason = "what is missing here fails the test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::path::Path;

use rwsgi_stats::Snapshot;
use serde_json::Value;

const INTRODUCTION: &str = r##"# The stats document

`--stats ADDRESS` sends one JSON document to each connection and closes it, as uWSGI's stats server does. With
`--stats-http` it answers HTTP: `GET /` is the document, `GET /metrics` is for [Prometheus](prometheus.md).

It is a superset of uWSGI 2.0's. Keys of uWSGI have uWSGI's types and units; keys that only `rwsgi` sends are always
there, and their unit is given here. Programs pass over keys that they do not know: more may come. The JSON Schema is in
`stats.schema.json`.

Rates are differences: subtract two documents, and divide by the difference of their `now`. Utilization of a worker is
the difference of `busy_time`, divided by the difference of `now` and by the number of its cores. Percentiles come from
the difference of two `latency` histograms (any HDR histogram library reads them); never average averages.

## What is left out

The document, and the log's lines about requests, do not show the secrets of clients:

- `vars` leaves out every variable with TOKEN, KEY, SECRET, CERT, PASS, AUTH, COOKIE, SESSION or CSRF in its name.
- A query is shown with the names of its arguments and `…` for their values: `/login?user=…&next=…`. An argument without
  `=` is `…`, because it may be a value. This holds in `REQUEST_URI`, `QUERY_STRING`, `HTTP_REFERER`, in every other
  variable that holds a URL, in `req_info`, in `last_exception` and in a route's `slowest`.
- `routes` has no queries, and `{}` for each part of a path that looks like a token ([routes.md](routes.md)).
- The user and password of a URL are shown as `…@`, a fragment as `#…`.
- The log follows the same rule where it names a request: one that `harakiri` ended, one that a dead worker held, one in
  which the application raised an exception. `rtop` follows it too, in what it shows, writes and records, because uWSGI
  sends everything.

`show-request = headers`, `queries` or `all` shows more, in all these places. Always shown: paths, addresses of clients,
`REMOTE_USER`, and the text of an exception (in the document without the secrets of URLs in it, in the log whole). The
access log shows whole URLs, as uWSGI's does; `disable-logging` turns it off. So bind the stats server to an address that
only you can reach.

## Who may read it

Everybody who can open a unix socket's file, or reach a TCP address. Use a loopback address.

Pages in a browser on the same machine can reach loopback addresses too. `--stats-http` therefore:

- sends no CORS header (uWSGI sends `Access-Control-Allow-Origin: *`), so that no page can read the answer.
  `--stats-http-cors ORIGIN` lets the pages of one origin read it, `*` all pages.
- answers 421 on a loopback address unless `Host` is `localhost`, a loopback address in digits, or the name that `--stats`
  was given: a page can have its own name resolve to 127.0.0.1 ("DNS rebinding"). A proxy in front must set `Host` to
  `localhost`.

An [emperor](emperor.md) sends a document of its own, `--emperor-stats`: `emperor`, `vassals` and `blacklist`, and of
the keys that only `rwsgi` sends `server`, `schema`, `hostname`, `started_at` and `now`.

A plain stats socket sends no HTTP head. Browsers read that as HTTP/0.9, which they accept on port 80 alone.

At most 32 connections are open at a time. When another comes, the one that has been silent longest is closed, so idle
clients keep no monitor out. Control characters that JSON allows as they are, are written as `\u009b`.

<!-- Made from shared/src/schema.rs by the test shared/tests/documentation.rs, which says how. -->
"##;

/// What every stats server sends of the document itself; an emperor sends no more of what the others send.
const ALWAYS: [&str; 5] = ["version", "pid", "uid", "gid", "cwd"];

fn schema() -> Value {
    // What is written, not what is understood: a key is required where it is never left out.
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<Snapshot>();
    let mut schema = serde_json::to_value(schema).unwrap();
    retain(&mut schema["required"], |key| ALWAYS.contains(&key));
    // uWSGI does not know it.
    retain(&mut schema["$defs"]["Worker"]["required"], |key| key != "last_exception");
    schema
}

fn retain(keys: &mut Value, keep: impl Fn(&str) -> bool) {
    keys.as_array_mut().unwrap().retain(|key| keep(key.as_str().unwrap()));
}

/// The type that a property refers to, and whether it is a list of them.
fn reference(property: &Value) -> Option<(&str, bool)> {
    let name =
        |value: &'_ Value| -> Option<usize> { value["$ref"].as_str().map(|text| text.rfind('/').unwrap_or(0) + 1) };
    let direct = std::iter::once(property).chain(property["anyOf"].as_array().into_iter().flatten());
    for value in direct {
        if let Some(at) = name(value) {
            return value["$ref"].as_str().map(|text| (&text[at..], false));
        }
    }
    let items = &property["items"];
    name(items).and_then(|at| items["$ref"].as_str().map(|text| (&text[at..], true)))
}

fn type_of(property: &Value) -> String {
    if let Some((_, list)) = reference(property) {
        return if list { "list of objects" } else { "object" }.to_owned();
    }
    let name = match &property["type"] {
        Value::Array(names) => names[0].as_str().unwrap_or_default(),
        name => name.as_str().unwrap_or_default(),
    };
    match name {
        "array" => format!("list of {}s", property["items"]["type"].as_str().unwrap_or_default()),
        name => name.to_owned(),
    }
}

/// The names of all keys that real uWSGI servers sent, by the path of the object that they are in.
fn keys_of_uwsgi() -> BTreeMap<String, BTreeSet<String>> {
    fn collect(value: &Value, path: &str, into: &mut BTreeMap<String, BTreeSet<String>>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    into.entry(path.to_owned()).or_default().insert(name.clone());
                    collect(value, &format!("{path}{}{name}", if path.is_empty() { "" } else { "." }), into);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, &format!("{path}[]"), into)),
            _ => {}
        }
    }
    let mut keys = BTreeMap::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        collect(&serde_json::from_str(&text).unwrap(), "", &mut keys);
    }
    keys
}

fn page(schema: &Value) -> String {
    let uwsgi = keys_of_uwsgi();
    let mut page = INTRODUCTION.to_owned();
    let mut objects = VecDeque::from([(String::new(), schema)]);
    while let Some((path, object)) = objects.pop_front() {
        let heading = if path.is_empty() { "The document itself".to_owned() } else { format!("`{path}`") };
        let about = object["description"].as_str().unwrap_or_default();
        let _ = write!(
            page,
            "\n## {heading}\n\n{about}\n\n| key | type | sent by | meaning |\n| --- | --- | --- | --- |\n"
        );
        let known = uwsgi.get(&path);
        // What was not seen from uWSGI is ours, unless the comment says whose it is.
        let from_uwsgi = |name: &str, meaning: &str| {
            known.is_none_or(|keys| keys.contains(name)) && !is_ours(&path) || meaning.starts_with("uWSGI")
        };
        let mut rows: Vec<_> = object["properties"].as_object().unwrap().iter().collect();
        let meaning = |property: &Value| {
            property["description"].as_str().unwrap_or_default().replace('|', "\\|").replace('\n', " ")
        };
        rows.sort_by_key(|(name, property)| (!from_uwsgi(name, &meaning(property)), *name));
        for (name, property) in rows {
            let meaning = meaning(property);
            let sender = match (from_uwsgi(name, &meaning), meaning.starts_with("uWSGI alone")) {
                (true, true) => "uWSGI",
                (true, false) => "both",
                (false, _) => "rwsgi",
            };
            let _ = writeln!(page, "| `{name}` | {} | {sender} | {meaning} |", type_of(property));
            if let Some((definition, list)) = reference(property) {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{name}{}", if list { "[]" } else { "" });
                objects.push_back((path, &schema["$defs"][definition]));
            }
        }
    }
    page
}

/// Objects that only we send.
fn is_ours(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or_default();
    ["queue", "limits", "responses", "recycled", "last_exception"].contains(&last)
}

#[test]
fn the_pages_in_docs_are_current() {
    let schema = schema();
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    for (name, current) in [("stats.schema.json", text), ("stats.md", page(&schema))] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == current,
            "docs/{name} is not what the types say: run \
             RWSGI_WRITE_DOCS=1 cargo test -p rwsgi-stats --test documentation"
        );
    }
}

#[test]
fn every_key_is_explained() {
    let schema = schema();
    let types = schema["$defs"].as_object().unwrap().iter().map(|(name, object)| (name.as_str(), object));
    for (name, object) in types.chain([("Snapshot", &schema)]) {
        for (key, property) in object["properties"].as_object().unwrap() {
            assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}.{key}");
        }
    }
}
