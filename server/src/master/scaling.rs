//! How many workers run, when that is not fixed: `cheaper`, `idle` and `cheap`.
//!
//! What is decided by is exact: the time that threads were busy since the last look, and the connections that wait now.
//! A worker that is not needed is cheap: it has no process, and gets one when it is needed again.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{error, info};

use super::busyness::{Decision, Look};
use super::events::Event;
use super::listeners::Listener;
use super::load::Load;
use super::memory_pressure::Pressure;
use super::post::Post;
use super::reason::{Reason, Why};
use super::state::{Master, Phase};
use super::task::Task;
use super::timers::Timer;
use crate::clock::MonotonicNanos;
use crate::ids::WorkerId;
use crate::stats::cell::ThreadSample;
use rwsgi_config::{CheaperAlgorithm, Config};

/// How often the load is looked at; for utilization, that of the last `cheaper-overload` is taken.
const INTERVAL: Duration = Duration::from_millis(500);
/// The same for requests that wait at the router while no worker runs: nothing else shows them.
const ROUTER_INTERVAL: Duration = Duration::from_millis(100);
/// How long `spare` and `backlog` see too little work before they let a worker go.
const QUIET: Duration = Duration::from_secs(10);

impl Master {
    /// Decides which workers start with the first generation.
    pub(super) fn settle_number(&mut self, now: Instant) {
        let first = match self.config.cheap {
            true => 0,
            false => fewest_at_start(&self.config),
        };
        for worker in self.worker_ids().filter(|worker| worker.get() > first) {
            self.children.abandon(Post::Worker(worker), &mut self.timers);
        }
        if self.config.cheaper.workers.is_some() || self.config.idle.is_some() || self.config.cheap {
            self.timers.set(Timer::Load, now);
        }
        self.load.active_at = Some(now);
        // Without workers there is nothing to wait for.
        self.any_ready |= self.config.processes == 0;
        if self.config.cheap {
            // There is nothing to wait for before saying so.
            self.any_ready = true;
            self.tell_ready();
            self.fall_asleep("cheap");
        }
    }

