//! What can stand below the header in place of the workers: ONE table of panes. A pane has a key of its own, which opens it
//! and closes it again; what it does with the other keys, and how it is drawn, is in its row.

pub(super) mod drawn;
mod routes;
pub(super) mod sheet;
mod slow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::filter::Filter;
use super::keys::Action;
use super::screen::Screen;
use super::targets::Targets;

/// What stands below the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Pane {
    /// The workers, or all servers.
    #[default]
    Workers,
    /// Requests by route.
    Routes,
    /// Slow requests.
    Slow,
}

/// A row of the table.
struct Row {
    pane: Pane,
    /// Draws it into the whole area below the header.
    draw: fn(&mut Screen, Rect, &mut Buffer, &mut Targets),
    /// Does what a key asks for; `false` when the key means what it means everywhere.
    act: fn(&mut Screen, Action) -> bool,
    /// What is clicked in it, by its place on the screen.
    click: fn(&mut Screen, Place),
}

/// Every pane but the workers', which are what is left.
const PANES: &[Row] = &[
    Row { pane: Pane::Routes, draw: routes::draw, act: routes::act, click: routes::click },
    Row { pane: Pane::Slow, draw: slow::draw, act: slow::act, click: slow::click },
];

/// What of a pane was clicked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// The title of a field, by its name.
    Title(&'static str),
    /// A row, by its place in the order that is shown.
    Row(usize),
}

/// What the user has made of the panes.
#[derive(Debug)]
pub(crate) struct Panes {
    /// The one that is open.
    pub(crate) open: Pane,
    routes: sheet::Sheet,
    slow: sheet::Sheet,
}

impl Default for Panes {
    fn default() -> Self {
        Self {
            open: Pane::default(),
            routes: sheet::Sheet::sorted_by("share"),
            // The newest first.
            slow: sheet::Sheet::sorted_by("when"),
        }
    }
}

fn row(pane: Pane) -> Option<&'static Row> {
    PANES.iter().find(|row| row.pane == pane)
}

impl Screen {
    /// Draws the pane that is open; `false` when that is the workers'.
    pub(super) fn draw_pane(&mut self, area: Rect, buf: &mut Buffer, targets: &mut Targets) -> bool {
        let Some(row) = row(self.panes.open) else { return false };
        (row.draw)(self, area, buf, targets);
        true
    }

    /// A key, for the pane that is open; `false` when it means what it means everywhere.
    pub(super) fn act_in_pane(&mut self, action: Action) -> bool {
        if let Action::Pane(pane) = action {
            self.panes.open = if self.panes.open == pane { Pane::Workers } else { pane };
            return true;
        }
        let Some(row) = row(self.panes.open) else { return false };
        if (row.act)(self, action) {
            return true;
        }
        // Whatever a pane does not close itself, closes it.
        let closes = matches!(action, Action::Back | Action::Quit);
        if closes {
            self.panes.open = Pane::Workers;
        }
        closes
    }

    /// A click into the pane that is open.
    pub(super) fn click_in_pane(&mut self, place: Place) {
        if let Some(row) = row(self.panes.open) {
            (row.click)(self, place);
        }
    }

    /// The filter of what is shown.
    pub(super) fn filter_mut(&mut self) -> &mut Filter {
        match self.panes.open {
            Pane::Routes => &mut self.panes.routes.filter,
            Pane::Slow => &mut self.panes.slow.filter,
            _ => &mut self.table.filter,
        }
    }

    /// The same, to be shown.
    pub(super) fn filter(&self) -> &Filter {
        match self.panes.open {
            Pane::Routes => &self.panes.routes.filter,
            Pane::Slow => &self.panes.slow.filter,
            _ => &self.table.filter,
        }
    }
}
