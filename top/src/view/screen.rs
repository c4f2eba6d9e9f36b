//! The whole screen: the servers that are watched, and what is shown of them. What keys and clicks change is in `actions`,
//! how it is laid out in `layout`.

use std::sync::mpsc::Sender;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::acting::Acting;
use super::asking::Asking;
use super::charts::Charts;
use super::inside::Inside;
use super::keys::Keys;
use super::merged::Merged;
use super::panes::Panes;
use super::playback::Playback;
use super::selection::Selection;
use super::table::{Choice, Table};
use super::targets::Targets;
use super::theme::Theme;
use crate::model::columns::{Column, Context};
use crate::model::fields::Clock;
use crate::model::{Alert, History, PhaseCounts, Pool, Sample, Thresholds, Totals, alerts};
use crate::source::{Ask, ControlReply, Poll, ServerMicros};

/// How a screen is set up; the configuration file fills it.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// What the terminal can show.
    pub(crate) theme: Theme,
    /// For times of day.
    pub(crate) zone: TimeZone,
    /// The keys in force.
    pub(crate) keys: Keys,
    /// When there are alerts.
    pub(crate) thresholds: Thresholds,
    /// The columns and their order; `None` for the usual ones.
    pub(crate) columns: Option<Vec<&'static Column>>,
    /// What the table is sorted by; `None` for the usual.
    pub(crate) sort: Option<&'static Column>,
    /// The poll interval; `None` for a recording.
    pub(crate) interval: Option<Duration>,
    /// Where requests to control sockets go; `None` for a recording.
    pub(crate) asks: Option<Sender<Ask>>,
    /// Only looks: no key acts on a server.
    pub(crate) read_only: bool,
    /// The control socket is named on the command line.
    pub(crate) control_named: bool,
}

