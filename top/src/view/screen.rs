//! The whole screen: the servers that are watched, what the user looks at, and how it is laid out.

use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::columns::Context;
use super::header;
use super::keys::{Action, BINDINGS};
use super::table::Table;
use super::theme::Theme;
use crate::format;
use crate::model::{Pool, Reading};
use crate::source::Sample;

/// What the loop around the screen has to do after an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing changed.
    Nothing,
    /// Draw.
    Draw,
    /// Draw everything again.
    Redraw,
    /// Read at another pace, then draw.
    Pace,
    /// Stop the process until the shell continues it.
    Suspend,
    /// Leave.
    Quit,
}

/// All that is shown, and the state that keys change.
#[derive(Debug)]
pub(crate) struct Screen {
    pools: Vec<Pool>,
    tab: usize,
    table: Table,
    theme: Theme,
    zone: TimeZone,
    /// Reading ten times a second.
    pub(crate) fast: bool,
    /// When the last sample came, good or bad, unix µs.
    now: u64,
}

impl Screen {
    /// A screen that waits for its first samples.
    pub(crate) fn new(pools: Vec<Pool>, theme: Theme, zone: TimeZone) -> Self {
        Self { pools, tab: 0, table: Table::default(), theme, zone, fast: false, now: 0 }
    }

    /// Takes a sample in. Returns whether there is something new to draw.
    pub(crate) fn ingest(&mut self, sample: Sample) -> bool {
        self.now = self.now.max(sample.taken);
        let target = sample.target;
        if let Some(pool) = self.pools.get_mut(target) {
            pool.ingest(sample);
        }
        target == self.tab
    }

    #[cfg(test)]
    pub(crate) fn set_theme(&mut self, theme: Theme) {
        self.theme = theme;
    }

    fn pool(&self) -> Option<&Pool> {
        self.pools.get(self.tab)
    }

    /// Does what a key asks for.
    pub(crate) fn act(&mut self, action: Action) -> Outcome {
        match action {
            Action::Quit => return Outcome::Quit,
            Action::Suspend => return Outcome::Suspend,
            Action::Redraw => return Outcome::Redraw,
            Action::Fast => {
                self.fast = !self.fast;
                return Outcome::Pace;
            }
            Action::Cores => self.table.cores = self.table.cores.next(),
            Action::Back => self.table.selected = None,
            Action::Up => self.select(-1),
            Action::Down => self.select(1),
            Action::PageUp => self.select(-self.table.page()),
            Action::PageDown => self.select(self.table.page()),
            Action::First => self.select(isize::MIN),
            Action::Last => self.select(isize::MAX),
        }
        Outcome::Draw
    }

    fn select(&mut self, step: isize) {
        if let Some(reading) = self.pools.get(self.tab).and_then(|pool| pool.current.as_ref()) {
            self.table.select(reading, step);
        }
    }

    /// Draws everything.
    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let buf = frame.buffer_mut();
        if area.width > 0 && area.height > 0 {
            self.draw_into(area, buf);
        }
        self.theme.finish(buf);
    }

    fn draw_into(&mut self, area: Rect, buf: &mut Buffer) {
        let Some(pool) = self.pools.get(self.tab) else { return };
        let line = |y| Rect { y, height: 1, ..area };
        let taken = pool.current.as_ref().map_or(self.now, |reading| reading.taken);
        let clock = format::local(taken / 1_000_000, "%a %d %b %H:%M:%S", &self.zone);
        header::identity(pool.current.as_ref(), &pool.label, &clock, self.theme, line(area.y), buf);
        let foot = area.bottom() - 1;
        if let Some(reading) = &pool.current {
            let room = header::lines_for(area.height).min(area.height.saturating_sub(2));
            let place = Rect { y: area.y + 1, height: room, ..area };
            let used = header::totals(reading, pool.node.as_deref(), self.theme, place, buf);
            let top = area.y + 1 + used;
            let body = Rect { y: top, height: foot.saturating_sub(top), ..area };
            let context =
                Context { requests: reading.totals.requests, now: reading.taken / 1_000_000, zone: self.zone.clone() };
            self.table.draw(reading, &context, self.theme, body, buf);
        }
        if foot > area.y {
            self.foot(line(foot), buf);
        }
    }

    /// The last line: what is wrong, or else what the keys do.
    fn foot(&self, area: Rect, buf: &mut Buffer) {
        let Some(pool) = self.pool() else { return };
        let line = match (&pool.trouble, &pool.current) {
            (Some(trouble), current) => {
                let since = current.as_ref().map_or(trouble.since, |reading| reading.taken);
                let age = format::seconds(self.now.saturating_sub(since) / 1_000_000);
                let last = if current.is_some() {
                    format!("; shown is {age} old, trying again")
                } else {
                    "; trying again".to_owned()
                };
                Line::styled(
                    format!("{}: {}{last}", pool.label, format::one_line(&trouble.message)),
                    self.theme.alarm(),
                )
            }
            (None, None) => Line::styled("waiting for the first answer", self.theme.dim()),
            (None, Some(reading)) => self.hints(pool, reading),
        };
        buf.set_line(area.x, area.y, &line, area.width);
    }

    fn hints<'a>(&self, pool: &Pool, reading: &Reading) -> Line<'a> {
        let mut spans = Vec::new();
        for binding in BINDINGS.iter().filter(|binding| !binding.hint.is_empty()) {
            spans.push(Span::styled(binding.keys[0], self.theme.strong()));
            spans.push(Span::styled(format!(" {}  ", binding.hint), self.theme.dim()));
        }
        if self.fast {
            spans.push(Span::styled("fast ", self.theme.warning()));
        }
        if let Some(restarted) = pool.restarted {
            let ago = format::seconds(reading.taken.saturating_sub(restarted) / 1_000_000);
            spans.push(Span::styled(format!("server restarted {ago} ago"), self.theme.warning()));
        }
        Line::from(spans)
    }
}
