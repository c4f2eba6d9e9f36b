//! A spooler's cell on the scoreboard. It belongs to the post, not to a process: its counters go on growing when the
//! next process takes over, and one that is killed loses none.
//!
//! The process of the post is the only writer; between two of them the master is. As in [`super::cell`], every field is
//! an atomic and all-zero memory is a valid, empty cell.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

use super::cell::{Latencies, Text, add};

/// What came of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// Its function wants it to be tried again.
    Retry,
    /// Its function raised, or the process was killed with it.
    Failed,
    /// There is nobody for it in this process.
    Ignored,
}

/// One spooler.
#[repr(C, align(64))]
pub struct SpoolerCell {
    pid: AtomicI32,
    /// Seconds between two scans, once the application has set them; 0 before.
    frequency: AtomicU32,
    /// When the job in progress began, monotonic ns; 0 when there is none.
    started: AtomicU64,
    job: Text<48>,
    /// Jobs that the present process has run.
    tasks: AtomicU64,
    done: AtomicU64,
    retried: AtomicU64,
    failed: AtomicU64,
    /// How long jobs ran, µs.
    pub run_time: Latencies,
}

/// Counters of a spooler, over all its lives but `tasks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolerCounters {
    /// Jobs that the present process has run, whatever came of them.
    pub tasks: u64,
    /// Jobs done.
    pub done: u64,
    /// Runs whose function asked for another.
    pub retried: u64,
    /// Runs that ended with an exception, or with the process.
    pub failed: u64,
}

impl SpoolerCell {
    /// A process takes the post.
    pub fn take_over(&self, pid: i32) {
        self.tasks.store(0, Relaxed);
        self.pid.store(pid, Relaxed);
    }

    /// The post has no process.
    pub fn vacate(&self) {
        self.pid.store(0, Relaxed);
    }

    /// The process, 0 for none.
    pub fn pid(&self) -> i32 {
        self.pid.load(Relaxed)
    }

    /// A job begins at `now` (monotonic ns); `path` is relative to the spooler's directory.
    pub fn begin(&self, now: u64, path: &[u8]) {
        self.job.store(path);
        self.started.store(now.max(1), Release);
    }

    /// The job in progress ended at `now` (monotonic ns).
    pub fn finish(&self, now: u64, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Done => &self.done,
            Verdict::Retry => &self.retried,
            Verdict::Failed => &self.failed,
            Verdict::Ignored => {
                self.started.store(0, Release);
                return;
            }
        };
        add(counter, 1);
        add(&self.tasks, 1);
        self.run_time.record(now.saturating_sub(self.started.load(Relaxed)) / 1_000);
        self.started.store(0, Release);
    }

    /// The job in progress: its file relative to the spooler's directory, and when it began (monotonic ns).
    pub fn held(&self) -> Option<(Vec<u8>, u64)> {
        let started = self.started.load(Acquire);
        // A reader may see the name of the next job with this one's time: both were in progress a moment ago.
        (started != 0).then(|| (self.job.load(), started))
    }

    /// The counters.
    pub fn read(&self) -> SpoolerCounters {
        SpoolerCounters {
            tasks: self.tasks.load(Relaxed),
            done: self.done.load(Relaxed),
            retried: self.retried.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }

    /// Sets the seconds between two scans. Any process may.
    pub fn set_frequency(&self, seconds: u32) {
        self.frequency.store(seconds, Relaxed);
    }

    /// Seconds between two scans; `None` when nobody has set them since the server started.
    pub fn frequency(&self) -> Option<u32> {
        Some(self.frequency.load(Relaxed)).filter(|seconds| *seconds > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::scoreboard::{Layout, Scoreboard};

    #[test]
    fn counters_outlive_the_process_and_tasks_do_not() {
        let board = Scoreboard::create(Layout::new(1, 1).with_spoolers(2)).unwrap();
        let cell = board.spooler(1);
        cell.take_over(7);
        for verdict in [Verdict::Done, Verdict::Retry, Verdict::Ignored] {
            cell.begin(1_000, b"5/job");
            assert_eq!(cell.held(), Some((b"5/job".to_vec(), 1_000)));
            cell.finish(2_001_000, verdict);
            assert_eq!(cell.held(), None);
        }
        cell.begin(5, b"job");
        cell.finish(6, Verdict::Failed);
        assert_eq!(cell.read(), SpoolerCounters { tasks: 3, done: 1, retried: 1, failed: 1 });
        cell.vacate();
        cell.take_over(8);
        assert_eq!(cell.read(), SpoolerCounters { tasks: 0, done: 1, retried: 1, failed: 1 });
        let mut counts = Vec::new();
        cell.run_time.add_to(&mut counts);
        assert_eq!(counts.iter().sum::<u64>(), 3);
        assert_eq!(board.spooler(0).read(), SpoolerCounters::default());
    }
}
