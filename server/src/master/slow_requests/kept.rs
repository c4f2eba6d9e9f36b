//! What the master keeps of slow requests: stacks of those in progress, and the last that have ended.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rwsgi_stats::SlowRequest;
use rwsgi_stats::control::Frame;

use crate::clock::MonotonicNanos;
use crate::ids::{SlotId, ThreadIndex};

/// Slow requests that are kept, and shown.
const KEPT: usize = 200;

/// A thread of a worker's process.
pub(super) type Place = (SlotId, ThreadIndex);

/// Where a thread was when its request had taken as long as `slow-request` says.
#[derive(Clone, Debug)]
pub(super) struct StackTaken {
    /// When the request began.
    pub(super) started: MonotonicNanos,
    /// When the stack was taken.
    pub(super) at: MonotonicNanos,
    /// Resident memory of the process then, bytes; 0 when unknown.
    pub(super) rss: u64,
    /// Its lines, the innermost first; empty until they have come.
    pub(super) lines: Vec<String>,
    /// The thread did not answer, as one that gets no processor: it is asked again.
    pub(super) is_unanswered: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::master) struct SlowRequests {
    /// A request that takes longer is slow; `None` for never.
    pub(super) threshold: Option<Duration>,
    pub(super) stacks: HashMap<Place, StackTaken>,
    /// No request was in progress at the last look: another look that finds none is the last one, until a worker wakes the
    /// master.
    pub(super) is_quiet: bool,
    /// How many records of each thread were taken.
    taken: HashMap<Place, u64>,
    last: VecDeque<SlowRequest>,
    /// The number of the last one.
    count: u64,
}

impl SlowRequests {
    /// How many records of this thread were taken.
    pub(super) fn taken(&mut self, place: Place) -> &mut u64 {
        self.taken.entry(place).or_default()
    }

    /// The process of this slot is gone.
    pub(super) fn forget(&mut self, slot: SlotId) {
        self.taken.retain(|(of, _), _| *of != slot);
        self.stacks.retain(|(of, _), _| *of != slot);
    }

    /// The stack of the request that began then on this thread, which nobody else is given.
    pub(super) fn take_stack(&mut self, place: Place, started: MonotonicNanos) -> Option<StackTaken> {
        let is_its = self.stacks.get(&place).is_some_and(|taken| taken.started == started);
        if is_its { self.stacks.remove(&place) } else { None }
    }

    /// So many were lost before they could be kept: their numbers are passed over.
    pub(super) fn skip(&mut self, lost: u64) {
        self.count = self.count.saturating_add(lost);
    }

    /// Keeps a slow request, and gives it its number.
    pub(super) fn keep(&mut self, mut request: SlowRequest) -> &SlowRequest {
        self.count = self.count.saturating_add(1);
        request.id = self.count;
        self.last.truncate(KEPT - 1);
        self.last.push_front(request);
        &self.last[0]
    }

    /// The last ones, the newest first.
    pub(super) fn last(&self) -> Vec<SlowRequest> {
        self.last.iter().cloned().collect()
    }
}

/// A frame in a line, as tracebacks are in the stats.
pub(super) fn in_a_line(frame: &Frame) -> String {
    format!("{}:{} in {}", frame.file, frame.line, frame.function)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = (SlotId::new(1), ThreadIndex::new(0));

    #[test]
    fn the_last_two_hundred_are_kept_and_what_was_lost_has_numbers() {
        let mut slow = SlowRequests::default();
        for elapsed in 0..250 {
            slow.keep(SlowRequest { elapsed, ..SlowRequest::default() });
        }
        let last = slow.last();
        assert_eq!((last.len(), last[0].id, last[0].elapsed, last[199].id), (200, 250, 249, 51));
        slow.skip(3);
        assert_eq!(slow.keep(SlowRequest::default()).id, 254);
    }

    #[test]
    fn a_stack_is_that_of_the_request_in_which_it_was_taken() {
        let at = MonotonicNanos::from_nanos;
        let mut slow = SlowRequests::default();
        let lines = vec!["a.py:1 in f".into()];
        let taken = StackTaken { started: at(5), at: at(9), rss: 1, lines, is_unanswered: false };
        slow.stacks.insert(PLACE, taken);
        assert!(slow.take_stack(PLACE, at(6)).is_none(), "another request of the thread");
        assert_eq!(slow.take_stack(PLACE, at(5)).unwrap().lines, ["a.py:1 in f"]);
        *slow.taken(PLACE) = 7;
        slow.forget(SlotId::new(2));
        assert_eq!(*slow.taken(PLACE), 7);
        slow.forget(PLACE.0);
        assert_eq!(*slow.taken(PLACE), 0);
    }
}
