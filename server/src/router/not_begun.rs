//! Requests that a thread was sent and has not begun with: its worker is stopped, or hangs, or does not get the
//! processor.
//!
//! Such a request is cancelled when a thread of another worker is free, and when none is for [`PATIENCE`]; then it
//! waits in the queue, before all others, for the first free thread. No timer and no system call belongs to a request:
//! the threads are looked through a while after the first of them was sent something, and again as long as one has not
//! begun.
//!
//! The master finds the same in the thread's cell (`stats::cell::AheadCells::not_begun_since`), and can name the
//! worker.

use super::dispatch::Keep;
use super::keyed::Key;
use super::link::Link;
use super::stall::{cells, go_on};
use super::state::Router;

/// How many times as long a request stays with its thread when no other is free.
const PATIENCE: u64 = 20;

impl Router<'_> {
    /// Cancels what was not begun with, when it is time to look.
    #[inline]
    pub(super) fn check_begun(&mut self) {
        if self.check_begun.is_some_and(|check| self.now >= check) {
            self.look_for_stalled();
        }
    }

    #[cold]
    fn look_for_stalled(&mut self) {
        let (mut waits, mut late) = (false, Vec::new());
        for key in self.links.keys(Link::has_first) {
            let Some(link) = self.links.get_mut(key) else { continue };
            let Some(cells) = cells(self.board, link) else { continue };
            if link.has_begun(cells) {
                go_on(self.board, &mut self.threads, link);
                continue;
            }
            waits = true;
            let waited = self.now.nanos_since(link.begun);
            if waited >= self.limits.not_begun {
                if !std::mem::replace(&mut link.is_stalled, true) {
                    cells.set_not_begun_since(Some(link.begun));
                    self.threads.stall(link.pid);
                }
                late.push((waited, key));
            }
        }
        self.check_begun = waits.then(|| self.now.after_nanos(self.limits.not_begun));
        // The one that waits longest comes to the head of the queue last.
        late.sort_unstable_by_key(|(waited, _)| *waited);
        for (waited, key) in late {
            let Some(link) = self.links.get_mut(key) else { continue };
            if self.threads.has_free_elsewhere(link.pid) || waited / PATIENCE >= self.limits.not_begun {
                self.take_back_all(key);
            }
        }
        self.dispatch_queue();
    }

    /// Cancels all that a thread was sent. A body that it has only a part of costs it the link: it would never find the
    /// end.
    fn take_back_all(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let is_cut = link.is_streaming();
        self.take_back(key, if is_cut { Keep::NoLink } else { Keep::Nothing });
        if is_cut && self.links.get_mut(key).is_some_and(|link| !link.is_wanted()) {
            self.drop_link(key);
        }
    }
}
