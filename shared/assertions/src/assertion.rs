//! Assertions on a window, such as `p99 < 50ms` or `p99 < 1.10 * baseline`, and how they are read.

use std::str::FromStr;

use thiserror::Error;

use super::metrics::{METRICS, Metric, Rule, Unit};
use super::servers::{self, Aggregate, Subject};

/// How a value is held against its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Equal,
    NotEqual,
}

/// Longest first, so that `<=` is not read as `<`.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::MoreOrEqual),
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<", Comparison::Less),
    (">", Comparison::More),
];

/// One thing that must hold.
#[derive(Clone, Debug)]
pub struct Assertion {
    /// As it was written.
    pub text: String,
    /// How one number is made of those of all servers; `None` when the servers are measured together.
    pub servers: Option<Aggregate>,
    /// The route that it is about; `None` for all requests.
    pub route: Option<String>,
    /// What is measured.
    pub metric: &'static Metric,
    comparison: Comparison,
    threshold: Threshold,
}

/// Two of one text are the same.
impl PartialEq for Assertion {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// What a value is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Threshold {
    /// This.
    Fixed(f64),
    /// What a baseline has of the same metric, so many times.
    OfBaseline(f64),
    /// What the generation before the one that serves has of it, so many times.
    OfPreviousGeneration(f64),
}

/// A word that a threshold may be made of, and what so many times it is.
type Reference = (&'static str, fn(f64) -> Threshold);

/// Each of them.
const REFERENCES: [Reference; 2] =
    [(PREVIOUS_GENERATION, Threshold::OfPreviousGeneration), ("baseline", Threshold::OfBaseline)];

/// What the generation before has.
const PREVIOUS_GENERATION: &str = "previous_generation";

/// What is wrong with an assertion.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AssertionError {
    /// No comparison in it.
    #[error("'{0}' is not an assertion: expected a metric, a comparison and a value, such as 'p99 < 50ms'")]
    Shape(String),
    /// A name that is not in the table.
    #[error("'{text}': there is no metric '{name}'; did you mean '{nearest}'? ({all})")]
    Metric {
        /// The whole.
        text: String,
        /// The name.
        name: String,
        /// The one that is most like it.
        nearest: &'static str,
        /// All of them.
        all: String,
    },
    /// No route where one is begun.
    #[error("'{text}': expected a route in quotes and one of its metrics, such as route(\"/users/{{}}\").p99 < 80ms")]
    Route {
        /// The whole.
        text: String,
    },
    /// What is made of several servers' values.
    #[error("'{text}': {why}")]
    Servers {
        /// The whole.
        text: String,
        /// What is wrong, and what to write.
        why: String,
    },
    /// Not a number.
    #[error("'{text}': '{value}' is not a number with a unit")]
    Value {
        /// The whole.
        text: String,
        /// The value.
        value: String,
    },
    /// Something with a baseline or the previous generation that is no threshold.
    #[error(
        "'{text}': '{value}' is not understood; with a {reference} a threshold is '{reference}' or '1.10 * {reference}'"
    )]
    Reference {
        /// The whole.
        text: String,
        /// The value.
        value: String,
        /// The word in it.
        reference: &'static str,
    },
    /// A metric that says nothing of two generations.
    #[error("'{text}': {metric} is not compared between generations; these are: {all}")]
    NotOfGenerations {
        /// The whole.
        text: String,
        /// The metric's name.
        metric: &'static str,
        /// Those that are.
        all: String,
    },
    /// Two generations are never the same to the last digit.
    #[error("'{text}': generations are compared by <, <=, > or >=")]
    EqualGenerations {
        /// The whole.
        text: String,
    },
    /// A unit that the metric does not have.
    #[error("'{text}': {metric} is not measured in '{unit}'; did you mean '{nearest}'? (it takes {all})")]
    Unit {
        /// The whole.
        text: String,
        /// The metric's name.
        metric: &'static str,
        /// The unit.
        unit: String,
        /// The one that is most like it.
        nearest: &'static str,
        /// All that it takes.
        all: String,
    },
    /// A duration without a unit: nobody can know which one is meant.
    #[error("'{text}': {metric} needs a unit: us, ms, s or m")]
    NoUnit {
        /// The whole.
        text: String,
        /// The metric's name.
        metric: &'static str,
    },
}

