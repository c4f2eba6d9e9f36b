//! Limits that the master checks periodically: requests beyond `harakiri`, workers that are too large or too old.
//!
//! It looks only when such a limit is configured. The next look at requests is due when the oldest of those in progress
//! could pass its limit, so that an idle server is left alone; memory and age are looked at every second.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, info, warn};

use super::children::{Child, Stage};
use super::post::Post;
use super::process::{signal, signal_thread, thread_named};
use super::reason::{Reason, Why};
use super::state::{Ended, Master, Phase};
use super::timers::Timer;
use crate::clock::MonotonicNanos;
use crate::ids::{ChildId, SlotId, ThreadIndex, WorkerId};
use crate::ipc::harakiri::{self, stack_signal, thread_name};
use crate::procfs::{self, MemorySize};
use crate::stats::request::describe;
use crate::stats::scoreboard::{CorruptSlot, Scoreboard};
use crate::stats::snapshot::CorruptWorker;
use rwsgi_config::Config;

/// How often memory and age are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often a worker is looked at that holds an overdue request and is waited for.
const CLOSE_LOOK: Duration = Duration::from_millis(20);
/// What a thread is given to answer 504 and to print its stack before its process may be killed: on a busy machine it
/// may have to wait for a processor.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A request that has passed its time.
struct Overdue {
    child: ChildId,
    worker: WorkerId,
    pid: Pid,
    slot: SlotId,
    thread: ThreadIndex,
    started: MonotonicNanos,
}

/// A worker that is too large, or too old.
struct Judged {
    child: ChildId,
    reason: Reason,
    is_evil: bool,
}

impl Master {
    /// Begins to look at what the configuration limits: it may have changed.
    pub(super) fn watch_limits(&mut self, now: Instant) {
        let limits = [
            (Timer::Requests, self.config.harakiri.is_some()),
            (Timer::Sizes, watches_sizes(&self.config)),
            (Timer::Jobs, self.config.spooler.harakiri.is_some()),
        ];
        for (timer, is_wanted) in limits {
            match is_wanted {
                true => self.timers.set(timer, now),
                false => self.timers.cancel(timer),
            }
        }
    }

    /// Acts on requests older than `harakiri`, and looks again when one could next be.
    pub(super) fn watch_requests(&mut self, now: Instant) {
        let Some(seconds) = self.config.harakiri else { return };
        let limit = Duration::from_secs(seconds.into());
        let clock = MonotonicNanos::now();
        let mut next = limit;
        let (mut overdue, mut corrupt) = (Vec::new(), Vec::new());
        for child in self.children.workers() {
            let (Post::Worker(worker), Some(pid), Some(slot)) = (child.post, child.pid, child.slot) else { continue };
            let known = self.overdue.get(&child.id).map_or(&[][..], Vec::as_slice);
            let held = match in_progress(&self.scoreboard, slot) {
                Ok(held) => held,
                Err(found) => {
                    corrupt.push(CorruptWorker { worker, pid, found });
                    continue;
                }
            };
            for (thread, started) in held {
                let age = clock.since(started);
                if age < limit {
                    next = next.min(limit - age);
                } else if !known.iter().any(|ended| (ended.thread, ended.started) == (thread, started)) {
                    overdue.push(Overdue { child: child.id, worker, pid, slot, thread, started });
                }
            }
        }
        let threshold = self.config.harakiri_details.queue_threshold;
        if !overdue.is_empty() && threshold > 0 && self.waiting() < threshold.into() {
            // Nobody waits for what they hold: they go on until somebody does, or they end.
            overdue.clear();
            next = next.min(INTERVAL);
        }
        for request in overdue {
            self.end_request(&request, seconds, now);
        }
        for corrupt in corrupt {
            self.distrust(corrupt.found.slot, &corrupt);
        }
        let mut silent = Vec::new();
        for (child, overdue) in self.overdue.iter().filter_map(|(id, held)| Some((self.children.get(*id)?, held))) {
            if !matches!(child.stage, Stage::Leaving(_)) {
                continue;
            }
            next = next.min(CLOSE_LOOK);
            // Its successor serves. Requests beside the overdue ones are waited for, within the configured mercy.
            // What a corrupt one holds cannot be known.
            let held = child.slot.and_then(|slot| in_progress(&self.scoreboard, slot).ok()).unwrap_or_default();
            let graceful = self.config.harakiri_details.graceful_timeout.map(|time| Duration::from_secs(time.into()));
            let last_words = graceful.map_or(LAST_WORDS, |time| time.max(LAST_WORDS));
            let has_spoken = overdue.iter().all(|ended| clock > ended.at + last_words);
            if has_spoken && held.iter().all(|held| overdue.iter().any(|ended| (ended.thread, ended.started) == *held))
            {
                silent.push(child.id);
            }
        }
        for child in silent {
            self.kill(child, Why::For(Reason::Harakiri));
        }
        self.timers.set(Timer::Requests, now + next);
    }

