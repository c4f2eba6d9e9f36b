//! The tables in `docs/rtop.md`: made from the tables of keys, columns and metrics, so that they cannot drift. A test
//! compares them; with `RWSGI_WRITE_DOCS=1` it writes them.

use std::fmt::Write as _;

use crate::model::RULES;
use crate::model::columns::COLUMNS;
use crate::model::fields::{Field, ROUTE_FIELDS, SLOW_FIELDS};
use crate::view::PALETTES;
use crate::view::keys::BINDINGS;
use rwsgi_assertions::Teller;
use rwsgi_assertions::{METRICS, Metric, ROUTE_METRICS};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rtop.md");

fn keys() -> String {
    let mut text = "| keys | name | |\n| --- | --- | --- |\n".to_owned();
    for binding in BINDINGS {
        let keys: Vec<String> = binding.keys.iter().map(|key| format!("`{key}`")).collect();
        let _ = writeln!(text, "| {} | {} | {} |", keys.join(" "), binding.name, binding.help);
    }
    text
}

fn told_by(teller: Teller) -> &'static str {
    match teller {
        Teller::Both => "both",
        Teller::MemoryReport => "both; uWSGI with `--memory-report`",
        Teller::Rwsgi => "rwsgi",
    }
}

fn columns() -> String {
    let mut text = "| title | name | told by | |\n| --- | --- | --- | --- |\n".to_owned();
    for column in COLUMNS {
        let teller = told_by(column.teller);
        let _ = writeln!(text, "| {} | {} | {teller} | {} |", column.title, column.name, column.help);
    }
    text
}

fn fields<T>(fields: &[Field<T>]) -> String {
    let rows = fields.iter().map(|field| format!("| {} | {} |\n", field.title, field.help));
    std::iter::once("| title | |\n| --- | --- |\n".to_owned()).chain(rows).collect()
}

fn rules() -> String {
    let mut text = "| rule | told of | holds when | |\n| --- | --- | --- | --- |\n".to_owned();
    for rule in RULES {
        let _ = writeln!(text, "| {} | {} | {} | {} |", rule.name, told_by(rule.teller), rule.when, rule.advice);
    }
    text
}

fn themes() -> String {
    let rows = PALETTES.iter().map(|palette| format!("| `{}` | {} |\n", palette.name, palette.help));
    std::iter::once("| theme | |\n| --- | --- |\n".to_owned()).chain(rows).collect()
}

fn metrics(metrics: &[Metric]) -> String {
    let mut text = "| metric | units | told by | of several servers | |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for metric in metrics {
        let units: Vec<&str> =
            metric.unit.spellings().iter().map(|(unit, _)| *unit).filter(|unit| !unit.is_empty()).collect();
        let (teller, rule) = (told_by(metric.teller), metric.rule.words());
        let _ =
            writeln!(text, "| `{}` | {} | {teller} | {rule} | {} |", metric.of_route(), units.join(" "), metric.help);
    }
    text
}

/// The text with what is between the markers of `name` replaced.
fn replaced(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let from = text.find(&begin).unwrap() + begin.len();
    let to = text.find(&end).unwrap();
    format!("{}{table}{}", &text[..from], &text[to..])
}

#[test]
fn the_tables_in_the_docs_are_these() {
    let text = std::fs::read_to_string(PATH).unwrap();
    let mut made = text.clone();
    let tables = [
        ("keys", keys()),
        ("columns", columns()),
        ("route fields", fields(ROUTE_FIELDS)),
        ("slow fields", fields(SLOW_FIELDS)),
        ("rules", rules()),
        ("themes", themes()),
        ("metrics", metrics(METRICS)),
        ("route metrics", metrics(ROUTE_METRICS)),
    ];
    for (name, table) in tables {
        made = replaced(&made, name, &table);
    }
    if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
        std::fs::write(PATH, &made).unwrap();
    } else {
        assert!(text == made, "docs/rtop.md is behind: run the tests with RWSGI_WRITE_DOCS=1");
    }
}