pub(crate) fn nearest(name: &str, all: impl Iterator<Item = &'static str>) -> &'static str {
    all.min_by_key(|known| strsim::levenshtein(&name.to_lowercase(), &known.to_lowercase())).unwrap_or("")
}

impl FromStr for Assertion {
    type Err = AssertionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let whole = || text.trim().to_owned();
        let (Subject { servers, route, metric }, rest) = servers::subject(text)?;
        let rest = rest.trim();
        let (sign, comparison) = COMPARISONS
            .iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or_else(|| AssertionError::Shape(whole()))?;
        let value = rest[sign.len()..].trim();
        if let Some((reference, threshold)) = REFERENCES.iter().find(|(reference, _)| value.contains(reference)) {
            let factor = factor_of(value, reference).ok_or_else(|| AssertionError::Reference {
                text: whole(),
                value: value.to_owned(),
                reference,
            })?;
            let assertion =
                Self { text: whole(), servers, route, metric, comparison: *comparison, threshold: threshold(factor) };
            return assertion.doubt().map_or(Ok(assertion), Err);
        }
        let end = value.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '_' | '-')).unwrap_or(value.len());
        let (digits, unit) = value.split_at(end);
        let number: f64 = digits
            .replace('_', "")
            .parse()
            .map_err(|_| AssertionError::Value { text: whole(), value: value.to_owned() })?;
        let unit = unit.trim();
        if unit.is_empty() && metric.unit == Unit::Time && number != 0.0 {
            return Err(AssertionError::NoUnit { text: whole(), metric: metric.name });
        }
        let spellings = metric.unit.spellings();
        let factor = match spellings.iter().find(|(spelling, _)| *spelling == unit) {
            Some((_, factor)) => *factor,
            None if unit.is_empty() => 1.0,
            None => {
                let named = || spellings.iter().map(|(spelling, _)| *spelling).filter(|spelling| !spelling.is_empty());
                return Err(AssertionError::Unit {
                    text: whole(),
                    metric: metric.name,
                    unit: unit.to_owned(),
                    nearest: nearest(unit, named()),
                    all: named().collect::<Vec<_>>().join(", "),
                });
            }
        };
        let threshold = Threshold::Fixed(number * factor);
        Ok(Self { text: whole(), servers, route, metric, comparison: *comparison, threshold })
    }
}

/// How many times a reference a threshold is: `baseline`, `1.10 * baseline`, `baseline * 1.10`.
fn factor_of(value: &str, reference: &str) -> Option<f64> {
    let factor = match value.split_once('*') {
        None => (value == reference).then_some(1.0),
        Some((left, right)) => match (left.trim(), right.trim()) {
            (word, factor) | (factor, word) if word == reference => factor.parse().ok(),
            _ => None,
        },
    };
    factor.filter(|factor| f64::is_finite(*factor))
}

impl Assertion {
    /// The same metric, held against any number: so that it is measured.
    pub fn against_anything(&self) -> Self {
        Self { threshold: Threshold::Fixed(0.0), ..self.clone() }
    }

    /// Why it cannot be held against the generation before, if it is to be.
    fn doubt(&self) -> Option<AssertionError> {
        let Threshold::OfPreviousGeneration(factor) = self.threshold else { return None };
        let text = self.text.clone();
        if self.servers.is_some() {
            let why = "generations are compared of one server, or of all together without 'server.'".to_owned();
            return Some(AssertionError::Servers { text, why });
        }
        if !self.metric.compares_generations() {
            let compared = METRICS.iter().filter(|metric| metric.compares_generations());
            let all = compared.map(|metric| metric.name).collect::<Vec<_>>().join(", ");
            return Some(AssertionError::NotOfGenerations { text, metric: self.metric.name, all });
        }
        if matches!(self.comparison, Comparison::Equal | Comparison::NotEqual) {
            return Some(AssertionError::EqualGenerations { text });
        }
        (factor <= 0.0).then(|| AssertionError::Reference {
            text,
            value: factor.to_string(),
            reference: PREVIOUS_GENERATION,
        })
    }

