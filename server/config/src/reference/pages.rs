//! The pages of `docs/` that are made from the tables, and whether they are current.

use std::fmt::Write as _;
use std::path::Path;

use crate::options;
use crate::row::Row;
use crate::uwsgi::{Family, OWN, Verdict, families};

/// The pages that are made here: name and text.
fn pages() -> [(&'static str, String); 2] {
    [("options.md", options_page()), ("uwsgi-options.md", uwsgi_page())]
}

/// Every option, those of a group together, whichever table they are in.
fn by_group() -> Vec<&'static Row> {
    let mut rows: Vec<&Row> = options::all().collect();
    rows.sort_by_key(|row| row.group as u8);
    rows
}

fn options_page() -> String {
    let mut page = String::from(
        "# Options\n\n\
         Each can be given on the command line (`--processes 4`) or in a file (`processes = 4`). \
         `rwsgi --help` says the same, shorter. \
         [Configuration](configuration.md) describes how files are read and which value wins.\n\n\
         <!-- Made from server/config/src/options.rs: run the tests of rwsgi-config with RWSGI_WRITE_DOCS=1 to make it again. -->\n",
    );
    let mut heading = "";
    for row in by_group() {
        if row.group.heading() != heading {
            heading = row.group.heading();
            let _ = write!(
                page,
                "\n## {heading}\n\n| option | what it does | default | since |\n| --- | --- | --- | --- |\n"
            );
        }
        let mut names: Vec<String> = row.short.iter().map(|short| format!("`-{short}`")).collect();
        names.extend(row.names.iter().map(|name| format!("`--{name}`")));
        let takes = if row.takes_value() { format!(" `{}`", row.takes.replace('|', r"\|")) } else { String::new() };
        let repeated = if row.accumulates() { " May be repeated." } else { "" };
        let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
        let _ = writeln!(
            page,
            "| {}{takes} | {}.{repeated} | {default} | {} |",
            names.join(" "),
            row.help.replace('|', "\\|"),
            row.since,
        );
    }
    page
}

/// `docs/uwsgi-options.md`.
fn uwsgi_page() -> String {
    let mut page = String::from(
        "# The options of uWSGI 2.0, and what becomes of them\n\n\
         Every option in the source of uWSGI 2.0, its core and all its plugins, has its place here.\n\n\
         - **done**: it works; see [the options](options.md).\n\
         - **needless**: it is accepted without a word, since there is nothing to do.\n\
         - **never**: it is named in a warning with what to use instead, and the server runs without it.\n\
         - **refused**: it is an error, because to run without it would be to serve something else, or unguarded.\n\n\
         <!-- Made from server/config/src/options.rs and uwsgi.rs: run the tests of rwsgi-config with RWSGI_WRITE_DOCS=1 to \
         make it again. -->\n\n\
         ## Options that are here too\n\n| options | standing |\n| --- | --- |\n",
    );
    let mut heading = "";
    for row in by_group() {
        let names: Vec<&str> = row.names.iter().copied().filter(|name| !OWN.contains(name)).collect();
        if names.is_empty() {
            continue;
        }
        if row.group.heading() != heading {
            heading = row.group.heading();
            let _ = writeln!(page, "| *{heading}* | |");
        }
        let _ = writeln!(page, "| {} | done |", listed(names.into_iter()));
    }
    page.push_str("\n## Options that are not\n\n| purpose | options | standing | why, or what to use instead |\n");
    page.push_str("| --- | --- | --- | --- |\n");
    for family in families() {
        let word = match family.verdict {
            Verdict::Needless => "needless",
            Verdict::Never => "never",
            Verdict::Refused => "refused",
        };
        let _ = writeln!(page, "| {} | {} | {word} | {} |", family.title, listed(family.names()), family.advice);
    }
    page
}

fn listed(names: impl Iterator<Item = &'static str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ")
}

/// In the source of 2.0.31 and of its plugins.
const OPTIONS_OF_UWSGI: usize = 1254;

#[test]
fn every_option_of_uwsgi_has_one_place() {
    let own = options::all().flat_map(|row| row.names.iter().copied()).filter(|name| !OWN.contains(name));
    let mut names: Vec<&str> = own.chain(families().flat_map(Family::names)).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1]);
    }
    assert_eq!(names.len(), OPTIONS_OF_UWSGI);
}

/// `RWSGI_WRITE_DOCS=1 cargo test -p rwsgi-config reference` writes the pages instead of comparing them.
#[test]
fn the_pages_in_docs_are_current() {
    for (name, page) in pages() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
        if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == page,
            "docs/{name} is not what the table says: run RWSGI_WRITE_DOCS=1 cargo test -p rwsgi-config reference"
        );
    }
}
