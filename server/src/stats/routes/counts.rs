//! What was counted of a route.

use rwsgi_stats::{Responses, Route};

use super::latencies;
use crate::clock::MonotonicNanos;
use crate::stats::cell::{Corrupt, ExceptionReport};

/// How long the slowest request of a route is remembered, ns.
pub(super) const SLOWEST_LASTS: u64 = 300_000_000_000;
/// More bytes than any thread hands to the kernel in a nanosecond.
const BYTES_A_NANOSECOND: u64 = 1_000;
/// More than any process's memory grows by, bytes.
const GROWTH_MAX: u64 = 1 << 60;

/// What was counted of a route, by one process or by several. What is beyond the largest number stays at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteCounts {
    /// Requests completed.
    pub requests: u64,
    /// Requests in which the application raised an exception.
    pub exceptions: u64,
    /// Time in completed requests, ns.
    pub running: u64,
    /// Bytes sent.
    pub tx: u64,
    /// Responses by class, 1xx to 5xx.
    pub responses: [u64; 5],
    /// Time that its requests waited for Python's global lock, ns.
    pub gil_wait: u64,
    /// Requests around which resident memory was read.
    pub memory_samples: u64,
    /// By how much it grew in those, bytes.
    pub memory_growth: i64,
    /// Counters of latencies, see [`latencies`].
    pub(super) latency: Vec<u64>,
}

impl RouteCounts {
    /// The latencies as the stats document has them.
    #[must_use]
    pub fn encode_latency(&self) -> String {
        latencies::encode(&self.latency)
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.numbers_mut().into_iter().zip(other.numbers()) {
            *sum = sum.saturating_add(more);
        }
        self.memory_growth = self.memory_growth.saturating_add(other.memory_growth);
        if self.latency.len() < other.latency.len() {
            self.latency.resize(other.latency.len(), 0);
        }
        for (sum, more) in self.latency.iter_mut().zip(&other.latency) {
            *sum = sum.saturating_add(*more);
        }
    }

    /// What has come since `earlier`.
    ///
    /// # Errors
    /// When something is less than it was.
    pub(super) fn since(&self, earlier: &Self) -> Result<Self, Corrupt> {
        let mut new = self.clone();
        for (count, before) in new.numbers_mut().into_iter().zip(earlier.numbers()) {
            *count = count.checked_sub(before).ok_or(Corrupt::Counters)?;
        }
        new.memory_growth = new.memory_growth.checked_sub(earlier.memory_growth).ok_or(Corrupt::Counters)?;
        if earlier.latency.len() > new.latency.len() {
            return Err(Corrupt::Counters);
        }
        for (count, before) in new.latency.iter_mut().zip(&earlier.latency) {
            *count = count.checked_sub(*before).ok_or(Corrupt::Counters)?;
        }
        Ok(new)
    }

    /// Refuses what `threads` threads cannot have done up to `now`, when there were `requests_after` requests by the time
    /// that all of it was read.
    pub(super) fn refuse_impossible(
        &self,
        now: MonotonicNanos,
        threads: u32,
        requests_after: u64,
    ) -> Result<(), Corrupt> {
        let Self { requests, exceptions, running, tx, responses, gil_wait, memory_samples, memory_growth, latency } =
            self;
        let most = now.as_nanos().saturating_mul(threads.into());
        let is_possible = [*requests, requests_after, *running, *gil_wait, *tx / BYTES_A_NANOSECOND]
            .iter()
            .all(|count| *count <= most);
        // The request that is just being counted may be in any of them.
        let beside = |count: u64| count <= requests_after.saturating_add(1);
        let sum = |counts: &[u64]| counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
        let fits = beside(*exceptions) && beside(sum(responses)) && beside(*memory_samples) && beside(sum(latency));
        if is_possible && fits && memory_growth.unsigned_abs() <= GROWTH_MAX { Ok(()) } else { Err(Corrupt::Counters) }
    }

    fn numbers(&self) -> [u64; 11] {
        let [r1, r2, r3, r4, r5] = self.responses;
        let Self { requests, exceptions, running, tx, gil_wait, memory_samples, .. } = *self;
        [requests, exceptions, running, tx, gil_wait, memory_samples, r1, r2, r3, r4, r5]
    }

    fn numbers_mut(&mut self) -> [&mut u64; 11] {
        let Self { requests, exceptions, running, tx, responses, gil_wait, memory_samples, .. } = self;
        let [r1, r2, r3, r4, r5] = responses;
        [requests, exceptions, running, tx, gil_wait, memory_samples, r1, r2, r3, r4, r5]
    }

    /// The row of the stats document, without its exception and its slowest request.
    pub(super) fn row(&self, route: &str, named: bool) -> Route {
        let [informational, success, redirect, client_error, server_error] = self.responses;
        Route {
            route: route.to_owned(),
            named,
            requests: self.requests,
            busy_time: self.running / 1_000,
            latency: self.encode_latency(),
            responses: Responses { informational, success, redirect, client_error, server_error },
            exceptions: self.exceptions,
            tx: self.tx,
            gil_wait: self.gil_wait / 1_000,
            memory_samples: self.memory_samples,
            memory_growth: self.memory_growth,
            last_exception: None,
            slowest: None,
        }
    }
}

/// The slowest request of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slowest {
    /// When it ended.
    pub when: MonotonicNanos,
    /// How long it took, µs.
    pub took: u64,
    /// Method and URI, as they came.
    pub request: String,
}

/// What has come to a route since it was read last, in one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteDelta {
    /// The route; `None` for all that have no row of their own.
    pub route: Option<String>,
    /// The application has named it.
    pub named: bool,
    /// How often it has come in this process since it got its row there.
    pub requests: u64,
    /// What has come.
    pub counts: RouteCounts,
    /// The last exception, when one has come.
    pub exception: Option<ExceptionReport>,
    /// The slowest request, when it is another.
    pub slowest: Option<Slowest>,
}
