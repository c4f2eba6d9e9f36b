//! The ordinary screen of one server of a fleet, over the fleet's.

use std::sync::mpsc::{self, Receiver};

use super::FleetScreen;
use crate::model::{Pool, ServerRow};
use crate::source::{Ask, Target};
use crate::view::live::Feed;
use crate::view::playback::Pace;
use crate::view::screen::{Screen, Setup};

/// What a fleet's screen wants of whoever reads servers.
#[derive(Debug)]
pub(crate) enum Drill {
    /// Read this server, and answer what is asked of it, until another is to be read or this is closed. What comes of it is
    /// given back as [`Feed::Drilled`] with the ticket.
    Open {
        /// Tells what belongs to it from what is late.
        ticket: u64,
        /// Where its stats are.
        target: Target,
        /// Requests to its control socket.
        asked: Receiver<Ask>,
    },
    /// Read it at another pace.
    Pace(Pace),
    /// Nobody looks any more.
    Close,
}

/// A server that is looked at closely.
#[derive(Debug)]
pub(super) struct Drilled {
    pub(super) ticket: u64,
    pub(super) screen: Box<Screen>,
}

impl FleetScreen {
    /// Opens the screen of a server, or says why that cannot be.
    pub(super) fn drill(&mut self, row: &ServerRow) {
        let Some(server) = self.fleet.get(row.id) else {
            self.said = Some(format!("{} has left the fleet", row.name));
            return;
        };
        let Some(target) = server.server.address.clone() else {
            self.said =
                Some(format!("nobody knows where {} tells its stats: its source has no address for it", row.name));
            return;
        };
        let Some(drills) = &self.drills else { return };
        let (asks, asked) = mpsc::channel();
        self.last_drill += 1;
        let ticket = self.last_drill;
        if drills.send(Drill::Open { ticket, target: target.clone(), asked }).is_err() {
            return;
        }
        let setup = Setup { asks: Some(asks), ..self.setup.clone() };
        let label = if target.to_string() == row.name { row.name.clone() } else { format!("{} ({target})", row.name) };
        let mut pool = Pool::new(label, target.node());
        pool.room = Some(crate::source::room);
        let screen = Screen::new(vec![pool], setup);
        self.drilled = Some(Drilled { ticket, screen: Box::new(screen) });
    }

    /// Back to the fleet.
    pub(super) fn close_drilled(&mut self) {
        if self.drilled.take().is_some() {
            self.tell(Drill::Close);
        }
    }

    pub(super) fn tell(&self, drill: Drill) {
        if let Some(drills) = &self.drills {
            // When nobody takes it, rtop is leaving.
            let _ = drills.send(drill);
        }
    }

    /// Takes in what comes of the server that is looked at. Returns whether there is something new to draw.
    pub(crate) fn take_drilled(&mut self, ticket: u64, feed: Feed) -> bool {
        let Some(drilled) = self.drilled.as_mut().filter(|drilled| drilled.ticket == ticket) else { return false };
        match feed {
            Feed::Poll(poll) => drilled.screen.ingest(poll),
            Feed::ControlReply(told) => drilled.screen.told(told),
            Feed::Notice(notice) => {
                drilled.screen.notice(notice);
                true
            }
            _ => false,
        }
    }
}
