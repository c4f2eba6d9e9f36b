//! Whether the server wants new requests: for the stats and for probes. Also adds reloads by outcome and the control group to
//! the stats.

use std::fmt;
use std::time::{Duration, Instant};

use rwsgi_stats::{Reloads, Snapshot};

use super::children::Child;
use super::state::{Master, Phase};
use super::timers::Timer;
use crate::ids::GenerationNumber;
use crate::stats::cell::ThreadSample;

/// How often saturation is looked at, where `ready-saturation` asks for it.
const LOOK: Duration = Duration::from_secs(1);
/// How long it must be on the other side of the limit, at every look, to change what is said: a balancer that is told at every
/// change would send all requests to another server, and then to this one.
const HOLD: Duration = Duration::from_secs(5);

/// Why the server wants no new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotReady {
    Draining,
    Stopping,
    Loading,
    NoWorker,
    NoRouter,
    Saturated,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "draining: the server was told to stop, and still serves what comes",
            Self::Stopping => "stopping: the server finishes what it has",
            Self::Loading => "loading: the application is not loaded yet",
            Self::NoWorker => "no worker accepts: each is starting, has died, or is stopped or drained",
            Self::NoRouter => "the http router does not run: another is started",
            Self::Saturated => "saturated: more requests than ready-saturation allows, for 5 s",
        })
    }
}

/// Whether the server is saturated, as far as probes are told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SaturationWatch {
    is_saturated: bool,
    /// Since when every look has seen the contrary.
    contrary_since: Option<Instant>,
}

impl SaturationWatch {
    fn look(&mut self, is_above: bool, now: Instant) {
        if is_above == self.is_saturated {
            self.contrary_since = None;
        } else if now.saturating_duration_since(*self.contrary_since.get_or_insert(now)) >= HOLD {
            *self = Self { is_saturated: is_above, contrary_since: None };
        }
    }
}

/// Reloads, by outcome.
#[derive(Debug, Default)]
pub(super) struct ReloadCount {
    count: Reloads,
    /// The generation that takes over: none of its workers has served yet.
    taking_over: Option<GenerationNumber>,
}

impl ReloadCount {
    /// A generation takes over.
    pub(super) fn takes_over(&mut self, generation: GenerationNumber) {
        self.taking_over = Some(generation);
    }

    /// A worker of this generation serves.
    pub(super) fn serves(&mut self, generation: Option<GenerationNumber>) {
        if self.taking_over.is_some() && self.taking_over == generation {
            self.taking_over = None;
            self.count.done += 1;
        }
    }

    /// A generation could not be loaded.
    pub(super) fn failed(&mut self) {
        self.count.failed += 1;
    }
}

impl Master {
    /// Whether the server wants new requests.
    pub(super) fn readiness(&self) -> Result<(), NotReady> {
        if self.phase != Phase::Serving {
            return Err(NotReady::Stopping);
        }
        if self.is_draining {
            return Err(NotReady::Draining);
        }
        if self.generations.current().is_none() {
            return Err(NotReady::Loading);
        }
        // The next request wakes one.
        let needs_no_worker = self.load.asleep.is_some() || self.config.processes == 0;
        if !needs_no_worker && !self.children.workers().any(|child| self.accepts(child)) {
            return Err(NotReady::NoWorker);
        }
        if !self.sockets.router.is_empty() && self.router_channel.is_none() {
            return Err(NotReady::NoRouter);
        }
        if self.saturation.is_saturated { Err(NotReady::Saturated) } else { Ok(()) }
    }

    fn accepts(&self, child: &Child) -> bool {
        let is_drained = || child.slot.is_some_and(|slot| self.scoreboard.worker(slot).drained());
        child.is_ready() && child.stopped_since.is_none() && !is_drained()
    }

    /// Looks at the saturation from now on, if it is to be looked at.
    pub(super) fn configure_saturation(&mut self, now: Instant) {
        match self.config.probes.saturation {
            Some(_) => self.timers.set_earlier(Timer::Saturation, now),
            None => {
                self.timers.cancel(Timer::Saturation);
                self.saturation = SaturationWatch::default();
            }
        }
    }

    /// Looks at it once.
    pub(super) fn watch_saturation(&mut self, now: Instant) {
        let Some(most) = self.config.probes.saturation else { return };
        self.timers.set(Timer::Saturation, now + LOOK);
        let is_above = self.saturation_now().is_some_and(|now| now * 1e3 >= f64::from(most));
        self.saturation.look(is_above, now);
    }

    /// As [`rwsgi_stats::saturation`] of a snapshot, without making one.
    fn saturation_now(&mut self) -> Option<f64> {
        let slots = self.children.workers().filter(|child| !child.is_leaving()).filter_map(|child| child.slot);
        let cells = slots.flat_map(|slot| self.scoreboard.threads(slot));
        let (mut threads, mut busy) = (0_u64, 0_u64);
        for cell in cells {
            threads += 1;
            busy += u64::from(matches!(cell.read(), Ok(ThreadSample { started: Some(_), .. })));
        }
        (threads > 0).then(|| (busy + self.waiting()) as f64 / threads as f64)
    }

    /// Puts into a snapshot what a balancer or an orchestrator wants to know.
    pub(super) fn describe_readiness(&mut self, snapshot: &mut Snapshot) {
        snapshot.ready = Some(self.readiness().is_ok());
        snapshot.draining = Some(self.is_stopping());
        snapshot.reloads = Some(self.reload_count.count);
        snapshot.cgroup = self.control_group.sample(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturation_counts_only_when_it_lasts_and_ends_only_when_it_is_over_for_as_long() {
        let (mut watch, start) = (SaturationWatch::default(), Instant::now());
        let mut look = |second: u64, is_above| {
            watch.look(is_above, start + Duration::from_secs(second));
            watch.is_saturated
        };
        let looks: Vec<bool> = (0..4).map(|second| look(second, true)).collect();
        assert_eq!(looks, [false; 4]);
        assert!(!look(4, false) && !look(5, true) && !look(9, true), "it was interrupted");
        assert!(look(10, true));
        assert!(look(11, false) && look(15, false) && look(16, true) && look(17, false) && look(21, false));
        assert!(!look(22, false));
    }

    #[test]
    fn a_reload_is_done_when_a_worker_of_it_serves() {
        let mut count = ReloadCount::default();
        let first = GenerationNumber::FIRST;
        count.serves(Some(first));
        count.serves(None);
        assert_eq!(count.count, Reloads::default(), "nothing was reloaded");
        count.takes_over(first.next());
        count.serves(Some(first));
        assert_eq!(count.count.done, 0);
        count.serves(Some(first.next()));
        count.serves(Some(first.next()));
        count.failed();
        assert_eq!(count.count, Reloads { done: 1, failed: 1 });
    }
}