    /// Looks at the load, and has workers started or stopped.
    pub(super) fn follow_load(&mut self, now: Instant) {
        if self.phase != Phase::Serving {
            return;
        }
        let load = self.load_now(now);
        if self.load.asleep.is_some() {
            if load.waiting > 0 {
                self.wake();
            } else if self.sockets.link.is_some() {
                self.timers.set(Timer::Load, now + ROUTER_INTERVAL);
            }
            return;
        }
        self.timers.set(Timer::Load, now + INTERVAL);
        let last = self.load.last;
        // What a canary is compared with stays.
        let is_tried = self.canary.is_some();
        if is_tried
            || load.waiting > 0
            || last.is_none_or(|last| last.requests != load.requests || last.busy != load.busy)
        {
            self.load.active_at = Some(now);
        }
        self.load.waiting_since = (load.waiting > 0).then(|| self.load.waiting_since.unwrap_or(now));
        let idle_for = self.load.active_at.map_or(Duration::ZERO, |active| now - active);
        if self.config.idle.is_some_and(|limit| idle_for >= Duration::from_secs(limit.into())) {
            self.load.last = Some(load);
            if self.config.reactions.die_on_idle && !self.is_draining {
                return self.stop("die-on-idle");
            }
            self.fall_asleep("idle");
            return;
        }
        let (Some(fewest), Some(last)) = (self.config.cheaper.workers, last) else {
            self.load.last = Some(load);
            return;
        };
        let threads = self.config.threads;
        let running = self.running().count() as u32;
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
                    waiting_since: self.load.waiting_since,
                    has_spare: running > fewest,
                    step: self.config.cheaper.step,
                };
                self.load.busyness.decide(&self.config.cheaper.busyness, &look)
            }
            algorithm => {
                let too_few = match algorithm {
                    CheaperAlgorithm::Backlog => load.waiting > 0,
                    _ => load.idle == 0,
                };
                let too_many =
                    !too_few && load.waiting == 0 && used < 0.5 * f64::from(running.saturating_sub(1) * threads);
                let quiet_since = self.load.quiet_since.filter(|_| too_many);
                self.load.quiet_since = too_many.then(|| quiet_since.unwrap_or(now));
                match self.load.quiet_since {
                    _ if too_few => Decision::More(self.config.cheaper.step),
                    Some(since) if now - since >= QUIET => {
                        self.load.quiet_since = Some(now);
                        Decision::Less
                    }
                    _ => Decision::None,
                }
            }
        };
        self.load.last = Some(load);
        let pressure = self.memory_pressure();
        match change {
            _ if pressure == Pressure::Fewer && running > 1 && !is_tried => {
                info!("cheaper: the workers have more memory than cheaper-rss-limit-hard");
                self.let_one_go();
            }
            Decision::More(_) | Decision::Emergency(_) if pressure != Pressure::None => {}
            Decision::More(count) => {
                self.add_workers(count);
            }
            Decision::Emergency(count) => {
                let added = self.add_workers(count);
                self.load.busyness.added(added);
            }
            Decision::Less if running > fewest && !is_tried => self.let_one_go(),
            Decision::Less | Decision::None => {}
        }
    }

    fn load_now(&mut self, now: Instant) -> Load {
        let clock = MonotonicNanos::now();
        let mut load = Load { at: now, busy: 0, requests: 0, waiting: 0, idle: 0 };
        for child in self.children.workers() {
            let Some(slot) = child.slot else { continue };
            let mut has_space = false;
            for cell in self.scoreboard.threads(slot) {
                let Ok(ThreadSample { counters, started, .. }) = cell.read() else { continue };
                load.busy += counters.running + started.map_or(0, |started| clock.nanos_since(started));
                load.requests += counters.requests + u64::from(started.is_some());
                has_space |= started.is_none();
            }
            // One that is about to serve counts as well: it is what the last look asked for.
            load.idle += u32::from(has_space && !child.is_leaving() && !self.scoreboard.worker(slot).drained());
        }
        for counters in self.totals.iter().flat_map(|totals| &totals.threads) {
            load.busy += counters.running;
            load.requests += counters.requests;
        }
        load.waiting = self.waiting();
        load
    }

    /// How many connections wait to be accepted, and requests in the http router's queue.
    pub(super) fn waiting(&mut self) -> u64 {
        let waiting =
            self.sockets.public().map(|listener| self.snapshot_state.backlog(&listener.address, listener.fd()).depth);
        waiting.map(u64::from).sum::<u64>() + self.scoreboard.router().read().map_or(0, |router| router.depth)
    }

    /// The workers that are meant to have a process.
    pub(super) fn running(&self) -> impl DoubleEndedIterator<Item = WorkerId> {
        self.worker_ids().filter(|worker| self.children.post(Post::Worker(*worker)).is_wanted)
    }

    /// Has up to `count` workers started, within what an operator allows; returns how many there were to start.
    pub(super) fn add_workers(&mut self, count: u32) -> u32 {
        let is_cheap = |worker: &WorkerId| !self.children.post(Post::Worker(*worker)).is_wanted;
        let space =
            self.control.most_workers.map_or(u32::MAX, |most| most.saturating_sub(self.running().count() as u32));
        let added: Vec<_> = self.worker_ids().filter(is_cheap).take(count.min(space) as usize).collect();
        for worker in &added {
            self.children.fill(Post::Worker(*worker), &mut self.timers);
        }
        if !added.is_empty() {
            info!("cheaper: {} more, {} workers run now", added.len(), self.running().count());
        }
        added.len() as u32
    }

    fn let_one_go(&mut self) {
        // A drained one stays to be looked at, and the others' requests need another.
        let taking: Vec<_> = self.running().filter(|worker| !self.is_drained(*worker)).collect();
        let [_, .., worker] = taking[..] else { return };
        info!("cheaper: worker {worker} is not needed");
        self.make_cheap(worker);
    }

    pub(super) fn make_cheap(&mut self, worker: WorkerId) {
        self.children.abandon(Post::Worker(worker), &mut self.timers);
        let instances: Vec<_> = self.children.of(Post::Worker(worker)).map(|child| child.id).collect();
        for id in instances {
            self.dismiss(id, Why::For(Reason::Idle));
        }
    }

    /// Lets every worker go until somebody connects.
    fn fall_asleep(&mut self, why: &str) {
        let watches: std::io::Result<Vec<_>> =
            self.sockets.workers.iter().map(|(listener, _)| watch(listener)).collect();
        let watches = match watches {
            Ok(watches) => watches,
            Err(failure) => {
                // Nobody would wake them.
                error!("{why}: the sockets cannot be watched: {failure}: the workers stay");
                let fewest = fewest_at_start(&self.config);
                self.load.active_at = Some(Instant::now());
                self.add_workers(fewest.saturating_sub(self.running().count() as u32));
                return;
            }
        };
        info!("{why}: no worker runs until a request comes");
        for worker in self.worker_ids() {
            self.make_cheap(worker);
        }
        if self.chain.take().is_some() {
            // Those that are started next are of the new generation: nothing is left to be replaced.
            self.tell_ready();
        }
        let tasks = watches.into_iter().map(|watched| {
            let events = self.events.clone();
            let task = tokio::task::spawn_local(async move {
                if watched.readable().await.is_ok() {
                    // The loop is gone only when the process is about to be.
                    let _ = events.send(Event::Wake).await;
                }
            });
            Task(task.abort_handle())
        });
        self.load.asleep = Some(tasks.collect());
        if self.sockets.link.is_some() {
            self.timers.set(Timer::Load, Instant::now() + ROUTER_INTERVAL);
        }
    }

    /// Somebody has connected while no worker ran.
    pub(super) fn wake(&mut self) {
        if self.phase != Phase::Serving || self.load.asleep.take().is_none() {
            return;
        }
        let now = Instant::now();
        self.load.active_at = Some(now);
        self.load.last = None;
        self.timers.set(Timer::Load, now + INTERVAL);
        info!("a request has come: starting workers");
        self.add_workers(fewest_at_start(&self.config));
    }
}

/// Readable when somebody waits to be accepted.
#[allow(unsafe_code)]
fn watch(listener: &Listener) -> std::io::Result<AsyncFd<OwnedFd>> {
    let listener = listener.fd().try_clone_to_owned()?;
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