    /// How many times what the generation before has of the metric it is held against, if it is.
    #[must_use]
    pub fn previous_generation(&self) -> Option<f64> {
        if let Threshold::OfPreviousGeneration(factor) = self.threshold { Some(factor) } else { None }
    }

    /// Whether what is less is better.
    #[must_use]
    pub fn wants_less(&self) -> bool {
        matches!(self.comparison, Comparison::Less | Comparison::LessOrEqual)
    }

    /// Whether one that does not hold is not waited for: of a count that only grows it never holds again, and one that is
    /// held against the previous generation does not hold beyond noise.
    #[must_use]
    pub fn is_lost_for_good(&self) -> bool {
        let may_only_stay = self.wants_less() || self.comparison == Comparison::Equal;
        match self.threshold {
            Threshold::Fixed(_) => self.metric.is_total() && may_only_stay,
            Threshold::OfBaseline(_) => false,
            // Of a level nobody knows the noise.
            Threshold::OfPreviousGeneration(_) => !self.metric.is_level(),
        }
    }

    /// Whether it needs a baseline.
    pub fn needs_baseline(&self) -> bool {
        matches!(self.threshold, Threshold::OfBaseline(_))
    }

    /// What a value is held against, with what the baseline has of the metric; `None` when that is not known.
    pub fn threshold(&self, baseline: Option<f64>) -> Option<f64> {
        match self.threshold {
            Threshold::Fixed(threshold) => Some(threshold),
            Threshold::OfBaseline(factor) => baseline.map(|baseline| factor * baseline),
            // Of two generations alone: see `judge`.
            Threshold::OfPreviousGeneration(_) => None,
        }
    }

    /// Whether a value holds.
    pub fn holds(&self, actual: f64, threshold: f64) -> bool {
        let equal = (actual - threshold).abs() < f64::EPSILON * actual.abs().max(1.0);
        match self.comparison {
            Comparison::Less => actual < threshold,
            Comparison::LessOrEqual => actual <= threshold,
            Comparison::More => actual > threshold,
            Comparison::MoreOrEqual => actual >= threshold,
            Comparison::Equal => equal,
            Comparison::NotEqual => !equal,
        }
    }

    /// How bad a value is: of two, the one that is farther on the wrong side has more. When the worst holds, all hold.
    pub fn badness(&self, actual: f64, threshold: f64) -> f64 {
        match self.comparison {
            Comparison::Less | Comparison::LessOrEqual => actual,
            Comparison::More | Comparison::MoreOrEqual => -actual,
            Comparison::Equal => (actual - threshold).abs(),
            Comparison::NotEqual => -(actual - threshold).abs(),
        }
    }

