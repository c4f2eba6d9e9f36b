//! What waits to be exported: bounded, and the oldest goes first when there is no space.

use std::collections::VecDeque;
use std::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: VecDeque<(usize, T)>,
    bytes: usize,
    most: usize,
    /// When the oldest that was never looked at came.
    since: Option<Instant>,
    /// When the newest came, or grew.
    newest: Instant,
    dropped: u64,
}

impl<T> Queue<T> {
    /// With space for so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { items: VecDeque::new(), bytes: 0, most, since: None, newest: Instant::now(), dropped: 0 }
    }

    /// Adds one that takes so many bytes. Older ones make space for it.
    pub(super) fn push(&mut self, size: usize, item: T) {
        if size > self.most {
            self.dropped += 1;
            return;
        }
        while self.bytes + size > self.most {
            let Some((freed, _)) = self.items.pop_front() else { break };
            self.bytes -= freed;
            self.dropped += 1;
        }
        self.bytes += size;
        self.items.push_back((size, item));
        self.newest = Instant::now();
        self.since.get_or_insert(self.newest);
    }

    /// Lets the newest grow by so many bytes, if there is space; `None` when there is none, or nothing.
    pub(super) fn grow_last(&mut self, by: usize) -> Option<&mut T> {
        if self.bytes + by > self.most {
            return None;
        }
        let (size, last) = self.items.back_mut()?;
        *size += by;
        self.bytes += by;
        self.newest = Instant::now();
        Some(last)
    }

    /// The newest.
    pub(super) fn last(&self) -> Option<&T> {
        self.items.back().map(|(_, item)| item)
    }

    /// Takes the oldest ones, at most `most`.
    pub(super) fn take(&mut self, most: usize) -> Vec<T> {
        let taken = self.items.drain(..most.min(self.items.len()));
        let mut freed = 0;
        let items = taken.map(|(size, item)| (freed += size, item).1).collect();
        self.bytes -= freed;
        self.since = (!self.items.is_empty()).then(Instant::now);
        items
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Since when something waits.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When the newest came, or grew.
    pub(super) fn newest(&self) -> Instant {
        self.newest
    }

    /// How many were dropped since this was asked.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_oldest_make_space_and_are_counted() {
        let mut queue = Queue::new(10);
        (0..5).for_each(|number| queue.push(4, number));
        assert_eq!((queue.len(), queue.take_dropped(), queue.take_dropped()), (2, 3, 0));
        queue.push(11, 9);
        assert_eq!((queue.take_dropped(), queue.len()), (1, 2));
        assert!(queue.grow_last(3).is_none() && queue.grow_last(2).is_some());
        assert_eq!((queue.take(1), queue.take(5)), (vec![3], vec![4]));
        assert!(queue.since().is_none() && queue.bytes == 0);
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_it_may(sizes in prop::collection::vec(0..20_usize, 0..100), take in 0..5_usize) {
            let mut queue = Queue::new(50);
            let mut out = 0;
            for size in &sizes {
                queue.push(*size, ());
                prop_assert!(queue.bytes <= 50);
                out += queue.take(take).len();
            }
            prop_assert_eq!(out + queue.len() + queue.take_dropped() as usize, sizes.len());
        }
    }
}
