//! The small things that processes share, each in its place in one mapping: locks, a count of the master's, metrics.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64};

use super::memory::{Memory, Mutex};
use crate::config::Between;

/// The mapping.
#[derive(Debug)]
pub struct Board {
    memory: Memory,
    locks: usize,
}

fn size(between: &Between) -> usize {
    locks(between) * size_of::<Mutex>() + (between.metrics.len() + 1) * size_of::<AtomicI64>()
}

/// The first lock is always there.
fn locks(between: &Between) -> usize {
    between.locks as usize + 1
}

impl Board {
    /// Makes one.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn create(between: &Between) -> nix::Result<Self> {
        let board = Self { memory: Memory::create(c"rwsgi-board", size(between))?, locks: locks(between) };
        (0..board.locks).filter_map(|number| board.lock(number)).try_for_each(Mutex::prepare)?;
        for (index, metric) in between.metrics.iter().enumerate() {
            board.metric(index).store(metric.initial, Relaxed);
        }
        Ok(board)
    }

    /// Maps one that the master made.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn map(file: OwnedFd, between: &Between) -> nix::Result<Self> {
        Ok(Self { memory: Memory::map(file, size(between))?, locks: locks(between) })
    }

    /// The memory file.
    #[must_use]
    pub fn file(&self) -> std::os::fd::BorrowedFd<'_> {
        self.memory.file()
    }

    /// A lock, by its number from 0.
    #[must_use]
    pub fn lock(&self, number: usize) -> Option<&Mutex> {
        (number < self.locks).then(|| self.memory.at(number * size_of::<Mutex>()))
    }

    /// The value of a metric, by its place in the configuration.
    ///
    /// # Panics
    /// When there is none in that place.
    #[must_use]
    pub fn metric(&self, index: usize) -> &AtomicI64 {
        self.memory.at(self.locks * size_of::<Mutex>() + (index + 1) * size_of::<AtomicI64>())
    }

    fn past(&self) -> &AtomicU64 {
        self.memory.at(self.locks * size_of::<Mutex>())
    }

    /// Requests that were served by processes of workers that are gone.
    #[must_use]
    pub fn past_requests(&self) -> u64 {
        self.past().load(Relaxed)
    }

    /// The master counts the requests of a process that is gone.
    pub fn add_past_requests(&self, requests: u64) {
        self.past().fetch_add(requests, Relaxed);
    }
}
