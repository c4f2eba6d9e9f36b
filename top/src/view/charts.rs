//! Charts of the history: bars, lines, and the latency heat map.
//!
//! Not ratatui's `Chart`, `Canvas` and `Sparkline`: their time grows with every point of the hour, where ours draw the lowest
//! and the highest of each cell; and an hour of history may add no more than 7 % to a refresh (docs/rtop.md, Cost).

use std::collections::vec_deque;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::marks;
use super::spark::{Cells, bar};
use super::table::{print, print_line, width_of};
use super::theme::Theme;
use crate::format;
use crate::model::{HEAT_ROWS, History, LARGEST, MOST_LINES, MemoryPoint, Point, Pool, heat_floor};
use crate::source::Monotonic;

/// Which charts are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Charts {
    /// All that fit where there is room.
    #[default]
    WhereRoom,
    /// None.
    Never,
    /// The one of this number.
    One(u8),
}

/// What charts are drawn from.
#[derive(Clone, Copy)]
pub(crate) struct Material<'a> {
    /// The series.
    pub(crate) history: &'a History,
    /// The server, for its workers' memory; `None` when several are shown together.
    pub(crate) pool: Option<&'a Pool>,
    /// The moment that is shown; nothing after it is drawn.
    pub(crate) until: Monotonic,
}

/// The least room that a chart is drawn in.
pub(crate) const LEAST: (u16, u16) = (30, 6);
/// Room for the numbers at the left edge.
const MARGIN: u16 = 8;

