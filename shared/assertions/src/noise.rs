//! Whether two generations differ by more than chance.
//!
//! Of a percentile, the bounds come from ranks: how many of n requests are at most as long as the true percentile is
//! binomial, whatever the latencies' distribution. Of a share they are Wilson's. The bounds of a ratio (percentiles) or of a
//! difference (shares) are put together from those of both sides (MOVER). All of it takes requests for independent of each
//! other, which they are only nearly: a hiccup makes many slow at once.

use std::cmp::Ordering;

use crate::{Assertion, Counts, Metric, Missing, Window};

/// With so many requests, at least, anything is said of a side.
pub const FEWEST: u64 = 30;
/// Quantile of the normal distribution: of 100 differences that chance makes, 5 are taken for more.
const SURE: f64 = 1.959_964;
/// The same for one of 1000: for who looks again and again.
const VERY_SURE: f64 = 3.290_527;
/// A difference in memory below this share is none.
const MEMORY: f64 = 0.05;

/// How sure one has to be of a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sureness {
    /// 95 %: of one look.
    #[default]
    Once,
    /// 99.9 %: of one look of many.
    AgainAndAgain,
}

impl Sureness {
    const fn z(self) -> f64 {
        match self {
            Self::Once => SURE,
            Self::AgainAndAgain => VERY_SURE,
        }
    }
}

/// What can be said of two values of a metric of which less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Less, beyond noise.
    Better,
    /// More, beyond noise.
    Worse,
    /// Nothing that chance does not explain.
    WithinNoise,
    /// Too few requests to tell.
    TooFew,
}

impl Difference {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::WithinNoise => "no difference beyond noise",
            Self::TooFew => "too few requests to tell",
        }
    }
}

/// How a metric is held against that of the generation before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Statistic {
    /// A percentile of the latencies: this share is at most as long.
    Quantile(f64),
    /// A share of the requests.
    Share(fn(&Window) -> Option<u64>),
    /// One number, of which nobody knows by how much it varies.
    Level,
}

/// Two values of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Of the newer generation.
    pub new: f64,
    /// Of the one before.
    pub old: f64,
    /// Whether that is more than noise.
    pub difference: Difference,
}

/// Compares a metric of two generations, or of one route in both.
///
/// # Errors
/// When the metric is none that generations have, or there were no requests.
pub fn compare(metric: &Metric, new: &Window, old: &Window) -> Result<Comparison, Missing> {
    let difference = difference(metric, new, old, 1.0, Sureness::Once)?;
    Ok(Comparison { new: (metric.value)(new)?, old: (metric.value)(old)?, difference })
}

/// How the newer one's value stands to so many times the older one's.
fn difference(metric: &Metric, new: &Window, old: &Window, factor: f64, sure: Sureness) -> Result<Difference, Missing> {
    let statistic = metric.statistic().ok_or(Missing::NotTold(Vec::new()))?;
    let (value, other) = ((metric.value)(new)?, factor * (metric.value)(old)?);
    let interval = match statistic {
        Statistic::Level => {
            let least = MEMORY * other.abs();
            Some((value - other - least, value - other + least))
        }
        Statistic::Quantile(quantile) => match (new.latency.get(), old.latency.get()) {
            (Some(new), Some(old)) => ratio(new, old, quantile, factor, sure.z()),
            _ => return Err(Missing::NotTold(Vec::new())),
        },
        Statistic::Share(count) => match (count(new), count(old)) {
            (Some(a), Some(b)) => shares((a, new.requests), (b, old.requests), factor, sure.z()),
            _ => return Err(Missing::NotTold(Vec::new())),
        },
    };
    Ok(match interval {
        None => Difference::TooFew,
        Some((low, _)) if low > 0.0 => Difference::Worse,
        Some((_, high)) if high < 0.0 => Difference::Better,
        Some(_) => Difference::WithinNoise,
    })
}

/// What came of an assertion on a generation.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It does not: beyond noise, where it is compared with another.
    Fail,
    /// There were too few requests to tell.
    TooFew,
    /// There is nothing to tell by: why.
    Unknown(String),
}

/// An assertion on a generation, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// What was measured of the newer generation.
    pub value: Option<f64>,
    /// What that is held against.
    pub threshold: Option<f64>,
    /// What came of it.
    pub outcome: Outcome,
    /// What is to be said of how sure that is.
    pub note: Option<String>,
}

impl Judged {
    fn unknown(why: impl Into<String>) -> Self {
        Self { value: None, threshold: None, outcome: Outcome::Unknown(why.into()), note: None }
    }
}

