//! What waits to be exported, between those who bring it and the thread that sends it. Nobody waits here but that thread.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rwsgi_stats::Snapshot;

use super::Signal;
use super::lines::{Line, continues};
use super::queue::Queue;
use crate::clock::UnixMicros;
use crate::stats::traces::TraceReport;

/// The most that waits of each, bytes.
pub(super) const MOST_BYTES: usize = 8 << 20;
/// As many are sent at once.
pub(super) const BATCH: usize = 512;
/// What is kept for an item besides what is in it, bytes.
const OVERHEAD: usize = 64;

/// See the module.
pub(super) struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    counts: [Counts; 3],
}

/// What the stats say of a signal.
#[derive(Default)]
pub(super) struct Counts {
    /// Taken by the collector.
    pub(super) exported: AtomicU64,
    /// Lost, wherever.
    pub(super) dropped: AtomicU64,
}

/// See [`Shared`].
pub(super) struct Waiting {
    pub(super) traces: Queue<TraceReport>,
    pub(super) lines: Queue<Line>,
    /// The newest: it says all that those before it said.
    pub(super) snapshot: Option<Box<Snapshot>>,
    /// Traced requests that did not come here.
    pub(super) lost: u64,
    /// The server ends: what waits is to be sent by then.
    pub(super) until: Option<Instant>,
}

impl Shared {
    pub(super) fn new() -> Self {
        let waiting = Waiting {
            traces: Queue::new(MOST_BYTES),
            lines: Queue::new(MOST_BYTES),
            snapshot: None,
            lost: 0,
            until: None,
        };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new(), counts: Default::default() }
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self, signal: Signal) -> &Counts {
        &self.counts[signal as usize]
    }

    /// Counts what was taken and what was lost.
    pub(super) fn count(&self, signal: Signal, exported: u64, dropped: u64) {
        self.counts(signal).exported.fetch_add(exported, Relaxed);
        self.counts(signal).dropped.fetch_add(dropped, Relaxed);
    }

    /// Adds traced requests, and counts those that were lost on their way here.
    pub(super) fn add_traces(&self, reports: Vec<TraceReport>, lost: u64) {
        if reports.is_empty() && lost == 0 {
            return;
        }
        let mut waiting = self.waiting();
        let before = waiting.traces.len();
        waiting.lost += lost;
        for report in reports {
            waiting.traces.push(report.size() + OVERHEAD, report);
        }
        self.tell(before, waiting.traces.len());
    }

    /// Adds a line of the log, with or without its end.
    pub(super) fn add_line(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.is_empty() {
            return;
        }
        let mut waiting = self.waiting();
        let lines = &mut waiting.lines;
        let belongs = lines.last().is_some_and(|before| continues(before, line));
        if belongs && let Some(before) = lines.grow_last(line.len() + 1) {
            before.bytes.push(b'\n');
            before.bytes.extend_from_slice(line);
            return;
        }
        let before = lines.len();
        let at = UnixMicros::now().as_micros().saturating_mul(1_000);
        lines.push(line.len() + OVERHEAD, Line { bytes: line.to_vec(), at });
        self.tell(before, lines.len());
    }

    /// Gives the newest snapshot.
    pub(super) fn set_snapshot(&self, snapshot: Box<Snapshot>) {
        self.waiting().snapshot = Some(snapshot);
        self.changed.notify_one();
    }

    /// From now on there is only so much time.
    pub(super) fn end_by(&self, until: Instant) {
        self.waiting().until = Some(until);
        self.changed.notify_one();
    }

    /// Wakes the sender for the first item, from which on it looks at the time, and for a whole batch.
    fn tell(&self, before: usize, now: usize) {
        if before == 0 || (before < BATCH && now >= BATCH) {
            self.changed.notify_one();
        }
    }

    /// For the sender: waits until the time that `due` gives, or until there may be another; `None` for as long as nothing
    /// comes.
    pub(super) fn wait(&self, due: impl Fn(&Waiting) -> Option<Instant>) {
        let waiting = self.waiting();
        match due(&waiting).map(|due| due.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => {}
            Some(longest) => drop(self.changed.wait_timeout(waiting, longest)),
            None => drop(self.changed.wait(waiting)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_traceback_are_one_record_with_the_line_before() {
        let shared = Shared::new();
        for line in ["ERROR no\n", "  File a\n", "    x\n", "\n", "INFO next"] {
            shared.add_line(line.as_bytes());
        }
        let lines = shared.waiting().lines.take(9);
        let texts: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect();
        assert_eq!(texts, ["ERROR no\n  File a\n    x", "INFO next"]);
    }
}
