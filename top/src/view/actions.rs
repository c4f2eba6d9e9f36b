//! What keys and clicks change of the screen.

use std::time::Duration;

use crossterm::event::{KeyEvent, MouseButton, MouseEvent, MouseEventKind};

use super::charts::Charts;
use super::keys::{Action, Key};
use super::overlay::{self, Overlay};
use super::panes::Pane;
use super::playback::{Pace, Paused};
use super::screen::Screen;
use super::targets::Target;
use crate::model::Pool;
use crate::model::columns::Context;
use crate::source::Monotonic;

/// What the loop around the screen has to do after an action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Nothing changed.
    Nothing,
    /// Draw.
    Draw,
    /// Draw everything again.
    Redraw,
    /// Read at another pace, then draw.
    Pace(Pace),
    /// Stop the process until the shell continues it.
    Suspend,
    /// Leave.
    Quit,
}

impl Screen {
    /// A key: into the filter while that is typed, else what it is bound to.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Outcome {
        if Key::from(key) == Key::INTERRUPT {
            return Outcome::Quit;
        }
        if self.acting.is_open() {
            return self.confirm(key);
        }
        self.acting.seen();
        if self.inside.is_open() {
            return match self.keys.action_of(key) {
                Some(action @ (Action::Suspend | Action::Redraw)) => self.act(action),
                _ => self.press_inside(key),
            };
        }
        if !self.filter().editing {
            return self.keys.action_of(key).map_or(Outcome::Nothing, |action| self.act(action));
        }
        if self.filter_mut().press(key) { Outcome::Draw } else { Outcome::Nothing }
    }

    /// A click or a turn of the wheel.
    pub(crate) fn mouse(&mut self, event: MouseEvent) -> Outcome {
        if self.acting.is_open() {
            return Outcome::Nothing;
        }
        match event.kind {
            MouseEventKind::ScrollUp if self.inside.is_open() => self.click_inside(None, -3),
            MouseEventKind::ScrollDown if self.inside.is_open() => self.click_inside(None, 3),
            MouseEventKind::Down(MouseButton::Left) if self.inside.is_open() => {
                self.click_inside(Some((event.column, event.row)), 0)
            }
            MouseEventKind::ScrollUp if self.selection.reads_detail() => self.scroll_detail(-3),
            MouseEventKind::ScrollDown if self.selection.reads_detail() => self.scroll_detail(3),
            MouseEventKind::ScrollUp => self.act(Action::Up),
            MouseEventKind::ScrollDown => self.act(Action::Down),
            MouseEventKind::Down(MouseButton::Left) => self.click(event.column, event.row),
            _ => Outcome::Nothing,
        }
    }

    fn click(&mut self, x: u16, y: u16) -> Outcome {
        match self.targets.at(x, y) {
            Some(Target::Tab(tab)) => self.turn_to(tab),
            Some(Target::Server(server)) => self.selection.server = server,
            Some(Target::Title(column)) => self.table.sort_by(column),
            Some(Target::Row(row)) => self.table.selected = Some(row),
            Some(Target::Pane(place)) => self.click_in_pane(place),
            None => return Outcome::Nothing,
        }
        Outcome::Draw
    }

    /// Does what a key asks for.
    pub(crate) fn act(&mut self, action: Action) -> Outcome {
        self.theme_told = false;
        match action {
            Action::Suspend => return Outcome::Suspend,
            Action::Redraw => return Outcome::Redraw,
            _ => {}
        }
        if let Some(overlay) = self.selection.overlay {
            self.act_in(overlay, action);
            return Outcome::Draw;
        }
        if self.act_in_pane(action) {
            return Outcome::Draw;
        }
        match action {
            Action::Quit => return Outcome::Quit,
            Action::Suspend | Action::Redraw | Action::Pane(_) => {}
            Action::Fast => {
                self.playback.fast = !self.playback.fast;
                return Outcome::Pace(self.playback.pace());
            }
            Action::Faster | Action::Slower => {
                let factor = if action == Action::Faster { 2.0 } else { 0.5 };
                if !self.playback.hurry(factor) {
                    return Outcome::Nothing;
                }
                return Outcome::Pace(self.playback.pace());
            }
            Action::Pause => {
                match self.playback.paused {
                    Some(_) => self.playback.paused = None,
                    None => self.pause_at(self.history().latest()),
                }
                return Outcome::Pace(self.playback.pace());
            }
            Action::Now => {
                self.playback.paused = None;
                return Outcome::Pace(self.playback.pace());
            }
            Action::Back1 => self.travel(-1),
            Action::Forward1 => self.travel(1),
            Action::Back60 => self.travel_seconds(-60),
            Action::Forward60 => self.travel_seconds(60),
            Action::Theme => {
                self.theme = self.theme.next();
                self.theme_told = true;
            }
            Action::Cores => self.table.cores = self.table.cores.next(),
            Action::Back => self.close(),
            Action::Detail => self.open(),
            Action::SortNext => self.table.sort_by_next(1),
            Action::SortBefore => self.table.sort_by_next(-1),
            Action::Reverse => self.table.reversed = !self.table.reversed,
            Action::Filter => self.table.filter.editing = true,
            Action::Columns => self.selection.overlay = Some(Overlay::Columns(0)),
            Action::Alerts => self.selection.overlay = Some(Overlay::Alerts(0)),
            Action::OnServer(action) => self.intend(action),
            Action::Stacks => self.open_stacks(),
            Action::Profile => self.open_profile(),
            Action::Why => self.selection.overlay = Some(Overlay::Findings(0)),
            Action::Generations => self.selection.overlay = Some(Overlay::Generations(0)),
            Action::Memory => self.open_memory(),
            Action::Help => self.selection.overlay = Some(Overlay::Help(0)),
            Action::Charts if self.charts == Charts::WhereRoom => self.charts = Charts::Never,
            Action::Charts => self.charts = Charts::WhereRoom,
            Action::Chart(number) if self.charts == Charts::One(number) => self.charts = Charts::WhereRoom,
            Action::Chart(number) => self.charts = Charts::One(number),
            Action::TabNext => self.turn(1),
            Action::TabBefore => self.turn(-1),
            Action::PageUp if self.selection.reads_detail() => {
                return self.scroll_detail(-self.selection.scroll_page());
            }
            Action::PageDown if self.selection.reads_detail() => {
                return self.scroll_detail(self.selection.scroll_page());
            }
            Action::First if self.selection.reads_detail() => return self.scroll_detail(isize::MIN),
            Action::Last if self.selection.reads_detail() => return self.scroll_detail(isize::MAX),
            Action::Up => self.select(-1),
            Action::Down => self.select(1),
            Action::PageUp => self.select(-self.table.page()),
            Action::PageDown => self.select(self.table.page()),
            Action::First => self.select(isize::MIN),
            Action::Last => self.select(isize::MAX),
        }
        Outcome::Draw
    }

    /// Keys while something lies over the table.
    fn act_in(&mut self, overlay: Overlay, action: Action) {
        let step = match action {
            Action::Up => -1,
            Action::Down => 1,
            Action::PageUp => -10,
            Action::PageDown => 10,
            Action::First => isize::MIN,
            Action::Last => 1_000,
            _ => 0,
        };
        let last = self.table.choices.len() - 1;
        self.selection.overlay = match (overlay, action) {
            (_, Action::Quit | Action::Back) => None,
            (Overlay::Help(_), Action::Help) | (Overlay::Columns(_), Action::Columns) => None,
            (Overlay::Alerts(_), Action::Alerts) | (Overlay::Findings(_), Action::Why) => None,
            (Overlay::Generations(_), Action::Generations) => None,
            (Overlay::Help(first), _) => Some(Overlay::Help(first.saturating_add_signed(step).min(200))),
            (Overlay::Alerts(first), _) => Some(Overlay::Alerts(first.saturating_add_signed(step).min(1_000))),
            (Overlay::Findings(first), _) => Some(Overlay::Findings(first.saturating_add_signed(step).min(1_000))),
            (Overlay::Generations(first), _) => Some(Overlay::Generations(first.saturating_add_signed(step).min(100))),
            (Overlay::Columns(cursor), Action::Pause | Action::Detail) => {
                let choice = &mut self.table.choices[cursor.min(last)];
                choice.shown = !choice.shown;
                Some(Overlay::Columns(cursor))
            }
            (Overlay::Columns(cursor), Action::Back1 | Action::Forward1) => {
                let step = if action == Action::Back1 { -1 } else { 1 };
                Some(Overlay::Columns(overlay::move_column(&mut self.table, cursor, step)))
            }
            (Overlay::Columns(cursor), _) => Some(Overlay::Columns(cursor.saturating_add_signed(step).min(last))),
        };
    }

    fn scroll_detail(&mut self, lines: isize) -> Outcome {
        self.selection.scroll_detail(lines);
        Outcome::Draw
    }

    /// Whether there is nothing that [`Action::Back`] would close.
    pub(super) fn is_at_rest(&self) -> bool {
        let is_open = self.acting.is_open() || self.inside.is_open() || self.selection.overlay.is_some();
        let is_filtered = self.filter().editing || !self.filter().is_empty();
        let is_selected = self.selection.detail || self.table.selected.is_some();
        let is_usual = self.panes.open == Pane::Workers && !matches!(self.charts, Charts::One(_));
        is_usual && !is_open && !is_filtered && !is_selected
    }

    /// Closes what was opened last.
    fn close(&mut self) {
        if self.selection.detail {
            self.selection.detail = false;
        } else if !self.table.filter.is_empty() {
            self.table.filter.clear();
        } else if self.table.selected.is_some() {
            self.table.selected = None;
        } else {
            self.charts = Charts::WhereRoom;
        }
    }

    fn open(&mut self) {
        if self.all() {
            self.turn_to(self.selection.server + 1);
            return;
        }
        if self.table.selected.is_none() {
            self.select(1);
        }
        self.selection.detail = !self.selection.detail && self.table.selected.is_some();
        self.selection.scroll.first = 0;
    }

    fn turn(&mut self, step: isize) {
        let tabs = if self.pools.len() > 1 { self.pools.len() + 1 } else { 1 };
        self.turn_to((self.selection.tab as isize + step).rem_euclid(tabs as isize) as usize);
    }

    fn turn_to(&mut self, tab: usize) {
        if tab != self.selection.tab {
            self.selection.tab = tab;
            self.table.selected = None;
            self.selection.detail = false;
        }
    }

    fn select(&mut self, step: isize) {
        if self.all() {
            self.selection.server = self.selection.server.saturating_add_signed(step).min(self.pools.len() - 1);
            return;
        }
        // Beside the table, which changes.
        let Self { pools, playback, table, .. } = self;
        let server = self.selection.tab.saturating_sub(usize::from(pools.len() > 1));
        let sample = match &playback.paused {
            Some(paused) => paused.samples.get(server).and_then(Option::as_ref),
            None => pools.get(server).and_then(|pool| pool.current.as_ref()),
        };
        let Some(sample) = sample else { return };
        self.selection.scroll.first = 0;
        let context =
            Context { requests: sample.totals.requests, now: sample.clock.seconds(), zone: self.zone.clone() };
        table.select(sample, &context, step);
    }

    /// Goes `steps` samples from the moment that is shown.
    fn travel(&mut self, steps: isize) {
        let from = self.playback.past().or(self.history().latest());
        self.pause_at(from.and_then(|from| self.history().step(from, steps)));
    }

    fn travel_seconds(&mut self, seconds: i64) {
        let from = self.playback.past().or(self.history().latest());
        let far = Duration::from_secs(seconds.unsigned_abs());
        let time = from.map(|from| if seconds < 0 { from.before(far) } else { from.after(far) });
        self.pause_at(time.and_then(|time| self.history().step(time, 0)));
    }

    /// Shows a moment of the past.
    fn pause_at(&mut self, time: Option<Monotonic>) {
        let Some(time) = time else { return };
        // An answer takes its time: of the other servers, the one of the same poll may have come a little later.
        const LATE: Duration = Duration::from_millis(400);
        let shown = self.server_shown();
        let then =
            |(place, pool): (usize, &Pool)| pool.history.at(if shown == Some(place) { time } else { time.after(LATE) });
        let samples = self.pools.iter().enumerate().map(then).collect();
        self.playback.paused = Some(Paused { at: time, samples });
    }
}
