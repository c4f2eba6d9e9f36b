//! What lies over the table: help, the choice of columns, the list of alerts.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Widget};

use super::keys::{Key, Keys};
use super::table::{Choice, Table};
use super::theme::Theme;
use crate::model::Alert;
use crate::model::columns::COLUMNS;
use crate::model::fields::{ROUTE_FIELDS, SLOW_FIELDS};

/// What is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// The keys and the columns, from this line on.
    Help(usize),
    /// The columns, with the cursor at one.
    Columns(usize),
    /// The alerts, from this line on.
    Alerts(usize),
    /// What is wrong, from this line on.
    Findings(usize),
    /// The generations beside each other, from this line on.
    Generations(usize),
}

/// Draws a box of at most this width around the lines, from line `first` on. Returns from which it is really drawn: there is
/// no more to see below.
pub(super) fn boxed(
    title: &str,
    lines: &[Line<'_>],
    first: usize,
    width: u16,
    theme: &Theme,
    area: Rect,
    buf: &mut Buffer,
) -> usize {
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let width = width.min(area.width);
    if height < 3 || width < 4 {
        return first;
    }
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(place, buf);
    let room = usize::from(height - 2);
    let first = first.min(lines.len().saturating_sub(room));
    let more =
        if lines.len() > room { format!(" {}-{} of {} ", first + 1, first + room, lines.len()) } else { String::new() };
    let block = Block::bordered().title(Span::styled(format!(" {title} "), theme.strong())).title_bottom(more);
    let inner = block.inner(place);
    block.render(place, buf);
    for (line, y) in lines.iter().skip(first).zip(inner.y..inner.bottom()) {
        buf.set_line(inner.x, y, line, inner.width);
    }
    first
}

/// The keys, from the table of bindings, and the columns, from theirs.
pub(crate) fn help(keys: &Keys, first: usize, theme: &Theme, area: Rect, buf: &mut Buffer) -> usize {
    let mut lines = Vec::new();
    for (binding, bound) in keys.iter().filter(|(_, bound)| !bound.is_empty()) {
        let names: Vec<String> = bound.iter().copied().map(shown).collect();
        lines.push(Line::from(vec![
            Span::styled(format!(" {:<17} ", names.join(" ")), theme.strong()),
            Span::raw(binding.help),
        ]));
    }
    lines.push(Line::default());
    for column in COLUMNS {
        lines.push(Line::from(vec![
            Span::styled(format!(" {:<17} ", column.title), theme.strong()),
            Span::raw(column.help),
        ]));
    }
    let routes = ROUTE_FIELDS.iter().map(|field| (field.title, field.help));
    let slow = SLOW_FIELDS.iter().map(|field| (field.title, field.help));
    for (heading, fields) in [("routes", routes.collect::<Vec<_>>()), ("slow requests", slow.collect())] {
        lines.extend([Line::default(), Line::styled(format!(" {heading}"), theme.dim())]);
        for (title, help) in fields {
            lines.push(Line::from(vec![Span::styled(format!(" {title:<17} "), theme.strong()), Span::raw(help)]));
        }
    }
    boxed("keys and columns", &lines, first, 94, theme, area, buf)
}

/// How a key is shown.
pub(crate) fn shown(key: Key) -> String {
    // The last of its parts is the key itself; shift is one letter.
    let name = key.to_string().replace("shift-", "S-");
    for (long, short) in [
        ("backtab", "S-Tab"),
        ("pageup", "PgUp"),
        ("pagedown", "PgDn"),
        ("up", "↑"),
        ("down", "↓"),
        ("left", "←"),
        ("right", "→"),
    ] {
        if let Some(modifiers) = name.strip_suffix(long) {
            return format!("{modifiers}{short}");
        }
    }
    name
}

/// The columns, wanted or not, in their order.
pub(crate) fn columns(table: &Table, cursor: usize, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let line = |(index, Choice { column, shown }): (usize, &Choice)| {
        let mark = if *shown { "x" } else { " " };
        let text = format!(" [{mark}] {:<14} {} ", column.title, column.help);
        Line::styled(text, if index == cursor { theme.selected() } else { ratatui::style::Style::new() })
    };
    let lines: Vec<Line<'_>> = table.choices.iter().enumerate().map(line).collect();
    let room = usize::from(area.height.saturating_sub(2));
    let first = (cursor + 1).saturating_sub(room);
    boxed("columns: space shows or hides, ← → move, esc closes", &lines, first, 94, theme, area, buf);
}

/// Moves, shows and hides columns: the cursor's place afterwards.
pub(crate) fn move_column(table: &mut Table, cursor: usize, step: isize) -> usize {
    let target = cursor.saturating_add_signed(step).min(table.choices.len() - 1);
    table.choices.swap(cursor, target);
    target
}

/// The alerts.
pub(crate) fn alerts(alerts: &[Alert], first: usize, theme: &Theme, area: Rect, buf: &mut Buffer) -> usize {
    let lines: Vec<Line<'_>> = match alerts {
        [] => vec![Line::raw(" no alerts ")],
        _ => alerts.iter().map(|alert| Line::styled(format!(" {} ", alert.text), theme.warning())).collect(),
    };
    let width = lines.iter().map(Line::width).max().unwrap_or(0) + 2;
    let width = u16::try_from(width).unwrap_or(u16::MAX);
    boxed("alerts", &lines, first, width.max(30), theme, area, buf)
}
