//! The worker table: which rows, in which order, through which columns, as far as they fit.

use std::cmp::Ordering;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::filter::Filter;
use super::targets::{RowId, Target, Targets};
use super::theme::Theme;
use crate::format;
use crate::model::columns::{COLUMNS, Column, Context, Key, Row, column, status_word};
use crate::model::{Sample, status_of};

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

/// A column and whether it is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// The column.
    pub(crate) column: &'static Column,
    /// Whether it may be shown.
    pub(crate) shown: bool,
}

/// What the user has made of the table.
#[derive(Debug)]
pub(crate) struct Table {
    /// How cores are shown.
    pub(crate) cores: Cores,
    /// The columns, in their order.
    pub(crate) choices: Vec<Choice>,
    /// The column that the rows are sorted by.
    pub(crate) sort: &'static Column,
    /// Against the column's natural order.
    pub(crate) reversed: bool,
    /// The selected row.
    pub(crate) selected: Option<RowId>,
    /// What rows must contain.
    pub(crate) filter: Filter,
    /// How many rows are above the pane.
    offset: usize,
    /// How many rows the pane showed last; a page is as long.
    page: usize,
    told: Told,
}

/// A server by its place, and its master: another one may tell other things.
pub(crate) type ServerId = (usize, i32);

/// Columns that had a value since their server is shown: they keep their room, so that the table does not jump when nobody
/// works.
#[derive(Debug, Default)]
struct Told {
    of: ServerId,
    columns: Vec<&'static str>,
}

/// What is drawn.
#[derive(Clone, Copy)]
pub(crate) struct Content<'a> {
    /// Whose workers they are.
    pub(crate) of: ServerId,
    /// The rows, in their order.
    pub(crate) rows: &'a [Row<'a>],
    /// The workers, by their places, that get a mark.
    pub(crate) marked: &'a [usize],
    /// For their values.
    pub(crate) context: &'a Context,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            cores: Cores::default(),
            choices: COLUMNS.iter().map(|column| Choice { column, shown: true }).collect(),
            // uwsgitop's order: who has served the most is on top.
            sort: column("req").unwrap_or(&COLUMNS[0]),
            reversed: false,
            selected: None,
            filter: Filter::default(),
            offset: 0,
            page: 1,
            told: Told::default(),
        }
    }
}

