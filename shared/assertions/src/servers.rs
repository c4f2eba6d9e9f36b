//! What must hold of each server of several: `server.p99.max < 80ms`, `server.up.count == 12`. A metric is measured of every
//! server by itself, and one number is made of theirs.

use super::assertion::{Assertion, AssertionError, nearest};
use super::metrics::{METRICS, Metric, ROUTE_METRICS, Rule, SERVER_METRICS, Unit, metric, route_metric};
use super::route;

/// What a server is at a moment, or was over a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States {
    /// It answered whenever it was asked.
    pub up: bool,
    /// It answered too late at least once.
    pub slow: bool,
    /// It did not answer at least once.
    pub dead: bool,
    /// It was draining at least once.
    pub draining: bool,
}

impl States {
    /// Takes in what it was besides.
    pub(crate) fn add(&mut self, other: &Self) {
        self.up &= other.up;
        self.slow |= other.slow;
        self.dead |= other.dead;
        self.draining |= other.draining;
    }
}

/// How one number is made of those of all servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// The mean; every server counts alike.
    Mean,
    /// As many have more as have less.
    Median,
    /// All added up.
    Sum,
    /// It must hold of every server.
    All,
    /// It must hold of one server at least.
    Any,
    /// How many servers are in a state.
    Count,
}

/// Each with its name and its meaning.
pub const AGGREGATES: [(Aggregate, &str, &str); 8] = [
    (Aggregate::Max, "max", "the largest of the servers' values"),
    (Aggregate::Min, "min", "the smallest of the servers' values"),
    (Aggregate::Mean, "mean", "the mean of the servers' values; every server counts alike"),
    (Aggregate::Median, "median", "the middle one of the servers' values"),
    (Aggregate::Sum, "sum", "the servers' values added up; of counts, rates and bytes"),
    (Aggregate::All, "all", "the comparison must hold of every server; the worst one's value is told"),
    (Aggregate::Any, "any", "the comparison must hold of one server at least; the best one's value is told"),
    (Aggregate::Count, "count", "how many servers are `up`, `slow`, `dead` or `draining`"),
];

/// A number made of several servers'.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aggregated {
    /// The number.
    pub value: f64,
    /// The place of the server that it is told of: the one that has this value, or else the worst.
    pub place: Option<usize>,
}