    /// Answers a request that has passed its time, and has its worker replaced.
    fn end_request(&mut self, request: &Overdue, limit: u32, now: Instant) {
        let &Overdue { child, worker, pid, slot, thread, started } = request;
        self.overdue.entry(child).or_default().push(Ended { thread, started, at: MonotonicNanos::now() });
        let held = self.scoreboard.thread(slot, thread).held();
        let shown = self.config.show_request;
        let request = held.map_or_else(|| "a request".into(), |held| describe(&held, MonotonicNanos::now(), shown));
        error!(
            "harakiri: worker {worker} (pid {pid}) thread {thread} holds {request}, longer than the {limit} s allowed: ending it"
        );
        let thread_id = match thread.get() {
            0 => Some(pid),
            _ => thread_named(pid, &thread_name(worker, thread)),
        };
        if let Some(thread_id) = thread_id {
            // It may have ended a moment ago.
            let _ = harakiri::end_request(pid, thread_id, started);
            if self.config.harakiri_verbose {
                signal_thread(pid, thread_id, stack_signal());
            }
        } else {
            warn!("harakiri: thread {thread} cannot be found: its client gets no answer");
        }
        let details = &self.config.harakiri_details;
        let mut grace = self.grace();
        if let Some(seconds) = details.graceful_timeout {
            grace = grace.max(Duration::from_secs(seconds.into()));
            // 0 is no signal.
            if let Ok(number) = Signal::try_from(details.graceful_signal.cast_signed()) {
                info!("harakiri: worker {worker} (pid {pid}) gets {number}, and {seconds} s until it is killed");
                signal(pid, number);
            }
        }
        if let Some(totals) = self.totals_of(worker) {
            totals.harakiri += 1;
        }
        self.children.replace(child, Reason::Harakiri, &mut self.timers);
        // Whatever becomes of the successor.
        self.timers.set_earlier(Timer::Kill(child), now + grace);
    }

    /// Acts on workers that are too large or too old.
    pub(super) fn watch_sizes(&mut self, now: Instant) {
        if !watches_sizes(&self.config) {
            return;
        }
        self.timers.set(Timer::Sizes, now + INTERVAL);
        let judged: Vec<_> = self.children.workers().filter_map(|child| judge(&self.config, child, now)).collect();
        for Judged { child, reason, is_evil } in judged {
            if is_evil && self.phase == Phase::Serving {
                self.kill(child, Why::For(reason));
            } else if reason == Reason::Lifetime {
                self.replace(child, reason);
            } else {
                self.children.replace(child, reason, &mut self.timers);
            }
        }
    }

    /// A worker's process has corrupted its slot: it is replaced. That is logged once.
    pub(super) fn distrust(&mut self, slot: SlotId, found: &dyn std::fmt::Display) {
        let Some(child) = self.children.in_slot(slot) else { return };
        if self.phase == Phase::Serving && !child.is_replacing() && !child.is_leaving() {
            let id = child.id;
            error!("{found}");
            self.replace(id, Reason::Corrupt);
        }
    }

