//! What the application's processes share: its caches and numbers.

use rwsgi_stats::{Cache, Snapshot};

use crate::model::{Family, Kind, Label, Value};
use crate::server::Figure;

#[rustfmt::skip]
const FIGURES: &[Figure<Cache>] = &[
    ("rwsgi_cache_items", "Items in the cache", Kind::Gauge, |c| Some(Value::Integer(c.items))),
    ("rwsgi_cache_capacity", "Items that the cache has space for", Kind::Gauge, |c| Some(Value::Integer(c.max_items))),
    ("rwsgi_cache_hits_total", "Lookups that found an item", Kind::Counter, |c| Some(Value::Integer(c.hits))),
    ("rwsgi_cache_misses_total", "Lookups that found no item", Kind::Counter, |c| Some(Value::Integer(c.miss))),
    ("rwsgi_cache_full_total", "Items that were not stored because the cache was full", Kind::Counter, |c| Some(Value::Integer(c.full))),
];

/// Adds the families of what processes share.
pub(crate) fn add<'a>(families: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    for &(name, help, kind, value) in FIGURES {
        let mut family = Family::new(name, help, kind, &["cache"], snapshot.caches.len());
        for cache in &snapshot.caches {
            if let Some(value) = value(cache) {
                family.push([Label::Text(&cache.name)], value);
            }
        }
        families.push(family);
    }
    // Whatever the application says of them, it may set them to anything.
    let help = "Numbers that the application keeps";
    let count = snapshot.metrics.len();
    let mut family = Family::new("rwsgi_application_metric", help, Kind::Gauge, &["name"], count);
    for (name, metric) in &snapshot.metrics {
        family.push([Label::Text(name)], Value::Signed(metric.value));
    }
    families.push(family);
}
