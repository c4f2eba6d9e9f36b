//! A spooler's cell on the scoreboard. It belongs to the spooler's place, not to a process: its counters go on growing
//! when the next process takes over, and one that is killed loses none.
//!
//! The process in that place is the only writer; between two of them the master is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};
use std::time::Duration;

use nix::unistd::Pid;

use super::corrupt::Corrupt;
use super::counters::add;
use super::latencies::{Latencies, LatencyCounts};
use super::text::SharedText;
use crate::clock::MonotonicNanos;

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
    /// 0 for none.
    pid: AtomicI32,
    /// Seconds between two scans, once the application has set them; 0 before.
    frequency: AtomicU32,
    /// When the job in progress began, monotonic ns; 0 when there is none.
    started: AtomicU64,
    job: SharedText<48>,
    /// Jobs that the present process has run.
    tasks: AtomicU64,
    done: AtomicU64,
    retried: AtomicU64,
    failed: AtomicU64,
    /// How long jobs ran, µs.
    run_time: Latencies,
}

/// Counters of a spooler, over all its processes but `tasks`.
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

/// A job in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldJob {
    /// Its file, relative to the spooler's directory and in it.
    pub path: PathBuf,
    /// When it began.
    pub started: MonotonicNanos,
}

/// What the process does.
impl SpoolerCell {
    /// A process takes the spooler's place.
    pub fn take_over(&self, pid: Pid) {
        self.tasks.store(0, Relaxed);
        self.pid.store(pid.as_raw(), Relaxed);
    }

    /// A job begins at `now`; `path` is relative to the spooler's directory.
    pub fn begin(&self, now: MonotonicNanos, path: &[u8]) {
        self.job.store(path);
        self.started.store(now.as_nanos().max(1), Release);
    }

    /// The job in progress ended at `now`.
    pub fn finish(&self, now: MonotonicNanos, verdict: Verdict) {
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
        // None when the master has made the cell empty meanwhile.
        if let Some(started) = self.started() {
            self.run_time.record(now.nanos_since(started) / 1_000);
        }
        self.started.store(0, Release);
    }
}

/// What any process may ask for and set.
impl SpoolerCell {
    /// The process; `None` when there is none.
    pub fn pid(&self) -> Option<Pid> {
        Some(self.pid.load(Relaxed)).filter(|pid| *pid > 0).map(Pid::from_raw)
    }

    /// Sets the seconds between two scans, at least 1.
    pub fn set_frequency(&self, seconds: u32) {
        self.frequency.store(seconds, Relaxed);
    }

    /// The time between two scans; `None` when nobody has set it since the server started.
    pub fn frequency(&self) -> Option<Duration> {
        Some(self.frequency.load(Relaxed))
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// What the master does.
impl SpoolerCell {
    /// The spooler has no process.
    pub fn vacate(&self) {
        self.pid.store(0, Relaxed);
    }

    /// The job in progress.
    ///
    /// # Errors
    /// When no spooler has written that.
    pub fn held(&self) -> Result<Option<HeldJob>, Corrupt> {
        let Some(started) = self.started() else { return Ok(None) };
        // A reader may see the name of the next job with this one's time: both were in progress a moment ago.
        let path = PathBuf::from(OsStr::from_bytes(&self.job.load()));
        Corrupt::refuse_future(MonotonicNanos::now(), Some(started))?;
        if !leads_inside(&path) {
            return Err(Corrupt::Job);
        }
        Ok(Some(HeldJob { path, started }))
    }

    /// The counters; and how long jobs ran, in place of what `run_time` holds.
    ///
    /// # Errors
    /// When no spooler has counted that.
    pub fn read(&self, run_time: &mut LatencyCounts) -> Result<SpoolerCounters, Corrupt> {
        run_time.clear();
        self.run_time.add_to(run_time);
        let [tasks, done, retried, failed] =
            [&self.tasks, &self.done, &self.retried, &self.failed].map(|count| count.load(Relaxed));
        Corrupt::refuse_beyond(MonotonicNanos::now(), &[tasks, done, retried, failed, run_time.total()])?;
        Ok(SpoolerCounters { tasks, done, retried, failed })
    }

    /// Makes the cell empty, but for the process and what the application has set. What is counted meanwhile may be
    /// lost.
    pub fn reset(&self) {
        self.started.store(0, Relaxed);
        [&self.tasks, &self.done, &self.retried, &self.failed].into_iter().for_each(|count| count.store(0, Relaxed));
        self.run_time.reset();
    }

    fn started(&self) -> Option<MonotonicNanos> {
        Some(self.started.load(Acquire)).filter(|started| *started != 0).map(MonotonicNanos::from_nanos)
    }
}

/// Whether a path stays in the directory that it is relative to.
fn leads_inside(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    !bytes.is_empty() && !bytes.contains(&0) && path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_memory::zeroed;

    const fn at(nanoseconds: u64) -> MonotonicNanos {
        MonotonicNanos::from_nanos(nanoseconds)
    }

    #[test]
    fn counters_outlive_the_process_and_tasks_do_not() {
        let cell = zeroed::<SpoolerCell>();
        let mut run_time = LatencyCounts::default();
        cell.take_over(Pid::from_raw(7));
        for verdict in [Verdict::Done, Verdict::Retry, Verdict::Ignored] {
            cell.begin(at(1_000), b"5/job");
            assert_eq!(cell.held(), Ok(Some(HeldJob { path: "5/job".into(), started: at(1_000) })));
            cell.finish(at(2_001_000), verdict);
            assert_eq!(cell.held(), Ok(None));
        }
        cell.begin(at(5), b"job");
        cell.finish(at(6), Verdict::Failed);
        let counted = SpoolerCounters { tasks: 3, done: 1, retried: 1, failed: 1 };
        assert_eq!(cell.read(&mut run_time), Ok(counted));
        assert_eq!(run_time.total(), 3);
        cell.vacate();
        assert_eq!(cell.pid(), None);
        cell.take_over(Pid::from_raw(8));
        assert_eq!(cell.read(&mut run_time), Ok(SpoolerCounters { tasks: 0, ..counted }));
    }

    #[test]
    fn a_job_outside_of_the_directory_is_refused() {
        let cell = zeroed::<SpoolerCell>();
        for path in [&b""[..], b"/etc/passwd", b"../job", b"5/../../job", b".", b"a\0b"] {
            cell.begin(at(1_000), path);
            assert_eq!(cell.held(), Err(Corrupt::Job), "{}", path.escape_ascii());
        }
        cell.begin(at(u64::MAX), b"job");
        assert_eq!(cell.held(), Err(Corrupt::Future));
    }

    #[test]
    fn a_cell_that_was_made_empty_counts_on() {
        let cell = zeroed::<SpoolerCell>();
        let mut run_time = LatencyCounts::default();
        cell.set_frequency(9);
        cell.begin(at(1_000), b"job");
        cell.done.store(u64::MAX, Relaxed);
        assert_eq!(cell.read(&mut run_time), Err(Corrupt::Counters));
        cell.reset();
        cell.finish(at(2_000), Verdict::Done);
        assert_eq!(cell.read(&mut run_time), Ok(SpoolerCounters { tasks: 1, done: 1, ..SpoolerCounters::default() }));
        assert_eq!((run_time.total(), cell.frequency()), (0, Some(Duration::from_secs(9))));
    }
}
