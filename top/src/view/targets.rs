//! Where the last frame put what can be clicked.

use ratatui::layout::Rect;

use super::panes::Place;
use crate::model::columns::Column;

/// A row that stays the same one while the order changes: the worker's place and its core's.
pub(super) type RowId = (usize, Option<usize>);

/// What a click reaches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// A tab, by its place.
    Tab(usize),
    /// A server in the list of all, by its place.
    Server(usize),
    /// The title of a column.
    Title(&'static Column),
    /// A row of the table.
    Row(RowId),
    /// Something of the pane that is open.
    Pane(Place),
}

/// The targets of one frame: each frame begins with none, so that what is not shown cannot be clicked.
#[derive(Debug, Default)]
pub(super) struct Targets(Vec<(Rect, Target)>);

impl Targets {
    /// Forgets all, but keeps their room.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn add(&mut self, area: Rect, target: Target) {
        self.0.push((area, target));
    }

    /// What is at a place: the last that was put there.
    pub(super) fn at(&self, x: u16, y: u16) -> Option<Target> {
        let mut targets = self.0.iter().rev();
        targets.find(|(area, _)| area.contains((x, y).into())).map(|(_, target)| *target)
    }
}
