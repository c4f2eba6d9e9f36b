//! Pieces that panes are put together from: headings, facts, histograms, phases as a bar.

use ratatui::text::{Line, Span};

use crate::format;
use crate::model::{Counts, PHASES, Percentiles};
use crate::view::theme::Theme;

pub(in crate::view) fn heading(text: &str, theme: &Theme) -> Line<'static> {
    Line::styled(text.to_owned(), theme.strong())
}

/// Pairs of label and value, in as many lines as they need.
pub(in crate::view) fn facts(facts: &[(&str, String)], theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let mut lines = vec![Line::default()];
    for (label, value) in facts {
        let length = label.len() + 1 + format::width(value);
        let used = lines.last().map_or(0, Line::width);
        if used > 0 && used + length > usize::from(width) {
            lines.push(Line::default());
        }
        if let Some(line) = lines.last_mut() {
            line.push_span(Span::styled(format!("{label} "), theme.dim()));
            line.push_span(Span::raw(format!("{value}  ")));
        }
    }
    lines
}

pub(super) fn percentiles(latency: Percentiles, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let Percentiles { p50, p95, p99, max } = latency;
    let [p50, p95, p99, max] = [p50, p95, p99, max].map(format::micros);
    facts(&[("p50", p50), ("p95", p95), ("p99", p99), ("max", max)], theme, width)
}

/// A bar for each power of two.
pub(super) fn histogram(counts: &Counts, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let mut rows: Vec<(u32, u64)> = Vec::new();
    for (value, count) in counts.iter() {
        let power = value.max(1).ilog2();
        match rows.last_mut() {
            Some((last, sum)) if *last == power => *sum = sum.saturating_add(count),
            _ => rows.push((power, count)),
        }
    }
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1) as f64;
    let total = counts.total().max(1) as f64;
    let room = f64::from(width.saturating_sub(28).min(60));
    let line = |(power, count): (u32, u64)| {
        let length = count as f64 / most * room;
        // Parts of a cell cannot be drawn from the left in every font; the count beside it is exact.
        let bar = if length < 1.0 { "▄".to_owned() } else { "█".repeat(length.round() as usize) };
        Line::from(vec![
            Span::styled(format!("{:>7} ", format::micros(1 << power)), theme.dim()),
            Span::styled(bar, theme.series(0)),
            Span::raw(format!(" {} ", format::count(count))),
            Span::styled(format!("{}%", format::percent(count as f64 / total)), theme.dim()),
        ])
    };
    rows.into_iter().map(line).collect()
}

/// The characters that the phases are drawn with: without colours they are still told apart.
const FILLS: [&str; 5] = ["░", "▒", "▓", "█", "▄"];

/// The phases of a request: one bar of the whole width, and below it a line for each with its time and share.
pub(super) fn phases(times: [u64; 5], elapsed: u64, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let known: u64 = times.iter().fold(0, |sum, time| sum.saturating_add(*time));
    let whole = known.max(elapsed).max(1);
    let room = f64::from(width.saturating_sub(2).min(100));
    // Each phase ends where the sum up to it ends, so that no rounding adds up.
    let (mut bar, mut sum, mut drawn) = (Vec::new(), 0u64, 0usize);
    for (place, time) in times.into_iter().enumerate() {
        sum = sum.saturating_add(time);
        let end = (sum as f64 / whole as f64 * room).round() as usize;
        let length = end.saturating_sub(drawn).max(usize::from(time > 0 && end >= drawn));
        drawn += length;
        bar.push(Span::styled(FILLS[place].repeat(length), theme.series(place % 3)));
    }
    bar.push(Span::styled("·".repeat((room as usize).saturating_sub(drawn)), theme.dim()));
    let mut lines = vec![Line::from(bar)];
    for ((name, time), (place, fill)) in PHASES.into_iter().zip(times).zip(FILLS.into_iter().enumerate()) {
        lines.push(Line::from(vec![
            Span::styled(format!("{fill} "), theme.series(place % 3)),
            Span::styled(format!("{name:<12}"), theme.dim()),
            Span::raw(format!("{:>7} ", format::micros(time))),
            Span::styled(format!("{:>5}%", format::percent(time as f64 / whole as f64)), theme.dim()),
        ]));
    }
    if elapsed > known {
        let rest = elapsed - known;
        lines.push(Line::from(vec![
            Span::styled("· ", theme.dim()),
            Span::styled(format!("{:<12}", "the rest"), theme.dim()),
            Span::raw(format!("{:>7} ", format::micros(rest))),
            Span::styled(format!("{:>5}%", format::percent(rest as f64 / whole as f64)), theme.dim()),
        ]));
    }
    lines
}

/// A line of a stack: its end, which says the most, when it is too long.
pub(super) fn frame(line: &str, width: u16) -> Line<'static> {
    Line::raw(format!("  {}", format::end_of(line, usize::from(width.saturating_sub(2)))))
}

/// A text in as many lines as it needs, each indented.
pub(super) fn wrapped(text: &str, indent: &str, width: u16) -> Vec<Line<'static>> {
    let lines = format::wrapped(text, usize::from(width).saturating_sub(indent.len()).max(8));
    lines.into_iter().map(|line| Line::raw(format!("{indent}{line}"))).collect()
}
