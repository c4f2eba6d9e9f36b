//! How many workers run, when that is not fixed: `cheaper`, `idle` and `cheap`.
//!
//! What is decided by is exact: the time that threads were busy since the last look, and the connections that wait now.
//! A worker that is not needed is cheap: it has no process, and gets one when it is needed again.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tracing::{error, info};

use super::busyness::{self, Change, Look};
use super::pool::{Fate, Reason};
use super::shutdown::Phase;
use super::{Event, Master};
use crate::clock::MonotonicNanos;
use crate::config::{CheaperAlgorithm, Config};
use crate::ids::SlotId;
use crate::stats::cell::ThreadSample;

/// How often the load is looked at; for utilization, that of the last `cheaper-overload` is taken.
const INTERVAL: Duration = Duration::from_millis(500);
/// The same for requests that wait at the router while no worker runs: nothing else tells of them.
const ROUTER_INTERVAL: Duration = Duration::from_millis(100);
/// How long `spare` and `backlog` see too little work before they let a worker go.
const QUIET: Duration = Duration::from_secs(10);

/// The load at one moment.
#[derive(Clone, Copy, Debug)]
struct Load {
    at: Instant,
    /// Time that all threads were ever busy, ns.
    busy: u64,
    /// Requests that are in progress or were ever served.
    requests: u64,
    /// Connections and requests that wait for a worker.
    waiting: u64,
    /// Workers that serve and have a thread to spare.
    idle: u32,
}

/// What was seen and decided before.
#[derive(Debug, Default)]
pub(super) struct Cheaper {
    /// When the load is looked at next; `None` when the number of workers is fixed.
    pub(super) due: Option<Instant>,
    last: Option<Load>,
    /// Since when connections wait without a break.
    waiting_since: Option<Instant>,
    /// Since when a worker more runs than is needed.
    quiet_since: Option<Instant>,
    busyness: busyness::Watch,
    /// When a request was last seen.
    active_at: Option<Instant>,
    /// Waiting for the first connection, with no worker at all.
    asleep: Vec<JoinHandle<()>>,
}

impl Master {
    /// Decides which workers start with the first generation.
    pub(super) fn settle_number(&mut self, now: Instant) {
        let first = match self.config.cheap {
            true => 0,
            false => fewest_at_start(&self.config),
        };
        for (worker, entry) in (0..).zip(&mut self.pool.workers) {
            entry.cheap = worker >= first;
        }
        let varies = self.config.cheaper.workers.is_some() || self.config.idle.is_some() || self.config.cheap;
        self.cheaper.due = varies.then_some(now);
        self.cheaper.active_at = Some(now);
        if self.config.cheap {
            // There is nothing to wait for before saying so.
            self.any_ready = true;
            self.tell_ready();
            self.fall_asleep("cheap");
        }
    }

    /// Looks at the load, if a look is due, and has workers started or let go.
    pub(super) fn follow_load(&mut self, now: Instant) {
        if self.cheaper.due.is_none_or(|due| due > now) || self.phase != Phase::Serving {
            return;
        }
        let load = self.load_now(now);
        if !self.cheaper.asleep.is_empty() {
            let has_router = self.router.endpoint.is_some();
            self.cheaper.due = has_router.then_some(now + ROUTER_INTERVAL);
            if load.waiting > 0 {
                self.wake();
            }
            return;
        }
        self.cheaper.due = Some(now + INTERVAL);
        let last = self.cheaper.last;
        if load.waiting > 0 || last.is_none_or(|last| last.requests != load.requests || last.busy != load.busy) {
            self.cheaper.active_at = Some(now);
        }
        self.cheaper.waiting_since = (load.waiting > 0).then(|| self.cheaper.waiting_since.unwrap_or(now));
        let idle_for = self.cheaper.active_at.map_or(Duration::ZERO, |active| now - active);
        if self.config.idle.is_some_and(|limit| idle_for >= Duration::from_secs(limit.into())) {
            self.cheaper.last = Some(load);
            self.fall_asleep("idle");
            return;
        }
        let (Some(fewest), Some(last)) = (self.config.cheaper.workers, last) else {
            self.cheaper.last = Some(load);
            return;
        };
        let threads = self.config.threads;
        let running = self.pool.workers.iter().filter(|worker| !worker.cheap).count() as u32;
        let elapsed = (load.at - last.at).as_nanos().max(1) as f64;
        // How many threads were busy on average.
        let used = load.busy.saturating_sub(last.busy) as f64 / elapsed;
        let change = match self.config.cheaper.algorithm {
            CheaperAlgorithm::Busyness => {
                let window = Duration::from_secs(self.config.cheaper.overload.into());
                let is_urgent = load.waiting > self.config.cheaper.busyness.backlog_alert.into();
                if load.at - last.at < window && !is_urgent {
                    return;
                }
                let look = Look {
                    at: now,
                    busyness: 100.0 * used / f64::from((running * threads).max(1)),
                    waiting: load.waiting,
                    waiting_since: self.cheaper.waiting_since,
                    has_spare: running > fewest,
                    step: self.config.cheaper.step,
                };
                self.cheaper.busyness.decide(&self.config.cheaper.busyness, &look)
            }
            algorithm => {
                let too_few = match algorithm {
                    CheaperAlgorithm::Backlog => load.waiting > 0,
                    _ => load.idle == 0,
                };
                let too_many =
                    !too_few && load.waiting == 0 && used < 0.5 * f64::from(running.saturating_sub(1) * threads);
                let quiet_since = self.cheaper.quiet_since.filter(|_| too_many);
                self.cheaper.quiet_since = too_many.then(|| quiet_since.unwrap_or(now));
                match self.cheaper.quiet_since {
                    _ if too_few => Change::More(self.config.cheaper.step),
                    Some(since) if now - since >= QUIET => {
                        self.cheaper.quiet_since = Some(now);
                        Change::Less
                    }
                    _ => Change::None,
                }
            }
        };
        self.cheaper.last = Some(load);
        match change {
            Change::More(count) => {
                self.add_workers(count);
            }
            Change::Emergency(count) => {
                let added = self.add_workers(count);
                self.cheaper.busyness.added(added);
            }
            Change::Less if running > fewest => self.let_one_go(),
            Change::Less | Change::None => {}
        }
    }

