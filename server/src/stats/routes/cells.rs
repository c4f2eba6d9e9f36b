//! The tables of routes in shared memory: a memory file that the master makes, with an area for each slot of the
//! scoreboard. All-zero memory is an empty table, and takes no memory until it is used: a page for each route, and two
//! kilobytes for each that has raised an exception.

use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;

use super::latencies::RouteLatencies;
use crate::ids::SlotId;
use crate::procfs;
use crate::shared_memory::{Shareable, SharedMemory};
use crate::stats::cell::{ExceptionCell, SharedText};
use crate::stats::route_text::ROUTE_MAX;

/// The row of all that have no row of their own.
pub(super) const OTHER_ROW: usize = 0;

/// One route.
#[repr(C, align(64))]
pub(super) struct RouteRow {
    /// Grows whenever the row is given to a route; 0 as long as it has not been. That of [`OTHER_ROW`] stays 0.
    pub(super) owner: AtomicU64,
    /// The application has named it.
    pub(super) named: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) exceptions: AtomicU64,
    /// ns.
    pub(super) running: AtomicU64,
    pub(super) tx: AtomicU64,
    pub(super) responses: [AtomicU64; 5],
    /// ns.
    pub(super) gil_wait: AtomicU64,
    pub(super) memory_samples: AtomicU64,
    /// Two's complement.
    pub(super) memory_growth: AtomicU64,
    /// When the slowest request of the last minutes ended, monotonic ns.
    pub(super) slowest_when: AtomicU64,
    /// How long it took, µs.
    pub(super) slowest_took: AtomicU64,
    pub(super) text: SharedText<{ ROUTE_MAX / 8 }>,
    pub(super) latency: RouteLatencies,
    pub(super) slowest_request: SharedText<30>,
}

// A page on most systems.
const _: () = assert!(size_of::<RouteRow>() == 4096);

/// What concerns a table as a whole.
#[repr(C, align(64))]
pub(super) struct TableHead {
    /// Odd while a row is given to a route.
    sequence: AtomicU64,
}

/// Where things are in the area of a slot, bytes.
#[derive(Clone, Copy, Debug)]
struct Places {
    rows: usize,
    head: usize,
    exceptions: usize,
    size: usize,
}

impl Places {
    fn of(most: u32) -> Self {
        // One more, for all others.
        let rows = most as usize + 1;
        let head = rows * size_of::<RouteRow>();
        let exceptions = head + size_of::<TableHead>();
        let size = (exceptions + rows * size_of::<ExceptionCell>()).next_multiple_of(procfs::page_size());
        Self { rows, head, exceptions, size }
    }
}

/// The master's view of all tables.
#[derive(Debug)]
pub struct RouteMemory {
    memory: SharedMemory,
    places: Places,
    most: u32,
    slots: u32,
}

impl RouteMemory {
    /// Empty tables of `most` routes for this many slots.
    ///
    /// # Errors
    /// When the system has no memory or descriptors left.
    pub fn create(slots: u32, most: u32) -> nix::Result<Self> {
        let places = Places::of(most);
        let memory = SharedMemory::create(c"rwsgi-routes", places.size * slots as usize)?;
        Ok(Self { memory, places, most, slots })
    }

    /// The memory file, to be inherited by workers.
    #[must_use]
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.file()
    }

    /// How many routes a table tells apart.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.most
    }

    /// The table of a slot.
    ///
    /// # Panics
    /// When there is no such slot.
    pub(super) fn table(&self, slot: SlotId) -> View<'_> {
        View { memory: &self.memory, start: self.area(slot).start, places: self.places }
    }

    /// Makes the table of a slot empty, and gives its memory back: for when no process has it any more.
    ///
    /// # Errors
    /// When the kernel cannot.
    ///
    /// # Panics
    /// When there is no such slot.
    pub(super) fn clear(&self, slot: SlotId) -> nix::Result<()> {
        self.memory.clear(self.area(slot))
    }

    fn area(&self, slot: SlotId) -> Range<usize> {
        assert!(slot.get() < self.slots, "slot {slot} of {}", self.slots);
        let start = slot.index() * self.places.size;
        start..start + self.places.size
    }
}

/// A worker process's own table.
#[derive(Debug)]
pub struct RouteTableCells {
    memory: SharedMemory,
    places: Places,
}

impl RouteTableCells {
    /// Maps the table of a slot, and nothing else, of the memory that the master has made for tables of `most` routes.
    ///
    /// # Errors
    /// When `file` cannot be mapped, or is too small.
    pub fn map(file: OwnedFd, slot: SlotId, most: u32) -> nix::Result<Self> {
        let places = Places::of(most);
        let start = slot.index() * places.size;
        Ok(Self { memory: SharedMemory::map_part(file, start..start + places.size)?, places })
    }

    /// From now on what this process writes is its own: for a child that is no worker.
    pub fn detach(&self) {
        self.memory.detach();
    }

    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        View { memory: &self.memory, start: 0, places: self.places }
    }
}

/// One table.
#[derive(Clone, Copy)]
pub(super) struct View<'m> {
    memory: &'m SharedMemory,
    start: usize,
    places: Places,
}

impl<'m> View<'m> {
    /// Its rows, that of all others among them.
    pub(super) fn len(&self) -> usize {
        self.places.rows
    }

    /// # Panics
    /// When it is beyond the memory.
    #[inline]
    pub(super) fn row(&self, row: usize) -> &'m RouteRow {
        self.memory.at(self.start + row * size_of::<RouteRow>())
    }

    /// The last exception of a row.
    ///
    /// # Panics
    /// When there is no such row.
    pub(super) fn exception(&self, row: usize) -> &'m ExceptionCell {
        assert!(row < self.places.rows, "row {row} of {}", self.places.rows);
        self.memory.at(self.start + self.places.exceptions + row * size_of::<ExceptionCell>())
    }

    pub(super) fn head(&self) -> &'m TableHead {
        self.memory.at(self.start + self.places.head)
    }
}

impl TableHead {
    /// Changes which route a row belongs to: readers see all of it or nothing.
    pub(super) fn change(&self, change: impl FnOnce()) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence | 1, Relaxed);
        fence(Release);
        change();
        self.sequence.store((sequence | 1).wrapping_add(1), Release);
    }

    /// Another after each change.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.load(Relaxed)
    }

    /// A change that never ends.
    #[cfg(test)]
    pub(super) fn begin_of_test(&self) {
        self.sequence.fetch_or(1, Relaxed);
    }

    /// What `read` gives while nothing is changed; `None` when that is so in none of many tries.
    pub(super) fn read<T>(&self, mut read: impl FnMut() -> T) -> Option<T> {
        /// A change takes a microsecond, and comes with one request in many.
        const LOOKS: usize = 100;
        (0..LOOKS).find_map(|_| {
            let before = self.sequence.load(Acquire);
            if !before.is_multiple_of(2) {
                std::hint::spin_loop();
                return None;
            }
            let found = read();
            fence(Acquire);
            (before == self.sequence.load(Relaxed)).then_some(found)
        })
    }
}

#[cfg(test)]
pub(super) fn zeroed_row() -> Box<RouteRow> {
    crate::shared_memory::zeroed()
}

#[allow(unsafe_code)]
mod shareable {
    use super::{RouteRow, Shareable, TableHead};
    use crate::stats::cell::ExceptionCell;

    // SAFETY: atomics alone, of which every byte belongs to one or is padding that nobody reads.
    unsafe impl Shareable for RouteRow {}
    // SAFETY: as above.
    unsafe impl Shareable for TableHead {}
    // SAFETY: as above.
    unsafe impl Shareable for ExceptionCell {}
}
