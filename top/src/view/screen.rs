//! The whole screen: the servers that are watched, what the user looks at, and what keys and clicks change.
//! How it is laid out is in `layout`.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use jiff::tz::TimeZone;

use super::charts::Charts;
use super::detail::Scroll;
use super::keys::{Action, Key, Keys};
use super::overlay::{self, Overlay};
use super::table::{Choice, Table};
use super::theme::Theme;
use crate::model::columns::{Column, Context};
use crate::model::{Concern, History, Pool, Reading, Thresholds, Totals, concerns};
use crate::source::{LocalMicros, Monotonic, Sample, ServerMicros};

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

/// How fast samples are to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// As the command line says.
    Usual,
    /// Ten times a second.
    Fast,
    /// A recording, so many times as fast as it was recorded; 0 holds it.
    Replay(f64),
}

/// How a screen is set up; the configuration file fills it.
#[derive(Debug)]
pub(crate) struct Setup {
    /// What the terminal can show.
    pub(crate) theme: Theme,
    /// For times of day.
    pub(crate) zone: TimeZone,
    /// The keys in force.
    pub(crate) keys: Keys,
    /// When something needs attention.
    pub(crate) thresholds: Thresholds,
    /// The columns and their order; `None` for the usual ones.
    pub(crate) columns: Option<Vec<&'static Column>>,
    /// What the table is sorted by; `None` for the usual.
    pub(crate) sort: Option<&'static Column>,
    /// The samples come from a recording.
    pub(crate) replay: bool,
}

/// A moment in the past that is looked at.
#[derive(Debug)]
pub(super) struct Pinned {
    /// Which.
    pub(super) time: Monotonic,
    /// By server: what was known of it then.
    pub(super) readings: Vec<Option<Reading>>,
}

/// All that is shown, and the state that keys change.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(super) pools: Vec<Pool>,
    /// 0 is all servers together where there are several; otherwise the first.
    pub(super) tab: usize,
    pub(super) table: Table,
    /// The selected server in the list of all.
    pub(super) server: usize,
    pub(super) detail: bool,
    /// How far the detail pane is scrolled.
    pub(super) scroll: Scroll,
    pub(super) overlay: Option<Overlay>,
    pub(super) charts: Charts,
    pub(super) theme: Theme,
    /// The theme was changed, and the foot says which it is.
    pub(super) theme_told: bool,
    pub(super) zone: TimeZone,
    pub(super) keys: Keys,
    pub(super) thresholds: Thresholds,
    pub(super) fast: bool,
    /// Of a recording: how many times as fast as it was.
    pub(super) speed: Option<f64>,
    pub(super) pinned: Option<Pinned>,
    /// All servers together, for the charts of the first tab.
    pub(super) merged: History,
    /// All servers together in the last whole round.
    together: Option<Totals>,
    /// The servers that were read in this round.
    round: Vec<usize>,
    /// When the last sample came, good or bad.
    pub(super) now: Monotonic,
    /// What this machine's clock said then.
    local: Option<LocalMicros>,
    /// The source has no more to give.
    pub(super) ended: bool,
}

impl Screen {
    /// A screen that waits for its first samples.
    pub(crate) fn new(pools: Vec<Pool>, setup: Setup) -> Self {
        let mut table = Table::default();
        if let Some(columns) = setup.columns {
            // What is not named can still be chosen.
            let chosen = columns.iter().map(|column| Choice { column, shown: true });
            let named = |column: &Column| columns.iter().any(|known| known.name == column.name);
            let rest = table.choices.iter().filter(|choice| !named(choice.column));
            table.choices = chosen.chain(rest.map(|choice| Choice { shown: false, ..*choice })).collect();
        }
        table.sort = setup.sort.unwrap_or(table.sort);
        Self {
            pools,
            tab: 0,
            table,
            server: 0,
            detail: false,
            scroll: Scroll::default(),
            overlay: None,
            charts: Charts::default(),
            theme: setup.theme,
            theme_told: false,
            zone: setup.zone,
            keys: setup.keys,
            thresholds: setup.thresholds,
            fast: false,
            speed: setup.replay.then_some(1.0),
            pinned: None,
            merged: History::default(),
            together: None,
            round: Vec::new(),
            now: Monotonic::default(),
            local: None,
            ended: false,
        }
    }

