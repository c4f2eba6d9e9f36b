//! Requests that the http router has dispatched ahead to a thread, and that the thread has not begun: who has each.
//!
//! The router sends a fast thread several requests at once (see [`rwsgi_protocol::link`]). Until the thread begins one,
//! the router may cancel it, for a thread that is free. Both do a compare-and-exchange on the request's byte here, so
//! that exactly one of them gets it. A byte stands for the link's every eighth request: no more are dispatched ahead.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU64};

use crate::clock::MonotonicNanos;
use rwsgi_protocol::link::AHEAD_MAX;

/// The router sends it; neither has it yet.
const DISPATCHED: u8 = 1;
/// The thread has begun it.
const TAKEN: u8 = 2;
/// The router has it again.
const CANCELLED: u8 = 3;

/// What is dispatched ahead to one thread. On a cache line of its own, which two processes write.
#[repr(C, align(64))]
#[derive(Default)]
pub struct AheadCells {
    requests: [AtomicU8; AHEAD_MAX],
    /// See [`AheadCells::not_begun_since`].
    not_begun_since: AtomicU64,
}

impl AheadCells {
    /// The router is about to send request `number` of this link. No more than [`AHEAD_MAX`] may be unanswered.
    pub fn dispatch(&self, number: u8) {
        self.place(number).store(DISPATCHED, Release);
    }

    /// The thread begins with request `number`; `false` when the router has cancelled it.
    #[must_use]
    pub fn take(&self, number: u8) -> bool {
        self.exchange(number, TAKEN)
    }

    /// The router wants request `number` back; `false` when the thread has begun with it.
    #[must_use]
    pub fn cancel(&self, number: u8) -> bool {
        self.exchange(number, CANCELLED)
    }

    /// Whether the thread has begun with request `number`.
    #[must_use]
    pub fn is_taken(&self, number: u8) -> bool {
        self.place(number).load(Acquire) == TAKEN
    }

    /// Since when the thread should have begun with a request, where that is so long that the router looks for another
    /// thread. The worker is stopped, or hangs, or does not get the processor. What lies in the future is no moment of
    /// the router's.
    #[must_use]
    pub fn not_begun_since(&self) -> Option<MonotonicNanos> {
        let since = Some(self.not_begun_since.load(Relaxed)).filter(|since| *since != 0)?;
        Some(MonotonicNanos::from_nanos(since)).filter(|since| *since <= MonotonicNanos::now())
    }

    /// Says so, or that the thread goes on. The router's to say.
    pub fn set_not_begun_since(&self, since: Option<MonotonicNanos>) {
        self.not_begun_since.store(since.map_or(0, MonotonicNanos::as_nanos), Relaxed);
    }

    fn exchange(&self, number: u8, state: u8) -> bool {
        self.place(number).compare_exchange(DISPATCHED, state, AcqRel, Acquire).is_ok()
    }

    fn place(&self, number: u8) -> &AtomicU8 {
        &self.requests[usize::from(number) % AHEAD_MAX]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_side_gets_each_request() {
        let dispatched = &AheadCells::default();
        let (mut taken, mut cancelled) = (0, 0);
        std::thread::scope(|scope| {
            for round in 0..=255 {
                dispatched.dispatch(round);
                let worker = scope.spawn(move || dispatched.take(round));
                cancelled += u32::from(dispatched.cancel(round));
                taken += u32::from(worker.join().unwrap());
            }
        });
        assert_eq!(taken + cancelled, 256);
    }

    #[test]
    fn a_thread_that_has_not_begun_is_told_of_until_it_goes_on() {
        let cells = AheadCells::default();
        cells.dispatch(3);
        assert!(!cells.is_taken(3) && cells.not_begun_since().is_none());
        cells.set_not_begun_since(Some(MonotonicNanos::from_nanos(7)));
        assert_eq!(cells.not_begun_since(), Some(MonotonicNanos::from_nanos(7)));
        cells.set_not_begun_since(Some(MonotonicNanos::from_nanos(u64::MAX)));
        assert_eq!(cells.not_begun_since(), None, "no moment of the router's");
        assert!(cells.take(3) && cells.is_taken(3));
        cells.set_not_begun_since(None);
        assert_eq!(cells.not_begun_since(), None);
    }

    #[test]
    fn a_request_is_had_once_and_one_that_was_not_dispatched_never() {
        let dispatched = AheadCells::default();
        assert!(!dispatched.take(0) && !dispatched.cancel(0));
        dispatched.dispatch(0);
        dispatched.dispatch(1);
        assert!(dispatched.take(0) && dispatched.cancel(1));
        assert!(!dispatched.cancel(0) && !dispatched.take(1));
        // The same byte again, for a later request.
        dispatched.dispatch(8);
        assert!(dispatched.take(8));
    }
}