    /// Whether a part of the window (a moment, a server, a worker) can be worse than another. Of a total that must be large
    /// each part says little: it is told only of one that must be small, or nothing at all.
    pub fn has_worst_part(&self, threshold: f64) -> bool {
        match (self.metric.rule, self.comparison) {
            (_, Comparison::Less | Comparison::LessOrEqual) => true,
            (_, Comparison::Equal) => threshold == 0.0,
            (_, Comparison::NotEqual) | (Rule::Total, _) => false,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(text: &str, actual: f64) -> bool {
        let assertion: Assertion = text.parse().unwrap();
        assertion.holds(actual, assertion.threshold(None).unwrap())
    }

    #[test]
    fn thresholds_are_read_in_every_unit_that_their_metric_has() {
        for (text, actual, expected) in [
            ("p99 < 50ms", 80_000.0, false),
            ("p99<90 ms", 80_000.0, true),
            ("p99 < 0.09s", 80_000.0, true),
            ("p50 <= 10100us", 10_100.0, true),
            ("error_rate < 0.1%", 0.000_5, true),
            ("error_rate < 0.05%", 0.000_5, false),
            ("error_rate < 0.001", 0.000_5, true),
            ("rps > 500", 666.0, true),
            ("rps > 1k/s", 666.0, false),
            ("rss.max < 200MiB", 157_286_400.0, true),
            ("rss.max < 150MB", 157_286_400.0, false),
            ("harakiri == 0", 0.0, true),
            ("requests != 0", 20_000.0, true),
            ("route(\"/a=<b>!\").p99 < 50ms", 80_000.0, false),
            ("findings == 0", 0.0, true),
            ("requests >= 20_000", 20_000.0, true),
        ] {
            assert_eq!(holds(text, actual), expected, "{text}");
        }
    }

    #[test]
    fn a_baseline_is_so_many_times_what_it_was() {
        for text in ["p99 < 1.10 * baseline", "p99 < baseline*1.10"] {
            let assertion: Assertion = text.parse().unwrap();
            assert!(assertion.needs_baseline());
            assert_eq!(assertion.threshold(Some(1_000.0)).map(f64::round), Some(1_100.0));
            assert_eq!(assertion.threshold(None), None);
        }
        assert_eq!("rps > baseline".parse::<Assertion>().unwrap().threshold(Some(7.0)), Some(7.0));
    }

    #[test]
    fn the_previous_generation_is_so_many_times_what_it_was() {
        for text in ["p99 < 1.10 * previous_generation", "p99 < previous_generation*1.10"] {
            let assertion: Assertion = text.parse().unwrap();
            assert_eq!(assertion.previous_generation(), Some(1.1));
            assert!(!assertion.needs_baseline());
        }
        let assertion: Assertion = "error_rate <= previous_generation".parse().unwrap();
        assert_eq!(assertion.previous_generation(), Some(1.0));
    }

    proptest! {
        #[test]
        fn when_the_worst_value_holds_all_hold(
            comparison in 0..COMPARISONS.len(),
            threshold in -3..3i32,
            values in prop::collection::vec(-4..4i32, 1..9),
        ) {
            let text = format!("requests {} {threshold}", COMPARISONS[comparison].0);
            let assertion: Assertion = text.parse().unwrap();
            let threshold = f64::from(threshold);
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let badness = |value: &f64| assertion.badness(*value, threshold);
            let worst = values.iter().copied().max_by(|a, b| badness(a).total_cmp(&badness(b))).unwrap();
            let all = values.iter().all(|value| assertion.holds(*value, threshold));
            prop_assert_eq!(assertion.holds(worst, threshold), all);
        }
    }

    #[test]
    fn mistakes_are_told_in_one_line_with_the_nearest_name() {
        for (text, told) in [
            ("p98 < 50ms", "did you mean 'p9"),
            ("route(\"/a\").p98 < 50ms", "did you mean 'p9"),
            ("route(\"/a\").rss.max < 1", "there is no metric 'rss.max'"),
            ("route(/a).p99 < 50ms", "expected a route in quotes"),
            ("route(\"/a\").p99 < previous_generation", "is not compared between generations"),
            ("findings(\"/a\") == 0", "there is no metric"),
            ("eror_rate < 1%", "did you mean 'error_rate'"),
            ("p99 < 50msec", "did you mean 'ms'"),
            ("p99 < 50", "needs a unit"),
            ("rss.max < 1TB", "did you mean"),
            ("rps > many", "'many' is not a number"),
            ("rps 500", "such as 'p99 < 50ms'"),
            ("p99 < 2 + baseline", "with a baseline a threshold is"),
            ("p99 < x * baseline", "with a baseline a threshold is"),
            ("p99 < 2 + previous_generation", "with a previous_generation a threshold is"),
            ("p99 < 0 * previous_generation", "with a previous_generation a threshold is"),
            ("rps > previous_generation", "rps is not compared between generations; these are: p50"),
            ("p99 == previous_generation", "by <, <=, > or >="),
            ("rps ! 500", "such as 'p99 < 50ms'"),
        ] {
            let error = text.parse::<Assertion>().unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
