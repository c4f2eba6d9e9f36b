//! A server's numbers in the format that was asked for, with whether it answers before them.

use std::str::FromStr;

use rwsgi_metrics::{Compat, Family, Format, Kind, Options, Scrapes, Value, encode, families, families_of_none};
use rwsgi_stats::{Address, Snapshot};

use crate::source::Target;

/// Whose names are given beside ours (`--metrics-compat`): those of `timonwong/uwsgi_exporter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UwsgiExporter {
    /// Those of single threads too, as its `--collect.cores` adds them.
    cores: bool,
}

impl FromStr for UwsgiExporter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "uwsgi_exporter" => Ok(Self { cores: false }),
            "uwsgi_exporter,cores" => Ok(Self { cores: true }),
            _ => Err("expected uwsgi_exporter or uwsgi_exporter,cores".to_owned()),
        }
    }
}

/// `rwsgi_up`, and the numbers when there are some.
pub(super) fn render(
    snapshot: Option<&Snapshot>,
    format: Format,
    compat: Option<UwsgiExporter>,
    stats_uri: &str,
    scrapes: Scrapes,
) -> Vec<u8> {
    let compat = compat.map(|UwsgiExporter { cores }| Compat { stats_uri, cores, scrapes });
    let options = Options { compat, ..Options::default() };
    let mut all = vec![Family {
        name: "rwsgi_up",
        help: "Whether the stats server answers",
        kind: Kind::Gauge,
        labels: &[],
        label_values: Vec::new(),
        values: vec![Value::Integer(snapshot.is_some().into())],
    }];
    all.append(&mut match snapshot {
        Some(snapshot) => families(snapshot, &options),
        None => families_of_none(&options),
    });
    encode(&all, format)
}

/// A server's address as that exporter's `--stats.uri` has it.
pub(super) fn stats_uri(target: &Target) -> String {
    match target {
        Target::Socket(Address::Tcp { .. }) => format!("tcp://{target}"),
        Target::Socket(_) => format!("unix://{target}"),
        Target::Http { .. } | Target::Tunnel(_) => target.to_string(),
    }
}
