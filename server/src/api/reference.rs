//! `docs/python-api.md`: every name, and what becomes of it.

use super::names::{NAMES, Standing};

/// The page.
pub(super) fn page() -> String {
    let mut page = String::from(
        "# The `uwsgi` module\n\n\
         <!-- Made from server/src/api/names.rs: RWSGI_WRITE_DOCS=1 cargo test -p rwsgi --lib reference -->\n\n\
         An application that runs in `rwsgi` can `import uwsgi`, or `import rwsgi`: one module under two names. It has what\n\
         uWSGI 2.0's has, with uWSGI's arguments and results: text may be given as `str` or `bytes`, and comes back as\n\
         `bytes`. Outside of the server there is no `uwsgi`.\n\n\
         `uwsgidecorators` comes with the package: `postfork`, `timer`, `rbtimer`, `cron`, `filemon`, `signal`, `thread`,\n\
         `lock`, `harakiri`, `rpc`, `mule`, `muleloop`, `mulemsg`, `mulefunc`, `mule_brain`, `mule_brainloop`, `farm`,\n\
         `spool`, `spoolraw` and `spoolforever`. Imported outside of the server it says that it works inside only.\n\n\
         Signals, timers, crons and file monitors are handled in the process that uWSGI would handle them in, in a thread\n\
         of their own: a slow handler delays no request. What one generation registers goes with it at a reload. Caches,\n\
         locks, metrics and messages to mules outlive workers and reloads.\n\n\
         ## What is there\n\n| name | what it does or gives |\n| --- | --- |\n",
    );
    add(&mut page, |standing| if let Standing::Works(says) = standing { Some(says) } else { None });
    page.push_str("\n## What the application assigns\n\n| name | what becomes of it |\n| --- | --- |\n");
    add(&mut page, |standing| if let Standing::Assigned(says) = standing { Some(says) } else { None });
    page.push_str(
        "\n## What is not there\n\nTo use one of these names raises `NotAvailable`, a `NotImplementedError` and an `AttributeError`, which says the same as this table.\n\n\
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
        if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
            std::fs::write(path, super::page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), super::page(), "RWSGI_WRITE_DOCS=1 writes it again");
    }
}
