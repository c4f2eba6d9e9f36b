//! What the master looks at by the clock: requests beyond `harakiri`, workers that are too large or too old.
//!
//! It looks only when such a limit is configured. The next look at requests is due when the oldest of those in progress
//! could pass its limit, so that an idle server is left alone; memory and age are looked at every second.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::{error, warn};

use super::Master;
use super::pool::{Fate, Life, Reason};
use super::process::{signal_thread, thread_named};
use super::shutdown::Phase;
use super::workers::signal;
use crate::clock::{self, MonotonicNanos};
use crate::config::Config;
use crate::ids::{SlotId, ThreadIndex};
use crate::procfs::{self, MemorySize};
use crate::stats::request::describe;
use crate::stats::scoreboard::Scoreboard;
use crate::worker::harakiri::{answer_signal, stack_signal, thread_name};

/// How often memory and age are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often a worker is looked at that holds an overdue request and is waited for.
const CLOSE_LOOK: Duration = Duration::from_millis(20);
/// What a thread is given to answer 504 and to print its stack before its process may be killed, ns.
const LAST_WORDS: u64 = 100_000_000;
const SECOND: u64 = 1_000_000_000;

/// When the next look is due; `None` while nothing is to be watched.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    pub(super) due: Option<Instant>,
    /// When memory and age are looked at next.
    sizes_due: Option<Instant>,
}

/// A request that has passed its time.
struct Overdue {
    slot: u32,
    thread: u32,
    started: u64,
}

impl Master {
    /// Looks, if a look is due.
    pub(super) fn watch_over(&mut self, now: Instant) {
        if self.watchdog.due.is_none_or(|due| due > now) {
            return;
        }
        let requests = self.config.harakiri.map(|limit| now + self.watch_requests(u64::from(limit) * SECOND, now));
        let sizes = watches_sizes(&self.config).then(|| match self.watchdog.sizes_due {
            Some(due) if due > now => due,
            _ => {
                self.watch_sizes(now);
                now + INTERVAL
            }
        });
        self.watchdog.sizes_due = sizes;
        self.watchdog.due = requests.into_iter().chain(sizes).min();
    }

    /// Acts on requests older than `limit` ns; returns after how long one could next be.
    fn watch_requests(&mut self, limit: u64, now: Instant) -> Duration {
        let clock = clock::monotonic();
        let mut next = limit;
        let mut overdue = Vec::new();
        for life in self.pool.lives.iter().filter(|life| life.pid.is_some()) {
            for (thread, started) in in_progress(&self.scoreboard, life) {
                let age = clock.saturating_sub(started);
                if age < limit {
                    next = next.min(limit - age);
                } else if !life.overdue.contains(&(thread, started)) {
                    overdue.push(Overdue { slot: life.slot, thread, started });
                }
            }
        }
        for request in overdue {
            self.end_request(&request, now);
        }
        let mut next = Duration::from_nanos(next);
        for life in &mut self.pool.lives {
            let Some(pid) = life.pid else { continue };
            if life.overdue.is_empty() || life.fate.is_none() {
                continue;
            }
            next = next.min(CLOSE_LOOK);
            // Its successor serves. The innocent requests beside the overdue ones are waited for, within its mercy.
            let mut held = in_progress(&self.scoreboard, life);
            let has_spoken = life.overdue.iter().all(|(_, started)| clock > started.saturating_add(limit + LAST_WORDS));
            if has_spoken && held.all(|request| life.overdue.contains(&request)) {
                signal(pid, Signal::SIGKILL);
            }
        }
        next
    }

