//! What a worker's past processes add up to: kept by the master, so that a slot can be cleared for the next one and no
//! count is lost.

use rwsgi_stats::Recycled;

use super::cell::{Counters, ExceptionReport, GcCounts, LatencyCounts, PhaseCounts, ThreadSample};
use super::generation_sums::GenerationSums;
use super::scoreboard::{CorruptSlot, Scoreboard};
use crate::clock::MonotonicNanos;
use crate::ids::{SlotId, ThreadIndex};

/// Sums over all ended processes of one worker.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Counters of each thread.
    pub threads: Vec<Counters>,
    /// Latency of every request.
    pub latency: LatencyCounts,
    /// The phases of every request.
    pub phases: PhaseCounts,
    /// Python's garbage collections.
    pub garbage: GcCounts,
    /// Processor time, ns.
    pub processor_time: u64,
    /// The last exception of the processes that ended.
    pub last_exception: Option<ExceptionReport>,
    /// uWSGI's moving average of the response time when the last process ended, µs.
    pub average: u64,
    /// How often a process was started for the worker.
    pub respawns: u64,
    /// How often its process ended, by reason.
    pub recycled: Recycled,
    /// Requests ended for running too long.
    pub harakiri: u64,
}

impl Totals {
    /// Totals of a worker of `threads` threads that has had no process.
    #[must_use]
    pub fn new(threads: u32) -> Self {
        Self {
            threads: vec![Counters::default(); threads as usize],
            latency: LatencyCounts::default(),
            phases: PhaseCounts::default(),
            garbage: GcCounts::default(),
            processor_time: 0,
            last_exception: None,
            average: 0,
            respawns: 0,
            recycled: Recycled::default(),
            harakiri: 0,
        }
    }

    /// Adds a process that ended at `now` in `slot`, for when no process has the slot any more; to these sums, and to those
    /// of its generation.
    pub fn absorb(
        &mut self,
        scoreboard: &Scoreboard,
        slot: SlotId,
        now: MonotonicNanos,
        generation: &mut GenerationSums,
    ) -> Absorbed {
        let mut latency = LatencyCounts::default();
        let (mut corrupt, mut requests, mut averages) = (None, 0u64, Averages::default());
        for (thread, sum) in ThreadIndex::first(scoreboard.layout().threads).zip(&mut self.threads) {
            let cell = scoreboard.thread(slot, thread);
            cell.abandon(now);
            let mut phases = PhaseCounts::default();
            let read = cell.read().and_then(|sample| {
                cell.read_latencies(&mut latency)?;
                cell.add_phases(sample.counters.requests, &mut phases).map(|()| sample)
            });
            match read {
                Ok(ThreadSample { counters, average, .. }) => {
                    *sum += counters;
                    self.latency.add(&latency);
                    self.phases.add(&phases);
                    generation.add(counters, &latency, cell);
                    requests = requests.saturating_add(counters.requests);
                    averages.add(average);
                    newest(&mut self.last_exception, cell.exception.load());
                }
                Err(found) => corrupt = corrupt.or(Some(CorruptSlot { slot, thread, corrupt: found })),
            }
        }
        // What cannot be is left out: the threads' cells say whether the process is to be believed.
        self.garbage += scoreboard.worker(slot).garbage().unwrap_or_default();
        self.average = averages.mean().unwrap_or(self.average);
        Absorbed { requests, corrupt }
    }
}

/// What came of adding a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absorbed {
    /// Requests that it had completed.
    pub requests: u64,
    /// It left something that no worker writes: what the threads counted of which that is so is not added.
    pub corrupt: Option<CorruptSlot>,
}

/// Keeps the later one of two exceptions.
pub(super) fn newest(kept: &mut Option<ExceptionReport>, other: Option<ExceptionReport>) {
    if other.as_ref().map(|report| report.when) > kept.as_ref().map(|report| report.when) {
        *kept = other;
    }
}

/// uWSGI's moving average of the response time in a process, µs: the mean of its threads', as far as they have served.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Averages {
    sum: u64,
    threads: u64,
}

impl Averages {
    pub(super) fn add(&mut self, average: u64) {
        if average > 0 {
            self.sum = self.sum.saturating_add(average);
            self.threads += 1;
        }
    }

    pub(super) fn mean(self) -> Option<u64> {
        self.sum.checked_div(self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMicros;
    use crate::stats::cell::{Corrupt, Outcome};
    use crate::stats::scoreboard::Layout;
    use rwsgi_protocol::SocketProtocol;

    const SLOT: SlotId = SlotId::new(0);

    const fn at(nanoseconds: u64) -> MonotonicNanos {
        MonotonicNanos::from_nanos(nanoseconds)
    }

    #[test]
    fn two_processes_in_one_slot_add_up() {
        let board = Scoreboard::create(Layout::new(1, 2)).unwrap();
        let mut totals = Totals::new(2);
        let mut generation = GenerationSums::default();
        let [first, second] = [0, 1].map(|thread| board.thread(SLOT, ThreadIndex::new(thread)));
        for process in 1..=2 {
            second.begin(at(0), SocketProtocol::Http, b"", b"");
            second.finish(at(5_000), at(0), Outcome { status: 200, exception: true, ..Outcome::default() });
            let when = UnixMicros::from_micros(process);
            second.exception.store(&ExceptionReport { when, ..ExceptionReport::default() });
            second.errors.count("ValueError");
            first.begin(at(10_000), SocketProtocol::Http, b"", b"");
            assert_eq!(
                totals.absorb(&board, SLOT, at(17_000), &mut generation),
                Absorbed { requests: 1, corrupt: None }
            );
            board.clear(SLOT).unwrap();
        }
        assert_eq!(totals.threads[1].requests, 2);
        assert_eq!(totals.threads[1].responses[1], 2);
        assert_eq!(totals.threads[0].running, 14_000, "what a dead thread held counts as busy until its death");
        assert_eq!(totals.latency.total(), 2);
        assert_eq!((generation.counters.requests, generation.latency.total()), (2, 2));
        assert_eq!(generation.errors.most_frequent(9), [("ValueError".to_owned(), 2)]);
        assert_eq!(totals.last_exception.unwrap().when, UnixMicros::from_micros(2));
    }

    #[test]
    fn what_a_thread_cannot_have_counted_is_not_added() {
        let board = Scoreboard::create(Layout::new(1, 2)).unwrap();
        let mut totals = Totals::new(2);
        let [good, bad] = [0, 1].map(|thread| board.thread(SLOT, ThreadIndex::new(thread)));
        good.begin(at(0), SocketProtocol::Http, b"", b"");
        good.finish(at(5_000), at(0), Outcome::default());
        bad.sent(usize::MAX);
        let found = totals.absorb(&board, SLOT, at(9_000), &mut GenerationSums::default()).corrupt.unwrap();
        assert_eq!((found.thread, found.corrupt), (ThreadIndex::new(1), Corrupt::Counters));
        assert_eq!((totals.threads[0].requests, totals.threads[1].tx), (1, 0));
    }
}
