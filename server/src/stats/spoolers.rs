//! The spoolers in the stats document.

use std::path::Path;

use rwsgi_stats::{Spooler, SpoolerJob, latency};

use super::clock::{Clock, MonotonicNanos};
use super::scoreboard::Scoreboard;

/// A spooler, as far as the master knows it.
pub struct SpoolerView<'a> {
    /// From 1.
    pub number: u32,
    /// Where its jobs lie.
    pub directory: &'a Path,
    /// Its process, 0 for none.
    pub pid: i32,
    /// How often a process was started for it.
    pub starts: u64,
    /// Jobs in its directory, those that run included, and when the oldest was queued (unix µs).
    pub queue: Option<(u64, Option<u64>)>,
}

/// What is told of the spoolers; `now` is a moment of `clock`'s monotonic side, ns.
pub(super) fn take(board: &Scoreboard, views: &[SpoolerView<'_>], clock: Clock, now: u64) -> Vec<Spooler> {
    let unix_at = |moment| clock.unix_at(MonotonicNanos::from_nanos(moment)).as_micros();
    let told = |view: &SpoolerView<'_>| {
        let cell = board.spooler(view.number - 1);
        let counters = cell.read();
        let job = cell.held().map(|(name, started)| SpoolerJob {
            name: String::from_utf8_lossy(&name).into_owned(),
            started: unix_at(started),
            elapsed: now.saturating_sub(started) / 1_000,
        });
        // Those that run here lie in the directory, and do not wait.
        let running = views.iter().filter(|other| other.directory == view.directory);
        let running = running.filter(|other| board.spooler(other.number - 1).held().is_some()).count() as u64;
        let oldest = view.queue.and_then(|(_, oldest)| oldest);
        let mut run_time = Vec::new();
        cell.run_time.add_to(&mut run_time);
        Spooler {
            dir: view.directory.to_string_lossy().into_owned(),
            pid: view.pid,
            tasks: counters.tasks,
            respawns: view.starts.saturating_sub(1),
            running: job.is_some().into(),
            queue: Some(view.queue.map_or(0, |(jobs, _)| jobs.saturating_sub(running))),
            oldest_age: Some(oldest.map_or(0, |oldest| unix_at(now).saturating_sub(oldest))),
            done: Some(counters.done),
            retried: Some(counters.retried),
            failed: Some(counters.failed),
            run_time: Some(latency::encode_counts(&run_time)),
            job,
        }
    };
    views.iter().map(told).collect()
}
