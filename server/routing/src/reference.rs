//! The tables of `docs/routing.md`, made from those of the code.

use std::fmt::Write as _;
use std::path::Path;

use crate::{ACTIONS, CONDITIONS, FUNCTIONS};

const BEGIN: &str =
    "<!-- Made from server/routing/src: run the tests of rwsgi-routing with RWSGI_WRITE_DOCS=1 to make it again. -->\n";
const END: &str = "<!-- The end of what is made. -->\n";

fn tables() -> String {
    let names = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ");
    let mut page = String::from("\n| condition | holds when, for its argument |\n| --- | --- |\n");
    for (known, help) in CONDITIONS {
        let _ = writeln!(page, "| {} | {help} |", names(known));
    }
    page.push_str("\n| action | argument | what it does |\n| --- | --- | --- |\n");
    for action in ACTIONS {
        let takes = if action.takes.is_empty() { String::new() } else { format!("`{}`", action.takes) };
        let _ = writeln!(page, "| {} | {takes} | {} |", names(action.names), action.help);
    }
    page.push_str("\n| placeholder | stands for |\n| --- | --- |\n");
    page.push_str("| `$0` to `$9` | what the rule's pattern found: the whole, and its groups |\n");
    page.push_str("| `${NAME}` | the variable of that name, as in the environ: `${HTTP_HOST}` |\n");
    for (function, help) in FUNCTIONS {
        let _ = writeln!(page, "| `${{{function}[…]}}` | {help} |");
    }
    page.push('\n');
    page
}

#[test]
fn the_tables_in_docs_are_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/routing.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the mark at the beginning of the tables");
    let (found, after) = rest.split_once(END).expect("the mark at their end");
    if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", tables())).unwrap();
    } else {
        assert!(found == tables(), "run the tests of rwsgi-routing with RWSGI_WRITE_DOCS=1 to make the tables again");
    }
}
