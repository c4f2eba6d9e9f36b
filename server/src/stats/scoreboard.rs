//! The scoreboard: one shared memory mapping of fixed layout: a header with what the router writes, a slot for each life of
//! a worker, a cell for each spooler.
//!
//! The master creates it (a memfd), every other process inherits it. A slot belongs to one process from its fork until
//! the master has reaped it: a reload has two lives of one worker side by side, so that there are more slots than
//! workers. The master adds a dead life's counts to its own totals and clears the slot; so a crash loses no count.

#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

use super::ahead::AheadCells;
use super::cell::{RouterCell, ThreadCell, WorkerCell};
use super::spooler_cell::SpoolerCell;

/// What a process needs to know to map the scoreboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    /// Slots for lives of workers.
    pub slots: u32,
    /// Threads (threads) in each.
    pub threads: u32,
    /// Spoolers.
    pub spoolers: u32,
}

/// Slots begin on a page, so that one can be cleared by giving its pages back.
const PAGE: usize = 4096;

impl Layout {
    /// Room for `workers` of `threads` threads, with as many lives more as may linger beside their successors.
    #[must_use]
    pub fn new(workers: u32, threads: u32) -> Self {
        Self { slots: workers * 3 + 4, threads: threads, spoolers: 0 }
    }

    /// With room for so many spoolers.
    #[must_use]
    pub fn with_spoolers(self, spoolers: u32) -> Self {
        Self { spoolers, ..self }
    }

    fn slot_size(self) -> usize {
        (size_of::<WorkerCell>() + self.threads as usize * size_of::<ThreadCell>()).next_multiple_of(PAGE)
    }

    /// The router's cell and what it dispatched requests to every thread. AheadCells are not in the slots, because the router looks at those
    /// of a dead worker after the master may have cleared its slot.
    fn header_size(self) -> usize {
        let threads = self.slots as usize * self.threads as usize;
        (size_of::<RouterCell>() + threads * size_of::<AheadCells>()).next_multiple_of(PAGE)
    }

    /// Where the spoolers' cells begin: behind the last slot, on a page.
    fn spoolers_offset(self) -> usize {
        self.header_size() + self.slots as usize * self.slot_size()
    }

    fn size(self) -> usize {
        self.spoolers_offset() + self.spoolers as usize * size_of::<SpoolerCell>()
    }
}

/// The mapping. Shared by every process of one server; see the module for who writes what.
#[derive(Debug)]
pub struct Scoreboard {
    base: NonNull<u8>,
    layout: Layout,
    memory: OwnedFd,
}

// SAFETY: the mapping lives as long as the value, and everything in it is atomics.
unsafe impl Send for Scoreboard {}
// SAFETY: as above; `&Scoreboard` gives out only references to atomics.
unsafe impl Sync for Scoreboard {}