    /// Answers a request that has passed its time, and has its worker replaced.
    fn end_request(&mut self, request: &Overdue, now: Instant) {
        let limit = self.config.harakiri.unwrap_or_default();
        let mercy = Duration::from_secs(self.config.reload_mercy.into());
        let Some(life) = self.pool.in_slot(request.slot) else { return };
        let Some(pid) = life.pid else { return };
        life.overdue.push((request.thread, request.started));
        // Whatever becomes of the successor.
        let late = now + mercy;
        life.killed_at = Some(life.killed_at.map_or(late, |earlier| earlier.min(late)));
        let worker = life.worker;
        let held = self.scoreboard.thread(SlotId::new(request.slot), ThreadIndex::new(request.thread)).held();
        let told = held.map_or_else(|| "a request".into(), |held| describe(&held, MonotonicNanos::now()));
        error!(
            "harakiri: worker {worker} (pid {pid}) thread {} holds {told}, longer than the {limit} s allowed: ending it",
            request.thread
        );
        let thread = match request.thread {
            0 => Some(pid),
            thread => thread_named(pid, &thread_name(worker, thread)),
        };
        if let Some(thread) = thread {
            signal_thread(pid, thread, answer_signal());
            if self.config.harakiri_verbose {
                signal_thread(pid, thread, stack_signal());
            }
        } else {
            warn!("harakiri: thread {} cannot be found: its client gets no answer", request.thread);
        }
        self.pool.worker(worker).totals.harakiri += 1;
        self.pool.doom(request.slot, Reason::Harakiri, now);
    }

    fn watch_sizes(&mut self, now: Instant) {
        let config = &self.config;
        let youngest = Duration::from_secs(config.min_worker_lifetime.into());
        let mut judged = Vec::new();
        for life in self.pool.lives.iter().filter(|life| life.ready && life.fate.is_none()) {
            let age = now.saturating_duration_since(life.since);
            let Some(pid) = life.pid.filter(|_| age >= youngest) else { continue };
            let MemorySize { resident: rss, mapped: address_space } = procfs::memory_of(pid).unwrap_or_default();
            let limits = [
                (rss, config.evil_reload_on_rss, Reason::Rss, "evil-reload-on-rss", true),
                (address_space, config.evil_reload_on_as, Reason::AddressSpace, "evil-reload-on-as", true),
                (rss, config.reload_on_rss, Reason::Rss, "reload-on-rss", false),
                (address_space, config.reload_on_as, Reason::AddressSpace, "reload-on-as", false),
            ];
            let large = limits.into_iter().find(|(size, limit, ..)| limit.is_some_and(|limit| *size > limit));
            if let Some((size, limit, reason, option, evil)) = large {
                if evil || life.doom.is_none() {
                    let (size, limit) = (megabytes(size), megabytes(limit.unwrap_or_default()));
                    let action = if evil { "killing it" } else { "replacing it" };
                    let worker = life.worker;
                    warn!("worker {worker} (pid {pid}): {reason} of {size} MB, above {option} ({limit}): {action}");
                    judged.push((life.slot, reason, evil));
                }
            } else if life.doom.is_none() && age >= lifetime(config, life.worker).unwrap_or(Duration::MAX) {
                judged.push((life.slot, Reason::Lifetime, false));
            }
        }
        for (slot, reason, evil) in judged {
            if evil {
                self.kill_for(slot, reason);
            } else if reason == Reason::Lifetime {
                self.replace(slot, reason);
            } else {
                self.pool.doom(slot, reason, now);
            }
        }
    }

    /// Kills a life, whatever it is doing.
    fn kill_for(&mut self, slot: u32, reason: Reason) {
        if self.phase == Phase::Serving
            && let Some(life) = self.pool.in_slot(slot)
        {
            life.fate = Some(Fate::Leave(reason));
            if let Some(pid) = life.pid {
                signal(pid, Signal::SIGKILL);
            }
        }
    }
}

/// The requests that a life holds: thread, and beginning (monotonic ns).
fn in_progress<'a>(scoreboard: &'a Scoreboard, life: &Life) -> impl Iterator<Item = (u32, u64)> + 'a {
    let threads = (0..).zip(scoreboard.threads(SlotId::new(life.slot)));
    threads.filter_map(|(thread, cell)| Some((thread, cell.read().ok()?.started?.as_nanos())))
}

fn watches_sizes(config: &Config) -> bool {
    config.max_worker_lifetime.is_some()
        || [config.reload_on_rss, config.reload_on_as, config.evil_reload_on_rss, config.evil_reload_on_as]
            .iter()
            .any(Option::is_some)
}

/// How long this worker may run.
fn lifetime(config: &Config, worker: u32) -> Option<Duration> {
    let more = config.max_worker_lifetime_delta.saturating_mul(worker - 1);
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
        assert_eq!([1, 3].map(|worker| lifetime(&config, worker).unwrap().as_secs()), [100, 110]);
    }
}
