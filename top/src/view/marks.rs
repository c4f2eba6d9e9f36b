//! Where a generation took over, marked in a chart.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::spark::Cells;
use super::table::{print, width_of};
use super::theme::Theme;
use crate::model::History;
use crate::source::Monotonic;

/// Draws a line through each column of a picture in which another generation began to serve, with its number below.
/// What is drawn there already stays.
pub(crate) fn generations(history: &History, until: Monotonic, plot: Rect, theme: &Theme, buf: &mut Buffer) {
    let mut before = None;
    let mut free_from = plot.x;
    for (column, cell) in (0u16..).zip(Cells::fitting(history.points(), until, usize::from(plot.width)).iter()) {
        let Some(now) = cell.filter_map(|point| point.generation).next_back() else { continue };
        if before.replace(now).is_none_or(|before| before == now) {
            continue;
        }
        let x = plot.x + column;
        for y in plot.y..plot.bottom() {
            let cell = &mut buf[(x, y)];
            if matches!(cell.symbol(), " " | "\u{2800}") {
                cell.set_char('│').set_style(theme.dim());
            }
        }
        // Below it, the time axis; of two that stand close, the later one's number has no room.
        let label = format!("▲{now}");
        if x >= free_from && x + width_of(&label) <= plot.right() {
            print(buf, x, plot.bottom(), &label, plot.right() - x, theme.strong());
            free_from = x + width_of(&label) + 1;
        }
    }
}
