//! What each server did over time: a ring of points, as small as a row's numbers allow.

use std::collections::VecDeque;
use std::time::Duration;

use crate::source::Monotonic;
use crate::source::fleet::{Figure, Figures};

/// [`Figures`] in half of their size. What is not known is not a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Ms since rtop began; before that, less than 0.
    at: i32,
    /// One more than the generation; 0 where it is not known.
    generation: u32,
    values: [f32; Figure::ALL.len()],
}

impl Point {
    fn of(at: i32, figures: &Figures) -> Self {
        Self {
            at,
            generation: figures.generation.map_or(0, |generation| generation.saturating_add(1)),
            values: figures.values.map(|value| value.map_or(f32::NAN, |value| value as f32)),
        }
    }

    /// Seconds since rtop began; less than 0 for what was before.
    pub(crate) fn seconds(&self) -> f64 {
        f64::from(self.at) / 1e3
    }

    /// One of the figures; `None` where it is not known.
    pub(crate) fn get(&self, figure: Figure) -> Option<f64> {
        Some(f64::from(self.values[figure as usize])).filter(|value| !value.is_nan())
    }

    /// The generation that served.
    pub(crate) fn generation(&self) -> Option<u32> {
        self.generation.checked_sub(1)
    }
}

fn millis(at: Monotonic) -> i32 {
    i32::try_from(at.as_micros() / 1_000).unwrap_or(i32::MAX)
}

/// The last points of a server, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Points {
    points: VecDeque<Point>,
    most: usize,
}

impl Points {
    /// All of them, the oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Point> + ExactSizeIterator {
        self.points.iter()
    }

    /// The last at or before a moment.
    #[cfg(test)]
    pub(crate) fn at(&self, at: Monotonic) -> Option<&Point> {
        let at = millis(at);
        self.points.partition_point(|point| point.at <= at).checked_sub(1).and_then(|place| self.points.get(place))
    }

    /// Points that it has room for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.points.capacity()
    }

    pub(super) fn push(&mut self, figures: &Figures) {
        if self.points.len() >= self.most {
            self.points.pop_front();
        } else if self.points.len() == self.points.capacity() {
            // By parts, for doubling would end beyond what there is for it.
            self.points.reserve_exact((self.most / 16).clamp(1, self.most - self.points.len()));
        }
        self.points.push_back(Point::of(millis(figures.at), figures));
    }

    /// Puts what was before rtop began in front of all.
    pub(super) fn remember(&mut self, past: &[(Duration, Figures)]) {
        for (ago, figures) in past.iter().rev().take(self.most.saturating_sub(self.points.len())) {
            let ago = i32::try_from(ago.as_millis()).unwrap_or(i32::MAX);
            self.points.push_front(Point::of(-ago, figures));
        }
    }

    pub(super) fn limit(&mut self, most: usize) {
        self.most = most;
        if self.points.len() > most {
            self.points.drain(..self.points.len() - most);
            self.points.shrink_to_fit();
        }
    }
}