/// A row of the table of charts.
struct Kind {
    number: u8,
    title: &'static str,
    /// Its title when several servers are shown together.
    together: &'static str,
    told: fn(&Point) -> bool,
    draw: fn(&Material<'_>, &Theme, Rect, &mut Buffer),
}

/// Every chart, in the order in which a tall screen shows them.
const KINDS: [Kind; 6] = [
    Kind {
        number: 1,
        title: "requests per second",
        together: "requests per second",
        told: |point| point.rps.is_some(),
        draw: |material, theme, area, buf| {
            bars(material, |point| point.rps.map(f64::from), &format::rate, 0.0, theme, area, buf);
        },
    },
    Kind {
        number: 2,
        title: "latency percentiles",
        together: "latency percentiles",
        told: |point| point.latency.is_some(),
        draw: latency,
    },
    Kind {
        number: 3,
        title: "latency heat map",
        together: "latency heat map",
        told: |point| point.latency.is_some(),
        draw: heat,
    },
    Kind { number: 4, title: "memory by worker", together: "memory", told: |point| point.memory > 0, draw: memory },
    Kind {
        number: 5,
        title: "listen queue",
        together: "listen queue",
        told: |_| true,
        draw: |material, theme, area, buf| {
            let show = |value: f64| format!("{value:.0}");
            bars(material, |point| Some(f64::from(point.queue)), &show, 1.0, theme, area, buf);
        },
    },
    Kind {
        number: 6,
        title: "utilization",
        together: "utilization",
        told: |point| point.utilization.is_some(),
        draw: |material, theme, area, buf| {
            let show = |value: f64| format!("{}%", format::percent(value));
            bars(material, |point| point.utilization.map(f64::from), &show, 1.0, theme, area, buf);
        },
    },
];

/// Draws the chart of a number, with its title.
pub(crate) fn one(number: u8, material: &Material<'_>, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let Some(kind) = KINDS.iter().find(|kind| kind.number == number) else { return };
    if area.width < LEAST.0 || area.height < LEAST.1 {
        return;
    }
    let known = (kind.told)(material.history.ever());
    let title = Line::from(vec![
        Span::styled(format!("{} ", kind.number), theme.dim()),
        Span::styled(if material.pool.is_some() { kind.title } else { kind.together }, theme.strong()),
        Span::styled(if known { "" } else { ": no data yet, or unsupported by this server" }, theme.dim()),
    ]);
    print_line(buf, area.x, area.y, &title, area.width);
    if known {
        let area = Rect { y: area.y + 1, height: area.height - 1, ..area };
        (kind.draw)(material, theme, area, buf);
        marks::generations(material.history, material.until, plot(area), theme, buf);
    }
}

/// Draws as many charts as fit, in columns.
pub(crate) fn all(material: &Material<'_>, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let told = |kind: &&Kind| (kind.told)(material.history.ever());
    let kinds: Vec<&Kind> = KINDS.iter().filter(told).collect();
    let roomy = usize::from(area.width / 60).clamp(1, 3).min(kinds.len().max(1));
    // Three of which one would have a line to itself stand closer.
    let columns = if kinds.len() == 3 && area.width >= 3 * 40 { 3 } else { roomy };
    let most_rows = usize::from(area.height / 8).max(1);
    let rows = kinds.len().div_ceil(columns).min(most_rows);
    let (width, height) = (area.width / columns as u16, (area.height / rows.max(1) as u16).min(40));
    for (index, kind) in kinds.iter().take(rows * columns).enumerate() {
        let (row, column) = ((index / columns) as u16, (index % columns) as u16);
        let place = Rect { x: area.x + column * width, y: area.y + row * height, width: width - 1, height: height - 1 };
        one(kind.number, material, theme, place, buf);
    }
}

/// The room for the picture itself, and the numbers' at its left.
fn plot(area: Rect) -> Rect {
    Rect { x: area.x + MARGIN, width: area.width - MARGIN, height: area.height - 1, ..area }
}

fn left_label(text: &str, y: u16, area: Rect, theme: &Theme, buf: &mut Buffer) {
    let width = usize::from(MARGIN - 1);
    print(buf, area.x, y, &format!("{text:>width$}"), MARGIN - 1, theme.dim());
}

/// The time below a picture of so many cells.
fn time_axis(step: u64, area: Rect, theme: &Theme, buf: &mut Buffer) {
    let plot = plot(area);
    let y = area.bottom() - 1;
    let span = step * u64::from(plot.width);
    print(buf, plot.x, y, &format!("-{}", format::seconds(span)), plot.width, theme.dim());
    if plot.width > 30 {
        let middle = format!("-{}", format::seconds(span / 2));
        print(buf, plot.x + plot.width / 2, y, &middle, plot.width / 2, theme.dim());
    }
    print(buf, plot.right() - 3, y, "now", 3, theme.dim());
}

fn bars(
    material: &Material<'_>,
    value: impl Fn(&Point) -> Option<f64>,
    show: &dyn Fn(f64) -> String,
    least_top: f64,
    theme: &Theme,
    area: Rect,
    buf: &mut Buffer,
) {
    let plot = plot(area);
    let cells = Cells::fitting(material.history.points(), material.until, usize::from(plot.width));
    let values = cells.highest(value);
    let highest = values.iter().flatten().copied().fold(least_top, f64::max);
    let top = if highest > 0.0 { highest } else { 1.0 };
    for (column, value) in values.iter().enumerate() {
        let Some(value) = value else { continue };
        let level = value / top * f64::from(plot.height);
        for row in 0..plot.height {
            let mut symbol = bar(level - f64::from(row));
            // What is small is still not nothing.
            if row == 0 && symbol == ' ' && *value > 0.0 {
                symbol = '▁';
            }
            let cell = &mut buf[(plot.x + column as u16, plot.bottom() - 1 - row)];
            cell.set_char(symbol).set_style(theme.series(0));
        }
    }
    left_label(&show(top), plot.y, area, theme, buf);
    if plot.height > 4 && show(top / 2.0) != show(0.0) {
        left_label(&show(top / 2.0), plot.y + plot.height / 2, area, theme, buf);
    }
    left_label(&show(0.0), plot.bottom() - 1, area, theme, buf);
    time_axis(cells.step, area, theme, buf);
}

/// Seconds before the moment that is shown (negative) and value, by time; and the line's name and style.
type NamedLine = (Vec<(f64, f64)>, String, Style);

/// Lines over time, from the one that may be covered to the one that may not.
struct Lines {
    lines: Vec<NamedLine>,
    /// The lowest and the highest value of the picture.
    y: [f64; 2],
    /// From the lowest to the highest.
    labels: Vec<String>,
}

fn lines(drawn: &Lines, step: u64, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let plot = plot(area);
    let mut dots = Dots::new(plot.width, plot.height);
    let span = (step * u64::from(plot.width)) as f64;
    for (line, (data, _, _)) in drawn.lines.iter().enumerate() {
        let place = |&(x, y): &(f64, f64)| (x / span + 1.0, (y - drawn.y[0]) / (drawn.y[1] - drawn.y[0]));
        let mut before: Option<(f64, f64)> = None;
        for point in data.iter().filter(|(x, _)| *x >= -span).map(place) {
            dots.join(before.unwrap_or(point), point, line);
            before = Some(point);
        }
    }
    for (index, cell) in dots.cells.iter().enumerate().filter(|(_, cell)| cell.0 != 0) {
        let (x, y) = (index % usize::from(plot.width), index / usize::from(plot.width));
        let symbol = char::from_u32(0x2800 + u32::from(cell.0)).unwrap_or(' ');
        let style = drawn.lines.get(cell.1).map_or(Style::new(), |(_, _, style)| *style);
        buf[(plot.x + x as u16, plot.y + y as u16)].set_char(symbol).set_style(style);
    }
    let steps = drawn.labels.len().saturating_sub(1).max(1) as u16;
    for (index, label) in (0u16..).zip(&drawn.labels) {
        left_label(label, plot.bottom() - 1 - index * (plot.height - 1) / steps, area, theme, buf);
    }
    time_axis(step, area, theme, buf);
    // The names stand in the title's line, each in its line's style.
    let mut x = area.right();
    for (_, name, style) in drawn.lines.iter().filter(|(_, name, _)| !name.is_empty()) {
        let width = width_of(name) + 1;
        if x < area.x + 28 + width {
            break;
        }
        x -= width;
        print(buf, x, area.y - 1, name, width, *style);
    }
}

/// A picture of dots, two by four in each cell as Braille has them, and the line that each cell is of.
struct Dots {
    width: usize,
    height: usize,
    cells: Vec<(u8, usize)>,
}

impl Dots {
    fn new(width: u16, height: u16) -> Self {
        let (width, height) = (usize::from(width), usize::from(height));
        Self { width, height, cells: vec![(0, 0); width * height] }
    }