impl Aggregate {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        AGGREGATES.iter().find(|(known, ..)| *known == self).map_or("", |(_, name, _)| name)
    }

    /// Makes a number of servers' values, given with their places; `badness` is larger for what is worse. `None` when there
    /// are no values.
    pub fn of(self, values: &[(usize, f64)], badness: impl Fn(f64) -> f64) -> Option<Aggregated> {
        let by = |key: &dyn Fn(f64) -> f64| values.iter().copied().max_by(|a, b| key(a.1).total_cmp(&key(b.1)));
        let worst = by(&badness)?;
        let sum: f64 = values.iter().map(|(_, value)| value).sum();
        let one = |(place, value): (usize, f64)| Some(Aggregated { value, place: Some(place) });
        let of_all = |value| Some(Aggregated { value, place: Some(worst.0) });
        match self {
            Self::Max => by(&|value| value).and_then(one),
            Self::Min => by(&|value| -value).and_then(one),
            Self::All => one(worst),
            Self::Any => by(&|value| -badness(value)).and_then(one),
            Self::Sum => of_all(sum),
            Self::Mean => of_all(sum / values.len() as f64),
            Self::Median => {
                let mut sorted: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
                sorted.sort_by(f64::total_cmp);
                let middle = sorted.len() / 2;
                let upper = sorted[middle];
                of_all(if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], upper) } else { upper })
            }
            Self::Count => Some(Aggregated { value: sum, place: None }),
        }
    }

    /// Whether it makes sense of a metric.
    fn suits(self, metric: &Metric) -> bool {
        match self {
            Self::Count => metric.is_state(),
            _ if metric.is_state() => false,
            // Shares and times of several are not added up; processor time is.
            Self::Sum => {
                matches!(metric.rule, Rule::Total | Rule::Sum) || matches!(metric.unit, Unit::Number | Unit::Bytes)
            }
            _ => true,
        }
    }

    /// Those that make sense of a metric, by their names.
    fn suiting(metric: &Metric) -> String {
        let suiting = AGGREGATES.iter().filter(|(aggregate, ..)| aggregate.suits(metric));
        suiting.map(|(_, name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

impl Metric {
    /// Whether it is a state of a server, of which there is only how many servers are in it.
    #[must_use]
    pub fn is_state(&self) -> bool {
        matches!(self.name, "server.up" | "server.slow" | "server.dead" | "server.draining")
    }
}

/// What an assertion is about.
pub(crate) struct Subject {
    pub(crate) servers: Option<Aggregate>,
    pub(crate) route: Option<String>,
    pub(crate) metric: &'static Metric,
}

/// Reads what stands before the comparison; returns what follows it too.
///
/// # Errors
/// When it cannot be read, or there is no such metric.
pub(crate) fn subject(whole: &str) -> Result<(Subject, &str), AssertionError> {
    let text = || whole.trim().to_owned();
    let of_servers = whole.trim_start().strip_prefix("server.");
    let rest = of_servers.unwrap_or(whole);
    let (route, rest) = match route::split(rest).map_err(|()| AssertionError::Route { text: text() })? {
        Some((route, rest)) => (Some(route), rest),
        None => (None, rest),
    };
    let at = rest.find(['<', '>', '=', '!']).ok_or_else(|| AssertionError::Shape(text()))?;
    let (name, rest) = rest.split_at(at);
    let name = name.trim();
    let tables: &[&'static [Metric]] = match (route.is_some(), of_servers) {
        (true, _) => &[ROUTE_METRICS],
        (false, None) => &[METRICS],
        (false, Some(_)) => &[METRICS, SERVER_METRICS],
    };
    let known = |name: &str| match (route.is_some(), of_servers) {
        (true, _) => route_metric(name),
        (false, None) => metric(name),
        (false, Some(_)) => metric(name).or_else(|| SERVER_METRICS.iter().find(|metric| metric.of_route() == name)),
    };
    let unknown = |name: &str| {
        let names = || tables.iter().copied().flatten().map(Metric::of_route);
        let (nearest, all) = (nearest(name, names()), names().collect::<Vec<_>>().join(", "));
        AssertionError::Metric { text: text(), name: name.to_owned(), nearest, all }
    };
    if of_servers.is_none() {
        let metric = known(name).ok_or_else(|| unknown(name))?;
        return Ok((Subject { servers: None, route, metric }, rest));
    }
    let wrong = |why: String| AssertionError::Servers { text: text(), why };
    // `rss.max` is a metric of one server.
    if let Some(metric) = known(name) {
        let suiting = Aggregate::suiting(metric);
        let first = suiting.split(',').next().unwrap_or_default();
        return Err(wrong(format!("of which servers? Write server.{name}.{first} (there are: {suiting})")));
    }
    let (metric_name, word) = name.rsplit_once('.').ok_or_else(|| unknown(name))?;
    let metric = known(metric_name).ok_or_else(|| unknown(metric_name))?;
    let Some((aggregate, ..)) = AGGREGATES.iter().find(|(_, name, _)| *name == word) else {
        let meant = nearest(word, AGGREGATES.iter().map(|(_, name, _)| *name));
        return Err(wrong(format!("there is no '{word}' of servers; did you mean '{meant}'?")));
    };
    if !aggregate.suits(metric) {
        let why = match aggregate {
            Aggregate::Count => "count is of server.up, server.slow, server.dead and server.draining".to_owned(),
            _ => format!("there is no {word} of {metric_name}"),
        };
        return Err(wrong(format!("{why}; of {metric_name} there are: {}", Aggregate::suiting(metric))));
    }
    Ok((Subject { servers: Some(*aggregate), route, metric }, rest))
}

impl Assertion {
    /// What to write over a fleet in place of an assertion that is not of its servers.
    #[must_use]
    pub fn of_servers_instead(&self) -> String {
        const SIGNS: [char; 4] = ['<', '>', '=', '!'];
        let aggregate = match self.metric.rule {
            Rule::Total => Aggregate::Sum,
            Rule::Sum if self.metric.unit == Unit::PerSecond => Aggregate::Sum,
            _ if self.wants_less() => Aggregate::Max,
            Rule::Merged if self.metric.unit == Unit::Number => Aggregate::Sum,
            _ => Aggregate::Min,
        };
        let end = self.text.rfind(SIGNS).map_or(self.text.len(), |at| at + 1);
        let subject = self.text[..end].trim_end_matches(SIGNS).trim_end();
        format!("server.{subject}.{}{}", aggregate.name(), &self.text[subject.len()..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Assertion {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn of(text: &str, values: &[f64]) -> (f64, Option<usize>, bool) {
        let assertion = read(text);
        let threshold = assertion.threshold(None).unwrap();
        let placed: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
        let made = assertion.servers.unwrap().of(&placed, |value| assertion.badness(value, threshold)).unwrap();
        (made.value, made.place, assertion.holds(made.value, threshold))
    }

    #[test]
    fn one_number_is_made_of_those_of_all_servers() {
        for (text, value, place, holds) in [
            ("server.requests.max < 9", 9.0, Some(2), false),
            ("server.requests.min > 1", 1.0, Some(0), false),
            ("server.requests.mean <= 4", 4.0, Some(2), true),
            ("server.requests.median == 3", 3.0, Some(2), true),
            ("server.requests.sum == 16", 16.0, Some(0), true),
            ("server.requests.all < 9", 9.0, Some(2), false),
            ("server.requests.all > 0", 1.0, Some(0), true),
            ("server.requests.any > 8", 9.0, Some(2), true),
            ("server.requests.any < 1", 1.0, Some(0), false),
        ] {
            assert_eq!(of(text, &[1.0, 3.0, 9.0, 3.0]), (value, place, holds), "{text}");
        }
        assert_eq!(of("server.up.count == 3", &[1.0, 0.0, 1.0, 1.0]), (3.0, None, true));
        assert_eq!(of("server.requests.median < 9", &[8.0, 2.0]).0, 5.0);
        assert_eq!(Aggregate::Max.of(&[], |value| value), None);
    }

    #[test]
    fn names_with_points_in_them_are_read() {
        for (text, metric, aggregate) in [
            ("server.p99.9.max < 1s", "p99.9", Aggregate::Max),
            (" server.rss.max.mean < 1G", "rss.max", Aggregate::Mean),
            ("server.latency.max.median < 1s", "latency.max", Aggregate::Median),
            ("server.cpu.sum < 400%", "cpu", Aggregate::Sum),
            ("server.saturation.max < 90%", "server.saturation", Aggregate::Max),
            ("server.outliers.sum == 0", "server.outliers", Aggregate::Sum),
            ("server.dead.count == 0", "server.dead", Aggregate::Count),
            ("server.route(\"/a.max <\").p99.max < 80ms", "route.p99", Aggregate::Max),
        ] {
            let assertion = read(text);
            assert_eq!((assertion.metric.name, assertion.servers), (metric, Some(aggregate)), "{text}");
        }
        assert_eq!(read("p99 < 80ms").servers, None);
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, told) in [
            ("server.p99 < 80ms", "Write server.p99.max (there are: max, min, mean, median, all, any)"),
            ("server.rss.max < 1G", "Write server.rss.max.max"),
            ("server.up == 12", "Write server.up.count"),
            ("server.p99.sum < 80ms", "there is no sum of p99; of p99 there are: max,"),
            ("server.errors.count == 0", "count is of server.up, server.slow, server.dead and server.draining"),
            ("server.up.max == 12", "there is no max of up; of up there are: count"),
            ("server.p99.mx < 80ms", "did you mean 'max'?"),
            ("server.p98.max < 80ms", "there is no metric 'p98'; did you mean 'p9"),
            ("server.pp < 80ms", "there is no metric 'pp'"),
            ("server.p99.max < 80", "needs a unit"),
            ("server.p99.max < previous_generation", "generations are compared of one server"),
            ("up.count == 3", "there is no metric 'up.count'"),
            ("saturation < 1", "there is no metric 'saturation'"),
        ] {
            let error = text.parse::<Assertion>().unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_written_for_one_server_has_a_spelling_for_a_fleet() {
        for (text, instead) in [
            ("p99 < 80ms", "server.p99.max < 80ms"),
            ("p99<=80ms", "server.p99.max<=80ms"),
            ("rps > 500", "server.rps.sum > 500"),
            ("harakiri == 0", "server.harakiri.sum == 0"),
            ("utilization > 10%", "server.utilization.min > 10%"),
            ("route(\"/a=1\").p99 < 80ms", "server.route(\"/a=1\").p99.max < 80ms"),
        ] {
            let said = read(text).of_servers_instead();
            assert_eq!(said, instead);
            read(&said);
        }
    }

    proptest! {
        #[test]
        fn all_is_every_server_and_any_is_one(
            sign in prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]),
            threshold in -3..3i32,
            values in prop::collection::vec(-4..4i32, 1..9),
        ) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let plain = read(&format!("requests {sign} {threshold}"));
            let each = || values.iter().map(|value| plain.holds(*value, f64::from(threshold)));
            let [all, any] = ["all", "any"].map(|word| of(&format!("server.requests.{word} {sign} {threshold}"), &values).2);
            prop_assert_eq!((all, any), (each().all(|holds| holds), each().any(|holds| holds)));
        }
    }
}
