//! The scoreboard: shared memory of fixed layout: a header with what the http router writes and with what all processes
//! add up (temporary files, clients that were turned away), a slot for each worker process, a cell for each spooler.
//!
//! The master makes it, every other process inherits it. A slot belongs to one process from its fork until the master
//! has reaped it: a reload has two processes of one worker side by side, so that there are more slots than workers. The
//! master adds a dead process's counts to its own totals and clears the slot; so a crash loses no count.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use serde::{Deserialize, Serialize};

use super::cell::{
    AheadCells, Corrupt, LimitsCell, RouterCell, SlowControl, SpoolerCell, ThreadCell, ThreadSample, WorkerCell,
};
use crate::ids::{SlotId, ThreadIndex};
use crate::procfs;
use crate::shared_memory::{Shareable, SharedMemory};

/// What a process needs to know to map the scoreboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Slots for processes of workers.
    pub slots: u32,
    /// Threads in each.
    pub threads: u32,
    /// Spoolers.
    pub spoolers: u32,
}

impl Layout {
    /// Space for `workers` of `threads` threads, with as many processes more as may linger beside their successors.
    #[must_use]
    pub fn new(workers: u32, threads: u32) -> Self {
        Self { slots: workers.saturating_mul(3).saturating_add(4), threads, spoolers: 0 }
    }

    /// With space for this many spoolers.
    #[must_use]
    pub fn with_spoolers(self, spoolers: u32) -> Self {
        Self { spoolers, ..self }
    }
}

/// Where things are, bytes from the start.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// What all processes count together, behind the router's cell.
    limits: usize,
    /// What says which requests are slow.
    slow: usize,
    /// What the router has dispatched ahead to every thread: not in the slots, for the router looks at what a dead
    /// worker had after the master may have cleared its slot.
    dispatched: usize,
    /// How many bytes of temporary files each process has: together, for they are added up again and again.
    temporary: usize,
    /// The first slot.
    slots: usize,
    /// From one slot to the next. Slots begin on a page, so that one can be cleared by giving its pages back.
    slot: usize,
    /// The first spooler's cell, on a page.
    spoolers: usize,
    end: usize,
}

impl Places {
    fn of(layout: Layout) -> Self {
        let page = procfs::page_size();
        let (all, threads) = (layout.slots as usize, layout.threads as usize);
        let limits = size_of::<RouterCell>();
        let slow = limits + size_of::<LimitsCell>();
        let dispatched = slow + size_of::<SlowControl>();
        let temporary = dispatched + all * threads * size_of::<AheadCells>();
        let slots = (temporary + (1 + all) * size_of::<AtomicU64>()).next_multiple_of(page);
        let slot = (size_of::<WorkerCell>() + threads * size_of::<ThreadCell>()).next_multiple_of(page);
        let spoolers = slots + all * slot;
        Self {
            limits,
            slow,
            dispatched,
            temporary,
            slots,
            slot,
            spoolers,
            end: spoolers + layout.spoolers as usize * size_of::<SpoolerCell>(),
        }
    }
}

/// Who has temporary files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TempHolder {
    /// The http router.
    Router,
    /// The worker process of this slot.
    Worker(SlotId),
}

/// More than any process has in temporary files, bytes: the application has written there, and the value is left out.
const TEMPORARY_MAX: u64 = 1 << 50;

/// From so many slots on one that is cleared keeps its pages. With 1,000 workers, of which each maps all slots, to give them
/// back was half of the master's work at a reload.
const MANY_SLOTS: u32 = 256;

/// What is wrong with a slot: its process, or something in it, has written where it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its part of the shared memory is corrupt (thread {thread}: {corrupt})")]
pub struct CorruptSlot {
    /// The slot.
    pub slot: SlotId,
    /// Whose cell it is that was looked at.
    pub thread: ThreadIndex,
    /// What was found there.
    pub corrupt: Corrupt,
}

/// The scoreboard, mapped into this process; see the module for who writes what.
#[derive(Debug)]
pub struct Scoreboard {
    memory: SharedMemory,
    layout: Layout,
    places: Places,
}

