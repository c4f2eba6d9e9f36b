//! The JSON notation: an object with a key `uwsgi`, whose value is an object of options; a list gives an option several
//! times. Keys are kept in their order and as often as they stand there, which a map would not do.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Pair, SyntaxError, no_section, wanted};

/// The members of an object, not yet looked into.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

pub(super) fn read(text: &str, asked: Option<&str>) -> Result<Vec<Pair>, SyntaxError> {
    let mut pairs = None;
    let document: Members<'_> = parse(text, text)?;
    let sections: Vec<String> = document.0.iter().map(|(name, _)| name.clone()).collect();
    for (_, section) in document.0.iter().filter(|(name, _)| wanted(name, asked)) {
        let pairs: &mut Vec<Pair> = pairs.get_or_insert_default();
        let options: Members<'_> = parse(text, section.get())?;
        for (key, raw) in options.0 {
            let line = line_of(text, raw.get());
            let value: Value = parse(text, raw.get())?;
            let values = match value {
                Value::Array(values) => values,
                value => vec![value],
            };
            for value in values {
                let value = scalar(value).ok_or_else(|| SyntaxError {
                    line,
                    problem: format!("'{key}' holds an object or a list in a list where a value is expected"),
                })?;
                pairs.push(Pair { key: key.clone(), value, line });
            }
        }
    }
    pairs.ok_or_else(|| no_section(asked, &sections))
}

/// As uWSGI writes them down; `null` is no.
fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("1".into()),
        Value::Bool(false) | Value::Null => Some("0".into()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Parses a piece of `text`.
fn parse<'a, T: Deserialize<'a>>(text: &'a str, piece: &'a str) -> Result<T, SyntaxError> {
    serde_json::from_str(piece).map_err(|error| SyntaxError {
        line: line_of(text, piece) + error.line().saturating_sub(1),
        problem: format!("expected an object 'uwsgi' of options in JSON: {error}"),
    })
}

/// The line on which a piece of `text` begins.
fn line_of(text: &str, piece: &str) -> usize {
    let offset = (piece.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
    1 + text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
}
