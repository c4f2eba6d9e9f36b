//! Requests that the http router has dispatched ahead to a thread, and that the thread has not begun: who has each.
//!
//! The router sends a quick thread several requests at once (see [`crate::protocol::link`]). Until the thread begins one,
//! the router may cancel it, for a thread that is free. Both do a compare-and-exchange on the request's byte here, so
//! that exactly one of them gets it. A byte stands for the link's every eighth request: no more are dispatched ahead.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use crate::protocol::link::AHEAD_MAX;

/// The router sends it; neither has it yet.
const DISPATCHED: u8 = 1;
/// The thread has begun it.
const TAKEN: u8 = 2;
/// The router has it again.
const CANCELLED: u8 = 3;

/// What is dispatched ahead to one thread. On a cache line of its own, which two processes write.
#[repr(C, align(64))]
pub struct AheadCells([AtomicU8; AHEAD_MAX]);

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

    fn exchange(&self, number: u8, state: u8) -> bool {
        self.place(number).compare_exchange(DISPATCHED, state, AcqRel, Acquire).is_ok()
    }

    fn place(&self, number: u8) -> &AtomicU8 {
        &self.0[usize::from(number) % AHEAD_MAX]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_side_gets_each_request() {
        let dispatched = &AheadCells(Default::default());
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
    fn a_request_is_had_once_and_one_that_was_not_dispatched_never() {
        let dispatched = AheadCells(Default::default());
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
