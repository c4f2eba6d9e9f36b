//! The worker table: which rows, in which order, through which columns, as far as they fit.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::columns::{COLUMNS, Column, Context, Key, Row, column, status_word};
use super::theme::Theme;
use crate::model::{Reading, status_of};

/// How cores are shown; `a` goes through them, as in uwsgitop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Workers only.
    #[default]
    Off,
    /// A row for each core in place of its worker's.
    Merged,
    /// The cores below their worker.
    Under,
}

impl Cores {
    /// The next in turn.
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Off => Self::Merged,
            Self::Merged => Self::Under,
            Self::Under => Self::Off,
        }
    }
}

/// A row that stays the same one while the order changes: the worker's place and its core's.
pub(crate) type RowId = (usize, Option<usize>);

/// What the user has made of the table.
#[derive(Debug)]
pub(crate) struct Table {
    /// How cores are shown.
    pub(crate) cores: Cores,
    /// The column that the rows are sorted by.
    pub(crate) sort: &'static Column,
    /// Against the column's natural order.
    pub(crate) reversed: bool,
    /// The selected row.
    pub(crate) selected: Option<RowId>,
    /// How many rows are above the pane.
    offset: usize,
    /// How many rows the pane showed last; a page is as long.
    page: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            cores: Cores::default(),
            // uwsgitop's order: who has served the most is on top.
            sort: column("req").unwrap_or(&COLUMNS[0]),
            reversed: false,
            selected: None,
            offset: 0,
            page: 1,
        }
    }
}

impl Table {
    /// The rows in the order in which they stand.
    pub(crate) fn rows<'a>(&self, reading: &'a Reading) -> Vec<Row<'a>> {
        let pairs = reading.snapshot.workers.iter().zip(&reading.workers).enumerate();
        let mut rows: Vec<Row<'a>> =
            pairs.map(|(place, (worker, rates))| Row { place, worker, rates, core: None, merged: false }).collect();
        if self.cores == Cores::Merged {
            let cores = rows.iter().flat_map(|row| Self::cores_of(row, true));
            rows = cores.collect();
        }
        let mut keyed: Vec<(Key, Row<'a>)> = rows.into_iter().map(|row| ((self.sort.key)(&row), row)).collect();
        keyed.sort_by(|(a, _), (b, _)| {
            let natural = match (a, b) {
                (Key::Text(a), Key::Text(b)) => a.cmp(b),
                (Key::Number(_), Key::Number(_)) if self.sort.name == "wid" => {
                    a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal)
                }
                _ => b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal),
            };
            if self.reversed { natural.reverse() } else { natural }
        });
        let rows = keyed.into_iter().map(|(_, row)| row);
        match self.cores {
            Cores::Under => rows.flat_map(|row| std::iter::once(row).chain(Self::cores_of(&row, false))).collect(),
            _ => rows.collect(),
        }
    }

    /// The cores of a worker that ever had something to do; uwsgitop passes over the others as well.
    fn cores_of<'a>(row: &Row<'a>, merged: bool) -> Vec<Row<'a>> {
        let cores = row.worker.cores.iter().enumerate();
        let used = cores.filter(|(_, core)| core.requests > 0 || core.in_request != 0);
        used.map(|(place, core)| Row { core: Some((place, core)), merged, ..*row }).collect()
    }

    /// Moves the selection by `step` rows; without one, to the first or the last row in sight.
    pub(crate) fn select(&mut self, reading: &Reading, step: isize) {
        let rows = self.rows(reading);
        let Some(last) = rows.len().checked_sub(1) else { return };
        let next = match self.position(&rows) {
            Some(position) => position.saturating_add_signed(step).min(last),
            None if step > 0 => self.offset.min(last),
            None => (self.offset + self.page.saturating_sub(1)).min(last),
        };
        self.selected = Some(id_of(&rows[next]));
    }

    /// How many rows a page has.
    pub(crate) fn page(&self) -> isize {
        isize::try_from(self.page.saturating_sub(1).max(1)).unwrap_or(1)
    }

    fn position(&self, rows: &[Row<'_>]) -> Option<usize> {
        let selected = self.selected?;
        rows.iter().position(|row| id_of(row) == selected)
    }

    /// Draws the titles and as many rows as fit.
    pub(crate) fn draw(&mut self, reading: &Reading, context: &Context, theme: Theme, area: Rect, buf: &mut Buffer) {
        if area.height == 0 {
            return;
        }
        let rows = self.rows(reading);
        self.page = usize::from(area.height - 1);
        self.offset = self.offset.min(rows.len().saturating_sub(self.page));
        if let Some(position) = self.position(&rows) {
            self.offset = self.offset.clamp((position + 1).saturating_sub(self.page), position);
        }
        let shown = &rows[self.offset..rows.len().min(self.offset + self.page)];
        let columns = fit(shown, context, area.width);

        buf.set_style(Rect { height: 1, ..area }, theme.title());
        for (index, row) in shown.iter().enumerate() {
            let y = area.y + 1 + index as u16;
            let style = theme.status(status_of(status_word(row)));
            buf.set_style(Rect { y, height: 1, ..area }, style);
            if self.selected == Some(id_of(row)) {
                buf.set_style(Rect { y, height: 1, ..area }, theme.selected());
            }
        }
        let mut x = area.x;
        for Fitted { column, width, texts } in &columns {
            // The sorted column says so where its title leaves room.
            let mark = if self.reversed { "▲" } else { "▼" };
            let sorted = self.sort.name == column.name && usize::from(*width) > column.title.len();
            let title = if sorted { format!("{}{mark}", column.title) } else { column.title.to_owned() };
            put(buf, x, area.y, &title, *width, column.right);
            for (index, text) in texts.iter().enumerate() {
                put(buf, x, area.y + 1 + index as u16, text, *width, column.right);
            }
            x += width + 1;
        }
        more_rows(self.offset, rows.len() - self.offset - shown.len(), theme, area, buf);
    }
}

