//! What people read about the options, made from the table: the sentence in `--help`; and, by the tests, the pages of
//! `docs/`.

use std::fmt::Write as _;

use super::row::Row;

/// An option's help with what else there is to know, for one entry of `--help`.
pub(super) fn sentence(row: &Row) -> String {
    let mut text = row.help.to_owned();
    if row.accumulates() {
        text.push_str("; may be repeated");
    }
    if !row.default.is_empty() {
        let _ = write!(text, " [default: {}]", row.default);
    }
    if let [_, others @ ..] = row.names
        && !others.is_empty()
    {
        let _ = write!(text, " [also: {}]", dashed(others));
    }
    text
}

fn dashed(names: &[&str]) -> String {
    names.iter().map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod pages;
