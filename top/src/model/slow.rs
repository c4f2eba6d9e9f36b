//! Slow requests, kept for as long as rtop watches; and how long the phases of all requests took.

use std::collections::BTreeMap;
use std::sync::Arc;

use rwsgi_stats::{PhaseTimes, Phases, SlowRequest};

use super::Counts;
use super::pool::Cumulative;
use crate::source::ServerMicros;

/// The most records that are kept of a server; the oldest go first.
const MOST: usize = 2_000;
/// The most bytes that they may take.
const BUDGET: usize = 4 << 20;

/// The names of the phases, in the order in which a request goes through them.
pub(crate) const PHASES: [&str; 5] = ["queue", "body", "gil", "application", "write"];

/// The times of the phases, µs, in the order of [`PHASES`].
pub(crate) fn phase_times(times: &PhaseTimes) -> [u64; 5] {
    let PhaseTimes { queue, body, gil, application, write } = *times;
    [queue, body, gil, application, write]
}

/// How long the phases of the window's requests took, in the order of [`PHASES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PhaseCounts(pub(crate) [Counts; 5]);

impl PhaseCounts {
    /// Takes in another server's.
    pub(super) fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, counts)| sum.merge(counts));
    }
}

/// The histograms of the document before.
#[derive(Debug, Default)]
pub(super) struct PhasesBefore([Cumulative; 5]);

impl PhasesBefore {
    /// Takes over what the document says, and returns what is new in it.
    pub(super) fn advance(&mut self, phases: Phases) -> PhaseCounts {
        let Phases { queue, body, gil, application, write } = phases;
        let mut texts = [queue, body, gil, application, write].into_iter();
        PhaseCounts(self.0.each_mut().map(|before| before.advance(texts.next()).unwrap_or_default()))
    }
}

/// The slow requests that were seen of a server.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    /// By the run of the server and the record's number in it.
    kept: BTreeMap<(u64, u64), Arc<SlowRequest>>,
    bytes: usize,
}

impl SlowLog {
    /// Takes over what a document of this run of the server lists. What was seen before is passed over.
    pub(super) fn push(&mut self, run: u64, records: Vec<SlowRequest>) {
        for record in records {
            let key = (run, record.id);
            if self.kept.contains_key(&key) {
                continue;
            }
            self.bytes += size(&record);
            self.kept.insert(key, Arc::new(record));
        }
        while self.kept.len() > MOST || self.bytes > BUDGET {
            let Some((_, oldest)) = self.kept.pop_first() else { break };
            self.bytes -= size(&oldest);
        }
    }

    /// The records that were there at a moment, the newest first, each with the run of the server that it is of.
    pub(crate) fn until(&self, moment: ServerMicros) -> impl Iterator<Item = (u64, &Arc<SlowRequest>)> {
        let there = move |record: &SlowRequest| record.started.saturating_add(record.elapsed) <= moment.0;
        self.kept.iter().rev().filter(move |(_, record)| there(record)).map(|((run, _), record)| (*run, record))
    }

    /// All records, the newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, &Arc<SlowRequest>)> {
        self.kept.iter().rev().map(|((run, _), record)| (*run, record))
    }
}

fn size(record: &SlowRequest) -> usize {
    let stack: usize = record.stack.iter().map(|line| line.len() + size_of::<String>()).sum();
    size_of::<SlowRequest>() + record.uri.len() + record.route.len() + record.exception.len() + stack
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64) -> SlowRequest {
        SlowRequest { id, started: id * 1_000_000, elapsed: 500_000, ..SlowRequest::default() }
    }

    fn ids(log: &SlowLog) -> Vec<u64> {
        log.all().map(|(_, record)| record.id).collect()
    }

    #[test]
    fn what_leaves_the_server_s_list_is_kept_and_nothing_is_kept_twice() {
        let mut log = SlowLog::default();
        log.push(0, vec![record(2), record(1)]);
        log.push(0, vec![record(3), record(2)]);
        assert_eq!(ids(&log), [3, 2, 1]);
        // Another run counts from 1 again.
        log.push(1, vec![record(1)]);
        assert_eq!(ids(&log), [1, 3, 2, 1]);
    }

    #[test]
    fn a_moment_of_the_past_has_what_had_ended_by_then() {
        let mut log = SlowLog::default();
        log.push(0, (1..=9).map(record).collect());
        assert_eq!(log.until(ServerMicros(3_600_000)).map(|(_, record)| record.id).collect::<Vec<_>>(), [3, 2, 1]);
    }

    #[test]
    fn many_and_large_records_are_bounded() {
        let mut log = SlowLog::default();
        log.push(0, (1..=3_000).map(record).collect());
        assert_eq!((ids(&log).len(), ids(&log)[0]), (MOST, 3_000));
        let large = |id| SlowRequest { stack: vec!["x".repeat(1_000); 100], ..record(id) };
        log.push(0, (4_000..4_200).map(large).collect());
        assert!(log.bytes <= BUDGET, "{}", log.bytes);
        assert_eq!(log.bytes, log.kept.values().map(|record| size(record)).sum::<usize>());
    }
}
