//! A server's numbers in the format that was asked for, with whether it answers before them.

use rwsgi_stats::Snapshot;

/// Whose names are given beside ours (`--metrics-compat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Compat {
    /// Those of `timonwong/uwsgi_exporter`.
    UwsgiExporter,
}

/// `rwsgi_up`, and the numbers when there are some.
pub(super) fn render(snapshot: Option<Snapshot>, _accept: &str, compat: Option<Compat>) -> (&'static str, Vec<u8>) {
    let up = u8::from(snapshot.is_some());
    let mut text = family("rwsgi", up);
    if compat.is_some() {
        text.push_str(&family("uwsgi", up));
    }
    text.push_str(&snapshot.map_or_else(|| "# EOF\n".to_owned(), rwsgi_metrics::text));
    (rwsgi_metrics::CONTENT_TYPE, text.into_bytes())
}

fn family(whose: &str, up: u8) -> String {
    format!("# HELP {whose}_up Whether the stats server answers.\n# TYPE {whose}_up gauge\n{whose}_up {up}\n")
}
