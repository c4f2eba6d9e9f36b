//! Memory of a worker over time, and how fast it grows.

use std::collections::{VecDeque, vec_deque};
use std::time::Duration;

use crate::source::Monotonic;

/// Points that are kept, at least [`SPACING`] apart: an hour.
const POINTS: usize = 240;
/// The time between two points.
const SPACING: Duration = Duration::from_secs(15);
/// A slope over less time than this says nothing.
const LEAST: Duration = Duration::from_secs(60);

/// Of many workers so many are told apart in a chart: the largest.
pub(crate) const LARGEST: usize = 3;
/// More lines than these cannot be told apart, and of the others only the lowest and the highest are drawn.
pub(crate) const MOST_LINES: usize = 11;

/// What a worker's process took at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPoint {
    /// When.
    pub(crate) at: Monotonic,
    /// Resident memory, bytes.
    pub(crate) rss: u64,
    /// Requests that it had completed.
    pub(crate) requests: u64,
}

/// The memory of one process; a new process starts a new track.
#[derive(Debug, Default)]
pub(crate) struct MemoryTrack {
    pid: i32,
    points: VecDeque<MemoryPoint>,
}

/// How fast memory grows, in bytes, by least squares over all points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    /// Per hour.
    pub(crate) per_hour: Slope,
    /// Per 1,000 requests; `None` when hardly any came.
    pub(crate) per_thousand_requests: Option<Slope>,
}

/// A fitted slope, and how far off it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slope {
    /// Bytes.
    pub(crate) value: f64,
    /// Its standard error, bytes; `None` of two points, which any line fits.
    pub(crate) error: Option<f64>,
}

impl Slope {
    /// Whether it is no more than what the points scatter by: within two standard errors of nothing.
    pub(crate) fn is_noise(self) -> bool {
        self.error.is_none_or(|error| self.value.abs() <= 2.0 * error)
    }

    /// Of several processes together, whose errors have nothing to do with each other.
    pub(crate) fn sum(slopes: impl IntoIterator<Item = Self>) -> Option<Self> {
        let add = |one: Self, other: Self| Self {
            value: one.value + other.value,
            error: one.error.zip(other.error).map(|(one, other)| one.hypot(other)),
        };
        slopes.into_iter().reduce(add)
    }
}

impl MemoryTrack {
    /// Takes a sample of the worker's process in.
    pub(crate) fn push(&mut self, pid: i32, point: MemoryPoint) {
        if pid != self.pid {
            *self = Self { pid, points: VecDeque::new() };
        }
        if pid == 0 || point.rss == 0 {
            return;
        }
        if self.points.back().is_some_and(|last| point.at < last.at.after(SPACING)) {
            return;
        }
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// The points up to a moment, oldest first.
    pub(crate) fn points(&self, until: Monotonic) -> vec_deque::Iter<'_, MemoryPoint> {
        // Most often it is now.
        let whole = self.points.back().is_none_or(|last| last.at <= until);
        let end = if whole { self.points.len() } else { self.points.partition_point(|point| point.at <= until) };
        self.points.range(..end)
    }

