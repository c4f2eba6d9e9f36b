//! `/metrics`: the document as Prometheus reads it.

use std::cell::Cell;
use std::io;

use rwsgi_config::{Config, MetricsCompat};
use rwsgi_metrics::{Compat, Format, Options, Scrapes, render};
use rwsgi_stats::Address;

use super::{Purpose, SnapshotRequest, snapshot};
use crate::clock;

/// What `/metrics` tells.
#[derive(Clone, Debug, Default)]
pub struct MetricsAccess {
    /// `metrics-no-routes`: nothing of single routes.
    no_routes: bool,
    /// `metrics-compat`.
    compat: MetricsCompat,
    /// Where the stats are, as an exporter would be told.
    uri: String,
    scrapes: Cell<Scrapes>,
}

impl MetricsAccess {
    /// As the configuration says, on this address.
    #[must_use]
    pub fn of(config: &Config, address: &Address) -> Self {
        let uri = match address {
            Address::Tcp { .. } => format!("http://{address}"),
            _ => format!("unix://{address}"),
        };
        Self { no_routes: config.routes.no_metrics, compat: config.metrics_compat, uri, scrapes: Cell::default() }
    }

    /// The body of an answer.
    pub(super) async fn body(&self, format: Format, ask: &impl Fn(SnapshotRequest)) -> io::Result<Vec<u8>> {
        let MetricsCompat::UwsgiExporter { cores } = self.compat else {
            return Ok(render(
                &snapshot(ask, Purpose::Metrics).await?,
                format,
                &Options { no_routes: self.no_routes, compat: None },
            ));
        };
        let began = clock::MonotonicNanos::now();
        let snapshot = snapshot(ask, Purpose::Metrics).await?;
        let took = clock::MonotonicNanos::now().nanos_since(began) as f64 / 1e9;
        let Scrapes { count, errors, seconds } = self.scrapes.get();
        let scrapes = Scrapes { count: count + 1, errors, seconds: seconds + took };
        self.scrapes.set(scrapes);
        let compat = Compat { stats_uri: &self.uri, cores, scrapes };
        Ok(render(&snapshot, format, &Options { no_routes: self.no_routes, compat: Some(compat) }))
    }
}
