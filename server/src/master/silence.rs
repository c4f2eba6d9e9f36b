//! Processes that show no sign of life: any that a signal has stopped, and workers that do not begin with a request.
//!
//! The system reports a stop as it reports an end, so nothing is polled for it. That a worker does not begin with what
//! it was sent the http router sees, and writes it into the cell of the worker's thread; there it is looked for now and
//! then, when there is a router. Such a worker hangs only if it has a thread to spare: others are busy, which
//! `harakiri` is for.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rwsgi_stats::Snapshot;
use tracing::{error, info, warn};

use super::children::{Child, Stage};
use super::post::Post;
use super::reason::{Reason, Why};
use super::state::Master;
use super::timers::Timer;
use crate::clock::MonotonicNanos;
use crate::ids::{ChildId, ThreadIndex, WorkerId};
use crate::stats::cell::ThreadCell;
use crate::stats::scoreboard::Scoreboard;

/// A process that shows no sign of life for this long is logged.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often those are looked at that show none.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often workers are looked at that are sent requests by the router.
const ROUTER_INTERVAL: Duration = Duration::from_secs(2);

/// Why a process is taken to be silent, and for how long it has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Stopped(Duration),
    NotBegun(Duration),
}

impl Silence {
    fn lasts(self) -> Duration {
        let (Self::Stopped(time) | Self::NotBegun(time)) = self;
        time
    }
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped(time) => {
                write!(f, "has been stopped for {} s: it does nothing until it is sent SIGCONT", time.as_secs())
            }
            Self::NotBegun(time) => write!(
                f,
                "has not begun with a request that it was sent {} s ago, with a thread to spare: it hangs, or gets no processor",
                time.as_secs()
            ),
        }
    }
}

impl Master {
    /// The system says that a process is stopped since then, or goes on.
    pub(super) fn stopped(&mut self, pid: Pid, since: Option<Instant>) {
        if self.children.set_stopped(pid, since) {
            self.timers.set_earlier(Timer::Silence, since.map_or_else(Instant::now, |since| since + PATIENCE));
        }
    }

    /// Names those that show no sign of life, and replaces workers among them when `harakiri` says how long to wait.
    pub(super) fn watch_silence(&mut self, now: Instant) {
        let limit = self.config.harakiri.map(|seconds| Duration::from_secs(seconds.into()).max(PATIENCE));
        let mut any = false;
        let mut late: Vec<(ChildId, WorkerId)> = Vec::new();
        let mut changed: Vec<(ChildId, bool)> = Vec::new();
        for child in self.children.iter().filter(|child| !matches!(child.stage, Stage::Killed(_))) {
            let Some(pid) = child.pid else { continue };
            let silence = silence_of(child, &self.scoreboard, now);
            any |= silence.is_some();
            match silence.filter(|silence| silence.lasts() >= PATIENCE) {
                Some(silence) => {
                    if !child.is_called_silent {
                        changed.push((child.id, true));
                        warn!("{} (pid {pid}) {silence}", child.post);
                    }
                    if let (Post::Worker(worker), Some(limit)) = (child.post, limit)
                        && silence.lasts() >= limit
                    {
                        error!(
                            "harakiri: worker {worker} (pid {pid}) shows no sign of life for longer than the {} s allowed: \
                             killing it",
                            limit.as_secs()
                        );
                        late.push((child.id, worker));
                    }
                }
                None if child.is_called_silent => {
                    changed.push((child.id, false));
                    info!("{} (pid {pid}) goes on", child.post);
                }
                None => {}
            }
        }
        for (id, is_silent) in changed {
            self.children.call_silent(id, is_silent);
        }
        for (id, worker) in late {
            if let Some(totals) = self.totals_of(worker) {
                totals.harakiri += 1;
            }
            self.kill(id, Why::For(Reason::Unresponsive));
        }
        match (any, self.sockets.link.is_some()) {
            (true, _) => self.timers.set(Timer::Silence, now + INTERVAL),
            (false, true) => self.timers.set(Timer::Silence, now + ROUTER_INTERVAL),
            (false, false) => {}
        }
    }

    /// Says in a snapshot which workers show no sign of life.
    pub(super) fn describe_silence(&self, snapshot: &mut Snapshot) {
        let now = Instant::now();
        for worker in &mut snapshot.workers {
            let shown = Pid::from_raw(worker.pid);
            let child = self.children.with_pid(shown).filter(|child| child.is_called_silent);
            let silence = child.and_then(|child| silence_of(child, &self.scoreboard, now));
            worker.unresponsive_for = Some(silence.map_or(0, |silence| silence.lasts().as_micros() as u64));
        }
    }
}

/// Whether a process shows no sign of life.
fn silence_of(child: &Child, scoreboard: &Scoreboard, now: Instant) -> Option<Silence> {
    if let Some(since) = child.stopped_since {
        return Some(Silence::Stopped(now.saturating_duration_since(since)));
    }
    let slot = child.slot.filter(|_| child.is_ready())?;
    let clock = MonotonicNanos::now();
    let threads = ThreadIndex::first(scoreboard.layout().threads);
    let since = threads.filter_map(|thread| scoreboard.dispatched(slot, thread).not_begun_since()).min()?;
    let time = clock.since(since);
    // What is older than the process was said of the one that had the slot before, or by nobody of ours.
    let is_its = time <= now.saturating_duration_since(child.since);
    let has_thread_to_spare = || {
        let samples = scoreboard.threads(slot).map(ThreadCell::read);
        samples.into_iter().any(|sample| sample.is_ok_and(|sample| sample.started.is_none()))
    };
    (is_its && has_thread_to_spare()).then_some(Silence::NotBegun(time))
}
