//! What one server, or one generation of it, did in a time.

use crate::Counts;
use crate::route::{self, Routes};
use crate::servers::States;

/// Whether a server tells something, and what.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Told<T> {
    /// Nothing was seen that could have told it.
    #[default]
    Unseen,
    /// It does.
    Yes(T),
    /// It does not, at least not always: what is known of a part says nothing of the whole.
    No,
}

impl<T: Clone> Told<T> {
    /// What an answer tells.
    pub fn of(answer: Option<T>) -> Self {
        answer.map_or(Self::No, Self::Yes)
    }

    /// What is told; `None` when it is not.
    pub fn get(&self) -> Option<&T> {
        if let Self::Yes(value) = self { Some(value) } else { None }
    }

    /// Takes in what was told besides.
    fn add(&mut self, other: &Self, join: impl FnOnce(&mut T, &T)) {
        match (&mut *self, other) {
            (_, Self::Unseen) | (Self::No, _) => {}
            (Self::Yes(value), Self::Yes(other)) => join(value, other),
            _ => *self = other.clone(),
        }
    }
}

/// What a server, or one of its workers, did while it was watched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// Samples that each ended a step.
    pub samples: u64,
    /// Times that the server was restarted.
    pub restarts: u64,
    /// Seconds that are covered.
    pub seconds: f64,
    /// Requests completed.
    pub requests: u64,
    /// Requests that raised.
    pub exceptions: u64,
    /// Requests ended for running too long.
    pub harakiri: u64,
    /// Processes started beyond each worker's first.
    pub respawns: u64,
    /// Refused because a queue was full.
    pub refused: u64,
    /// Bytes sent.
    pub tx: u64,
    /// Responses by status: from 400 to 499, and 500 or more.
    pub failed: Told<[u64; 2]>,
    /// Latencies.
    pub latency: Told<Counts>,
    /// Waiting times in the router's queue.
    pub waiting: Told<Counts>,
    /// Seconds of cores in requests, and of cores in all.
    pub busy: Told<(f64, f64)>,
    /// Seconds of processors.
    pub cpu: Told<f64>,
    /// The most resident memory of a worker, bytes.
    pub rss_max: Told<u64>,
    /// The most resident memory of all workers together, bytes.
    pub rss_sum: Told<u64>,
    /// The most memory of all workers with shared pages divided, bytes.
    pub pss_sum: Told<u64>,
    /// The most memory of a worker on average with shared pages divided, bytes.
    pub pss_mean: Told<u64>,
    /// The most that waited.
    pub queue_max: Told<u64>,
    /// The fewest workers that had a process.
    pub workers_min: Told<u64>,
    /// What each route did.
    pub routes: Told<Routes>,
    /// The most that a monitor found wrong at once.
    pub findings: Told<u64>,
    /// What the server was, of several.
    pub states: Told<States>,
    /// The most busy threads and waiting requests, by all threads; 1 is all of them busy.
    pub saturation: Told<f64>,
    /// The most in which it stood out from the other servers at once.
    pub outliers: Told<u64>,
}

impl Window {
    /// Takes in what followed.
    pub fn then(&mut self, next: &Self) {
        let seconds = self.seconds + next.seconds;
        self.add(next);
        self.seconds = seconds;
    }

    /// Takes in what another server did in the same time.
    pub fn beside(&mut self, other: &Self) {
        let seconds = self.seconds.max(other.seconds);
        self.add(other);
        self.seconds = seconds;
    }

    fn add(&mut self, other: &Self) {
        for (sum, count) in [
            (&mut self.samples, other.samples),
            (&mut self.restarts, other.restarts),
            (&mut self.requests, other.requests),
            (&mut self.exceptions, other.exceptions),
            (&mut self.harakiri, other.harakiri),
            (&mut self.respawns, other.respawns),
            (&mut self.refused, other.refused),
            (&mut self.tx, other.tx),
        ] {
            *sum = sum.saturating_add(count);
        }
        self.failed.add(&other.failed, |sum, more| {
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
        });
        self.latency.add(&other.latency, Counts::merge);
        self.waiting.add(&other.waiting, Counts::merge);
        self.busy.add(&other.busy, |sum, more| *sum = (sum.0 + more.0, sum.1 + more.1));
        self.routes.add(&other.routes, route::add);
        self.cpu.add(&other.cpu, |sum, more| *sum += more);
        self.states.add(&other.states, States::add);
        self.saturation.add(&other.saturation, |most, value| *most = most.max(*value));
        for (most, value) in [
            (&mut self.rss_max, &other.rss_max),
            (&mut self.rss_sum, &other.rss_sum),
            (&mut self.pss_sum, &other.pss_sum),
            (&mut self.pss_mean, &other.pss_mean),
            (&mut self.queue_max, &other.queue_max),
            (&mut self.findings, &other.findings),
            (&mut self.outliers, &other.outliers),
        ] {
            most.add(value, |most, value| *most = (*most).max(*value));
        }
        self.workers_min.add(&other.workers_min, |least, value| *least = (*least).min(*value));
    }
}