impl Scoreboard {
    /// Creates an empty one.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn create(layout: Layout) -> nix::Result<Self> {
        let memory = memfd_create(c"rwsgi-scoreboard", MFdFlags::empty())?;
        ftruncate(&memory, layout.size() as i64)?;
        Self::map(layout, memory)
    }

    /// Maps one that another process created with this layout.
    ///
    /// # Errors
    /// When `memory` cannot be mapped.
    pub fn map(layout: Layout, memory: OwnedFd) -> nix::Result<Self> {
        // `create` gave a size that is at least a page.
        let size = NonZeroUsize::new(layout.size()).ok_or(nix::errno::Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of this process.
        let base = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, &memory, 0)? };
        Ok(Self { base: base.cast(), layout, memory })
    }

    /// The layout it was made with.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The memory file, to be inherited by other processes.
    #[must_use]
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// From now on what this process writes is its own and nobody reads it: for a child that is no worker. Must not be
    /// called while another thread of this process writes.
    pub fn detach(&self) {
        let Some(size) = NonZeroUsize::new(self.layout.size()) else { return };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED;
        // SAFETY: exactly the mapping that this value owns is replaced, by one of the same size and contents.
        let detached = unsafe { mmap(Some(self.base.addr()), size, protection, flags, &self.memory, 0) };
        // It fails where there is no memory left; the counts of a child are the least worry then.
        let _ = detached;
    }

    /// The router's cell.
    #[must_use]
    pub fn router(&self) -> &RouterCell {
        // SAFETY: the mapping begins with the header, is page-aligned, and every byte pattern is a valid cell.
        unsafe { self.base.cast().as_ref() }
    }

    /// The cell of a spooler; they are counted from 0.
    ///
    /// # Panics
    /// When there is no such spooler.
    #[must_use]
    pub fn spooler(&self, spooler: u32) -> &SpoolerCell {
        assert!(spooler < self.layout.spoolers, "spooler {spooler} of {}", self.layout.spoolers);
        let offset = self.layout.spoolers_offset() + spooler as usize * size_of::<SpoolerCell>();
        // SAFETY: within the mapping, whose size counts the spoolers' cells; they begin on a page and their size is a
        // multiple of their alignment; every byte pattern is a valid cell.
        unsafe { self.base.add(offset).cast().as_ref() }
    }

    /// The cells of all spoolers.
    pub fn spoolers(&self) -> impl Iterator<Item = &SpoolerCell> {
        (0..self.layout.spoolers).map(move |spooler| self.spooler(spooler))
    }

    /// What the router dispatched requests to one thread of a life.
    ///
    /// # Panics
    /// When there is no such slot or thread.
    #[must_use]
    pub fn dispatched(&self, slot: u32, thread: u32) -> &AheadCells {
        let Layout { slots, threads, .. } = self.layout;
        assert!(slot < slots && thread < threads, "thread {thread} of {threads} in slot {slot} of {slots}");
        let index = slot as usize * threads as usize + thread as usize;
        // SAFETY: within the header, which holds that many behind the router's cell, whose size is a multiple of their
        // alignment; every byte pattern is valid.
        unsafe { self.base.add(size_of::<RouterCell>() + index * size_of::<AheadCells>()).cast().as_ref() }
    }

    fn slot(&self, slot: u32) -> NonNull<u8> {
        assert!(slot < self.layout.slots, "slot {slot} of {}", self.layout.slots);
        // SAFETY: below `slots`, so within the mapping.
        unsafe { self.base.add(self.layout.header_size() + slot as usize * self.layout.slot_size()) }
    }

    /// The cell of a life as a whole.
    ///
    /// # Panics
    /// When there is no such slot.
    #[must_use]
    pub fn worker(&self, slot: u32) -> &WorkerCell {
        // SAFETY: a slot begins with the worker's cell, on a page boundary; every byte pattern is a valid cell.
        unsafe { self.slot(slot).cast().as_ref() }
    }

    /// The cell of one thread of a life.
    ///
    /// # Panics
    /// When there is no such slot or thread.
    #[must_use]
    pub fn thread(&self, slot: u32, thread: u32) -> &ThreadCell {
        assert!(thread < self.layout.threads, "thread {thread} of {}", self.layout.threads);
        let offset = size_of::<WorkerCell>() + thread as usize * size_of::<ThreadCell>();
        // SAFETY: within the slot, which holds `threads` cells behind the worker's; both sizes are multiples of the
        // cell's alignment; every byte pattern is a valid cell.
        unsafe { self.slot(slot).add(offset).cast().as_ref() }
    }

    /// The cells of all threads of a life.
    pub fn threads(&self, slot: u32) -> impl Iterator<Item = &ThreadCell> {
        (0..self.layout.threads).map(move |thread| self.thread(slot, thread))
    }

    /// Makes a slot that no process has any more all zero, and gives its memory back.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub fn clear(&self, slot: u32) -> nix::Result<()> {
        let offset = self.layout.header_size() + slot as usize * self.layout.slot_size();
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.memory, flags, offset as i64, self.layout.slot_size() as i64)
    }
}

impl Drop for Scoreboard {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping, and every reference into it borrows the value.
        // An error would leave the mapping until the process ends, which harms nobody.
        let _ = unsafe { munmap(self.base.cast(), self.layout.size()) };
    }
}

impl AsRawFd for Scoreboard {
    fn as_raw_fd(&self) -> i32 {
        self.memory.as_raw_fd()
    }
}

/// An empty cell outside of a scoreboard.
#[cfg(test)]
pub(crate) fn zeroed_cell() -> Box<ThreadCell> {
    // SAFETY: atomics alone: all-zero memory is a valid cell.
    unsafe { Box::<ThreadCell>::new_zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::SocketProtocol;
    use crate::stats::cell::Outcome;

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let layout = Layout::new(2, 2);
        let writer = Scoreboard::create(layout).unwrap();
        let reader = Scoreboard::map(layout, writer.memory().try_clone_to_owned().unwrap()).unwrap();
        let last = layout.slots - 1;
        writer.thread(last, 1).begin(1, SocketProtocol::Http, b"", b"GET / HTTP/1.1");
        writer.thread(last, 1).finish(2, 1, Outcome { status: 200, ..Outcome::default() });
        writer.router().reject();
        writer.worker(0).set_accepting(true);
        assert_eq!(reader.thread(last, 1).read().0.requests, 1);
        assert_eq!(reader.thread(last, 0).read().0.requests, 0);
        assert_eq!(reader.router().read().1, 1);
        assert!(reader.worker(0).accepting());
    }

    #[test]
    fn a_cleared_slot_is_empty_and_its_neighbours_are_not() {
        let board = Scoreboard::create(Layout::new(1, 1)).unwrap();
        for slot in 0..3 {
            board.thread(slot, 0).begin(1, SocketProtocol::Http, b"", b"x");
            board.thread(slot, 0).finish(2, 1, Outcome::default());
        }
        board.dispatched(1, 0).dispatch(3);
        board.clear(1).unwrap();
        assert!(board.dispatched(1, 0).take(3), "what is dispatched is not the slot's");
        assert_eq!([0, 1, 2].map(|slot| board.thread(slot, 0).read().0.requests), [1, 0, 1]);
    }
}