/// All that is shown, and the state that keys change.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(super) pools: Vec<Pool>,
    pub(super) merged: Merged,
    pub(super) selection: Selection,
    pub(super) table: Table,
    pub(super) panes: Panes,
    pub(super) playback: Playback,
    pub(super) charts: Charts,
    pub(super) theme: Theme,
    /// The theme was changed, and the foot says which it is.
    pub(super) theme_told: bool,
    /// What the user has to know, whatever is shown.
    pub(super) notice: Option<String>,
    pub(super) zone: TimeZone,
    pub(super) keys: Keys,
    pub(super) thresholds: Thresholds,
    pub(super) asking: Asking,
    pub(super) acting: Acting,
    pub(super) inside: Inside,
    /// What the last frame shows.
    pub(super) targets: Targets,
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
            merged: Merged::default(),
            selection: Selection::default(),
            table,
            panes: Panes::default(),
            playback: Playback::new(setup.interval),
            charts: Charts::default(),
            theme: setup.theme,
            theme_told: false,
            notice: None,
            zone: setup.zone,
            keys: if setup.read_only { setup.keys.without_server_actions() } else { setup.keys },
            thresholds: setup.thresholds,
            asking: Asking::new(setup.asks, setup.read_only),
            acting: Acting::new(setup.control_named),
            inside: Inside::default(),
            targets: Targets::default(),
        }
    }

    /// Takes a sample in. Returns whether there is something new to draw.
    pub(crate) fn ingest(&mut self, poll: Poll) -> bool {
        let target = poll.target;
        self.merged.before(&poll, &self.pools);
        if let Some(pool) = self.pools.get_mut(target) {
            pool.ingest(poll);
        }
        self.merged.after(target, &self.pools);
        let ticked = self.inside_ticks(target);
        // The past does not change.
        ticked || self.playback.paused.is_none() && (self.all() || self.server_shown() == Some(target))
    }

    /// All servers together, now or at the moment of the past that is shown; `None` before a first round was over.
    pub(super) fn together(&self) -> Option<Totals> {
        self.merged.totals(self.playback.past())
    }

    /// What a clock said at the moment that is shown: the server's, or this machine's for several together.
    pub(super) fn clock_shown(&self) -> Option<ServerMicros> {
        match (self.playback.past(), self.sample()) {
            (_, Some(sample)) => Some(sample.clock),
            (Some(past), None) => self.history().at(past).map(|sample| sample.clock),
            (None, None) => self.merged.local.map(ServerMicros::agreeing_with),
        }
    }

    /// Takes in what a server says on its control socket. Returns whether there is something new to draw.
    pub(crate) fn told(&mut self, told: ControlReply) -> bool {
        match self.acting_told(told) {
            Ok(is_new) => is_new,
            Err(told) => self.inside_told(told).unwrap_or(false),
        }
    }

    /// Says something at the foot from now on.
    pub(crate) fn notice(&mut self, notice: String) {
        self.notice = Some(notice);
    }

    /// The source is at its end.
    pub(crate) fn end(&mut self) {
        self.playback.ended = true;
    }

    /// Whether the tab of all servers together is shown.
    pub(super) fn all(&self) -> bool {
        self.pools.len() > 1 && self.selection.tab == 0
    }

    /// The server whose tab is shown.
    pub(super) fn server_shown(&self) -> Option<usize> {
        match self.pools.len() {
            1 => Some(0),
            _ => self.selection.tab.checked_sub(1),
        }
    }

    pub(super) fn pool(&self) -> Option<&Pool> {
        self.pools.get(self.server_shown()?)
    }

    /// What is shown of a server: the present, or the moment of the past that is looked at.
    pub(super) fn sample_of(&self, server: usize) -> Option<&Sample> {
        match &self.playback.paused {
            Some(paused) => paused.samples.get(server)?.as_ref(),
            None => self.pools.get(server)?.current.as_ref(),
        }
    }

    pub(super) fn sample(&self) -> Option<&Sample> {
        self.sample_of(self.server_shown()?)
    }

    /// The servers of the tab that is shown, by their places.
    pub(super) fn servers_shown(&self) -> std::ops::Range<usize> {
        self.server_shown().map_or(0..self.pools.len(), |server| server..server + 1)
    }

    /// What is shown of each of them.
    pub(super) fn samples_shown(&self) -> Vec<&Sample> {
        self.servers_shown().filter_map(|server| self.sample_of(server)).collect()
    }

    /// How long the phases took of the window's requests, of all servers that are shown and tell it.
    pub(super) fn phases_shown(&self) -> Option<PhaseCounts> {
        match self.server_shown() {
            Some(server) => self.sample_of(server)?.totals.phases.clone(),
            None => self.together()?.phases,
        }
    }

    /// From when on a request is slow, µs: the least of the servers' limits; 0 when none has one.
    pub(super) fn slow_limit(&self) -> u64 {
        let limits = self.samples_shown().into_iter().filter_map(|sample| sample.snapshot.limits);
        limits.map(|limits| limits.slow_request).filter(|limit| *limit > 0).min().unwrap_or(0)
    }

    /// For times of day at the moment that is shown.
    pub(super) fn clock(&self) -> Clock {
        Clock { now: self.clock_shown().map_or(0, ServerMicros::seconds), zone: self.zone.clone() }
    }

    /// The history behind the tab that is shown.
    pub(super) fn history(&self) -> &History {
        self.pool().map_or(&self.merged.history, |pool| &pool.history)
    }

    pub(super) fn context(&self, sample: &Sample) -> Context {
        Context { requests: sample.totals.requests, now: sample.clock.seconds(), zone: self.zone.clone() }
    }

    /// The alerts of what is shown.
    pub(super) fn alerts(&self) -> Vec<Alert> {
        let of = |server: usize| {
            let (Some(pool), Some(sample)) = (self.pools.get(server), self.sample_of(server)) else {
                return Vec::new();
            };
            alerts(sample, &pool.history, &self.thresholds)
        };
        match self.server_shown() {
            Some(server) => of(server),
            None => (0..self.pools.len())
                .flat_map(|server| {
                    let label = &self.pools[server].label;
                    of(server).into_iter().map(move |c| Alert { text: format!("{label}: {}", c.text), ..c })
                })
                .collect(),
        }
    }

    #[cfg(test)]
    pub(crate) fn set_theme(&mut self, theme: Theme) {
        self.theme = theme;
    }
}
