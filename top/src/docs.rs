//! The tables in `docs/rtop.md` and `docs/fleet.md`: made from the tables of keys, columns and metrics, so that they cannot drift. A test
//! compares them; with `RWSGI_WRITE_DOCS=1` it writes them.

use std::fmt::Write as _;

use crate::model::columns::COLUMNS;
use crate::model::fields::{Field, ROUTE_FIELDS, SLOW_FIELDS};
use crate::model::{RULES, SERVER_FIELDS, outliers};
use crate::view::keys::BINDINGS;
use crate::view::{FLEET_KEYS, PALETTES};
use rwsgi_assertions::{AGGREGATES, METRICS, Metric, ROUTE_METRICS, SERVER_METRICS, Teller};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/");

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

/// The keys of a fleet's screen, as the usual configuration binds them.
fn fleet_keys() -> String {
    let mut text = "| keys | |\n| --- | --- |\n".to_owned();
    for (action, _, help) in FLEET_KEYS {
        let bound = BINDINGS.iter().find(|binding| binding.action == action).map_or(&[][..], |binding| binding.keys);
        let keys: Vec<String> = bound.iter().map(|key| format!("`{key}`")).collect();
        let _ = writeln!(text, "| {} | {help} |", keys.join(" "));
    }
    text
}

fn fleet_columns() -> String {
    let mut text = "| title | name | |\n| --- | --- | --- |\n".to_owned();
    for field in SERVER_FIELDS {
        let _ = writeln!(text, "| {} | {} | {} |", field.title, field.name, field.help);
    }
    text
}

fn fleet_rules() -> String {
    let mut text = "| rule | holds when | of how many servers | |\n| --- | --- | --- | --- |\n".to_owned();
    for rule in outliers::RULES {
        let least = if rule.needs_peers { format!("{} and more", outliers::FEWEST) } else { "any".to_owned() };
        let _ = writeln!(text, "| {} | {} | {least} | {} |", rule.name, rule.when, rule.advice);
    }
    text
}

fn aggregates() -> String {
    let mut text = "| | |\n| --- | --- |\n".to_owned();
    for (_, name, help) in AGGREGATES {
        let _ = writeln!(text, "| `{name}` | {help} |");
    }
    text
}

fn server_metrics() -> String {
    let mut text = "| metric | |\n| --- | --- |\n".to_owned();
    for metric in SERVER_METRICS {
        let _ = writeln!(text, "| `{}` | {} |", metric.of_route(), metric.help);
    }
    text
}

#[test]
fn the_tables_in_the_docs_are_these() {
    let rtop = [
        ("keys", keys()),
        ("columns", columns()),
        ("route fields", fields(ROUTE_FIELDS)),
        ("slow fields", fields(SLOW_FIELDS)),
        ("rules", rules()),
        ("themes", themes()),
        ("metrics", metrics(METRICS)),
        ("route metrics", metrics(ROUTE_METRICS)),
    ];
    let fleet = [
        ("fleet keys", fleet_keys()),
        ("fleet columns", fleet_columns()),
        ("fleet rules", fleet_rules()),
        ("aggregates", aggregates()),
        ("server metrics", server_metrics()),
    ];
    for (page, tables) in [("rtop.md", &rtop[..]), ("fleet.md", &fleet[..])] {
        let path = format!("{DOCS}{page}");
        let text = std::fs::read_to_string(&path).unwrap();
        let made = tables.iter().fold(text.clone(), |made, (name, table)| replaced(&made, name, table));
        if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
            std::fs::write(&path, &made).unwrap();
        } else {
            assert!(text == made, "docs/{page} is behind: run the tests with RWSGI_WRITE_DOCS=1");
        }
    }
}
