//! Drawing the smaller tables.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::table::{put, width_of};
use super::theme::Theme;
use crate::model::{List, Mark};

/// How many lines a table takes.
pub(super) fn height(list: &List) -> u16 {
    u16::try_from(list.rows.len() + 1).unwrap_or(u16::MAX)
}

/// Draws as many columns, from the left, and as many rows as fit; `selected` is in sight. Returns which rows those are.
pub(super) fn draw(list: &List, selected: Option<usize>, theme: &Theme, area: Rect, buf: &mut Buffer) -> Range<usize> {
    if area.height == 0 || area.width < 3 {
        return 0..0;
    }
    let room = usize::from(area.height - 1);
    let first = selected.map_or(0, |place| (place + 1).saturating_sub(room)).min(list.rows.len());
    let shown = &list.rows[first..list.rows.len().min(first + room)];
    buf.set_style(Rect { height: 1, ..area }, theme.title());
    for (index, (_, mark)) in shown.iter().enumerate() {
        let line = Rect { y: area.y + 1 + index as u16, height: 1, ..area };
        buf.set_style(
            line,
            match mark {
                Mark::Plain => Style::new(),
                Mark::Status(status) => theme.status(*status),
                Mark::Alarm => theme.alarm(),
            },
        );
        if selected == Some(first + index) {
            buf.set_style(line, theme.selected());
        }
    }
    let mut x = area.x + 1;
    for (column, title) in list.titles.iter().enumerate() {
        let texts = || list.rows.iter().map(|(cells, _)| cells[column].as_str());
        let widest = texts().map(width_of).max().unwrap_or(0).max(width_of(title));
        let width = widest.min(if column == 0 { area.width / 2 } else { area.width });
        if x + width > area.right() {
            break;
        }
        put(buf, x, area.y, title, width, column > 0);
        for (index, (cells, _)) in shown.iter().enumerate() {
            put(buf, x, area.y + 1 + index as u16, &cells[column], width, column > 0);
        }
        x += width + 2;
    }
    first..first + shown.len()
}
