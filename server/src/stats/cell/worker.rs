//! What a worker process reports of itself as a whole, and what the master orders it.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// One process of a worker: written by that process, but for what the master tells it.
#[repr(C, align(64))]
pub struct WorkerCell {
    accepting: AtomicU32,
    /// The master's word.
    drained: AtomicU32,
    /// What the master has ordered and no thread has begun; 0 for nothing. [`crate::ipc::worker_order`] says what it means.
    order: AtomicU64,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_begun_once_or_taken_back() {
        let cell = WorkerCell { accepting: AtomicU32::new(0), drained: AtomicU32::new(0), order: AtomicU64::new(0) };
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