    /// Has a worker's process replaced: it serves on until its successor does.
    pub(super) fn replace(&mut self, child: ChildId, reason: Reason) {
        if self.phase == Phase::Serving
            && self.children.replace(child, reason, &mut self.timers)
            && let Some(child) = self.children.get(child)
        {
            let pid = child.pid.map_or(0, Pid::as_raw);
            info!("{} (pid {pid}): {reason}: replacing it", child.post);
        }
    }
}

/// Whether a worker's process is too large or too old; what is said of it in the log is said here.
fn judge(config: &Config, child: &Child, now: Instant) -> Option<Judged> {
    let (Post::Worker(worker), Some(pid), true) = (child.post, child.pid, child.is_ready()) else { return None };
    let age = now.saturating_duration_since(child.since);
    if age < Duration::from_secs(config.min_worker_lifetime.into()) {
        return None;
    }
    let MemorySize { resident: rss, mapped: address_space } = procfs::memory_of(pid).unwrap_or_default();
    let limits = [
        (rss, config.evil_reload_on_rss, Reason::Rss, "evil-reload-on-rss", true),
        (address_space, config.evil_reload_on_as, Reason::AddressSpace, "evil-reload-on-as", true),
        (rss, config.reload_on_rss, Reason::Rss, "reload-on-rss", false),
        (address_space, config.reload_on_as, Reason::AddressSpace, "reload-on-as", false),
    ];
    let large = limits.into_iter().find(|(size, limit, ..)| limit.is_some_and(|limit| *size > limit));
    let is_replacing = child.is_replacing();
    match large {
        Some((_, _, _, _, false)) if is_replacing => None,
        Some((size, limit, reason, option, is_evil)) => {
            let (size, limit) = (megabytes(size), megabytes(limit.unwrap_or_default()));
            let action = if is_evil { "killing it" } else { "replacing it" };
            warn!("worker {worker} (pid {pid}): {reason} of {size} MB, above {option} ({limit}): {action}");
            Some(Judged { child: child.id, reason, is_evil })
        }
        None => {
            let is_old = age >= lifetime(config, worker).unwrap_or(Duration::MAX);
            (is_old && !is_replacing).then_some(Judged { child: child.id, reason: Reason::Lifetime, is_evil: false })
        }
    }
}

/// The requests that a worker's process holds: thread, and beginning.
pub(super) fn in_progress(
    scoreboard: &Scoreboard,
    slot: SlotId,
) -> Result<Vec<(ThreadIndex, MonotonicNanos)>, CorruptSlot> {
    let samples = scoreboard.read_slot(slot)?;
    let held = (0..).map(ThreadIndex::new).zip(samples).filter_map(|(thread, sample)| Some((thread, sample.started?)));
    Ok(held.collect())
}

fn watches_sizes(config: &Config) -> bool {
    config.max_worker_lifetime.is_some()
        || [config.reload_on_rss, config.reload_on_as, config.evil_reload_on_rss, config.evil_reload_on_as]
            .iter()
            .any(Option::is_some)
}

/// How long this worker may run.
fn lifetime(config: &Config, worker: WorkerId) -> Option<Duration> {
    let more = config.max_worker_lifetime_delta.saturating_mul(worker.get() - 1);
    config.max_worker_lifetime.map(|seconds| Duration::from_secs(seconds.saturating_add(more).into()))
}

fn megabytes(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_are_watched_and_workers_age_apart() {
        let mut config = Config::default();
        assert!(!watches_sizes(&config));
        config.max_worker_lifetime = Some(100);
        config.max_worker_lifetime_delta = 5;
        assert!(watches_sizes(&config));
        assert_eq!(
            [1, 3].map(|worker| lifetime(&config, WorkerId::new(worker).unwrap()).unwrap().as_secs()),
            [100, 110]
        );
    }
}