    /// Takes a sample in. Returns whether there is something new to draw.
    pub(crate) fn ingest(&mut self, sample: Sample) -> bool {
        self.now = self.now.max(sample.at);
        self.local = Some(sample.taken);
        let target = sample.target;
        if self.round.contains(&target) {
            // The others had their time.
            self.add_up();
        }
        if let Some(pool) = self.pools.get_mut(target) {
            pool.ingest(sample);
        }
        if self.pools.len() > 1 {
            self.round.push(target);
            if self.round.len() == self.pools.len() {
                self.add_up();
            }
        }
        // The past does not change.
        self.pinned.is_none() && (self.all() || self.server_shown() == Some(target))
    }

    /// Adds the servers up at the end of a round, in which each was read once. What one did in its last window counts only
    /// when that was in this round: of a silent server there are its counters alone.
    fn add_up(&mut self) {
        let round = std::mem::take(&mut self.round);
        let known = self.pools.iter().enumerate().filter_map(|(place, pool)| {
            let totals = &pool.current.as_ref()?.totals;
            let answered = round.contains(&place) && pool.trouble.is_none();
            Some(if answered { totals.clone() } else { totals.without_rates() })
        });
        let totals = Totals::merged(&known.collect::<Vec<_>>());
        let clock = ServerMicros::agreeing_with(self.local.unwrap_or_default());
        self.merged.push(&mut Reading { at: self.now, clock, totals: totals.clone(), ..Reading::default() });
        self.together = Some(totals);
    }

    /// All servers together, now or at the moment that is pinned; `None` before a first round was over.
    pub(super) fn together(&self) -> Option<Totals> {
        match &self.pinned {
            Some(pinned) => self.merged.at(pinned.time).map(|reading| reading.totals),
            None => self.together.clone(),
        }
    }

    /// What a clock said at the moment that is shown: the server's, or this machine's for several together.
    pub(super) fn clock_shown(&self) -> Option<ServerMicros> {
        match (&self.pinned, self.reading()) {
            (_, Some(reading)) => Some(reading.clock),
            (Some(pinned), None) => self.history().at(pinned.time).map(|reading| reading.clock),
            (None, None) => self.local.map(ServerMicros::agreeing_with),
        }
    }

    /// The source is at its end.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether the tab of all servers together is shown.
    pub(super) fn all(&self) -> bool {
        self.pools.len() > 1 && self.tab == 0
    }

    /// The server whose tab is shown.
    pub(super) fn server_shown(&self) -> Option<usize> {
        match self.pools.len() {
            1 => Some(0),
            _ => self.tab.checked_sub(1),
        }
    }

    pub(super) fn pool(&self) -> Option<&Pool> {
        self.pools.get(self.server_shown()?)
    }

    /// What is shown of a server: the present, or the moment that is pinned.
    pub(super) fn reading_of(&self, server: usize) -> Option<&Reading> {
        match &self.pinned {
            Some(pinned) => pinned.readings.get(server)?.as_ref(),
            None => self.pools.get(server)?.current.as_ref(),
        }
    }

    pub(super) fn reading(&self) -> Option<&Reading> {
        self.reading_of(self.server_shown()?)
    }

    /// The history behind the tab that is shown.
    pub(super) fn history(&self) -> &History {
        self.pool().map_or(&self.merged, |pool| &pool.history)
    }

    pub(super) fn context(&self, reading: &Reading) -> Context {
        Context { requests: reading.totals.requests, now: reading.clock.seconds(), zone: self.zone.clone() }
    }

