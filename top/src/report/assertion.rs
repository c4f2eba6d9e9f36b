//! Assertions on a window: `p99 < 50ms`, read, judged, and told as a table, as Markdown, as JUnit.

use std::fmt::Write as _;
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;

use super::metrics::{METRICS, Metric, Missing, Unit, metric};
use super::window::Window;

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
pub(crate) struct Assertion {
    /// As it was written.
    pub(crate) text: String,
    /// What is measured.
    pub(crate) metric: &'static Metric,
    comparison: Comparison,
    threshold: f64,
}

/// What is wrong with an assertion.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum AssertionError {
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
    /// Not a number.
    #[error("'{text}': '{value}' is not a number with a unit")]
    Value {
        /// The whole.
        text: String,
        /// The value.
        value: String,
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

/// How many single changes make one word another.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn nearest(name: &str, all: impl Iterator<Item = &'static str>) -> &'static str {
    all.min_by_key(|known| distance(&name.to_lowercase(), &known.to_lowercase())).unwrap_or("")
}

impl FromStr for Assertion {
    type Err = AssertionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let whole = || text.trim().to_owned();
        let at = text.find(['<', '>', '=', '!']).ok_or_else(|| AssertionError::Shape(whole()))?;
        let (name, rest) = text.split_at(at);
        let (name, rest) = (name.trim(), rest.trim());
        let (sign, comparison) = COMPARISONS
            .iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or_else(|| AssertionError::Shape(whole()))?;
        let metric = metric(name).ok_or_else(|| AssertionError::Metric {
            text: whole(),
            name: name.to_owned(),
            nearest: nearest(name, METRICS.iter().map(|metric| metric.name)),
            all: METRICS.iter().map(|metric| metric.name).collect::<Vec<_>>().join(", "),
        })?;
        let value = rest[sign.len()..].trim();
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
        Ok(Self { text: whole(), metric, comparison: *comparison, threshold: number * factor })
    }
}

/// An assertion and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    /// What had to hold.
    pub(crate) assertion: Assertion,
    /// What was measured.
    pub(crate) actual: Result<f64, Missing>,
    /// Whether it held; `None` when it could not be measured.
    pub(crate) holds: Option<bool>,
}

impl Assertion {
    /// Holds a window against it.
    pub(crate) fn judge(&self, window: &Window) -> Judgement {
        let actual = (self.metric.value)(window);
        let holds = actual.ok().map(|actual| match self.comparison {
            Comparison::Less => actual < self.threshold,
            Comparison::LessOrEqual => actual <= self.threshold,
            Comparison::More => actual > self.threshold,
            Comparison::MoreOrEqual => actual >= self.threshold,
            Comparison::Equal => (actual - self.threshold).abs() < f64::EPSILON * actual.abs().max(1.0),
            Comparison::NotEqual => (actual - self.threshold).abs() >= f64::EPSILON * actual.abs().max(1.0),
        });
        Judgement { assertion: self.clone(), actual, holds }
    }
}

impl Judgement {
    /// What was measured, as text.
    pub(crate) fn actual(&self) -> String {
        match self.actual {
            Ok(value) => self.assertion.metric.unit.show(value),
            Err(Missing::NotTold) => "the server does not tell".to_owned(),
            Err(Missing::NoRequests) => "no requests".to_owned(),
        }
    }

    /// The verdict in a word.
    pub(crate) fn word(&self) -> &'static str {
        match self.holds {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "not measured",
        }
    }
}

/// What came of a whole watch.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// Each assertion's.
    pub(crate) judgements: Vec<Judgement>,
    /// Why nothing that was measured counts: no server, a restart.
    pub(crate) void: Option<String>,
}

impl Verdict {
    /// 0 when all hold, 1 when one fails, 2 when something could not be measured.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.void.is_some() {
            return 2;
        }
        let failed = self.judgements.iter().any(|judgement| judgement.holds == Some(false));
        let unknown = self.judgements.iter().any(|judgement| judgement.holds.is_none());
        if failed { 1 } else { u8::from(unknown) * 2 }
    }

    /// What was measured and the verdict; nothing, when nothing counts.
    fn told(&self, judgement: &Judgement) -> (String, &'static str) {
        if self.void.is_some() { ("-".to_owned(), "not measured") } else { (judgement.actual(), judgement.word()) }
    }

    /// The table that is printed.
    pub(crate) fn table(&self) -> String {
        let rows = self.judgements.iter().map(|judgement| {
            let (actual, word) = self.told(judgement);
            [judgement.assertion.text.clone(), actual, word.to_owned()]
        });
        let rows: Vec<[String; 3]> =
            std::iter::once(["EXPECTED", "ACTUAL", "RESULT"].map(str::to_owned)).chain(rows).collect();
        let width = |index: usize| rows.iter().map(|row| row[index].chars().count()).max().unwrap_or(0);
        let (expected, actual) = (width(0), width(1));
        let mut text = String::new();
        for [a, b, c] in &rows {
            let _ = writeln!(text, "{a:<expected$}  {b:<actual$}  {c}");
        }
        if let Some(void) = &self.void {
            let _ = writeln!(text, "not measured: {void}");
        }
        text
    }

    /// The same for a CI summary.
    pub(crate) fn markdown(&self) -> String {
        let mut text = "| expected | actual | result |\n| --- | --- | --- |\n".to_owned();
        for judgement in &self.judgements {
            let expected = judgement.assertion.text.replace('|', "\\|");
            let (actual, word) = self.told(judgement);
            let _ = writeln!(text, "| `{expected}` | {actual} | {word} |");
        }
        if let Some(void) = &self.void {
            let _ = writeln!(text, "\nNot measured: {void}");
        }
        text
    }

    /// The same for CI servers: a test case an assertion.
    pub(crate) fn junit(&self, seconds: f64) -> String {
        let failed = self.judgements.iter().filter(|judgement| judgement.holds == Some(false)).count();
        let errors = match &self.void {
            Some(_) => self.judgements.len(),
            None => self.judgements.iter().filter(|judgement| judgement.holds.is_none()).count(),
        };
        let failed = if self.void.is_some() { 0 } else { failed };
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"rtop\" tests=\"{}\" failures=\"{failed}\" errors=\"{errors}\" time=\"{seconds:.3}\">\n",
            self.judgements.len(),
        );
        for judgement in &self.judgements {
            let _ = write!(text, "  <testcase classname=\"rtop\" name=\"{}\"", xml(&judgement.assertion.text));
            let actual = xml(&judgement.actual());
            let _ = match (&self.void, judgement.holds) {
                (Some(void), _) => writeln!(text, "><error message=\"{}\"/></testcase>", xml(void)),
                (None, None) => writeln!(text, "><error message=\"{actual}\"/></testcase>"),
                (None, Some(false)) => writeln!(text, "><failure message=\"actual: {actual}\"/></testcase>"),
                (None, Some(true)) => writeln!(text, "/>"),
            };
        }
        text.push_str("</testsuite>\n");
        text
    }
}

