//! The stats document as Prometheus reads it.
//!
//! [`families`] makes plain data of a document once: families of samples, with names, labels and units by Prometheus's
//! conventions. [`render`] writes them in one of the [`Format`]s that a client's `Accept` asks for ([`negotiate`]). What a
//! document does not have (plain uWSGI's has no latencies) gives no sample, and a family without samples is left out.

mod accept;
mod cgroup;
mod compat;
mod histogram;
mod model;
mod protobuf;
mod routes;
mod server;
mod shared;
mod spoolers;
#[cfg(test)]
mod tests;
mod text;
mod workers;

use rwsgi_stats::Snapshot;

pub use self::accept::{Format, negotiate};
pub use self::compat::{Compat, Scrapes};
pub use self::histogram::{Histogram, NativeBuckets, Span};
pub use self::model::{Family, Kind, Label, Value};

/// What is told beyond the usual, or not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Nothing of single routes.
    pub no_routes: bool,
    /// The names of another exporter beside ours.
    pub compat: Option<Compat<'a>>,
}

/// The document as families of samples, none of which is empty.
#[must_use]
pub fn families<'a>(snapshot: &'a Snapshot, options: &Options<'a>) -> Vec<Family<'a>> {
    let mut families = Vec::with_capacity(96);
    server::add(&mut families, snapshot);
    cgroup::add(&mut families, snapshot);
    workers::add(&mut families, snapshot);
    if !options.no_routes {
        routes::add(&mut families, snapshot);
    }
    spoolers::add(&mut families, snapshot);
    shared::add(&mut families, snapshot);
    if let Some(compat) = options.compat {
        compat::add(&mut families, snapshot, compat);
    }
    families.retain(|family| !family.values.is_empty());
    families
}

/// What there is to say when there is no document: the other exporter's families about its work.
#[must_use]
pub fn families_of_none(options: &Options<'_>) -> Vec<Family<'static>> {
    options.compat.map(|compat| compat::failed(&compat.scrapes)).unwrap_or_default()
}

/// The document in `format`.
#[must_use]
pub fn render(snapshot: &Snapshot, format: Format, options: &Options<'_>) -> Vec<u8> {
    encode(&families(snapshot, options), format)
}

/// The families in `format`.
#[must_use]
pub fn encode(families: &[Family<'_>], format: Format) -> Vec<u8> {
    match format {
        Format::Text => text::encode(families, text::Dialect::Prometheus),
        Format::OpenMetrics => text::encode(families, text::Dialect::OpenMetrics),
        Format::Protobuf => protobuf::encode(families),
    }
}
