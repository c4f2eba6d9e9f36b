//! All servers together: the numbers of a whole round, in which each was read once, and their history.

use crate::model::{History, Pool, Sample, Totals};
use crate::source::{LocalMicros, Monotonic, Poll, ServerMicros};

/// What is known of all servers together.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// The last hour, for the charts of the first tab.
    pub(super) history: History,
    /// When the last sample came, good or bad.
    pub(super) now: Monotonic,
    /// What this machine's clock said then.
    pub(super) local: Option<LocalMicros>,
    /// The last whole round.
    last: Option<Totals>,
    /// The servers that were read in this round.
    round: Vec<usize>,
}

impl Merged {
    /// A sample comes. When its server was read in this round already, the round is over: the others had their time.
    pub(super) fn before(&mut self, poll: &Poll, pools: &[Pool]) {
        self.now = self.now.max(poll.at);
        self.local = Some(poll.taken);
        if self.round.contains(&poll.target) {
            self.add_up(pools);
        }
    }

    /// A sample of this server was taken in.
    pub(super) fn after(&mut self, target: usize, pools: &[Pool]) {
        if pools.len() > 1 {
            self.round.push(target);
            if self.round.len() == pools.len() {
                self.add_up(pools);
            }
        }
    }

    /// Adds the servers up at the end of a round. What one did in its last window counts only when that was in this round:
    /// of a silent server there are its counters alone.
    fn add_up(&mut self, pools: &[Pool]) {
        let round = std::mem::take(&mut self.round);
        let known = pools.iter().enumerate().filter_map(|(place, pool)| {
            let totals = &pool.current.as_ref()?.totals;
            let answered = round.contains(&place) && pool.trouble.is_none();
            Some(if answered { totals.clone() } else { totals.without_rates() })
        });
        let totals = Totals::merged(&known.collect::<Vec<_>>());
        let clock = ServerMicros::agreeing_with(self.local.unwrap_or_default());
        self.history.push(&mut Sample { at: self.now, clock, totals: totals.clone(), ..Sample::default() });
        self.last = Some(totals);
    }

    /// The numbers of the last round, or of one that was over at a moment of the past; `None` when there was none.
    pub(super) fn totals(&self, paused: Option<Monotonic>) -> Option<Totals> {
        match paused {
            Some(at) => self.history.at(at).map(|sample| sample.totals),
            None => self.last.clone(),
        }
    }
}
