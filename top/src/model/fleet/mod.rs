//! A fleet: what each of many servers did in the last window, and over the time that rtop watches.
//!
//! It is fed [`FleetEvent`]s and asked; nothing here waits, and nothing draws.

mod points;
#[cfg(test)]
mod tests;
mod tracked;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use points::{Point, Points};
pub(crate) use tracked::{State, Tracked};

use crate::format;
use crate::source::Monotonic;
use crate::source::fleet::{FleetEvent, Server, ServerId};
use rwsgi_assertions::{Counts, Percentiles, Told};

/// All points of all servers take at most this many bytes.
const HISTORY_BYTES: usize = 64 << 20;
/// No server has more points: an hour of one a second.
const MOST_POINTS: usize = 3_600;
/// However many servers there are, each has so many.
const LEAST_POINTS: usize = 60;

/// Every server that is watched.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    servers: BTreeMap<ServerId, Tracked>,
    /// What is wrong with what names the servers, by source.
    troubles: BTreeMap<Arc<str>, String>,
    /// Percentiles that sources tell, by source.
    together: BTreeMap<Arc<str>, Percentiles>,
    swept: Option<Monotonic>,
    sweeps: u64,
    points: usize,
}

/// How many servers are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Not asked yet, or not answered yet.
    pub(crate) new: usize,
    /// Those that answer.
    pub(crate) up: usize,
    /// Those that have been asked, and have not answered in time.
    pub(crate) slow: usize,
    /// Those that cannot be read.
    pub(crate) dead: usize,
}

impl Fleet {
    /// Takes in what a source tells.
    pub(crate) fn take(&mut self, event: FleetEvent) {
        match event {
            FleetEvent::Joined(id, server) => {
                self.servers.insert(id, Tracked::new(id, plain(server)));
                self.divide_history();
            }
            FleetEvent::Left(id) => {
                self.servers.remove(&id);
            }
            FleetEvent::Sample(id, sample) => self.with(id, |server| server.advance(sample)),
            FleetEvent::Figures(id, figures) => self.with(id, |server| server.told(*figures)),
            FleetEvent::Late(id, at) => self.with(id, |server| server.late(at)),
            FleetEvent::Failed(id, at, error) => self.with(id, |server| server.failed(at, error.to_string())),
            FleetEvent::Past(id, past) => self.with(id, |server| server.remember(&past)),
            FleetEvent::Together(source, Some(percentiles)) => {
                self.together.insert(source, percentiles);
            }
            FleetEvent::Together(source, None) => {
                self.together.remove(&source);
            }
            FleetEvent::Source(source, Some(why)) => {
                self.troubles.insert(source, format::one_line(&why));
            }
            FleetEvent::Source(source, None) => {
                self.troubles.remove(&source);
            }
            FleetEvent::Sweep(at) => {
                self.swept = Some(at);
                self.sweeps += 1;
            }
        }
    }

    /// The servers, in the order in which they became known.
    pub(crate) fn servers(&self) -> impl ExactSizeIterator<Item = &Tracked> {
        self.servers.values()
    }

    /// One of them; `None` when it has left.
    pub(crate) fn get(&self, id: ServerId) -> Option<&Tracked> {
        self.servers.get(&id)
    }

    /// What is wrong with what names the servers: the source and a line.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.troubles.iter().map(|(source, why)| (&**source, why.as_str()))
    }

    /// When all servers were last asked, and how often that was; `None` before the first time.
    pub(crate) fn swept(&self) -> Option<(Monotonic, u64)> {
        self.swept.map(|at| (at, self.sweeps))
    }

    /// How many servers are in which state.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for server in self.servers() {
            match server.state {
                State::New => tally.new += 1,
                State::Up => tally.up += 1,
                State::Slow { .. } => tally.slow += 1,
                State::Dead { .. } => tally.dead += 1,
            }
        }
        tally
    }

    /// Percentiles of all requests of the last window, of servers that are up: of merged counts, or as the one source tells them.
    /// `None` where they would be of a part: percentiles are never merged.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let mut merged = Counts::default();
        let up = self.servers().filter(|server| server.state == State::Up);
        for counts in up.filter_map(|server| Told::get(&server.window.latency)) {
            merged.merge(counts);
        }
        match (merged.percentiles(), self.together.len()) {
            (None, 1) => self.together.values().next().copied(),
            (merged, 0) => merged,
            _ => None,
        }
    }

    fn with(&mut self, id: ServerId, change: impl FnOnce(&mut Tracked)) {
        // Whoever has left meanwhile is of no interest.
        if let Some(server) = self.servers.get_mut(&id) {
            change(server);
        }
    }

    /// Gives each server its part of the memory. A part that became smaller loses its oldest points.
    fn divide_history(&mut self) {
        let part = HISTORY_BYTES / size_of::<Point>() / self.servers.len().max(1);
        let points = part.clamp(LEAST_POINTS, MOST_POINTS);
        // Those that are there lose nothing at each of hundreds that join, but when their part has become a sixteenth less.
        if points > self.points || self.points - points > self.points / 16 {
            self.points = points;
            self.servers.values_mut().for_each(|server| server.history.limit(points));
        } else if let Some(mut joined) = self.servers.last_entry() {
            joined.get_mut().history.limit(self.points);
        }
    }
}

/// What a source says of a server, in plain lines.
fn plain(server: Server) -> Server {
    let labels = server.labels.iter().map(|(name, value)| (format::one_line(name), format::one_line(value))).collect();
    Server { name: format::one_line(&server.name), labels, address: server.address }
}
