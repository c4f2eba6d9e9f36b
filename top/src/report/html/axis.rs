//! Where values and times stand in a chart, and what is written beside it.

use crate::format;
use crate::source::Monotonic;
use rwsgi_assertions::Unit;

/// Charts are so wide inside.
pub(super) const WIDTH: f64 = 1_000.0;
/// Charts are so high inside.
pub(super) const HEIGHT: f64 = 100.0;

/// A number with one decimal at most, as coordinates are written.
pub(super) fn short(value: f64) -> String {
    trimmed(&format!("{value:.1}"))
}

/// A number, or one with a unit, without zeros at the end of its decimals.
fn trimmed(text: &str) -> String {
    let Some((whole, rest)) = text.split_once('.') else { return text.to_owned() };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (decimals, unit) = rest.split_at(end);
    match decimals.trim_end_matches('0') {
        "" => format!("{whole}{unit}"),
        decimals => format!("{whole}.{decimals}{unit}"),
    }
}

/// The time across a chart: the same for all charts of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    from: Monotonic,
    until: Monotonic,
    /// What times are counted from.
    pub(super) zero: Monotonic,
}

/// So many seconds may be between two labels.
const STEPS: [f64; 19] = [
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0,
    21_600.0, 86_400.0,
];

impl Times {
    pub(super) fn new(from: Monotonic, until: Monotonic, zero: Monotonic) -> Self {
        Self { from, until, zero }
    }

    fn length(&self) -> f64 {
        self.until.since(self.from).as_secs_f64().max(1e-3)
    }

    /// Where a moment stands, from 0 to 1.
    pub(super) fn share(&self, at: Monotonic) -> f64 {
        (at.since(self.from).as_secs_f64() / self.length()).min(1.0)
    }

    /// Where a moment stands inside.
    pub(super) fn x(&self, at: Monotonic) -> f64 {
        self.share(at) * WIDTH
    }

    /// A moment as it is written.
    pub(super) fn offset(&self, at: Monotonic) -> String {
        if at < self.zero {
            return format!("-{:.1}s", self.zero.since(at).as_secs_f64());
        }
        crate::report::window::offset(at.since(self.zero))
    }

    /// Labels: where they stand (0 to 1), and what they say.
    pub(super) fn labels(&self) -> Vec<(f64, String)> {
        let length = self.length();
        let step = STEPS.iter().copied().find(|step| length / step <= 7.0).unwrap_or(86_400.0 * (length / 604_800.0));
        let count = (self.until.since(self.zero).as_secs_f64() / step).floor().min(20.0) as u64;
        let label = |place: u64| {
            let seconds = place as f64 * step;
            let at = self.zero.after(std::time::Duration::from_secs_f64(seconds));
            let text = if seconds < 60.0 { format!("{}s", short(seconds)) } else { format::seconds(seconds as u64) };
            (self.share(at), text)
        };
        (0..=count).map(label).collect()
    }
}

/// The values up a chart.
#[derive(Clone, Debug)]
pub(super) struct Values {
    low: f64,
    high: f64,
    log: bool,
    /// Where lines go across, and what is written beside them.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Values {
    /// From 0 up to what holds `highest`.
    pub(super) fn linear(unit: Unit, highest: f64) -> Self {
        let highest = highest.max(0.0);
        let step = match unit {
            Unit::Fraction if highest <= 1.0 => 0.25,
            Unit::Bytes => (highest / 4.0).max(1.0).log2().ceil().exp2(),
            // Nothing is counted in parts.
            Unit::Number => nice(highest / 4.0).max(1.0).ceil(),
            _ => nice(highest / 4.0),
        };
        let steps = match unit {
            Unit::Fraction if highest <= 1.0 => 4.0,
            _ => (highest / step).ceil().max(1.0),
        };
        let ticks = (0..=steps as u32).map(|place| (f64::from(place) * step, label(unit, f64::from(place) * step)));
        Self { low: 0.0, high: step * steps, log: false, ticks: ticks.collect() }
    }

    /// Not from 0, so that what grows slowly is a slope; but what hardly changes is no mountain.
    pub(super) fn around(unit: Unit, lowest: f64, highest: f64) -> Self {
        let margin = ((highest - lowest) * 0.1).max(highest * 0.02).max(1.0);
        let (lowest, highest) = ((lowest - margin).max(0.0), highest + margin);
        let step = match unit {
            // No finer than what is written beside it: one decimal of K, M or G.
            Unit::Bytes => {
                let written = 1_024f64.powf(highest.max(1.0).log(1_024.0).floor()) / 8.0;
                ((highest - lowest) / 4.0).max(written).max(1.0).log2().ceil().exp2()
            }
            _ => nice((highest - lowest) / 4.0),
        };
        let (first, last) = ((lowest / step).floor(), (highest / step).ceil());
        let values = (0..=(last - first) as u32).map(|place| (first + f64::from(place)) * step);
        let ticks = values.map(|value| (value, label(unit, value))).collect();
        Self { low: first * step, high: last * step, log: false, ticks }
    }

