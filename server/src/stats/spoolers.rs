//! The spoolers in the stats document.

use std::path::Path;

use nix::unistd::Pid;
use rwsgi_stats::{Spooler, SpoolerJob};
use tracing::warn;

use super::cell::{Corrupt, HeldJob, SpoolerCell, SpoolerCounters};
use super::scoreboard::Scoreboard;
use super::state::SnapshotState;
use crate::clock::{MonotonicNanos, UnixMicros};

/// A spooler, as far as the master knows it.
pub struct SpoolerView<'a> {
    /// From 1.
    pub number: u32,
    /// Where its jobs lie.
    pub directory: &'a Path,
    /// Its process; `None` when it has none.
    pub pid: Option<Pid>,
    /// How often a process was started for it.
    pub starts: u64,
    /// Jobs in its directory, those that run included, and when the oldest was queued.
    pub queue: Option<(u64, Option<UnixMicros>)>,
}

/// What a cell says.
#[derive(Default)]
struct Read {
    counters: SpoolerCounters,
    job: Option<HeldJob>,
}

/// What is shown of the spoolers at `now`.
pub(super) fn take(
    board: &Scoreboard,
    views: &[SpoolerView<'_>],
    state: &mut SnapshotState,
    now: MonotonicNanos,
) -> Vec<Spooler> {
    let mut entries = Vec::with_capacity(views.len());
    for view in views {
        let Read { counters, job } = read(board.spooler(view.number - 1), view, state);
        let job = job.map(|job| SpoolerJob {
            name: job.path.to_string_lossy().into_owned(),
            started: state.clock.unix_at(job.started).as_micros(),
            elapsed: now.nanos_since(job.started) / 1_000,
        });
        entries.push(Spooler {
            dir: view.directory.to_string_lossy().into_owned(),
            pid: view.pid.map_or(0, Pid::as_raw),
            tasks: counters.tasks,
            respawns: view.starts.saturating_sub(1),
            running: job.is_some().into(),
            queue: Some(0),
            oldest_age: Some(0),
            done: Some(counters.done),
            retried: Some(counters.retried),
            failed: Some(counters.failed),
            run_time: Some(state.cell_latency.encode()),
            job,
        });
    }
    let unix_now = state.clock.unix_at(now);
    for (at, view) in views.iter().enumerate() {
        let Some((jobs, oldest)) = view.queue else { continue };
        // Those that run here lie in the directory, and do not wait.
        let running = views.iter().zip(&entries).filter(|(other, _)| other.directory == view.directory);
        let running = running.map(|(_, spooler)| u64::from(spooler.running)).sum();
        entries[at].queue = Some(jobs.saturating_sub(running));
        let age = oldest.map_or(0, |oldest| unix_now.as_micros().saturating_sub(oldest.as_micros()));
        entries[at].oldest_age = Some(age);
    }
    entries
}

/// What a cell says, with the run times as the state's cell latency. What no spooler of ours has written is forgotten:
/// what is counted from now on is right again.
fn read(cell: &SpoolerCell, view: &SpoolerView<'_>, state: &mut SnapshotState) -> Read {
    let mut all =
        || -> Result<Read, Corrupt> { Ok(Read { counters: cell.read(&mut state.cell_latency)?, job: cell.held()? }) };
    all().unwrap_or_else(|corrupt| {
        warn!(
            "spooler {}: its part of the shared memory is corrupt ({corrupt}): its counts begin again at 0; some process \
             of the application writes where it must not",
            view.number
        );
        cell.reset();
        state.cell_latency.clear();
        Read::default()
    })
}
