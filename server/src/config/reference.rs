//! What people read about the options, made from the table: the sentence in `--help`, and `docs/options.md`.

use std::fmt::Write as _;

use super::options::OPTIONS;
use super::row::{Row, Standing};

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
    if row.standing == Standing::Planned {
        text.push_str(" [no effect yet]");
    }
    text
}

fn dashed(names: &[&str]) -> String {
    names.iter().map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ")
}

/// The pages of `docs/` that are made here: name and text. The tests compare them with the files.
#[must_use]
pub fn pages() -> [(&'static str, String); 1] {
    [("options.md", options_page())]
}

fn options_page() -> String {
    let mut page = String::from(
        "# Options\n\n\
         Each can be given on the command line (`--processes 4`) or in a file (`processes = 4`). \
         `rwsgi --help` says the same, shorter.\n\n\
         <!-- Made from server/src/config/options.rs: run the tests of rwsgi with RWSGI_WRITE_DOCS=1 to make it anew. -->\n",
    );
    let mut heading = "";
    for row in OPTIONS {
        if row.group.heading() != heading {
            heading = row.group.heading();
            let _ = write!(
                page,
                "\n## {heading}\n\n| option | what it does | default | since |\n| --- | --- | --- | --- |\n"
            );
        }
        let mut names: Vec<String> = row.short.iter().map(|short| format!("`-{short}`")).collect();
        names.extend(row.names.iter().map(|name| format!("`--{name}`")));
        let takes = if row.takes_value() { format!(" `{}`", row.takes) } else { String::new() };
        let repeated = if row.accumulates() { " May be repeated." } else { "" };
        let standing = if row.standing == Standing::Planned { " *No effect yet.*" } else { "" };
        let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
        let _ = writeln!(
            page,
            "| {}{takes} | {}.{repeated}{standing} | {default} | {} |",
            names.join(" "),
            row.help.replace('|', "\\|"),
            row.since,
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// `RWSGI_WRITE_DOCS=1 cargo test -p rwsgi --lib reference` writes the pages instead of comparing them.
    #[test]
    fn the_pages_in_docs_are_current() {
        for (name, page) in super::pages() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
            if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
                std::fs::write(&path, &page).unwrap();
            }
            let written = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                written == page,
                "docs/{name} is not what the table says: run RWSGI_WRITE_DOCS=1 cargo test -p rwsgi --lib reference"
            );
        }
    }
}