    /// In powers of ten from what holds `lowest` up to what holds `highest`.
    pub(super) fn logarithmic(unit: Unit, lowest: f64, highest: f64) -> Self {
        let low = lowest.max(1.0).log10().floor();
        let high = highest.max(1.0).log10().ceil().max(low + 1.0);
        let powers = (0..=(high - low) as i32).map(|power| 10f64.powf(low + f64::from(power)));
        let between: &[f64] = if high - low < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let all = powers.flat_map(|power| between.iter().map(move |factor| power * factor));
        let (low, high) = (10f64.powf(low), 10f64.powf(high));
        let ticks = all.filter(|value| *value <= high * 1.001).map(|value| (value, label(unit, value))).collect();
        Self { low, high, log: true, ticks }
    }

    /// Where a value stands inside; 0 is at the top.
    pub(super) fn y(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        HEIGHT * (1.0 - share.clamp(0.0, 1.0))
    }
}

/// The next number that is 1, 2 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|nice| *nice >= value * 0.999).unwrap_or(power)
}

/// A value beside the chart.
fn label(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Time => trimmed(&format::micros(value.round() as u64)),
        Unit::Bytes => trimmed(&format::size(value as u64)),
        Unit::Fraction => format!("{}%", short(value * 100.0)),
        Unit::Number | Unit::PerSecond => match value {
            1e6.. => format!("{}M", short(value / 1e6)),
            1e3.. => format!("{}k", short(value / 1e3)),
            _ => trimmed(&format!("{value:.3}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Monotonic {
        Monotonic::from_micros((seconds * 1e6) as u64)
    }

    #[test]
    fn times_are_few_round_and_in_the_chart() {
        for length in [0.0, 0.05, 0.3, 1.0, 2.6, 30.0, 59.0, 61.0, 3_600.0, 90_000.0, 700_000.0, 9e7] {
            let times = Times::new(seconds(5.0), seconds(5.0 + length), seconds(5.0));
            let labels = times.labels();
            assert!((1..=9).contains(&labels.len()), "{length}: {labels:?}");
            assert!(labels.iter().all(|(at, _)| (0.0..=1.0).contains(at)), "{length}: {labels:?}");
        }
        let times = Times::new(seconds(5.0), seconds(35.0), seconds(6.0));
        let labels: Vec<String> = times.labels().into_iter().map(|(_, text)| text).collect();
        assert_eq!(labels, ["0s", "5s", "10s", "15s", "20s", "25s"]);
        assert_eq!((times.offset(seconds(5.5)), times.offset(seconds(7.0))), ("-0.5s".into(), "+1.0s".into()));
    }

    #[test]
    fn values_have_a_few_lines_and_the_highest_is_within() {
        let texts = |values: Values| values.ticks.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(Values::linear(Unit::PerSecond, 1_700.0)), ["0", "500", "1k", "1.5k", "2k"]);
        assert_eq!(texts(Values::linear(Unit::Number, 0.0)), ["0", "1"]);
        assert_eq!(texts(Values::linear(Unit::Number, 3.0)), ["0", "1", "2", "3"]);
        assert_eq!(texts(Values::linear(Unit::Fraction, 0.03)), ["0%", "25%", "50%", "75%", "100%"]);
        assert_eq!(texts(Values::linear(Unit::Bytes, 90e6)), ["0", "32M", "64M", "96M"]);
        assert_eq!(texts(Values::around(Unit::Bytes, 60e6, 61e6)), ["56M", "57M", "58M", "59M", "60M"]);
        assert_eq!(texts(Values::around(Unit::Bytes, 0.0, 0.0)), ["0", "1"]);
        assert_eq!(texts(Values::logarithmic(Unit::Time, 150.0, 90_000.0)), ["100µs", "1ms", "10ms", "100ms"]);
        assert_eq!(texts(Values::logarithmic(Unit::Time, 1_500.0, 1_800.0)), ["1ms", "2ms", "5ms", "10ms"]);
        for highest in [0.0, 1e-9, 0.3, 7.0, 1e3, 123_456.7, 1e18] {
            for unit in [Unit::Number, Unit::PerSecond, Unit::Bytes, Unit::Fraction] {
                let around = Values::around(unit, highest * 0.9, highest);
                let labels: std::collections::BTreeSet<&str> = around.ticks.iter().map(|(_, text)| &**text).collect();
                assert!(unit != Unit::Bytes || labels.len() == around.ticks.len(), "{highest}: {around:?}");
                assert!(around.ticks.len() <= 7 && around.high >= highest * 0.999, "{unit:?} {highest}: {around:?}");
                let values = Values::linear(unit, highest);
                assert!(values.ticks.len() <= 7 && values.high >= highest * 0.999, "{unit:?} {highest}: {values:?}");
            }
        }
    }
}