/// Judges an assertion on the newer generation, which may be held against the older one; `old` is `None` when there was
/// none.
#[must_use]
pub fn judge(assertion: &Assertion, new: &Window, old: Option<&Window>, sure: Sureness) -> Judged {
    let metric = assertion.metric;
    if assertion.servers.is_some() {
        return Judged::unknown("it is of the servers of a fleet, which rtop judges");
    }
    if !metric.is_told_of_generations() {
        return Judged::unknown(format!("{} is not told of a generation", metric.name));
    }
    let too_few = |why: String| Judged { value: None, threshold: None, outcome: Outcome::TooFew, note: Some(why) };
    let value = match (metric.value)(new) {
        Ok(value) => value,
        Err(Missing::NoRequests) => return too_few("the newer generation had no requests".to_owned()),
        Err(Missing::NotTold(_)) => return Judged::unknown("the server does not tell"),
    };
    let Some(factor) = assertion.previous_generation() else {
        let Some(threshold) = assertion.threshold(None) else {
            return Judged::unknown("a generation is not compared with a baseline");
        };
        let outcome = if assertion.holds(value, threshold) { Outcome::Pass } else { Outcome::Fail };
        return Judged { value: Some(value), threshold: Some(threshold), outcome, note: None };
    };
    let Some(old) = old else { return Judged::unknown("there is no generation before it to compare with") };
    let threshold = match (metric.value)(old) {
        Ok(value) => factor * value,
        Err(Missing::NoRequests) => return too_few("the generation before had no requests".to_owned()),
        Err(Missing::NotTold(_)) => return Judged::unknown("the server does not tell"),
    };
    let Ok(difference) = difference(metric, new, old, factor, sure) else {
        return Judged::unknown("the server does not tell");
    };
    let violation = if assertion.wants_less() { Difference::Worse } else { Difference::Better };
    let holds = assertion.holds(value, threshold);
    let requests = format!("{} and {} requests", new.requests, old.requests);
    let (outcome, note) = match (holds, difference) {
        (_, Difference::TooFew) => (Outcome::TooFew, Some(format!("{requests} are too few"))),
        (true, _) => (Outcome::Pass, None),
        (false, difference) if difference == violation || metric.is_level() => (Outcome::Fail, None),
        (false, _) => {
            (Outcome::TooFew, Some(format!("it is beyond the threshold by no more than noise, with {requests}")))
        }
    };
    Judged { value: Some(value), threshold: Some(threshold), outcome, note }
}

/// Bounds of the logarithm of how many times the newer one's percentile is the older one's times `factor`; `None` when one
/// of the sides has too few requests for bounds.
fn ratio(new: &Counts, old: &Counts, quantile: f64, factor: f64, z: f64) -> Option<(f64, f64)> {
    let side = |counts: &Counts| {
        let total = counts.total();
        let (low, high) = ranks(total, quantile, z)?;
        // What is the same counter is the same: a latency is known to a hundredth.
        let bounds = [counts.at_rank(low)?.0, counts.quantile(quantile)?, counts.at_rank(high)?.1];
        Some(bounds.map(|micros| (micros.max(1) as f64).ln()))
    };
    let ([a_low, a, a_high], [b_low, b, b_high]) = (side(new)?, side(old)?);
    if factor <= 0.0 {
        return None;
    }
    let difference = a - b - factor.ln();
    let low = difference - (a - a_low).hypot(b_high - b);
    let high = difference + (a_high - a).hypot(b - b_low);
    Some((low, high))
}

/// The ranks, from 1, of the two of `total` latencies between which the true percentile lies; `None` when there are too few
/// for one of them.
fn ranks(total: u64, quantile: f64, z: f64) -> Option<(u64, u64)> {
    if total < FEWEST {
        return None;
    }
    let n = total as f64;
    // Of the rarer side: how many are beyond the true percentile.
    let rare = quantile.min(1.0 - quantile);
    let mean = n * rare;
    let (fewest, most) = if mean > 60.0 {
        let spread = z * (mean * (1.0 - rare)).sqrt();
        ((mean - spread).floor(), (mean + spread).ceil())
    } else {
        binomial_bounds(n, rare, tail(z))?
    };
    // More than `fewest` are beyond it, and less than `most`.
    let (low, high) = if quantile >= 0.5 { (n - most + 1.0, n - fewest) } else { (fewest + 1.0, most) };
    (low >= 1.0 && high <= n).then_some((low as u64, high as u64))
}

/// The probability beyond a quantile of the normal distribution, for the two that are used.
fn tail(z: f64) -> f64 {
    if z > 3.0 { 0.000_5 } else { 0.025 }
}

/// Counts k of a binomial of n and p with P(X ≤ k) ≤ alpha, and with P(X ≥ k) ≤ alpha. `None` when the first is not even 0.
fn binomial_bounds(n: f64, p: f64, alpha: f64) -> Option<(f64, f64)> {
    let mut probability = (n * (-p).ln_1p()).exp();
    let (mut sum, mut k, mut fewest) = (probability, 0.0, None);
    // P(X ≤ k) = sum.
    while k < n {
        if sum <= alpha {
            fewest = Some(k);
        }
        if sum >= 1.0 - alpha {
            // P(X ≥ k + 1) ≤ alpha.
            return Some((fewest?, k + 1.0));
        }
        probability *= (n - k) / (k + 1.0) * p / (1.0 - p);
        k += 1.0;
        sum += probability;
    }
    None
}

/// Bounds of the difference of a share and `factor` times another, each so many of so many (Newcombe, from Wilson's).
fn shares(new: (u64, u64), old: (u64, u64), factor: f64, z: f64) -> Option<(f64, f64)> {
    if new.1 < FEWEST || old.1 < FEWEST {
        return None;
    }
    let ((a, a_low, a_high), (b, b_low, b_high)) = (wilson(new, z), wilson(old, z));
    let difference = a - factor * b;
    let low = difference - (a - a_low).hypot(factor * (b_high - b));
    let high = difference + (a_high - a).hypot(factor * (b - b_low));
    Some((low, high))
}

/// A share with Wilson's bounds.
fn wilson((count, total): (u64, u64), z: f64) -> (f64, f64, f64) {
    let n = total as f64;
    let p = (count as f64 / n).min(1.0);
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // Rounding must not put a share beyond its own bounds.
    (p, (middle - half).max(0.0).min(p), (middle + half).min(1.0).max(p))
}

/// The worse one first, where a list is to begin with what matters.
#[must_use]
pub fn by_weight(a: Difference, b: Difference) -> Ordering {
    let rank = |difference| match difference {
        Difference::Worse => 0,
        Difference::Better => 1,
        Difference::WithinNoise => 2,
        Difference::TooFew => 3,
    };
    rank(a).cmp(&rank(b))
}

#[cfg(test)]
mod tests;
