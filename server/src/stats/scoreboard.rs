//! The scoreboard: one shared memory mapping of fixed layout: a header with what the front writes, a slot for each life of
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

use super::cell::{CoreCell, FrontCell, WorkerCell};
use super::offers::Offers;
use super::spooler_cell::SpoolerCell;

/// What a process needs to know to map the scoreboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layout {
    /// Slots for lives of workers.
    pub slots: u32,
    /// Cores (threads) in each.
    pub cores: u32,
    /// Spoolers.
    pub spoolers: u32,
}

/// Slots begin on a page, so that one can be cleared by giving its pages back.
const PAGE: usize = 4096;

impl Layout {
    /// Room for `workers` of `threads` cores, with as many lives more as may linger beside their successors.
    #[must_use]
    pub fn new(workers: u32, threads: u32) -> Self {
        Self { slots: workers * 3 + 4, cores: threads, spoolers: 0 }
    }

    /// With room for so many spoolers.
    #[must_use]
    pub fn with_spoolers(self, spoolers: u32) -> Self {
        Self { spoolers, ..self }
    }

    fn slot_size(self) -> usize {
        (size_of::<WorkerCell>() + self.cores as usize * size_of::<CoreCell>()).next_multiple_of(PAGE)
    }

    /// The front's cell and what it offers to every core. Offers are not in the slots, because the front looks at those
    /// of a dead worker after the master may have cleared its slot.
    fn header_size(self) -> usize {
        let cores = self.slots as usize * self.cores as usize;
        (size_of::<FrontCell>() + cores * size_of::<Offers>()).next_multiple_of(PAGE)
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

    /// The front's cell.
    #[must_use]
    pub fn front(&self) -> &FrontCell {
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

    /// What the front offers to one core of a life.
    ///
    /// # Panics
    /// When there is no such slot or core.
    #[must_use]
    pub fn offers(&self, slot: u32, core: u32) -> &Offers {
        let Layout { slots, cores, .. } = self.layout;
        assert!(slot < slots && core < cores, "core {core} of {cores} in slot {slot} of {slots}");
        let index = slot as usize * cores as usize + core as usize;
        // SAFETY: within the header, which holds that many behind the front's cell, whose size is a multiple of their
        // alignment; every byte pattern is valid.
        unsafe { self.base.add(size_of::<FrontCell>() + index * size_of::<Offers>()).cast().as_ref() }
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

    /// The cell of one core of a life.
    ///
    /// # Panics
    /// When there is no such slot or core.
    #[must_use]
    pub fn core(&self, slot: u32, core: u32) -> &CoreCell {
        assert!(core < self.layout.cores, "core {core} of {}", self.layout.cores);
        let offset = size_of::<WorkerCell>() + core as usize * size_of::<CoreCell>();
        // SAFETY: within the slot, which holds `cores` cells behind the worker's; both sizes are multiples of the
        // cell's alignment; every byte pattern is a valid cell.
        unsafe { self.slot(slot).add(offset).cast().as_ref() }
    }

    /// The cells of all cores of a life.
    pub fn cores(&self, slot: u32) -> impl Iterator<Item = &CoreCell> {
        (0..self.layout.cores).map(move |core| self.core(slot, core))
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
pub(crate) fn zeroed_cell() -> Box<CoreCell> {
    // SAFETY: atomics alone: all-zero memory is a valid cell.
    unsafe { Box::<CoreCell>::new_zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::cell::{Outcome, Wire};

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let layout = Layout::new(2, 2);
        let writer = Scoreboard::create(layout).unwrap();
        let reader = Scoreboard::map(layout, writer.memory().try_clone_to_owned().unwrap()).unwrap();
        let last = layout.slots - 1;
        writer.core(last, 1).begin(1, Wire::Http, b"", b"GET / HTTP/1.1");
        writer.core(last, 1).finish(2, 1, Outcome { status: 200, ..Outcome::default() });
        writer.front().reject();
        writer.worker(0).set_accepting(true);
        assert_eq!(reader.core(last, 1).read().0.requests, 1);
        assert_eq!(reader.core(last, 0).read().0.requests, 0);
        assert_eq!(reader.front().read().1, 1);
        assert!(reader.worker(0).accepting());
    }

    #[test]
    fn a_cleared_slot_is_empty_and_its_neighbours_are_not() {
        let board = Scoreboard::create(Layout::new(1, 1)).unwrap();
        for slot in 0..3 {
            board.core(slot, 0).begin(1, Wire::Http, b"", b"x");
            board.core(slot, 0).finish(2, 1, Outcome::default());
        }
        board.offers(1, 0).offer(3);
        board.clear(1).unwrap();
        assert!(board.offers(1, 0).take(3), "what is offered is not the slot's");
        assert_eq!([0, 1, 2].map(|slot| board.core(slot, 0).read().0.requests), [1, 0, 1]);
    }
}