impl Table {
    /// The rows in the order in which they stand.
    pub(crate) fn rows<'a>(&self, sample: &'a Sample, context: &Context) -> Vec<Row<'a>> {
        let pairs = sample.snapshot.workers.iter().zip(&sample.workers).enumerate();
        let mut rows: Vec<Row<'a>> =
            pairs.map(|(place, (worker, rates))| Row { place, worker, rates, core: None, merged: false }).collect();
        if self.cores == Cores::Merged {
            let cores = rows.iter().flat_map(|row| Self::cores_of(row, true));
            rows = cores.collect();
        }
        if !self.filter.is_empty() {
            rows.retain(|row| {
                let texts: Vec<String> = COLUMNS.iter().filter_map(|column| column.text(row, context)).collect();
                self.filter.passes(&texts.join(" "))
            });
        }
        let mut keyed: Vec<(Key, Row<'a>)> = rows.into_iter().map(|row| ((self.sort.key)(&row), row)).collect();
        keyed.sort_by(|(a, _), (b, _)| {
            let natural = match (a, b) {
                (Key::Text(a), Key::Text(b)) => a.cmp(b),
                (Key::Number(_), Key::Number(_)) if self.sort.ascending => a.partial_cmp(b).unwrap_or(Ordering::Equal),
                _ => b.partial_cmp(a).unwrap_or(Ordering::Equal),
            };
            // What has no value stays below, whichever way the rest is turned.
            let known = matches!(a, Key::Nothing) == matches!(b, Key::Nothing);
            if self.reversed && known { natural.reverse() } else { natural }
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
    pub(crate) fn select(&mut self, sample: &Sample, context: &Context, step: isize) {
        let rows = self.rows(sample, context);
        let Some(last) = rows.len().checked_sub(1) else { return };
        let next = match self.position(&rows) {
            Some(position) => position.saturating_add_signed(step).min(last),
            None if step == isize::MAX => last,
            None if step > 0 => self.offset.min(last),
            None if step == isize::MIN => 0,
            None => (self.offset + self.page.saturating_sub(1)).min(last),
        };
        self.selected = Some(id_of(&rows[next]));
    }

    /// How many rows a page has.
    pub(crate) fn page(&self) -> isize {
        isize::try_from(self.page.saturating_sub(1).max(1)).unwrap_or(1)
    }

    /// Sorts by the next column (the one before when `step` is -1) of those that are wanted and have values.
    pub(crate) fn sort_by_next(&mut self, step: isize) {
        let wanted =
            self.choices.iter().filter(|choice| choice.shown && self.told.columns.contains(&choice.column.name));
        let wanted: Vec<&'static Column> = wanted.map(|choice| choice.column).collect();
        let Some(count) = isize::try_from(wanted.len()).ok().filter(|count| *count > 0) else { return };
        let place = wanted.iter().position(|column| column.name == self.sort.name);
        let place = place.map_or(0, |place| (place as isize + step).rem_euclid(count));
        self.sort = wanted[place as usize];
        self.reversed = false;
    }

    /// Sorts by a column; by the one that it is sorted by, the other way round.
    pub(crate) fn sort_by(&mut self, column: &'static Column) {
        self.reversed = self.sort.name == column.name && !self.reversed;
        self.sort = column;
    }

    fn position(&self, rows: &[Row<'_>]) -> Option<usize> {
        let selected = self.selected?;
        rows.iter().position(|row| id_of(row) == selected)
    }

    /// Draws the titles and as many of the [`rows`](Self::rows) as fit.
    pub(crate) fn draw(
        &mut self,
        content: &Content<'_>,
        theme: &Theme,
        area: Rect,
        buf: &mut Buffer,
        targets: &mut Targets,
    ) {
        let Content { of, rows, marked, context } = *content;
        if area.height == 0 || area.width < 2 {
            return;
        }
        if self.told.of != of {
            self.told = Told { of, columns: Vec::new() };
        }
        self.page = usize::from(area.height - 1);
        self.offset = self.offset.min(rows.len().saturating_sub(self.page));
        if let Some(position) = self.position(rows) {
            // A pane with room for its titles only has a page of no rows.
            self.offset = self.offset.max((position + 1).saturating_sub(self.page)).min(position);
        }
        let shown = &rows[self.offset..rows.len().min(self.offset + self.page)];
        // A column for the mark, as uwsgitop leaves one.
        let columns = self.fit(shown, context, area.width - 1);

        buf.set_style(Rect { height: 1, ..area }, theme.title());
        for (index, row) in shown.iter().enumerate() {
            let line = Rect { y: area.y + 1 + index as u16, height: 1, ..area };
            let style = theme.status(status_of(status_word(row)));
            // Most workers of a large pool are idle, and have no style of their own.
            if style != Style::new() {
                buf.set_style(line, style);
            }
            if marked.contains(&row.place) && row.core.is_none_or(|_| row.merged) {
                buf.set_string(line.x, line.y, "!", theme.alarm());
            }
            if self.selected == Some(id_of(row)) {
                buf.set_style(line, theme.selected());
            }
            targets.add(line, Target::Row(id_of(row)));
        }
        let mut x = area.x + 1;
        for Fitted { column, width, texts } in &columns {
            // The sorted column says so where its title leaves room.
            let mark = if self.reversed { "▲" } else { "▼" };
            let sorted = self.sort.name == column.name;
            let title = match sorted && usize::from(*width) > column.title.len() {
                true => format!("{}{mark}", column.title),
                false => column.title.to_owned(),
            };
            put(buf, x, area.y, &title, *width, column.right);
            if sorted {
                buf.set_style(Rect { x, y: area.y, width: *width, height: 1 }, theme.strong());
            }
            for (index, text) in texts.iter().enumerate() {
                put(buf, x, area.y + 1 + index as u16, text, *width, column.right);
            }
            targets.add(Rect { x, width: width + 1, height: 1, ..area }, Target::Title(column));
            x += width + 1;
        }
        more_rows(self.offset, rows.len() - self.offset - shown.len(), theme, area, buf);
    }

    /// The columns that fit into `width`, in their order, with their texts: the most wanted first, up to the first that
    /// finds no room.
    fn fit(&mut self, rows: &[Row<'_>], context: &Context, width: u16) -> Vec<Fitted> {
        let mut wanted: Vec<(usize, &'static Column)> = Vec::new();
        for (place, Choice { column, .. }) in self.choices.iter().enumerate().filter(|(_, choice)| choice.shown) {
            if !self.told.columns.contains(&column.name) {
                // What nobody ever told takes no room; but what a second sample will tell is waited for.
                let told = |row: &Row<'_>| column.text(row, context).is_some() || (column.awaited)(row.worker);
                if !rows.iter().any(told) {
                    continue;
                }
                self.told.columns.push(column.name);
            }
            wanted.push((place, column));
        }
        wanted.sort_by_key(|(_, column)| column.rank);
        let (mut fitted, mut left) = (Vec::with_capacity(wanted.len()), width + 1);
        for (place, column) in wanted {
            // What is too wide even when all its texts are short need not be written.
            if column.width >= left {
                break;
            }
            let dash = if column.grows { "" } else { "-" };
            let text = |row| column.text(row, context).unwrap_or_else(|| dash.to_owned());
            let texts: Vec<String> = rows.iter().map(text).collect();
            let widest = texts.iter().map(|text| width_of(text)).max().unwrap_or(0);
            let width = if column.grows { column.width } else { column.width.max(widest) };
            if width >= left {
                break;
            }
            left -= width + 1;
            fitted.push((place, Fitted { column, width, texts }));
        }
        fitted.sort_by_key(|(place, _)| *place);
        let mut columns: Vec<Fitted> = fitted.into_iter().map(|(_, fitted)| fitted).collect();
        share_out(&mut columns, left);
        columns
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

/// Gives the room that is left to the columns that can use it.
fn share_out(columns: &mut [Fitted], mut left: u16) {
    for Fitted { width, texts, .. } in columns.iter_mut().filter(|fitted| fitted.column.grows) {
        let wanted = texts.iter().map(|text| width_of(text)).max().unwrap_or(0);
        let more = wanted.saturating_sub(*width).min(left);
        *width += more;
        left -= more;
    }
}

/// Columns that a text takes.
pub(crate) fn width_of(text: &str) -> u16 {
    u16::try_from(format::width(text)).unwrap_or(u16::MAX)
}

/// Writes as much of a text as finds room in `width`. Nearly all is ASCII, which needs no looking for characters of several
/// parts.
pub(crate) fn print(buf: &mut Buffer, x: u16, y: u16, text: &str, width: u16, style: Style) {
    if !text.is_ascii() || !buf.area.contains((x, y).into()) {
        buf.set_stringn(x, y, text, usize::from(width), style);
        return;
    }
    let room = usize::from(width.min(buf.area.right() - x));
    let start = buf.index_of(x, y);
    let styled = style != Style::new();
    for (cell, byte) in buf.content[start..].iter_mut().zip(text.bytes().take(room)) {
        cell.set_char(if byte.is_ascii_control() { ' ' } else { char::from(byte) });
        if styled {
            cell.set_style(style);
        }
    }
}

/// Writes as much of a line as finds room in `width`.
pub(crate) fn print_line(buf: &mut Buffer, x: u16, y: u16, line: &Line<'_>, width: u16) {
    let (mut x, mut room) = (x, width);
    for span in &line.spans {
        print(buf, x, y, &span.content, room, line.style.patch(span.style));
        let taken = width_of(&span.content).min(room);
        (x, room) = (x + taken, room - taken);
    }
}

/// Puts a text into a cell, cut with a mark when it is too long.
pub(crate) fn put(buf: &mut Buffer, x: u16, y: u16, text: &str, width: u16, right: bool) {
    let text = format::start_of(text, usize::from(width));
    let indent = if right { width.saturating_sub(width_of(&text)) } else { 0 };
    print(buf, x + indent, y, &text, width - indent, Style::new());
}

/// Says at the right edge that there are rows above and below.
pub(crate) fn more_rows(above: usize, below: usize, theme: &Theme, area: Rect, buf: &mut Buffer) {
    for (count, mark, y) in [(above, "▲", area.y), (below, "▼", area.bottom() - 1)] {
        if count > 0 {
            let text = format!(" {count}{mark}");
            let width = width_of(&text);
            buf.set_stringn(area.right().saturating_sub(width), y, &text, usize::from(width), theme.title());
        }
    }
}