    fn dot(&mut self, x: usize, y: usize, line: usize) {
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let cell = &mut self.cells[y / 4 * self.width + x / 2];
        *cell = (cell.0 | BITS[y % 4][x % 2], line);
    }

    /// A stroke from a point to one that is not left of it; both are shares of the width, and of the height upwards.
    fn join(&mut self, from: (f64, f64), to: (f64, f64), line: usize) {
        let (columns, rows) = ((self.width * 2 - 1) as f64, (self.height * 4 - 1) as f64);
        let column = |x: f64| (x.clamp(0.0, 1.0) * columns).round() as usize;
        let row = |y: f64| ((1.0 - y.clamp(0.0, 1.0)) * rows).round() as usize;
        let (first, last) = (column(from.0), column(to.0));
        let mut above = row(from.1);
        for x in first..=last {
            let share = if last > first { (x - first) as f64 / (last - first) as f64 } else { 1.0 };
            let y = row(from.1 + (to.1 - from.1) * share);
            for y in above.min(y)..=above.max(y) {
                self.dot(x, y, line);
            }
            above = y;
        }
    }
}

/// Seconds in a cell of a picture of this width: the same for lines as for bars, so that charts beside each other agree.
fn step_of(material: &Material<'_>, area: Rect) -> u64 {
    let first = material.history.points().front().map_or(material.until, |point| point.at);
    Cells::step_for(first, material.until, usize::from(plot(area).width))
}

fn latency(material: &Material<'_>, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let cells = Cells::fitting(material.history.points(), material.until, usize::from(plot(area).width));
    let at = |moment: Monotonic| -material.until.since(moment).as_secs_f64();
    let series = |which: usize| -> Vec<(f64, f64)> {
        let extremes = cells.extremes(|point| Some(point.latency?[which])).into_iter();
        extremes.map(|(taken, value)| (at(taken), f64::from(value).max(1.0).log10())).collect()
    };
    // The slowest first: where they meet, the one of most requests is seen.
    let lines: Vec<_> = [(2, "p99"), (1, "p95"), (0, "p50")]
        .map(|(which, name)| (series(which), name.to_owned(), theme.series(which)))
        .into();
    let values = || lines.iter().flat_map(|(data, _, _)| data).map(|(_, y)| *y);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    if !low.is_finite() {
        return;
    }
    // Powers of ten at both ends.
    let (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
    let labels = (low as i32..=high as i32).map(|power| format::micros(10u64.pow(power.max(0) as u32))).collect();
    self::lines(&Lines { lines, y: [low, high], labels }, cells.step, theme, area, buf);
}

/// What is known of a worker's memory up to the moment that is shown.
struct Remembered<'a> {
    id: u32,
    points: vec_deque::Iter<'a, MemoryPoint>,
    /// Where its line ends.
    last: (f64, f64),
}

/// The lowest and the highest of all lines over time, as finely as a picture of so many cells shows.
fn edges(workers: &[Remembered<'_>], until: Monotonic, step: u64, width: u16) -> [Vec<(f64, f64)>; 2] {
    // Two to a cell; µs in each.
    let (columns, each) = (usize::from(width) * 2, (step * 500_000) as f64);
    let mut edges = vec![(u64::MAX, 0); columns + 1];
    for point in workers.iter().flat_map(|worker| worker.points.clone()) {
        // The first column is what the picture ends with.
        let column = (until.since(point.at).as_micros() as f64 / each) as usize;
        if let Some((low, high)) = edges.get_mut(column) {
            (*low, *high) = (point.rss.min(*low), point.rss.max(*high));
        }
    }
    let at = |column: usize| -(column as f64 * each / 1e6);
    let known = || edges.iter().enumerate().rev().filter(|(_, (low, high))| low <= high);
    let ends = workers.iter().map(|worker| worker.last);
    let low = ends.clone().reduce(|a, b| if b.1 < a.1 { b } else { a });
    let high = ends.reduce(|a, b| if b.1 > a.1 { b } else { a });
    [
        known().map(|(column, (low, _))| (at(column), *low as f64)).chain(low).collect(),
        known().map(|(column, (_, high))| (at(column), *high as f64)).chain(high).collect(),
    ]
}

/// A line for each worker, the three largest with names and colours; of many workers those, and between which bounds all
/// the others are.
fn memory(material: &Material<'_>, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let at = |moment: Monotonic| -material.until.since(moment).as_secs_f64();
    let mut workers: Vec<Remembered<'_>> = Vec::new();
    if let Some((pool, sample)) = material.pool.and_then(|pool| Some((pool, pool.current.as_ref()?))) {
        for (place, worker) in sample.snapshot.workers.iter().enumerate() {
            let Some(points) = pool.memory(place).map(|track| track.points(material.until)) else { continue };
            let Some(last) = points.clone().next_back() else { continue };
            // Points are seconds apart, and the last is now.
            let last = match material.until >= sample.at {
                true => (at(sample.at), worker.rss as f64),
                false => (at(last.at), last.rss as f64),
            };
            workers.push(Remembered { id: worker.id, points, last });
        }
    }
    if workers.is_empty() {
        // Several servers: the sum.
        bars(material, |point| Some(point.memory as f64), &|value| format::size(value as u64), 1.0, theme, area, buf);
        return;
    }
    let line = |worker: &Remembered<'_>| {
        let points = worker.points.clone().map(|point| (at(point.at), point.rss as f64));
        points.chain([worker.last]).collect::<Vec<_>>()
    };
    workers.sort_by(|a, b| a.last.1.total_cmp(&b.last.1));
    let (others, named) = workers.split_at(workers.len().saturating_sub(LARGEST));
    let step = step_of(material, area);
    let mut lines: Vec<NamedLine> = match others.len() + LARGEST > MOST_LINES {
        // Of so many, the lowest and the highest at each moment.
        true => edges(others, material.until, step, plot(area).width).into(),
        false => others.iter().map(line).collect::<Vec<_>>(),
    }
    .into_iter()
    .map(|line| (line, String::new(), theme.dim()))
    .collect();
    for (place, worker) in named.iter().enumerate() {
        lines.push((line(worker), format!("w{}", worker.id), theme.series(2_usize.saturating_sub(place))));
    }
    let values = || lines.iter().flat_map(|(line, _, _)| line).map(|(_, y)| *y);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    // Not from zero, so that a slow leak is a slope; but noise is no mountain.
    let margin = ((high - low) * 0.1).max(high * 0.02);
    let (low, high) = ((low - margin).max(0.0), high + margin);
    let labels = [low, f64::midpoint(low, high), high].map(|value| format::size(value as u64)).to_vec();
    self::lines(&Lines { lines, y: [low, high], labels }, step, theme, area, buf);
}

fn heat(material: &Material<'_>, theme: &Theme, area: Rect, buf: &mut Buffer) {
    const SHADES: [char; 4] = ['░', '▒', '▓', '█'];
    let plot = plot(area);
    let cells = Cells::fitting(material.history.points(), material.until, usize::from(plot.width));
    let counts: Vec<[u64; HEAT_ROWS]> = cells
        .iter()
        .map(|cell| {
            let mut sums = [0; HEAT_ROWS];
            for point in cell {
                sums.iter_mut().zip(point.heat).for_each(|(sum, count)| *sum += u64::from(count));
            }
            sums
        })
        .collect();
    let used = |row: &usize| counts.iter().any(|cell| cell[*row] > 0);
    let (Some(low), Some(high)) = ((0..HEAT_ROWS).find(used), (0..HEAT_ROWS).rev().find(used)) else { return };
    // A line for each power of two; where there is no room for all, for each two or more of them.
    let powers = (high - low + 1).div_ceil(usize::from(plot.height).max(1));
    let count = |cell: &[u64; HEAT_ROWS], row: usize| -> u64 { cell.iter().skip(row).take(powers).sum() };
    let rows = || (low..=high).step_by(powers);
    let most = counts.iter().flat_map(|cell| rows().map(|row| count(cell, row))).max().unwrap_or(1);
    for (line, row) in (0..).zip(rows()) {
        let y = plot.bottom() - 1 - line;
        left_label(&format::micros(heat_floor(row)), y, area, theme, buf);
        for (column, cell) in counts.iter().enumerate() {
            let count = count(cell, row);
            if count == 0 {
                continue;
            }
            // By the logarithm: one slow request among ten thousand is seen.
            let level = (count as f64).ln_1p() / (most as f64).ln_1p();
            let shade = SHADES[((level * 4.0).ceil() as usize).clamp(1, 4) - 1];
            let style: Style = theme.heat(level);
            buf[(plot.x + column as u16, y)].set_char(shade).set_style(style);
        }
    }
    time_axis(cells.step, area, theme, buf);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(dots: &Dots) -> Vec<String> {
        let rows = dots.cells.chunks(dots.width);
        let symbol = |cell: &(u8, usize)| char::from_u32(0x2800 + u32::from(cell.0)).unwrap();
        rows.map(|row| row.iter().map(symbol).collect()).collect()
    }

    #[test]
    fn a_stroke_has_no_gaps_and_stays_within_the_picture() {
        let mut dots = Dots::new(3, 1);
        dots.join((0.0, 0.0), (1.0, 1.0), 0);
        assert_eq!(drawn(&dots), ["⣠⠴⠚"]);
        let mut dots = Dots::new(2, 2);
        dots.join((0.0, -5.0), (0.0, 9.0), 0);
        assert_eq!(drawn(&dots), ["⡇⠀", "⡇⠀"], "upright");
    }
}
