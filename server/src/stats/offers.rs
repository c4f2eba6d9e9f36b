//! Requests that the front has sent to a core and that the core has not begun with: who has each of them.
//!
//! The front sends a quick core several requests at once (see [`crate::protocol::link`]). Until the core begins with one,
//! the front may want it back, for a core that is free. Both do a compare-and-exchange on the request's byte here, so that
//! exactly one of them gets it. A byte stands for the link's every eighth request: the front offers no more at once.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use crate::protocol::link::OFFERS;

/// The front sends it; neither has it yet.
const OFFERED: u8 = 1;
/// The core has begun with it.
const TAKEN: u8 = 2;
/// The front has it again.
const WITHDRAWN: u8 = 3;

/// What is offered to one core. All-zero memory is valid: nothing is. On a cache line of its own, which two processes
/// write.
#[repr(C, align(64))]
pub struct Offers([AtomicU8; OFFERS]);

impl Offers {
    /// The front is about to send request `number` of this link. No more than [`OFFERS`] may be unanswered.
    pub fn offer(&self, number: u8) {
        self.place(number).store(OFFERED, Release);
    }

    /// The core begins with request `number`; `false` when the front has withdrawn it.
    #[must_use]
    pub fn take(&self, number: u8) -> bool {
        self.exchange(number, TAKEN)
    }

    /// The front wants request `number` back; `false` when the core has begun with it.
    #[must_use]
    pub fn withdraw(&self, number: u8) -> bool {
        self.exchange(number, WITHDRAWN)
    }

    fn exchange(&self, number: u8, state: u8) -> bool {
        self.place(number).compare_exchange(OFFERED, state, AcqRel, Acquire).is_ok()
    }

    fn place(&self, number: u8) -> &AtomicU8 {
        &self.0[usize::from(number) % OFFERS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_side_gets_each_request() {
        let offers = &Offers(Default::default());
        let (mut taken, mut withdrawn) = (0, 0);
        std::thread::scope(|scope| {
            for round in 0..=255 {
                offers.offer(round);
                let worker = scope.spawn(move || offers.take(round));
                withdrawn += u32::from(offers.withdraw(round));
                taken += u32::from(worker.join().unwrap());
            }
        });
        assert_eq!(taken + withdrawn, 256);
    }

    #[test]
    fn a_request_is_had_once_and_one_that_was_not_offered_never() {
        let offers = Offers(Default::default());
        assert!(!offers.take(0) && !offers.withdraw(0));
        offers.offer(0);
        offers.offer(1);
        assert!(offers.take(0) && offers.withdraw(1));
        assert!(!offers.withdraw(0) && !offers.take(1));
        // The same byte again, for a later request.
        offers.offer(8);
        assert!(offers.take(8));
    }
}
