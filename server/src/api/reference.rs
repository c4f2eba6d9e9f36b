//! `docs/python-api.md`: every name, and what becomes of it.

use super::names::{NAMES, Standing};

/// How the part of the page that is made here begins.
const BEGINS: &str =
    "<!-- Made from server/src/api/names.rs: RWSGI_WRITE_DOCS=1 cargo test -p rwsgi --lib reference -->\n";
/// How it ends.
const ENDS: &str = "<!-- The end of what is made. -->\n";

/// That part.
pub(super) fn page() -> String {
    let mut page =
        format!("{BEGINS}\n## Every name\n\n### What is there\n\n| name | what it does or gives |\n| --- | --- |\n");
    add(&mut page, |standing| if let Standing::Works(says) = standing { Some(says) } else { None });
    page.push_str("\n### What the application assigns\n\n| name | what becomes of it |\n| --- | --- |\n");
    add(&mut page, |standing| if let Standing::Assigned(says) = standing { Some(says) } else { None });
    page.push_str(
        "\n### What is not there\n\nTo use one of these names raises `NotAvailable`, a `NotImplementedError` and an `AttributeError`, which says the same as this table.\n\n\
         | name | what to do instead |\n| --- | --- |\n",
    );
    add(&mut page, |standing| if let Standing::Not(advice) = standing { Some(advice) } else { None });
    page
}

fn add(page: &mut String, said: fn(Standing) -> Option<&'static str>) {
    for (name, standing) in NAMES {
        if let Some(says) = said(*standing) {
            page.push_str(&format!("| `{name}` | {} |\n", says.replace('|', "\\|")));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/python-api.md");
        let whole = std::fs::read_to_string(path).unwrap();
        let (before, rest) = whole.split_once(super::BEGINS).unwrap();
        let (_, after) = rest.split_once(super::ENDS).unwrap();
        let made = format!("{before}{}\n{}{after}", super::page(), super::ENDS);
        if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), made, "RWSGI_WRITE_DOCS=1 writes it again");
    }
}
