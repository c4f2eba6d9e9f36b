//! What a worker's past lives add up to: kept by the master, so that a slot can be cleared for the next life and no
//! count is lost.

use rwsgi_stats::Recycled;

use super::cell::{Counters, ExceptionReport, ThreadCell};
use super::scoreboard::Scoreboard;

/// Sums over all ended lives of one worker.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Counters of each thread.
    pub threads: Vec<Counters>,
    /// Counts of the latency histogram, laid out as [`rwsgi_stats::latency`] says, up to the highest in use.
    pub latency: Vec<u64>,
    /// Processor time, ns.
    pub processor_time: u64,
    /// The last exception of the lives that ended.
    pub last_exception: Option<ExceptionReport>,
    /// uWSGI's moving average of the response time when the last life ended, µs.
    pub average: u64,
    /// How often a process was started for the worker.
    pub respawns: u64,
    /// How often its process ended, by reason.
    pub recycled: Recycled,
    /// Requests ended for running too long.
    pub harakiri: u64,
}

impl Totals {
    /// Totals of a worker of `threads` threads that has not lived.
    #[must_use]
    pub fn new(threads: u32) -> Self {
        Self {
            threads: vec![Counters::default(); threads as usize],
            latency: Vec::new(),
            processor_time: 0,
            last_exception: None,
            average: 0,
            respawns: 0,
            recycled: Recycled::default(),
            harakiri: 0,
        }
    }

    /// Adds a life that ended at `now` (monotonic ns) in `slot`. No process may have the slot any more.
    pub fn absorb(&mut self, scoreboard: &Scoreboard, slot: u32, now: u64) {
        if let Some(average) = average(scoreboard, slot) {
            self.average = average;
        }
        for (sum, cell) in self.threads.iter_mut().zip(scoreboard.threads(slot)) {
            cell.abandon(now);
            *sum += cell.read().0;
            cell.latency.add_to(&mut self.latency);
            let exception = cell.exception.load();
            if exception.as_ref().map(|e| e.when) > self.last_exception.as_ref().map(|e| e.when) {
                self.last_exception = exception;
            }
        }
    }
}

/// uWSGI's moving average of the response time in a life, µs: the mean of its threads', as far as they have served.
#[must_use]
pub fn average(scoreboard: &Scoreboard, slot: u32) -> Option<u64> {
    let averages = scoreboard.threads(slot).map(ThreadCell::average).filter(|average| *average > 0);
    let (sum, threads) = averages.fold((0, 0), |(sum, threads), average| (sum + average, threads + 1));
    (threads > 0).then(|| sum / threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::SocketProtocol;
    use crate::stats::cell::Outcome;
    use crate::stats::scoreboard::Layout;

    #[test]
    fn two_lives_in_one_slot_add_up() {
        let board = Scoreboard::create(Layout::new(1, 2)).unwrap();
        let mut totals = Totals::new(2);
        for life in 1..=2 {
            board.thread(0, 1).begin(0, SocketProtocol::Http, b"", b"");
            board.thread(0, 1).finish(5_000, 0, Outcome { status: 200, exception: true, ..Outcome::default() });
            board.thread(0, 1).exception.store(&ExceptionReport { when: life, ..ExceptionReport::default() });
            board.thread(0, 0).begin(10_000, SocketProtocol::Http, b"", b"");
            totals.absorb(&board, 0, 17_000);
            board.clear(0).unwrap();
        }
        assert_eq!(totals.threads[1].requests, 2);
        assert_eq!(totals.threads[1].responses[1], 2);
        assert_eq!(totals.threads[0].running, 14_000, "what a dead thread held counts as busy until its death");
        assert_eq!(totals.latency.iter().sum::<u64>(), 2);
        assert_eq!(totals.last_exception.unwrap().when, 2);
    }
}
