//! What a worker process reports of itself as a whole, and what the master orders it.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::corrupt::Corrupt;
use super::counters::add;
use crate::clock::MonotonicNanos;

/// One process of a worker: written by that process, but for what the master tells it.
#[repr(C, align(64))]
pub struct WorkerCell {
    accepting: AtomicU32,
    /// The master's word.
    drained: AtomicU32,
    /// The master was told of something of slow requests, and has not looked: it takes this back.
    told: AtomicU32,
    collections: AtomicU64,
    collecting: AtomicU64,
    longest: AtomicU64,
    collected: AtomicU64,
    /// What the master has ordered and no thread has begun; 0 for nothing. [`crate::ipc::worker_order`] says what it means.
    order: AtomicU64,
    /// Behind what threads look at for each batch of events.
    by_generation: [AtomicU64; 3],
}

/// Python's garbage collections in a process, or in several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcCounts {
    /// How many.
    pub collections: u64,
    /// Time in them, ns.
    pub time: u64,
    /// The longest, ns.
    pub longest: u64,
    /// Objects that they freed.
    pub collected: u64,
    /// How many of each generation of objects.
    pub by_generation: [u64; 3],
}

impl std::ops::AddAssign for GcCounts {
    fn add_assign(&mut self, other: Self) {
        self.collections = self.collections.saturating_add(other.collections);
        self.time = self.time.saturating_add(other.time);
        self.longest = self.longest.max(other.longest);
        self.collected = self.collected.saturating_add(other.collected);
        for (sum, count) in self.by_generation.iter_mut().zip(other.by_generation) {
            *sum = sum.saturating_add(count);
        }
    }
}

impl WorkerCell {
    /// Whether the worker takes new requests.
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting.into(), Release);
    }

    /// Whether the worker is to take no new requests.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained.into(), Release);
    }

    /// Whether the worker is to take no new requests.
    pub fn drained(&self) -> bool {
        self.drained.load(Acquire) != 0
    }

    /// Whether the worker takes new requests.
    pub fn accepting(&self) -> bool {
        self.accepting.load(Acquire) != 0
    }

    /// For the master: orders something, unless there is an order that no thread has begun. Whether it did.
    pub fn give_order(&self, order: NonZeroU64) -> bool {
        self.order.compare_exchange(0, order.get(), AcqRel, Relaxed).is_ok()
    }

    /// For the master: takes an order back. Whether no thread had begun it.
    pub fn take_order_back(&self, order: NonZeroU64) -> bool {
        self.order.compare_exchange(order.get(), 0, AcqRel, Relaxed).is_ok()
    }

    /// For a thread of the worker: whether there is an order, as far as it knows yet.
    #[inline]
    pub fn has_order(&self) -> bool {
        self.order.load(Relaxed) != 0
    }

    /// For a thread of the worker: the order, which no other thread gets then.
    pub fn begin_order(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.order.swap(0, AcqRel))
    }

    /// There is something of slow requests for the master; returns whether it must be told.
    pub fn tells(&self) -> bool {
        self.told.swap(1, SeqCst) == 0
    }

    /// The master is about to look: from now on it is told again.
    pub fn hears(&self) {
        self.told.store(0, SeqCst);
    }

    /// A garbage collection of a generation of objects took so long, ns, and freed so many of them. The caller is
    /// Python's garbage collector, of which one runs at a time.
    pub fn count_collection(&self, generation: usize, took: u64, collected: u64) {
        add(&self.collections, 1);
        if let Some(count) = self.by_generation.get(generation) {
            add(count, 1);
        }
        add(&self.collecting, took);
        add(&self.collected, collected);
        self.longest.store(self.longest.load(Relaxed).max(took), Relaxed);
    }

    /// Its garbage collections.
    ///
    /// # Errors
    /// When no worker has counted that.
    pub fn garbage(&self) -> Result<GcCounts, Corrupt> {
        let [collections, time, longest, collected] =
            [&self.collections, &self.collecting, &self.longest, &self.collected].map(|count| count.load(Relaxed));
        Corrupt::refuse_beyond(MonotonicNanos::now(), &[collections, time, longest, collected])?;
        let by_generation = self.by_generation.each_ref().map(|count| count.load(Relaxed));
        Corrupt::refuse_beyond(MonotonicNanos::now(), &by_generation)?;
        Ok(GcCounts { collections, time, longest, collected, by_generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_begun_once_or_taken_back() {
        let cell = crate::shared_memory::zeroed::<WorkerCell>();
        let [one, two] = [1, 2].map(|order| NonZeroU64::new(order).unwrap());
        assert!(!cell.has_order() && cell.begin_order().is_none());
        assert!(cell.give_order(one));
        assert!(!cell.give_order(two), "one at a time");
        assert!(!cell.take_order_back(two), "another's is left");
        assert!(cell.has_order() && cell.begin_order() == Some(one));
        assert!(cell.begin_order().is_none() && !cell.take_order_back(one), "it was begun");
        assert!(cell.give_order(two) && cell.take_order_back(two));
        assert!(cell.begin_order().is_none());
    }
}
