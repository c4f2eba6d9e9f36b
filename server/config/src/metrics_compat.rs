//! `metrics-compat`: names of another exporter in `/metrics`, for dashboards and rules that were made for it.

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::{Kind, Row, STATS};

/// Whose names are in `/metrics` beside ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetricsCompat {
    /// Nobody's.
    #[default]
    None,
    /// timonwong/uwsgi_exporter's.
    UwsgiExporter {
        /// Those of single threads too, as its `--collect.cores` adds them.
        cores: bool,
    },
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["metrics-compat"], kind: Kind::Custom(compat), takes: "NAME",
          help: "Give /metrics the names of another exporter too: uwsgi_exporter, or uwsgi_exporter,cores with its metrics of single threads", ..STATS },
];

fn compat(config: &mut Config, value: &str) -> Result<(), String> {
    config.metrics_compat = match value {
        "uwsgi_exporter" => MetricsCompat::UwsgiExporter { cores: false },
        "uwsgi_exporter,cores" => MetricsCompat::UwsgiExporter { cores: true },
        _ => return Err("uwsgi_exporter or uwsgi_exporter,cores".to_owned()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{error, serve};

    #[test]
    fn threads_are_told_of_only_when_it_is_asked_for() {
        for (line, compat) in [
            ("", MetricsCompat::None),
            ("--metrics-compat uwsgi_exporter", MetricsCompat::UwsgiExporter { cores: false }),
            ("--metrics-compat=uwsgi_exporter,cores", MetricsCompat::UwsgiExporter { cores: true }),
        ] {
            assert_eq!(serve(&format!("rwsgi --http :1 -w m {line}")).metrics_compat, compat, "{line}");
        }
        assert!(error("rwsgi --http :1 -w m --metrics-compat other").contains("uwsgi_exporter"));
    }
}
