//! The generation that serves beside the one before it: what they did, and in what they differ by more than noise.

use rwsgi_assertions::{Comparison, Counts, Difference, Pair, Told, Window, by_weight, compare, metric};
use rwsgi_stats::{Generation, GenerationRoute, Snapshot};

/// So many classes of exceptions, and routes, are compared.
const MOST: usize = 8;

/// Two generations beside each other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Generations<'a> {
    /// The newer one.
    pub(crate) new: &'a Generation,
    /// The one before it; `None` for the first.
    pub(crate) old: Option<&'a Generation>,
    /// What they are compared in.
    pub(crate) rows: Vec<Row>,
}

/// A row of the comparison.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// What is compared.
    pub(crate) name: String,
    /// Of the newer one, as text.
    pub(crate) new: String,
    /// Of the one before.
    pub(crate) old: String,
    /// In what they differ; `None` where that is no question, or cannot be known.
    pub(crate) difference: Option<Difference>,
}

/// The metrics that are compared, each with what it is called.
const METRICS: [(&str, &str); 6] = [
    ("p50", "p50"),
    ("p95", "p95"),
    ("p99", "p99"),
    ("error_rate", "answered with 5xx"),
    ("exception_rate", "raised"),
    ("pss.mean", "PSS of a worker"),
];

impl<'a> Generations<'a> {
    /// Those of a document; `None` when it tells of none.
    pub(crate) fn of(snapshot: &'a Snapshot) -> Option<Self> {
        let Pair { new, old } = Pair::of(snapshot)?;
        let windows = (Window::of_generation(new), old.map(Window::of_generation).unwrap_or_default());
        let count = |name: &str, of: fn(&Generation) -> u64| Row {
            name: name.to_owned(),
            new: of(new).to_string(),
            old: old.map_or_else(dash, |old| of(old).to_string()),
            difference: None,
        };
        let mut rows = vec![
            count("workers", |generation| generation.workers.into()),
            count("requests", |generation| generation.requests),
        ];
        rows.extend(METRICS.iter().map(|(metric, name)| row((*name).to_owned(), metric, &windows)));
        rows.extend(errors(new, old));
        rows.extend(routes(new, old));
        Some(Self { new, old, rows })
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// A metric of both.
fn row(name: String, of: &str, (new, old): &(Window, Window)) -> Row {
    let show = |window: &Window| {
        let metric = metric(of)?;
        Some(metric.unit.show((metric.value)(window).ok()?))
    };
    Row {
        name,
        new: show(new).unwrap_or_else(dash),
        old: show(old).unwrap_or_else(dash),
        difference: compared(of, new, old).map(|comparison| comparison.difference),
    }
}

fn compared(of: &str, new: &Window, old: &Window) -> Option<Comparison> {
    compare(metric(of)?, new, old).ok()
}

/// Exceptions by class: those of either, by weight.
fn errors(new: &Generation, old: Option<&Generation>) -> Vec<Row> {
    let of_old = old.map(|old| old.errors.as_slice()).unwrap_or_default();
    let mut names: Vec<&str> = Vec::new();
    for error in new.errors.iter().chain(of_old) {
        if !names.contains(&error.kind.as_str()) {
            names.push(&error.kind);
        }
    }
    let row = |name: &str| {
        let raised = |generation: &Generation| {
            generation.errors.iter().find(|error| error.kind == name).map_or(0, |error| error.count)
        };
        let window = |generation: &Generation| Window {
            requests: generation.requests,
            exceptions: raised(generation),
            ..Window::default()
        };
        Row {
            name: format!("  {name}"),
            new: raised(new).to_string(),
            old: old.map_or_else(dash, |old| raised(old).to_string()),
            difference: old
                .and_then(|old| compared("exception_rate", &window(new), &window(old)))
                .map(|comparison| comparison.difference),
        }
    };
    let mut rows: Vec<Row> = names.into_iter().map(row).collect();
    rows.sort_by(|a, b| weigh(a.difference, b.difference));
    rows.truncate(MOST);
    rows
}

/// Routes that both have: first what differs, and the more it does.
fn routes(new: &Generation, old: Option<&Generation>) -> Vec<Row> {
    let window = |route: &GenerationRoute| Window {
        requests: route.requests,
        latency: Told::of(Counts::decode(&route.latency)),
        ..Window::default()
    };
    let both = new.routes.iter().filter_map(|route| {
        let before = old?.routes.iter().find(|before| before.route == route.route)?;
        let windows = (window(route), window(before));
        let change = compared("p50", &windows.0, &windows.1)
            .map_or(0.0, |compared| (compared.new.max(1.0) / compared.old.max(1.0)).ln().abs());
        Some((row(format!("  {} p50", route.route), "p50", &windows), change))
    });
    let mut rows: Vec<(Row, f64)> = both.collect();
    rows.sort_by(|a, b| weigh(a.0.difference, b.0.difference).then(b.1.total_cmp(&a.1)));
    rows.truncate(MOST);
    rows.into_iter().map(|(row, _)| row).collect()
}

fn weigh(a: Option<Difference>, b: Option<Difference>) -> std::cmp::Ordering {
    let or_last = |difference: Option<Difference>| difference.unwrap_or(Difference::TooFew);
    by_weight(or_last(a), or_last(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::{ErrorCount, Responses, latency};

    fn histogram(micros: u64, count: u64) -> String {
        latency::encode(&latency::from_counts([(latency::index_of(micros), count)]))
    }

    fn generation(number: u32, state: &str, micros: u64, errors: &[(&str, u64)]) -> Generation {
        let raised = errors.iter().map(|(_, count)| count).sum();
        let route = |route: &str, micros| GenerationRoute {
            route: route.to_owned(),
            requests: 500,
            busy_time: 1,
            latency: histogram(micros, 500),
        };
        Generation {
            generation: number,
            state: state.into(),
            requests: 1_000,
            exceptions: raised,
            responses: Responses { server_error: raised, ..Responses::default() },
            latency: histogram(micros, 1_000),
            pss: 40 << 20,
            pss_workers: 2,
            errors: errors.iter().map(|(kind, count)| ErrorCount { kind: (*kind).into(), count: *count }).collect(),
            routes: vec![route("/", 2_000), route("/slow", micros)],
            ..Generation::default()
        }
    }

    #[test]
    fn what_is_worse_stands_out_and_what_is_the_same_is_called_so() {
        let snapshot = Snapshot {
            generations: Some(vec![
                generation(2, "serving", 50_000, &[("KeyError", 3), ("ValueError", 90)]),
                generation(1, "past", 5_000, &[("KeyError", 2), ("OSError", 70)]),
            ]),
            ..Snapshot::default()
        };
        let told = Generations::of(&snapshot).unwrap();
        let told = told.rows.iter().map(|row| {
            let says = row.difference.map_or("", Difference::words);
            format!("{} | {} | {} | {says}", row.name, row.new, row.old)
        });
        insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn the_first_generation_is_compared_with_none() {
        let generations = Some(vec![generation(1, "serving", 5_000, &[])]);
        let snapshot = Snapshot { generations, ..Snapshot::default() };
        let told = Generations::of(&snapshot).unwrap();
        assert_eq!(told.old, None);
        assert!(told.rows.iter().all(|row| row.difference.is_none() && row.old == "-"), "{told:?}");
        assert_eq!(Generations::of(&Snapshot::default()), None, "uWSGI");
    }
}