fn id_of(row: &Row<'_>) -> RowId {
    (row.place, row.core.map(|(place, _)| place))
}

/// A column that has found room.
struct Fitted {
    column: &'static Column,
    width: u16,
    texts: Vec<String>,
}

/// The columns that fit into `width`, in their order, with their texts.
fn fit(rows: &[Row<'_>], context: &Context, width: u16) -> Vec<Fitted> {
    let mut candidates: Vec<Fitted> = COLUMNS
        .iter()
        .filter_map(|column| {
            let values: Vec<Option<String>> = rows.iter().map(|row| column.text(row, context)).collect();
            // What nobody has takes no room; but the table of an empty pool still has titles.
            if !rows.is_empty() && values.iter().all(Option::is_none) && column.name != "rps" {
                return None;
            }
            let dash = if column.grows { "" } else { "-" };
            let texts: Vec<String> = values.into_iter().map(|value| value.unwrap_or_else(|| dash.to_owned())).collect();
            let widest = texts.iter().map(|text| Line::raw(text).width() as u16).max().unwrap_or(0);
            let width = if column.grows { column.width } else { column.width.max(widest) };
            Some(Fitted { column, width, texts })
        })
        .collect();
    loop {
        let needed = candidates.iter().map(|fitted| fitted.width + 1).sum::<u16>().saturating_sub(1);
        if needed <= width {
            share_out(&mut candidates, width - needed);
            return candidates;
        }
        let Some(least) = (0..candidates.len()).max_by_key(|index| candidates[*index].column.rank) else {
            return candidates;
        };
        candidates.remove(least);
    }
}

/// Gives the room that is left to the columns that can use it.
fn share_out(columns: &mut [Fitted], mut left: u16) {
    for Fitted { width, texts, .. } in columns.iter_mut().filter(|fitted| fitted.column.grows) {
        let wanted = texts.iter().map(|text| Line::raw(text).width() as u16).max().unwrap_or(0);
        let more = wanted.saturating_sub(*width).min(left);
        *width += more;
        left -= more;
    }
}

fn put(buf: &mut Buffer, x: u16, y: u16, text: &str, width: u16, right: bool) {
    let length = Line::raw(text).width() as u16;
    let indent = if right { width.saturating_sub(length) } else { 0 };
    let style = ratatui::style::Style::new();
    buf.set_stringn(x + indent, y, text, usize::from(width - indent), style);
    if length > width && width > 0 {
        buf.set_stringn(x + width - 1, y, "…", 1, style);
    }
}

/// Says at the right edge that there are rows above and below.
fn more_rows(above: usize, below: usize, theme: Theme, area: Rect, buf: &mut Buffer) {
    for (count, mark, y) in [(above, "▲", area.y), (below, "▼", area.bottom() - 1)] {
        if count > 0 {
            let text = format!(" {count}{mark}");
            let width = Line::raw(&text).width() as u16;
            buf.set_stringn(area.right().saturating_sub(width), y, &text, usize::from(width), theme.title());
        }
    }
}
