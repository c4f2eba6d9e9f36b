//! A thread that does not begin with what it was sent, as other processes see it.

use super::link::Link;
use super::threads::Threads;
use crate::stats::cell::AheadCells;
use crate::stats::scoreboard::Scoreboard;

/// What thread and router have of the requests on this link.
pub(super) fn cells<'b>(board: &'b Scoreboard, link: &Link) -> Option<&'b AheadCells> {
    link.slot.map(|slot| board.dispatched(slot, link.thread))
}

/// A thread goes on with what it was sent, or passes it over, or is gone.
#[inline]
pub(super) fn go_on(board: &Scoreboard, threads: &mut Threads, link: &mut Link) {
    if std::mem::take(&mut link.is_stalled) {
        threads.go_on(link.pid);
        if let Some(cells) = cells(board, link) {
            cells.set_not_begun_since(None);
        }
    }
}
