//! The screen of a fleet: a row or a line of a heat map for each server, what stands out, and the ordinary screen of one of
//! them.

mod act;
mod draw;
mod drill;
mod header;
mod heat;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::Sender;

#[cfg(test)]
pub(crate) use self::act::FLEET_KEYS;
pub(crate) use self::drill::Drill;
use self::drill::Drilled;
use super::panes::sheet::Sheet;
use super::playback::Playback;
use super::screen::Setup;
use super::targets::Targets;
use crate::model::fields::Clock;
use crate::model::fleet::Fleet;
use crate::model::outliers::Outliers;
use crate::model::{FleetTotals, ServerRow, server_rows};
use crate::source::fleet::{Figure, FleetEvent};
use crate::source::{LocalMicros, Monotonic};

/// What lies over the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// The keys and the columns, from this line on.
    Help(usize),
    /// What stands out, with its rules and numbers, from this line on.
    Outliers(usize),
}

/// A fleet as it is shown.
#[derive(Debug)]
pub(crate) struct FleetScreen {
    fleet: Fleet,
    outliers: Outliers,
    rows: Vec<Arc<ServerRow>>,
    totals: FleetTotals,
    at: Monotonic,
    local: LocalMicros,
    sheet: Sheet,
    /// The heat map in place of the columns, of this figure.
    heat: Option<Figure>,
    over: Option<Over>,
    /// Said at the foot until the next key.
    said: Option<String>,
    drilled: Option<Drilled>,
    drills: Option<Sender<Drill>>,
    last_drill: u64,
    playback: Playback,
    /// What the screen of one server is set up with.
    setup: Setup,
    targets: Targets,
}

impl FleetScreen {
    /// A screen that waits for the first sweep; servers that are looked at closely are asked for at `drills`.
    pub(crate) fn new(setup: Setup, drills: Option<Sender<Drill>>) -> Self {
        Self {
            fleet: Fleet::default(),
            outliers: Outliers::default(),
            rows: Vec::new(),
            totals: FleetTotals::default(),
            at: Monotonic::default(),
            local: LocalMicros::default(),
            // The worst is on top.
            sheet: Sheet::sorted_by("p99"),
            heat: None,
            over: None,
            said: None,
            drilled: None,
            drills,
            last_drill: 0,
            playback: Playback::new(setup.interval),
            setup,
            targets: Targets::default(),
        }
    }

    /// Takes in what sources tell; `local` is what this machine's clock says. Returns whether there is something new to draw.
    pub(crate) fn take(&mut self, events: Vec<FleetEvent>, local: LocalMicros) -> bool {
        let mut is_new = false;
        for event in events {
            let swept = if let FleetEvent::Sweep(at) = &event { Some(*at) } else { None };
            // Before the first sweep, each server that is there is news.
            is_new |= swept.is_some() || self.fleet.swept().is_none() || matches!(event, FleetEvent::Source(..));
            self.fleet.take(event);
            if let Some(at) = swept {
                self.outliers.advance(&self.fleet, at);
                (self.at, self.local) = (at, local);
            }
        }
        if is_new {
            self.rows = server_rows(&self.fleet, &self.outliers, self.at);
            self.totals = FleetTotals::of(&self.fleet, &self.rows);
        }
        is_new && self.drilled.is_none()
    }

    fn clock(&self) -> Clock {
        Clock { now: self.local.0 / 1_000_000, zone: self.setup.zone.clone() }
    }

    /// The rows that pass the filter, in their order.
    fn ordered(&self) -> Vec<Arc<ServerRow>> {
        self.sheet.ordered(crate::model::SERVER_FIELDS, self.rows.clone(), &self.clock())
    }
}

fn ids(rows: &[Arc<ServerRow>]) -> Vec<String> {
    rows.iter().map(|row| row.id.to_string()).collect()
}
