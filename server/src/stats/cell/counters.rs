//! What is counted of a thread.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::corrupt::Corrupt;
use crate::clock::MonotonicNanos;

/// More bytes than any thread hands to the kernel in a nanosecond.
const BYTES_A_NANOSECOND: u64 = 1_000;

/// Adds to a counter that only the caller writes.
#[inline]
pub(in crate::stats) fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// Counters of one thread, or of several added up. What is beyond the largest number stays at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests completed.
    pub requests: u64,
    /// Requests in which the application raised an exception.
    pub exceptions: u64,
    /// Requests that could not be read whole.
    pub read_errors: u64,
    /// Responses that could not be sent whole.
    pub write_errors: u64,
    /// Bytes sent.
    pub tx: u64,
    /// Responses by class, 1xx to 5xx.
    pub responses: [u64; 5],
    /// Time in completed requests, ns.
    pub running: u64,
    /// Time waited for Python's global lock, ns.
    pub gil_wait: u64,
}

impl Counters {
    /// Refuses what one thread cannot have done up to `now`.
    pub(super) fn refuse_impossible(&self, now: MonotonicNanos) -> Result<(), Corrupt> {
        let Self { requests, exceptions, read_errors, write_errors, tx, responses, running, gil_wait } = *self;
        Corrupt::refuse_beyond(
            now,
            &[requests, read_errors, write_errors, running, gil_wait, tx / BYTES_A_NANOSECOND],
        )?;
        // A request that is just being counted may be in one of them already.
        let most = requests.saturating_add(1);
        let answered = responses.iter().fold(0u64, |sum, class| sum.saturating_add(*class));
        if answered.max(exceptions) <= most { Ok(()) } else { Err(Corrupt::Counters) }
    }
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.requests, other.requests);
        add(&mut self.exceptions, other.exceptions);
        add(&mut self.read_errors, other.read_errors);
        add(&mut self.write_errors, other.write_errors);
        add(&mut self.tx, other.tx);
        self.responses.iter_mut().zip(other.responses).for_each(|(sum, more)| add(sum, more));
        add(&mut self.running, other.running);
        add(&mut self.gil_wait, other.gil_wait);
    }
}