    /// How fast it grew up to a moment; `None` until there is a minute to judge by.
    pub(crate) fn growth(&self, until: Monotonic) -> Option<Growth> {
        let points = || self.points(until);
        let (first, last) = (points().next()?, points().last()?);
        if last.at.since(first.at) < LEAST {
            return None;
        }
        let slope = |by: fn(&MemoryPoint, &MemoryPoint) -> f64| {
            let n = points().count() as f64;
            let xs = || points().map(|point| by(point, first));
            let ys = || points().map(|point| point.rss as f64);
            let (mean_x, mean_y) = (xs().sum::<f64>() / n, ys().sum::<f64>() / n);
            let covariance: f64 = xs().zip(ys()).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
            let variance: f64 = xs().map(|x| (x - mean_x).powi(2)).sum();
            if variance <= 0.0 {
                return None;
            }
            let value = covariance / variance;
            let residuals: f64 = xs().zip(ys()).map(|(x, y)| (y - mean_y - value * (x - mean_x)).powi(2)).sum();
            Some(Slope { value, error: (n > 2.0).then(|| (residuals / (n - 2.0) / variance).sqrt()) })
        };
        let hours = slope(|point, first| point.at.since(first.at).as_secs_f64() / 3_600.0)?;
        let enough = last.requests.saturating_sub(first.requests) >= 100;
        let thousands = || slope(|point, first| point.requests.saturating_sub(first.requests) as f64 / 1e3);
        Some(Growth { per_hour: hours, per_thousand_requests: enough.then(thousands).flatten() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes_in(minutes: u64) -> Monotonic {
        Monotonic::from_micros(minutes * 60_000_000)
    }

    fn track(minutes: u64, rss: impl Fn(u64) -> u64) -> MemoryTrack {
        let mut track = MemoryTrack::default();
        for minute in 0..=minutes {
            track.push(7, MemoryPoint { at: minutes_in(minute), rss: rss(minute), requests: minute * 500 });
        }
        track
    }

    #[test]
    fn a_leak_has_a_slope_by_time_and_by_requests() {
        let track = track(30, |minute| (50 << 20) + minute * (1 << 20));
        let growth = track.growth(Monotonic::MAX).unwrap();
        assert!((growth.per_hour.value / f64::from(60 << 20) - 1.0).abs() < 1e-6, "{growth:?}");
        assert!((growth.per_thousand_requests.unwrap().value / f64::from(2 << 20) - 1.0).abs() < 1e-6, "{growth:?}");
        assert!(growth.per_hour.error.unwrap() < 1.0 && !growth.per_hour.is_noise(), "a straight line: {growth:?}");
    }

    #[test]
    fn memory_that_only_goes_up_and_down_does_not_grow() {
        let track = track(59, |minute| (50 << 20) + (minute * 7919 % 13) * (1 << 18));
        let slope = track.growth(Monotonic::MAX).unwrap().per_hour;
        assert!(slope.is_noise() && slope.error.unwrap() > f64::from(1 << 18), "{slope:?}");
    }

    #[test]
    fn the_error_is_that_of_the_textbook() {
        // y = 1, 3, 2 at x = 0, 1, 2: a slope of 0.5, a residual sum of squares of 1.5, an error of sqrt(1.5 / 2).
        let mut track = MemoryTrack::default();
        for (hour, rss) in [(0, 1), (1, 3), (2, 2)] {
            track.push(7, MemoryPoint { at: minutes_in(hour * 60), rss, requests: 0 });
        }
        let slope = track.growth(Monotonic::MAX).unwrap().per_hour;
        assert!((slope.value - 0.5).abs() < 1e-9 && (slope.error.unwrap() - 0.75f64.sqrt()).abs() < 1e-9, "{slope:?}");
        let both = Slope::sum([slope, slope]).unwrap();
        assert!((both.value - 1.0).abs() < 1e-9 && (both.error.unwrap() - 1.5f64.sqrt()).abs() < 1e-9, "{both:?}");
        assert_eq!(Slope::sum([]), None);
    }

    #[test]
    fn of_the_past_only_what_was_known_then_is_told() {
        let track = track(30, |minute| if minute <= 10 { 1 << 20 } else { minute << 20 });
        assert_eq!(track.growth(minutes_in(10)).unwrap().per_hour.value, 0.0);
        assert!(track.growth(Monotonic::MAX).unwrap().per_hour.value > 0.0);
        assert_eq!(track.growth(Monotonic::from_micros(30_000_000)), None);
    }

    #[test]
    fn a_new_process_starts_a_new_track_and_its_first_seconds_have_no_slope() {
        let mut track = track(30, |_| 1 << 20);
        assert_eq!(track.growth(Monotonic::MAX).unwrap().per_hour.value, 0.0);
        track.push(8, MemoryPoint { at: minutes_in(31), rss: 5, requests: 0 });
        assert_eq!((track.points(Monotonic::MAX).len(), track.growth(Monotonic::MAX)), (1, None));
    }

    #[test]
    fn it_keeps_an_hour() {
        let mut track = MemoryTrack::default();
        for second in 0..10_000 {
            track.push(7, MemoryPoint { at: Monotonic::from_micros(second * 1_000_000), rss: 9, requests: 0 });
        }
        assert_eq!(track.points(Monotonic::MAX).len(), POINTS);
    }
}