    fn load_now(&mut self, now: Instant) -> Load {
        let clock = MonotonicNanos::now();
        let mut load = Load { at: now, busy: 0, requests: 0, waiting: 0, idle: 0 };
        for life in &self.pool.lives {
            let mut has_room = false;
            for cell in self.scoreboard.threads(SlotId::new(life.slot)) {
                let Ok(ThreadSample { counters, started, .. }) = cell.read() else { continue };
                load.busy += counters.running + started.map_or(0, |started| clock.nanos_since(started));
                load.requests += counters.requests + u64::from(started.is_some());
                has_room |= started.is_none();
            }
            // One that is about to serve counts as well: it is what the last look asked for.
            load.idle += u32::from(has_room && life.fate.is_none());
        }
        for counters in self.pool.workers.iter().flat_map(|worker| &worker.totals.threads) {
            load.busy += counters.running;
            load.requests += counters.requests;
        }
        let listeners = self.listeners.iter().map(|(listener, _)| listener).chain(&self.router_listeners);
        load.waiting = listeners
            .map(|listener| u64::from(self.snapshot_state.backlog(&listener.address, listener.fd()).depth))
            .sum();
        load.waiting += self.scoreboard.router().read().map_or(0, |router| router.depth);
        load
    }

    /// Has up to `count` workers started; returns how many there were to start.
    fn add_workers(&mut self, count: u32) -> u32 {
        let now = Instant::now();
        let mut added = 0;
        for worker in self.pool.workers.iter_mut().filter(|worker| worker.cheap).take(count as usize) {
            worker.cheap = false;
            worker.due = Some(now);
            added += 1;
        }
        if added > 0 {
            let running = self.pool.workers.iter().filter(|worker| !worker.cheap).count();
            info!("cheaper: {added} more, {running} workers run now");
        }
        added
    }

    fn let_one_go(&mut self) {
        let Some(index) = self.pool.workers.iter().rposition(|worker| !worker.cheap) else { return };
        info!("cheaper: worker {} is not needed", index + 1);
        self.make_cheap(index as u32 + 1);
    }

    fn make_cheap(&mut self, worker: u32) {
        let entry = self.pool.worker(worker);
        entry.cheap = true;
        entry.due = None;
        let slots: Vec<_> = self.pool.lives.iter().filter(|life| life.worker == worker).map(|life| life.slot).collect();
        for slot in slots {
            self.send_away(slot, Fate::Leave(Reason::Idle));
        }
    }

    /// Lets every worker go until somebody connects.
    fn fall_asleep(&mut self, why: &str) {
        info!("{why}: no worker runs until a request comes");
        for worker in 1..=self.config.processes {
            self.make_cheap(worker);
        }
        for (listener, _) in &self.listeners {
            let watched = listener.fd().try_clone_to_owned().and_then(connections);
            let watched = match watched {
                Ok(watched) => watched,
                Err(failure) => {
                    error!("{why}: cannot watch {}: {failure}: starting the workers again", listener.address);
                    let _ = self.events.send(Event::Wake);
                    continue;
                }
            };
            let events = self.events.clone();
            self.cheaper.asleep.push(tokio::task::spawn_local(async move {
                if watched.readable().await.is_ok() {
                    // The loop is gone only when the process is about to be.
                    let _ = events.send(Event::Wake);
                }
            }));
        }
        if self.router.endpoint.is_some() {
            self.cheaper.asleep.push(tokio::task::spawn_local(async {}));
            self.cheaper.due = Some(Instant::now() + ROUTER_INTERVAL);
        }
    }

    /// Somebody has connected while no worker ran.
    pub(super) fn wake(&mut self) {
        if self.cheaper.asleep.is_empty() || self.phase != Phase::Serving {
            return;
        }
        for watch in self.cheaper.asleep.drain(..) {
            watch.abort();
        }
        let now = Instant::now();
        self.cheaper.active_at = Some(now);
        self.cheaper.last = None;
        self.cheaper.due = Some(now + INTERVAL);
        info!("a request has come: starting workers");
        self.add_workers(fewest_at_start(&self.config));
    }
}

/// Readable when somebody waits to be accepted.
#[allow(unsafe_code)]
fn connections(listener: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor, and stays so as long as the result owns it.
    Ok(unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?)
}

/// How many workers to begin with.
fn fewest_at_start(config: &Config) -> u32 {
    let cheaper = &config.cheaper;
    match cheaper.workers {
        Some(fewest) => cheaper.initial.unwrap_or(fewest).max(1),
        None => config.processes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_begins_with_the_fewest_workers_that_are_configured() {
        let mut config = Config { processes: 8, ..Config::default() };
        assert_eq!(fewest_at_start(&config), 8);
        config.cheaper.workers = Some(2);
        assert_eq!(fewest_at_start(&config), 2);
        config.cheaper.initial = Some(4);
        assert_eq!(fewest_at_start(&config), 4);
    }
}
