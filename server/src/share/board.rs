//! The small things that processes share, each in its place in one mapping: locks, a count of the master's, metrics.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::mutex::Mutex;
use super::parts::{PartedMemory, Parts};
use rwsgi_config::Between;

/// The mapping.
#[derive(Debug)]
pub(crate) struct Board {
    memory: PartedMemory,
}

/// The place of the count of requests among the numbers; the metrics follow.
const PAST_REQUESTS: usize = 0;
/// The place of the count of requests in the access log.
const LOGGED: usize = 1;
const METRICS: usize = 2;

fn parts(between: &Between) -> Parts {
    // The first lock is always there.
    Parts { mutexes: between.locks as usize + 1, numbers: METRICS + between.metrics.len(), guarded: 0 }
}

impl Board {
    /// Makes one.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(crate) fn create(between: &Between) -> nix::Result<Self> {
        let board = Self { memory: PartedMemory::create(c"rwsgi-board", parts(between))? };
        for (index, metric) in between.metrics.iter().enumerate() {
            board.metric(index).set(metric.initial);
        }
        Ok(board)
    }

    /// Maps one that the master made.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub(crate) fn map(file: OwnedFd, between: &Between) -> nix::Result<Self> {
        Ok(Self { memory: PartedMemory::map(file, parts(between))? })
    }

    /// The memory file.
    #[must_use]
    pub(crate) fn file(&self) -> std::os::fd::BorrowedFd<'_> {
        self.memory.file()
    }

    /// A lock, by its number from 0.
    #[must_use]
    pub(crate) fn lock(&self, number: usize) -> Option<&Mutex> {
        self.memory.mutex(number)
    }

    /// A metric, by its place in the configuration.
    ///
    /// # Panics
    /// When there is none in that place.
    #[must_use]
    pub(crate) fn metric(&self, index: usize) -> Metric<'_> {
        Metric(self.memory.number(METRICS + index))
    }

    /// Requests that were served by processes of workers that are gone.
    #[must_use]
    pub(crate) fn past_requests(&self) -> u64 {
        self.memory.number(PAST_REQUESTS).load(Relaxed)
    }

    /// Counts a request in the access log, and returns how many that makes.
    pub(crate) fn count_logged(&self) -> u64 {
        self.memory.number(LOGGED).fetch_add(1, Relaxed) + 1
    }

    /// The master counts the requests of a process that is gone.
    pub(crate) fn add_past_requests(&self, requests: u64) {
        self.memory.number(PAST_REQUESTS).fetch_add(requests, Relaxed);
    }
}

/// A signed number that all processes have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric<'a>(&'a AtomicU64);

impl Metric<'_> {
    /// Its value.
    #[must_use]
    pub(crate) fn get(self) -> i64 {
        self.0.load(Relaxed).cast_signed()
    }

    /// Makes it another.
    pub(crate) fn set(self, value: i64) {
        self.0.store(value.cast_unsigned(), Relaxed);
    }

    /// Makes another of it, in one step for everybody else. `change` may be called several times.
    pub(crate) fn update(self, change: impl Fn(i64) -> i64) {
        let bits = |bits: u64| Some(change(bits.cast_signed()).cast_unsigned());
        // The closure always gives a value, so that this cannot fail.
        let _ = self.0.fetch_update(Relaxed, Relaxed, bits);
    }
}