impl Scoreboard {
    /// Creates an empty one.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn create(layout: Layout) -> nix::Result<Self> {
        let places = Places::of(layout);
        Ok(Self { memory: SharedMemory::create(c"rwsgi-scoreboard", places.end)?, layout, places })
    }

    /// Maps one that another process created with this layout.
    ///
    /// # Errors
    /// When `file` cannot be mapped, or is too small.
    pub fn map(layout: Layout, file: OwnedFd) -> nix::Result<Self> {
        let places = Places::of(layout);
        Ok(Self { memory: SharedMemory::map(file, places.end)?, layout, places })
    }

    /// The layout it was made with.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The memory file, to be inherited by other processes.
    #[must_use]
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.file()
    }

    /// From now on what this process writes is its own and nobody reads it: for a child that is no worker.
    pub fn detach(&self) {
        self.memory.detach();
    }

    /// The http router's cell.
    #[must_use]
    pub fn router(&self) -> &RouterCell {
        self.memory.at(0)
    }

    /// What all processes count together.
    #[must_use]
    pub fn limits(&self) -> &LimitsCell {
        self.memory.at(self.places.limits)
    }

    /// What says which requests are slow.
    #[must_use]
    #[inline]
    pub fn slow(&self) -> &SlowControl {
        self.memory.at(self.places.slow)
    }

    /// Bytes that a process has in temporary files, or is about to write to them.
    ///
    /// # Panics
    /// When there is no such slot.
    #[must_use]
    pub fn temporary(&self, holder: TempHolder) -> &AtomicU64 {
        let index = match holder {
            TempHolder::Router => 0,
            TempHolder::Worker(slot) => {
                assert!(slot.get() < self.layout.slots, "slot {slot} of {}", self.layout.slots);
                1 + slot.index()
            }
        };
        self.memory.at(self.places.temporary + index * size_of::<AtomicU64>())
    }

    /// The same of all processes together.
    #[must_use]
    pub fn all_temporary(&self) -> u64 {
        let slots = (0..self.layout.slots).map(|slot| TempHolder::Worker(SlotId::new(slot)));
        // In one order with the additions of all others: of two that add at once, one sees the other.
        let bytes = slots.chain([TempHolder::Router]).map(|holder| self.temporary(holder).load(SeqCst));
        bytes.filter(|bytes| *bytes <= TEMPORARY_MAX).sum()
    }

    /// The cell of a spooler; they are counted from 0.
    ///
    /// # Panics
    /// When there is no such spooler.
    #[must_use]
    pub fn spooler(&self, spooler: u32) -> &SpoolerCell {
        assert!(spooler < self.layout.spoolers, "spooler {spooler} of {}", self.layout.spoolers);
        self.memory.at(self.places.spoolers + spooler as usize * size_of::<SpoolerCell>())
    }

    /// The cells of all spoolers.
    pub fn spoolers(&self) -> impl Iterator<Item = &SpoolerCell> {
        (0..self.layout.spoolers).map(|spooler| self.spooler(spooler))
    }

    /// What the router has dispatched ahead to one thread of a worker process.
    ///
    /// # Panics
    /// When there is no such slot or thread.
    #[must_use]
    pub fn dispatched(&self, slot: SlotId, thread: ThreadIndex) -> &AheadCells {
        self.check(slot, thread);
        let index = slot.index() * self.layout.threads as usize + thread.index();
        self.memory.at(self.places.dispatched + index * size_of::<AheadCells>())
    }

    /// The cell of a worker process as a whole.
    ///
    /// # Panics
    /// When there is no such slot.
    #[must_use]
    pub fn worker(&self, slot: SlotId) -> &WorkerCell {
        self.memory.at(self.slot(slot))
    }

    /// The cell of one thread of a worker process.
    ///
    /// # Panics
    /// When there is no such slot or thread.
    #[must_use]
    #[inline]
    pub fn thread(&self, slot: SlotId, thread: ThreadIndex) -> &ThreadCell {
        self.check(slot, thread);
        let cells = self.places.slots + slot.index() * self.places.slot + size_of::<WorkerCell>();
        self.memory.at(cells + thread.index() * size_of::<ThreadCell>())
    }

    /// The cells of all threads of a worker process.
    pub fn threads(&self, slot: SlotId) -> impl Iterator<Item = &ThreadCell> {
        ThreadIndex::first(self.layout.threads).map(move |thread| self.thread(slot, thread))
    }

    /// What the cell of one thread says.
    ///
    /// # Errors
    /// When no thread of a worker's has written that.
    pub fn read(&self, slot: SlotId, thread: ThreadIndex) -> Result<ThreadSample, CorruptSlot> {
        self.thread(slot, thread).read().map_err(|corrupt| CorruptSlot { slot, thread, corrupt })
    }

    /// What the cells of all threads of a worker process say.
    ///
    /// # Errors
    /// As [`Self::read`], of the first that is not as it must be.
    pub fn read_slot(&self, slot: SlotId) -> Result<Vec<ThreadSample>, CorruptSlot> {
        ThreadIndex::first(self.layout.threads).map(|thread| self.read(slot, thread)).collect()
    }

    /// Makes a slot that no process has any more all zero, and gives its memory back, unless so many processes map it that
    /// this would cost more than the memory is worth. Its temporary files are gone with its process.
    ///
    /// # Errors
    /// When the kernel cannot.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn clear(&self, slot: SlotId) -> nix::Result<()> {
        let start = self.slot(slot);
        self.temporary(TempHolder::Worker(slot)).store(0, SeqCst);
        let slot = start..start + self.places.slot;
        if self.layout.slots >= MANY_SLOTS { self.memory.zero(slot) } else { self.memory.clear(slot) }
    }

    fn slot(&self, slot: SlotId) -> usize {
        assert!(slot.get() < self.layout.slots, "slot {slot} of {}", self.layout.slots);
        self.places.slots + slot.index() * self.places.slot
    }

    #[inline]
    fn check(&self, slot: SlotId, thread: ThreadIndex) {
        let Layout { slots, threads, .. } = self.layout;
        assert!(slot.get() < slots && thread.get() < threads, "thread {thread} of {threads} in slot {slot} of {slots}");
    }
}

