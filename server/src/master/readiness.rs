//! Whether the server wants new requests, and its control group: for the stats and for probes.

use std::fmt;
use std::time::Instant;

use rwsgi_stats::{Reloads, Snapshot};

use super::children::Child;
use super::state::{Master, Phase};
use crate::ids::GenerationNumber;

/// Why the server wants no new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotReady {
    Stopping,
    Loading,
    NoWorker,
    NoRouter,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopping => "stopping: the server finishes what it has",
            Self::Loading => "loading: the application is not loaded yet",
            Self::NoWorker => "no worker accepts: none has started yet, or all are stopped or died",
            Self::NoRouter => "the http router does not run: it is being started again",
        })
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
        if self.generations.current().is_none() {
            return Err(NotReady::Loading);
        }
        // The next request wakes one.
        let needs_no_worker = self.load.asleep.is_some() || self.config.processes == 0;
        let accepts = |child: &Child| child.is_ready() && child.stopped_since.is_none();
        if !needs_no_worker && !self.children.workers().any(accepts) {
            return Err(NotReady::NoWorker);
        }
        if !self.sockets.router.is_empty() && self.router_channel.is_none() {
            return Err(NotReady::NoRouter);
        }
        Ok(())
    }

    /// Puts into a snapshot what a balancer or an orchestrator wants to know.
    pub(super) fn describe_readiness(&mut self, snapshot: &mut Snapshot) {
        snapshot.ready = Some(self.readiness().is_ok());
        snapshot.draining = Some(self.phase != Phase::Serving);
        snapshot.reloads = Some(self.reload_count.count);
        snapshot.cgroup = self.control_group.sample(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