fn xml(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A file of assertions: `assert = ["p99 < 50ms", "error_rate < 0.1%"]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AssertFile {
    assert: Vec<String>,
}

/// What is wrong with a file of assertions.
#[derive(Debug, Error)]
pub(crate) enum AssertFileError {
    /// Not the TOML that is expected.
    #[error("expected assert = [\"p99 < 50ms\", …]: {0}")]
    Toml(#[from] toml::de::Error),
    /// One of its assertions.
    #[error(transparent)]
    Assertion(#[from] AssertionError),
}

/// Reads a file of assertions.
///
/// # Errors
/// When it is not the TOML that is expected, or an assertion in it cannot be read.
pub(crate) fn parse_file(text: &str) -> Result<Vec<Assertion>, AssertFileError> {
    let file: AssertFile = toml::from_str(text)?;
    Ok(file.assert.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Counts;
    use rwsgi_stats::latency;

    fn window() -> Window {
        let counts = latency::from_counts([(latency::index_of(10_000), 98), (latency::index_of(80_000), 2)]);
        Window {
            readings: 30,
            seconds: 30.0,
            requests: 20_000,
            server_errors: Some(10),
            latency: Counts::decode(&latency::encode(&counts)),
            rss_max: Some(150 << 20),
            ..Window::default()
        }
    }

    fn holds(text: &str) -> Option<bool> {
        text.parse::<Assertion>().unwrap().judge(&window()).holds
    }

    #[test]
    fn thresholds_are_read_in_every_unit_that_their_metric_has() {
        for (text, expected) in [
            ("p99 < 50ms", false),
            ("p99<90 ms", true),
            ("p99 < 0.09s", true),
            ("p50 <= 10100us", true),
            ("error_rate < 0.1%", true),
            ("error_rate < 0.05%", false),
            ("error_rate < 0.001", true),
            ("rps > 500", true),
            ("rps > 1k/s", false),
            ("rss.max < 200MiB", true),
            ("rss.max < 150MB", false),
            ("harakiri == 0", true),
            ("requests != 0", true),
            ("requests >= 20_000", true),
        ] {
            assert_eq!(holds(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_told_is_neither_passed_nor_failed() {
        assert_eq!(holds("pss.sum < 1GiB"), None);
        let idle = Window { requests: 0, latency: Some(Counts::default()), ..window() };
        let judged = "p99 < 1s".parse::<Assertion>().unwrap().judge(&idle);
        assert_eq!((judged.holds, judged.actual().as_str()), (None, "no requests"));
        let verdict = Verdict { judgements: vec![judged], void: None };
        assert_eq!(verdict.exit_code(), 2);
    }

    #[test]
    fn mistakes_are_told_in_one_line_with_the_nearest_name() {
        for (text, told) in [
            ("p98 < 50ms", "did you mean 'p9"),
            ("eror_rate < 1%", "did you mean 'error_rate'"),
            ("p99 < 50msec", "did you mean 'ms'"),
            ("p99 < 50", "needs a unit"),
            ("rss.max < 1TB", "did you mean"),
            ("rps > many", "'many' is not a number"),
            ("rps 500", "such as 'p99 < 50ms'"),
            ("rps ! 500", "such as 'p99 < 50ms'"),
        ] {
            let error = text.parse::<Assertion>().unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_holds_the_same_assertions() {
        assert_eq!(parse_file("assert = ['p99 < 50ms', 'harakiri == 0']").unwrap().len(), 2);
        assert!(parse_file("asert = []").is_err());
        assert!(parse_file("assert = ['p77 < 1s']").unwrap_err().to_string().contains("p77"));
    }

    #[test]
    fn every_form_of_the_verdict_names_what_failed() {
        let texts = ["p99 < 50ms", "rps > 500", "pss.sum < 1G"];
        let judgements = texts.map(|text| text.parse::<Assertion>().unwrap().judge(&window())).to_vec();
        let mut verdict = Verdict { judgements, void: None };
        assert_eq!(verdict.exit_code(), 1);
        let mut all = format!("{}\n{}\n{}", verdict.table(), verdict.markdown(), verdict.junit(30.0));
        verdict.void = Some("the server restarted".into());
        let _ = write!(all, "\n{}\n{}", verdict.table(), verdict.junit(30.0));
        assert_eq!(verdict.exit_code(), 2);
        insta::assert_snapshot!(all);
    }
}