#[allow(unsafe_code)]
mod shareable {
    use super::{AheadCells, LimitsCell, RouterCell, Shareable, SlowControl, SpoolerCell, ThreadCell, WorkerCell};

    // SAFETY: atomics alone, of which every byte belongs to one or is padding that nobody reads.
    unsafe impl Shareable for RouterCell {}
    // SAFETY: as above.
    unsafe impl Shareable for LimitsCell {}
    // SAFETY: as above.
    unsafe impl Shareable for SlowControl {}
    // SAFETY: as above.
    unsafe impl Shareable for AheadCells {}
    // SAFETY: as above.
    unsafe impl Shareable for WorkerCell {}
    // SAFETY: as above.
    unsafe impl Shareable for ThreadCell {}
    // SAFETY: as above.
    unsafe impl Shareable for SpoolerCell {}
    #[cfg(test)]
    mod parts {
        use super::Shareable;
        use crate::stats::cell::{PhaseCell, SlowRing};
        // SAFETY: as above.
        unsafe impl Shareable for PhaseCell {}
        // SAFETY: as above.
        unsafe impl Shareable for SlowRing {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MonotonicNanos;
    use crate::stats::cell::Outcome;
    use rwsgi_protocol::SocketProtocol;

    const fn at(nanoseconds: u64) -> MonotonicNanos {
        MonotonicNanos::from_nanos(nanoseconds)
    }

    fn slot(index: u32) -> SlotId {
        SlotId::new(index)
    }

    fn thread(index: u32) -> ThreadIndex {
        ThreadIndex::new(index)
    }

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let layout = Layout::new(2, 2).with_spoolers(1);
        let writer = Scoreboard::create(layout).unwrap();
        let reader = Scoreboard::map(layout, writer.memory().try_clone_to_owned().unwrap()).unwrap();
        let last = slot(layout.slots - 1);
        writer.thread(last, thread(1)).begin(at(1), SocketProtocol::Http, b"", b"GET / HTTP/1.1");
        writer.thread(last, thread(1)).finish(at(2), at(1), Outcome { status: 200, ..Outcome::default() });
        writer.router().reject();
        writer.worker(slot(0)).set_accepting(true);
        writer.spooler(0).set_frequency(3);
        let requests: Vec<_> = reader.read_slot(last).unwrap().iter().map(|read| read.counters.requests).collect();
        assert_eq!(requests, [0, 1]);
        assert_eq!(reader.router().read().unwrap().rejected, 1);
        assert!(reader.worker(slot(0)).accepting() && !reader.worker(last).accepting());
        assert!(reader.spooler(0).frequency().is_some());
    }

    #[test]
    fn a_cleared_slot_is_empty_and_its_neighbours_are_not() {
        for layout in [Layout::new(1, 1), Layout::new(MANY_SLOTS, 1)] {
            clears(&Scoreboard::create(layout).unwrap());
        }
    }

    fn clears(board: &Scoreboard) {
        let all = [0, 1, 2].map(slot);
        for slot in all {
            board.thread(slot, thread(0)).begin(at(1), SocketProtocol::Http, b"", b"x");
            board.thread(slot, thread(0)).finish(at(2), at(1), Outcome::default());
        }
        board.dispatched(all[1], thread(0)).dispatch(3);
        for holder in [TempHolder::Router, TempHolder::Worker(all[1]), TempHolder::Worker(all[2])] {
            board.temporary(holder).fetch_add(10, SeqCst);
        }
        assert_eq!(board.all_temporary(), 30);
        board.temporary(TempHolder::Worker(all[0])).store(u64::MAX, SeqCst);
        assert_eq!(board.all_temporary(), 30, "what nobody can have is left out");
        board.clear(all[1]).unwrap();
        assert_eq!(board.all_temporary(), 20);
        assert!(board.dispatched(all[1], thread(0)).take(3), "what is dispatched ahead is not the slot's");
        assert_eq!(all.map(|slot| board.read(slot, thread(0)).unwrap().counters.requests), [1, 0, 1]);
    }
}
