//! A table of rows of one kind: sorted by any field, filtered, scrolled, with a row looked at closely.

use std::cmp::Ordering;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::Place;
use crate::model::columns::Key;
use crate::model::fields::{Clock, Field};
use crate::view::detail::Scroll;
use crate::view::filter::Filter;
use crate::view::keys::Action;
use crate::view::table::{more_rows, put, width_of};
use crate::view::targets::{Target, Targets};
use crate::view::theme::Theme;

/// What the user has made of a table.
#[derive(Debug)]
pub(in crate::view) struct Sheet {
    sort: &'static str,
    reversed: bool,
    /// The selected row, by its id: it stays the same one while the order changes.
    pub(in crate::view) selected: Option<String>,
    /// What rows must contain.
    pub(crate) filter: Filter,
    /// The selected row is looked at closely.
    pub(in crate::view) open: bool,
    pub(in crate::view) scroll: Scroll,
    offset: usize,
    page: usize,
}

/// How a row looks.
pub(in crate::view) type Look<T> = fn(&T, &Theme) -> Style;

impl Sheet {
    pub(in crate::view) fn sorted_by(sort: &'static str) -> Self {
        Self {
            sort,
            reversed: false,
            selected: None,
            filter: Filter::default(),
            open: false,
            scroll: Scroll::default(),
            offset: 0,
            page: 1,
        }
    }

    /// The rows that pass the filter, in their order.
    pub(in crate::view) fn ordered<T>(&self, fields: &[Field<T>], mut rows: Vec<T>, clock: &Clock) -> Vec<T> {
        if !self.filter.is_empty() {
            rows.retain(|row| {
                let texts: Vec<String> = fields.iter().filter_map(|field| (field.text)(row, clock)).collect();
                self.filter.passes(&texts.join(" "))
            });
        }
        let Some(sort) = fields.iter().find(|field| field.name == self.sort) else { return rows };
        let mut keyed: Vec<(Key, T)> = rows.into_iter().map(|row| ((sort.key)(&row), row)).collect();
        keyed.sort_by(|(a, _), (b, _)| {
            let natural = match (a, b) {
                (Key::Text(a), Key::Text(b)) => a.cmp(b),
                _ => b.partial_cmp(a).unwrap_or(Ordering::Equal),
            };
            // What has no value stays below, whichever way the rest is turned.
            let known = matches!(a, Key::Nothing) == matches!(b, Key::Nothing);
            if self.reversed && known { natural.reverse() } else { natural }
        });
        keyed.into_iter().map(|(_, row)| row).collect()
    }

    /// Does what a key asks for, with the ids of the rows in their order; `false` when it means nothing here.
    pub(in crate::view) fn act<T>(&mut self, action: Action, fields: &[Field<T>], ids: &[String]) -> bool {
        let page = isize::try_from(self.page.saturating_sub(1).max(1)).unwrap_or(1);
        let lines = isize::try_from(self.scroll.page.saturating_sub(1).max(1)).unwrap_or(1);
        let reads = |sheet: &mut Self, lines: isize| {
            sheet.scroll.first = sheet.scroll.first.saturating_add_signed(lines);
        };
        match action {
            Action::Up => self.select(ids, -1),
            Action::Down => self.select(ids, 1),
            Action::PageUp if self.open => reads(self, -lines),
            Action::PageDown if self.open => reads(self, lines),
            Action::First if self.open => reads(self, isize::MIN),
            Action::Last if self.open => reads(self, isize::MAX),
            Action::PageUp => self.select(ids, -page),
            Action::PageDown => self.select(ids, page),
            Action::First => self.select(ids, isize::MIN),
            Action::Last => self.select(ids, isize::MAX),
            Action::Detail => {
                if self.selected.is_none() {
                    self.select(ids, 1);
                }
                self.open = !self.open && self.selected.is_some();
                self.scroll.first = 0;
            }
            Action::SortNext => self.sort_by_next(fields, 1),
            Action::SortBefore => self.sort_by_next(fields, -1),
            Action::Reverse => self.reversed = !self.reversed,
            Action::Filter => self.filter.editing = true,
            Action::Back | Action::Quit if self.open => self.open = false,
            Action::Back if !self.filter.is_empty() => self.filter.clear(),
            // There are no columns to choose here, and no cores.
            Action::Columns | Action::Cores => {}
            _ => return false,
        }
        true
    }

    /// A click: a title sorts, a row is selected.
    pub(in crate::view) fn click(&mut self, place: Place, ids: &[String]) {
        match place {
            Place::Title(name) => {
                self.reversed = self.sort == name && !self.reversed;
                self.sort = name;
            }
            Place::Row(row) => self.selected = ids.get(row).cloned(),
        }
    }

    /// How many rows are above those in sight.
    pub(in crate::view) fn offset(&self) -> usize {
        self.offset
    }

