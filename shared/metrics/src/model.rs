//! Families of samples as plain data.

use crate::Histogram;

/// A metric's name with all its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Family<'a> {
    /// The name of its samples in PromQL; of histograms and summaries without `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    /// What it counts: one line, without quotes and backslashes.
    pub help: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Values of the labels: as many for each sample as there are names.
    pub label_values: Vec<Label<'a>>,
    /// The samples' values.
    pub values: Vec<Value>,
}

/// How the values of a family behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grow, until the server starts again.
    Counter,
    /// Come and go.
    Gauge,
    /// Is 1: the labels say something.
    Info,
    /// [`Value::Histogram`]s.
    Histogram,
    /// [`Value::Summary`]s.
    Summary,
}

/// The value of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label<'a> {
    /// Any text.
    Text(&'a str),
    /// Its decimal digits.
    Number(u32),
}

/// What a sample says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(u64),
    /// A whole number that may be negative.
    Signed(i64),
    /// Any number.
    Real(f64),
    /// How often each duration was seen.
    Histogram(Box<Histogram>),
    /// How many durations were seen, and their sum, seconds.
    Summary {
        /// How many.
        count: u64,
        /// Seconds.
        sum: f64,
    },
}

impl Value {
    /// Seconds, of µs.
    pub(crate) fn seconds(micros: u64) -> Self {
        Self::Real(seconds(micros))
    }

    /// 1 for yes, 0 for no.
    pub(crate) fn flag(is: bool) -> Self {
        Self::Integer(is.into())
    }
}

/// µs as Prometheus wants them.
pub(crate) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

impl<'a> Family<'a> {
    /// A family that has no samples yet.
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        expected: usize,
    ) -> Self {
        let label_values = Vec::with_capacity(expected * labels.len());
        Self { name, help, kind, labels, label_values, values: Vec::with_capacity(expected) }
    }

    /// Adds a sample, which has as many labels as the family.
    pub(crate) fn push<const N: usize>(&mut self, labels: [Label<'a>; N], value: Value) {
        debug_assert_eq!(N, self.labels.len(), "{}", self.name);
        self.label_values.extend(labels);
        self.values.push(value);
    }

    /// Each sample: its labels' values and its own.
    pub fn samples(&self) -> impl Iterator<Item = (&[Label<'a>], &Value)> {
        let count = self.labels.len();
        self.values.iter().enumerate().map(move |(at, value)| (&self.label_values[at * count..(at + 1) * count], value))
    }

    /// The unit that its name says: `seconds`, `bytes` or none.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        let name = self.base_name();
        ["seconds", "bytes"].into_iter().find(|unit| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')))
    }

    /// Its name without the suffix of its kind, as OpenMetrics has it.
    #[must_use]
    pub fn base_name(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            _ => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }
}