    /// What needs attention in what is shown.
    pub(super) fn concerns(&self) -> Vec<Concern> {
        let of = |server: usize| {
            let (Some(pool), Some(reading)) = (self.pools.get(server), self.reading_of(server)) else {
                return Vec::new();
            };
            concerns(reading, &pool.history, &self.thresholds)
        };
        match self.server_shown() {
            Some(server) => of(server),
            None => (0..self.pools.len())
                .flat_map(|server| {
                    let label = &self.pools[server].label;
                    of(server).into_iter().map(move |c| Concern { text: format!("{label}: {}", c.text), ..c })
                })
                .collect(),
        }
    }

    /// A key: into the filter while that is typed, else what it is bound to.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Outcome {
        if Key::from(key) == Key::INTERRUPT {
            return Outcome::Quit;
        }
        if !self.table.filter.editing {
            return self.keys.action_of(key).map_or(Outcome::Nothing, |action| self.act(action));
        }
        let filter = &mut self.table.filter;
        match key.code {
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => filter.clear(),
            KeyCode::Char(character) if !key.modifiers.contains(KeyModifiers::CONTROL) => filter.push(character),
            KeyCode::Backspace => filter.pop(),
            KeyCode::Enter => filter.editing = false,
            KeyCode::Esc => {
                filter.clear();
                filter.editing = false;
            }
            _ => return Outcome::Nothing,
        }
        Outcome::Draw
    }

    /// A click or a turn of the wheel.
    pub(crate) fn mouse(&mut self, event: MouseEvent) -> Outcome {
        match event.kind {
            MouseEventKind::ScrollUp if self.reads_detail() => self.scroll_detail(-3),
            MouseEventKind::ScrollDown if self.reads_detail() => self.scroll_detail(3),
            MouseEventKind::ScrollUp => self.act(Action::Up),
            MouseEventKind::ScrollDown => self.act(Action::Down),
            MouseEventKind::Down(MouseButton::Left) if self.overlay.is_none() && !self.detail => {
                if self.table.click(event.column, event.row) { Outcome::Draw } else { Outcome::Nothing }
            }
            _ => Outcome::Nothing,
        }
    }

    /// Does what a key asks for.
    pub(crate) fn act(&mut self, action: Action) -> Outcome {
        self.theme_told = false;
        match action {
            Action::Suspend => return Outcome::Suspend,
            Action::Redraw => return Outcome::Redraw,
            _ => {}
        }
        if let Some(overlay) = self.overlay {
            self.act_in(overlay, action);
            return Outcome::Draw;
        }
        match action {
            Action::Quit => return Outcome::Quit,
            Action::Suspend | Action::Redraw => {}
            Action::Fast => {
                self.fast = !self.fast;
                return Outcome::Pace(self.pace());
            }
            Action::Faster | Action::Slower => {
                let factor = if action == Action::Faster { 2.0 } else { 0.5 };
                let Some(speed) = &mut self.speed else { return Outcome::Nothing };
                *speed = (*speed * factor).clamp(0.125, 1024.0);
                return Outcome::Pace(self.pace());
            }
            Action::Pause => {
                match self.pinned {
                    Some(_) => self.pinned = None,
                    None => self.pin(self.latest()),
                }
                return Outcome::Pace(self.pace());
            }
            Action::Now => {
                self.pinned = None;
                return Outcome::Pace(self.pace());
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
            Action::Columns => self.overlay = Some(Overlay::Columns(0)),
            Action::Attention => self.overlay = Some(Overlay::Attention(0)),
            Action::Help => self.overlay = Some(Overlay::Help(0)),
            Action::Charts if self.charts == Charts::WhereRoom => self.charts = Charts::Never,
            Action::Charts => self.charts = Charts::WhereRoom,
            Action::Chart(number) if self.charts == Charts::One(number) => self.charts = Charts::WhereRoom,
            Action::Chart(number) => self.charts = Charts::One(number),
            Action::TabNext => self.turn(1),
            Action::TabBefore => self.turn(-1),
            Action::PageUp if self.reads_detail() => return self.scroll_detail(-self.scroll_page()),
            Action::PageDown if self.reads_detail() => return self.scroll_detail(self.scroll_page()),
            Action::First if self.reads_detail() => return self.scroll_detail(isize::MIN),
            Action::Last if self.reads_detail() => return self.scroll_detail(isize::MAX),
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
        self.overlay = match (overlay, action) {
            (_, Action::Quit | Action::Back) => None,
            (Overlay::Help(_), Action::Help) | (Overlay::Columns(_), Action::Columns) => None,
            (Overlay::Attention(_), Action::Attention) => None,
            (Overlay::Help(first), _) => Some(Overlay::Help(first.saturating_add_signed(step).min(200))),
            (Overlay::Attention(first), _) => Some(Overlay::Attention(first.saturating_add_signed(step).min(1_000))),
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

    fn pace(&self) -> Pace {
        match self.speed {
            Some(_) if self.pinned.is_some() => Pace::Replay(0.0),
            Some(speed) => Pace::Replay(speed),
            None if self.fast => Pace::Fast,
            None => Pace::Usual,
        }
    }

    /// Whether the detail of a worker is what is read, and scrolled.
    fn reads_detail(&self) -> bool {
        self.detail && self.overlay.is_none()
    }

    fn scroll_page(&self) -> isize {
        self.scroll.page.saturating_sub(1).max(1) as isize
    }

    /// Drawing keeps it within what there is to read.
    fn scroll_detail(&mut self, lines: isize) -> Outcome {
        self.scroll.first = self.scroll.first.saturating_add_signed(lines);
        Outcome::Draw
    }

    /// Closes what was opened last.
    fn close(&mut self) {
        if self.detail {
            self.detail = false;
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
            self.tab = self.server + 1;
            self.table.selected = None;
            return;
        }
        if self.table.selected.is_none() {
            self.select(1);
        }
        self.detail = !self.detail && self.table.selected.is_some();
        self.scroll.first = 0;
    }

    fn turn(&mut self, step: isize) {
        let tabs = if self.pools.len() > 1 { self.pools.len() + 1 } else { 1 };
        self.tab = (self.tab as isize + step).rem_euclid(tabs as isize) as usize;
        self.table.selected = None;
        self.detail = false;
    }

    fn select(&mut self, step: isize) {
        if self.all() {
            self.server = self.server.saturating_add_signed(step).min(self.pools.len() - 1);
            return;
        }
        let server = self.server_shown().unwrap_or(0);
        let reading = match &self.pinned {
            Some(pinned) => pinned.readings.get(server).and_then(Option::as_ref),
            None => self.pools.get(server).and_then(|pool| pool.current.as_ref()),
        };
        let Some(reading) = reading else { return };
        self.scroll.first = 0;
        let context =
            Context { requests: reading.totals.requests, now: reading.clock.seconds(), zone: self.zone.clone() };
        self.table.select(reading, &context, step);
    }

    /// When the last reading of what is shown was taken.
    fn latest(&self) -> Option<Monotonic> {
        self.history().latest()
    }

    /// Goes `steps` readings from the moment that is shown.
    fn travel(&mut self, steps: isize) {
        let from = self.pinned.as_ref().map(|pinned| pinned.time).or(self.latest());
        self.pin(from.and_then(|from| self.history().step(from, steps)));
    }

    fn travel_seconds(&mut self, seconds: i64) {
        let from = self.pinned.as_ref().map(|pinned| pinned.time).or(self.latest());
        let far = Duration::from_secs(seconds.unsigned_abs());
        let time = from.map(|from| if seconds < 0 { from.before(far) } else { from.after(far) });
        self.pin(time.and_then(|time| self.history().step(time, 0)));
    }

    fn pin(&mut self, time: Option<Monotonic>) {
        let Some(time) = time else { return };
        // An answer takes its time: of the other servers, the one of the same poll may have come a little later.
        const LATE: Duration = Duration::from_millis(400);
        let shown = self.server_shown();
        let then =
            |(place, pool): (usize, &Pool)| pool.history.at(if shown == Some(place) { time } else { time.after(LATE) });
        let readings = self.pools.iter().enumerate().map(then).collect();
        self.pinned = Some(Pinned { time, readings });
    }

    #[cfg(test)]
    pub(crate) fn set_theme(&mut self, theme: Theme) {
        self.theme = theme;
    }
}