    fn position(&self, ids: &[String]) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        ids.iter().position(|id| id == selected)
    }

    fn select(&mut self, ids: &[String], step: isize) {
        let Some(last) = ids.len().checked_sub(1) else { return };
        let next = match self.position(ids) {
            Some(position) => position.saturating_add_signed(step).min(last),
            None if step == isize::MAX => last,
            None => self.offset.min(last),
        };
        self.selected = ids.get(next).cloned();
        self.scroll.first = 0;
    }

    fn sort_by_next<T>(&mut self, fields: &[Field<T>], step: isize) {
        let place = fields.iter().position(|field| field.name == self.sort).unwrap_or(0);
        let next = (place as isize + step).rem_euclid(fields.len().max(1) as isize) as usize;
        if let Some(field) = fields.get(next) {
            (self.sort, self.reversed) = (field.name, false);
        }
    }

    /// Draws the titles and as many of the rows as fit.
    #[expect(clippy::too_many_arguments, reason = "what a table is drawn from, and where")]
    pub(in crate::view) fn draw<T>(
        &mut self,
        fields: &'static [Field<T>],
        rows: &[T],
        ids: &[String],
        clock: &Clock,
        look: Look<T>,
        theme: &Theme,
        area: Rect,
        buf: &mut Buffer,
        targets: &mut Targets,
    ) {
        if area.height == 0 || area.width < 2 {
            return;
        }
        self.page = usize::from(area.height - 1);
        self.offset = self.offset.min(rows.len().saturating_sub(self.page));
        if let Some(position) = self.position(ids) {
            self.offset = self.offset.max((position + 1).saturating_sub(self.page)).min(position);
        }
        let shown = &rows[self.offset..rows.len().min(self.offset + self.page)];
        buf.set_style(Rect { height: 1, ..area }, theme.title());
        for (index, row) in shown.iter().enumerate() {
            let line = Rect { y: area.y + 1 + index as u16, height: 1, ..area };
            let style = look(row, theme);
            if style != Style::new() {
                buf.set_style(line, style);
            }
            if self.selected.as_ref() == ids.get(self.offset + index) {
                buf.set_style(line, theme.selected());
            }
            targets.add(line, Target::Pane(Place::Row(self.offset + index)));
        }
        let mut x = area.x + 1;
        for Fitted { field, width, texts } in fit(fields, rows, shown, clock, area.width - 1) {
            let mark = if self.reversed { "▲" } else { "▼" };
            let sorted = self.sort == field.name;
            let marked = sorted && usize::from(width) > field.title.len();
            let title = if marked { format!("{}{mark}", field.title) } else { field.title.to_owned() };
            put(buf, x, area.y, &title, width, field.right);
            if sorted {
                buf.set_style(Rect { x, y: area.y, width, height: 1 }, theme.strong());
            }
            for (index, text) in texts.iter().enumerate() {
                put(buf, x, area.y + 1 + index as u16, text, width, field.right);
            }
            targets.add(Rect { x, width: width + 1, height: 1, ..area }, Target::Pane(Place::Title(field.name)));
            x += width + 1;
        }
        more_rows(self.offset, rows.len() - self.offset - shown.len(), theme, area, buf);
    }

    /// Draws lines from the one that they are scrolled to, and remembers how far that could be.
    pub(in crate::view) fn draw_lines(&mut self, lines: &[Line<'_>], theme: &Theme, area: Rect, buf: &mut Buffer) {
        let page = usize::from(area.height);
        let first = self.scroll.first.min(lines.len().saturating_sub(page));
        for (line, y) in lines.iter().skip(first).zip(area.y..area.bottom()) {
            buf.set_line(area.x, y, line, area.width);
        }
        if page > 0 {
            more_rows(first, lines.len().saturating_sub(first + page), theme, area, buf);
        }
        self.scroll = Scroll { first, page };
    }
}

/// A field that has found room.
struct Fitted<T: 'static> {
    field: &'static Field<T>,
    width: u16,
    texts: Vec<String>,
}

/// The fields that fit, in their order: the most wanted first. What no row has a value for takes no room.
fn fit<T>(fields: &'static [Field<T>], rows: &[T], shown: &[T], clock: &Clock, width: u16) -> Vec<Fitted<T>> {
    let told = |field: &&Field<T>| rows.is_empty() || rows.iter().any(|row| (field.text)(row, clock).is_some());
    let mut wanted: Vec<&'static Field<T>> = fields.iter().filter(told).collect();
    wanted.sort_by_key(|field| field.rank);
    let (mut fitted, mut left) = (Vec::new(), width + 1);
    for field in wanted {
        let dash = if field.grows { "" } else { "-" };
        let texts: Vec<String> =
            shown.iter().map(|row| (field.text)(row, clock).unwrap_or_else(|| dash.to_owned())).collect();
        let widest = texts.iter().map(|text| width_of(text)).max().unwrap_or(0);
        let width = if field.grows { field.width } else { field.width.max(widest) };
        if width >= left {
            break;
        }
        left -= width + 1;
        fitted.push(Fitted { field, width, texts });
    }
    let place = |name: &str| fields.iter().position(|field| field.name == name);
    fitted.sort_by_key(|fitted| place(fitted.field.name));
    for Fitted { width, texts, .. } in fitted.iter_mut().filter(|fitted| fitted.field.grows) {
        let wanted = texts.iter().map(|text| width_of(text)).max().unwrap_or(0);
        let more = wanted.saturating_sub(*width).min(left);
        *width += more;
        left -= more;
    }
    fitted
}
