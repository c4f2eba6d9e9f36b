//! Series made small: points gathered into cells of equal time, and sparklines of them.

use std::collections::{VecDeque, vec_deque};
use std::ops::Range;

use crate::model::Point;
use crate::source::Monotonic;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Seconds that a cell may stand for.
const STEPS: [u64; 9] = [1, 2, 5, 10, 15, 20, 30, 60, 120];

/// Points by cell: the last cell holds `until`, and each stands for as many seconds.
pub(crate) struct Cells<'a> {
    /// Seconds in a cell.
    pub(crate) step: u64,
    points: &'a VecDeque<Point>,
    /// The points of each cell, oldest cell first.
    ranges: Vec<Range<usize>>,
}

impl<'a> Cells<'a> {
    /// Gathers the points up to `until` into `count` cells of `step` seconds. Cells begin at whole multiples
    /// of their step, so a point stays with its neighbours while time goes on.
    pub(crate) fn of(points: &'a VecDeque<Point>, until: Monotonic, step: u64, count: usize) -> Self {
        let mut ranges = vec![0..0; count];
        let mut end = points.partition_point(|point| point.at <= until);
        let mut first = until.as_micros() / 1_000_000 / step * step * 1_000_000;
        for range in ranges.iter_mut().rev() {
            let before = points.range(..end).rev().take_while(|point| point.at.as_micros() >= first).count();
            *range = end - before..end;
            end = range.start;
            first = first.saturating_sub(step * 1_000_000);
        }
        Self { step, points, ranges }
    }

    /// The same, with the smallest step that takes all points in.
    pub(crate) fn fitting(points: &'a VecDeque<Point>, until: Monotonic, count: usize) -> Self {
        let first = points.front().map_or(until, |point| point.at);
        Self::of(points, until, Self::step_for(first, until, count), count)
    }

    /// The points of each cell, oldest cell first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = vec_deque::Iter<'a, Point>> {
        self.ranges.iter().map(|range| self.points.range(range.clone()))
    }

    /// The smallest step, in seconds, with which so many cells take in what lies between two moments.
    pub(crate) fn step_for(first: Monotonic, until: Monotonic, count: usize) -> u64 {
        let span = until.since(first).as_secs();
        STEPS.into_iter().find(|step| span / step < count as u64).unwrap_or(STEPS[STEPS.len() - 1])
    }

    /// The highest value in each cell; `None` where there is none.
    pub(crate) fn highest(&self, value: impl Fn(&Point) -> Option<f64>) -> Vec<Option<f64>> {
        self.iter().map(|cell| cell.filter_map(&value).reduce(f64::max)).collect()
    }

    /// Time and value of the lowest and of the highest point in each cell, oldest first: as much as a line through all of
    /// them would show.
    pub(crate) fn extremes(&self, value: impl Fn(&Point) -> Option<u32>) -> Vec<(Monotonic, u32)> {
        let mut extremes = Vec::with_capacity(2 * self.ranges.len());
        for cell in self.iter() {
            let mut told = cell.filter_map(|point| Some((point.at, value(point)?)));
            let Some(first) = told.next() else { continue };
            let (low, high) = told.fold((first, first), |(low, high), point| {
                (if point.1 < low.1 { point } else { low }, if point.1 > high.1 { point } else { high })
            });
            extremes.push(low.min(high));
            if low != high {
                extremes.push(low.max(high));
            }
        }
        extremes
    }
}

/// A line of blocks, scaled from zero to the highest.
pub(crate) fn sparkline(values: &[Option<f64>]) -> String {
    let highest = values.iter().flatten().copied().fold(0.0, f64::max);
    let block = |value: &Option<f64>| match value {
        None => ' ',
        Some(_) if highest <= 0.0 => BLOCKS[0],
        Some(value) => BLOCKS[((value / highest * 7.0).round() as usize).min(7)],
    };
    values.iter().map(block).collect()
}

/// Bars of so many rows, the uppermost first, of values from 0 to 1.
pub(crate) fn bars(values: &[Option<f64>], rows: u16) -> Vec<String> {
    let full = |value: &Option<f64>| value.map_or(0.0, |value| value * f64::from(rows));
    let row = |row: u16| values.iter().map(|value| bar(full(value) - f64::from(row))).collect();
    (0..rows).rev().map(row).collect()
}

/// What a column of a bar chart shows in a row: `level` is how full the row is, 0 to 1.
pub(crate) fn bar(level: f64) -> char {
    match (level.clamp(0.0, 1.0) * 8.0).round() as usize {
        0 => ' ',
        eighths => BLOCKS[eighths - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds_in(seconds: u64) -> Monotonic {
        Monotonic::from_micros(seconds * 1_000_000)
    }

    fn points(seconds: impl IntoIterator<Item = u64>) -> VecDeque<Point> {
        seconds
            .into_iter()
            .map(|second| Point { at: seconds_in(second), rps: Some(second as f32), ..Point::default() })
            .collect()
    }

    #[test]
    fn cells_are_of_equal_time_and_gaps_stay_gaps() {
        let points = points([10, 11, 12, 15]);
        let cells = Cells::of(&points, seconds_in(16), 2, 4);
        let values = cells.highest(|point| point.rps.map(f64::from));
        assert_eq!(values, [Some(11.0), Some(12.0), Some(15.0), None]);
        assert_eq!(sparkline(&values), "▆▇█ ");
    }

    #[test]
    fn a_chart_grows_with_its_history() {
        let short = points(0..20);
        assert_eq!(Cells::fitting(&short, seconds_in(19), 60).step, 1);
        let long = points(0..3_600);
        let cells = Cells::fitting(&long, seconds_in(3_599), 60);
        assert_eq!((cells.step, cells.iter().map(|cell| cell.len()).sum::<usize>()), (60, 3_600));
        // The past is seen without what came after it.
        let past = Cells::of(&long, seconds_in(100), 1, 10);
        assert_eq!(past.highest(|point| point.rps.map(f64::from)).last(), Some(&Some(100.0)));
    }

    #[test]
    fn of_each_cell_the_extremes_are_kept_in_their_order() {
        let mut points = points([10, 11, 12, 13, 14, 15, 16]);
        let values = [5, 9, 2, 4, 4, 4, 7];
        points.iter_mut().zip(values).for_each(|(point, value)| point.queue = value);
        let cells = Cells::of(&points, seconds_in(16), 5, 3);
        let extremes = cells.extremes(|point| Some(point.queue)).into_iter();
        let extremes: Vec<_> = extremes.map(|(at, value)| (at.as_micros() / 1_000_000, value)).collect();
        assert_eq!(extremes, [(11, 9), (12, 2), (15, 4), (16, 7)]);
    }

    #[test]
    fn nothing_is_a_flat_line() {
        assert_eq!(sparkline(&[Some(0.0), Some(0.0), None]), "▁▁ ");
        assert_eq!((bar(0.0), bar(0.5), bar(1.0)), (' ', '▄', '█'));
        assert_eq!(bars(&[Some(0.5), None, Some(1.0)], 2), ["  █", "█ █"]);
    }
}
