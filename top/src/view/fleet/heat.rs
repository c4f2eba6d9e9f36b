//! The heat map: a line for each server over time, darker for what is worse. The shade tells it, the colour only helps.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::format;
use crate::model::fleet::Points;
use crate::source::Monotonic;
use crate::source::fleet::Figure;
use crate::view::spark::Cells;
use crate::view::table::print_line;
use crate::view::theme::Theme;

/// From little to much; what is not known is blank, and a value of nothing a point.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];

/// What a heat map shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) figure: Figure,
    pub(super) until: Monotonic,
    /// Seconds in a cell.
    step: u64,
    low: f64,
    high: f64,
}

/// The highest value in each of so many cells, the newest last.
fn cells(points: &Points, figure: Figure, until: Monotonic, step: u64, width: usize) -> Vec<Option<f64>> {
    let mut cells = vec![None; width];
    // Cells begin at whole multiples of their step, so that a value stays with its neighbours while time goes on.
    let end = until.as_micros() as i64 / 1_000_000 / step as i64;
    for point in points.iter().rev() {
        let back = end - (point.seconds().floor() as i64).div_euclid(step as i64);
        if back < 0 {
            continue;
        }
        let Some(place) = (width as i64 - 1 - back).try_into().ok().filter(|place: &usize| *place < width) else {
            break;
        };
        if let Some(value) = point.get(figure) {
            let cell: &mut Option<f64> = &mut cells[place];
            *cell = Some(cell.map_or(value, |known| known.max(value)));
        }
    }
    cells
}

impl Scale {
    /// For the servers that are in sight: shades lie between the lowest and the highest of them.
    pub(super) fn of(figure: Figure, until: Monotonic, shown: &[&Points], width: u16) -> Self {
        let first = shown.iter().filter_map(|points| points.iter().next()).map(crate::model::fleet::Point::seconds);
        let span = (until.as_micros() as f64 / 1e6 - first.fold(f64::INFINITY, f64::min)).clamp(0.0, 86_400.0);
        let step =
            Cells::step_for(Monotonic::default(), Monotonic::from_micros((span * 1e6) as u64), usize::from(width));
        let mut scale = Self { figure, until, step, low: f64::INFINITY, high: 0.0 };
        match figure {
            // Shares have a whole of their own.
            Figure::Saturation | Figure::Utilization => (scale.low, scale.high) = (0.0, 1.0),
            Figure::Errors => (scale.low, scale.high) = (0.001, 1.0),
            _ => {
                for value in
                    shown.iter().flat_map(|points| cells(points, figure, until, step, usize::from(width))).flatten()
                {
                    if value > 0.0 {
                        (scale.low, scale.high) = (scale.low.min(value), scale.high.max(value));
                    }
                }
                // What differs by less than the double is one shade or two, and no picture of noise.
                scale.high = scale.high.max(4.0 * scale.low.min(1e18));
            }
        }
        scale
    }

    /// From 0 to 1.
    fn level(&self, value: f64) -> f64 {
        match self.figure {
            Figure::Saturation | Figure::Utilization => value.clamp(0.0, 1.0),
            _ => ((value / self.low).max(1.0).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0),
        }
    }

    /// Draws the line of one server.
    pub(super) fn line(&self, points: &Points, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let values = cells(points, self.figure, self.until, self.step, usize::from(area.width));
        for (x, value) in (area.x..).zip(values) {
            let Some(value) = value else { continue };
            let cell = &mut buf[(x, area.y)];
            if value <= 0.0 || (self.figure == Figure::Errors && value < self.low) {
                cell.set_char(SHADES[0]).set_style(theme.dim());
                continue;
            }
            let level = self.level(value);
            cell.set_char(SHADES[1 + ((level * 4.0) as usize).min(3)]);
            cell.set_style(if level > 0.75 { theme.alarm() } else { theme.heat(level) });
        }
    }

    /// What the shades stand for.
    pub(super) fn legend(&self, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let name = match self.figure {
            Figure::P99 => "p99",
            Figure::Saturation => "saturation",
            Figure::Errors => "share of 5xx",
            _ => "requests per second",
        };
        let mut spans = vec![Span::styled(format!(" {name}"), theme.strong())];
        for (place, shade) in SHADES.iter().enumerate().skip(1) {
            let level = (place - 1) as f64 / 4.0;
            let value = match self.figure {
                Figure::Saturation | Figure::Utilization => level,
                _ if !self.low.is_finite() => continue,
                _ => self.low * (self.high / self.low).powf(level),
            };
            let text = show(self.figure, value);
            spans.push(Span::styled(format!("  {shade}"), if level > 0.7 { theme.alarm() } else { theme.heat(level) }));
            spans.push(Span::styled(format!(" from {text}"), theme.dim()));
        }
        let step = format::seconds(self.step);
        let text = format!("   {step} a cell, the newest at the right; blank: no answer");
        spans.push(Span::styled(text, theme.dim()));
        print_line(buf, area.x, area.y, &Line::from(spans), area.width);
    }
}

/// A figure as it is shown.
pub(super) fn show(figure: Figure, value: f64) -> String {
    match figure {
        Figure::Rps => format::rate(value),
        Figure::Errors | Figure::Saturation | Figure::Utilization => format!("{}%", format::percent(value)),
        Figure::Waiting => format::count(value as u64),
        Figure::Rss => format::size(value as u64),
        Figure::Mean | Figure::P50 | Figure::P95 | Figure::P99 => format::micros(value as u64),
    }
}
