//! Requests by route. There are at most as many values of the label as the stats have routes.

use rwsgi_stats::{Route, Snapshot};

use crate::histogram::{FEW_BOUNDS, Histogram};
use crate::model::{Family, Kind, Label, Value};
use crate::server::Figure;
use crate::workers::classes;

#[rustfmt::skip]
const FIGURES: &[Figure<Route>] = &[
    ("rwsgi_route_requests_total", "Requests completed, by route", Kind::Counter, |r| Some(Value::Integer(r.requests))),
    ("rwsgi_route_exceptions_total", "Requests in which the application raised an exception, by route", Kind::Counter, |r| Some(Value::Integer(r.exceptions))),
    ("rwsgi_route_sent_bytes_total", "Bytes sent to clients, heads included, by route", Kind::Counter, |r| Some(Value::Integer(r.tx))),
    ("rwsgi_route_busy_seconds_total", "Time in completed requests, by route", Kind::Counter, |r| Some(Value::seconds(r.busy_time))),
    ("rwsgi_route_gil_wait_seconds_total", "Time that requests waited for Python's global lock, by route", Kind::Counter, |r| Some(Value::seconds(r.gil_wait))),
    ("rwsgi_route_duration_seconds", "Latency of requests, by route", Kind::Histogram, |r| Histogram::decode(FEW_BOUNDS, &r.latency).map(|h| Value::Histogram(Box::new(h)))),
];

/// Adds the families of routes.
pub(crate) fn add<'a>(families: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    let Some(routes) = &snapshot.routes else { return };
    for &(name, help, kind, value) in FIGURES {
        let mut family = Family::new(name, help, kind, &["route"], routes.len());
        for route in routes {
            if let Some(value) = value(route) {
                family.push([Label::Text(&route.route)], value);
            }
        }
        families.push(family);
    }
    let help = "Responses by route and class of status code";
    let name = "rwsgi_route_responses_total";
    let mut family = Family::new(name, help, Kind::Counter, &["route", "class"], 2 * routes.len());
    for route in routes {
        // Most routes have responses of one class or two.
        for (class, count) in classes(&route.responses).into_iter().filter(|(_, count)| *count > 0) {
            family.push([Label::Text(&route.route), Label::Text(class)], Value::Integer(count));
        }
    }
    families.push(family);
}
