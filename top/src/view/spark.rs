//! Series made small: points gathered into cells of equal time, and sparklines of them.

use crate::model::Point;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Seconds that a cell may stand for.
const STEPS: [u64; 9] = [1, 2, 5, 10, 15, 20, 30, 60, 120];

/// Points by cell: the last cell holds `until`, and each stands for as many seconds.
pub(crate) struct Cells<'a> {
    /// Seconds in a cell.
    pub(crate) step: u64,
    /// The points of each cell, oldest cell first.
    pub(crate) cells: Vec<Vec<&'a Point>>,
}

impl<'a> Cells<'a> {
    /// Gathers the points up to `until` (unix µs) into `count` cells of `step` seconds. Cells begin at whole multiples
    /// of their step, so a point stays with its neighbours while time goes on.
    pub(crate) fn of(points: impl DoubleEndedIterator<Item = &'a Point>, until: u64, step: u64, count: usize) -> Self {
        let mut cells = vec![Vec::new(); count];
        let last = until / 1_000_000 / step;
        for point in points.rev().skip_while(|point| point.taken > until) {
            let back = last - (point.taken / 1_000_000 / step).min(last);
            let Some(place) = count.checked_sub(1 + back as usize) else { break };
            cells[place].push(point);
        }
        Self { step, cells }
    }

    /// The same, with the smallest step that takes all points in.
    pub(crate) fn fitting(
        points: impl DoubleEndedIterator<Item = &'a Point> + Clone,
        until: u64,
        count: usize,
    ) -> Self {
        let first = points.clone().next().map_or(until, |point| point.taken);
        let step = Self::step_for(first, until, count);
        Self::of(points, until, step, count)
    }

    /// The smallest step, in seconds, with which so many cells take in what lies between two times (unix µs).
    pub(crate) fn step_for(first: u64, until: u64, count: usize) -> u64 {
        let span = until.saturating_sub(first) / 1_000_000;
        STEPS.into_iter().find(|step| span / step < count as u64).unwrap_or(STEPS[STEPS.len() - 1])
    }

    /// The highest value in each cell; `None` where there is none.
    pub(crate) fn highest(&self, value: impl Fn(&Point) -> Option<f64>) -> Vec<Option<f64>> {
        let highest = |cell: &Vec<&Point>| cell.iter().filter_map(|point| value(point)).reduce(f64::max);
        self.cells.iter().map(highest).collect()
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

    fn points(seconds: impl IntoIterator<Item = u64>) -> Vec<Point> {
        seconds
            .into_iter()
            .map(|second| Point { taken: second * 1_000_000, rps: Some(second as f32), ..Point::default() })
            .collect()
    }

    #[test]
    fn cells_are_of_equal_time_and_gaps_stay_gaps() {
        let points = points([10, 11, 12, 15]);
        let cells = Cells::of(points.iter(), 16_000_000, 2, 4);
        let values = cells.highest(|point| point.rps.map(f64::from));
        assert_eq!(values, [Some(11.0), Some(12.0), Some(15.0), None]);
        assert_eq!(sparkline(&values), "▆▇█ ");
    }

    #[test]
    fn a_chart_grows_with_its_history() {
        let short = points(0..20);
        assert_eq!(Cells::fitting(short.iter(), 19_000_000, 60).step, 1);
        let long = points(0..3_600);
        let cells = Cells::fitting(long.iter(), 3_599_000_000, 60);
        assert_eq!((cells.step, cells.cells.iter().map(Vec::len).sum::<usize>()), (60, 3_600));
        // The past is seen without what came after it.
        let past = Cells::of(long.iter(), 100_000_000, 1, 10);
        assert_eq!(past.highest(|point| point.rps.map(f64::from)).last(), Some(&Some(100.0)));
    }

    #[test]
    fn nothing_is_a_flat_line() {
        assert_eq!(sparkline(&[Some(0.0), Some(0.0), None]), "▁▁ ");
        assert_eq!((bar(0.0), bar(0.5), bar(1.0)), (' ', '▄', '█'));
        assert_eq!(bars(&[Some(0.5), None, Some(1.0)], 2), ["  █", "█ █"]);
    }
}
