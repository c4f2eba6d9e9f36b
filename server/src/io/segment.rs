//! Memory that the http router shares with one thread of a worker, for bodies: each is copied there once, instead of
//! twice through a socket, whose buffers cost as much again. The router makes it, and its size is sealed.
//!
//! ```text
//! words │ small slots for pieces of responses │ large slots │ a request's body
//! ```
//!
//! A slot belongs to the thread until it has filled it, and to the router until that has passed the bytes on. Neither
//! waits for the other: what finds no free slot goes over the link. Bytes are read exactly as far as the other side says
//! that it has written: what earlier bodies left behind them goes to nobody.
//!
//! The system allocates the small slots when the memory is made, a large slot and the place of a request's body before each side
//! first uses them (before Linux 5.14, which cannot, all of it when it is made). Never by the use itself: where the system has no
//! memory left, that would end the process (`SIGBUS`).

#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, Weak};

use memmap2::{Advice, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use crate::shared_memory::SharedMemory;

/// Slots for short pieces, before those for long ones.
const SMALL_SLOTS: usize = 8;
/// Bytes of such a slot.
pub(crate) const SMALL_SLOT_LEN: usize = 16 * 1024;
/// Slots for long pieces.
const LARGE_SLOTS: usize = 4;
/// Bytes of such a slot.
pub(crate) const LARGE_SLOT_LEN: usize = 256 * 1024;
/// All slots.
pub(crate) const SLOTS: usize = SMALL_SLOTS + LARGE_SLOTS;
/// The largest body of a request in it, bytes.
pub(crate) const REQUEST_MAX: usize = 1024 * 1024;
/// A request's body that is worth it: shorter ones are copied as soon as the other side is woken, bytes.
pub(crate) const WORTH_SHARING: usize = 64 * 1024;

/// Where the words are: for each slot whether it is full, in a line of its own.
const FULL: usize = 128;
const LINE: usize = 64;
/// Whether the thread may pass files.
const FILES: usize = 0;
/// Whether the thread has mapped it.
const MAPPED: usize = LINE;
const FIRST_SMALL: usize = 4096;
const FIRST_LARGE: usize = FIRST_SMALL + SMALL_SLOTS * SMALL_SLOT_LEN;
const REQUEST: usize = FIRST_LARGE + LARGE_SLOTS * LARGE_SLOT_LEN;
const SIZE: usize = REQUEST + REQUEST_MAX;
const _: () = assert!(FULL + SLOTS * LINE <= FIRST_SMALL && SLOTS < u32::BITS as usize);

/// What threads of this process have mapped.
static MAPPED_HERE: Mutex<Vec<Weak<Segment>>> = Mutex::new(Vec::new());
/// How many processes, from the fork server on, are children that an application has forked.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// See the module.
#[derive(Debug)]
pub(crate) struct Segment {
    map: MmapRaw,
    /// What this side has had allocated: a bit for each slot, and one for the request's body.
    allocated: AtomicU32,
    /// As [`FORKS`] was when it was mapped: it is another one in a child that the application has forked since.
    forks: u32,
}

/// In a child that the application forks: the memory is its parent's. It would read and write what the parent's next requests
/// have there, and keep it as long as it lives.
pub(crate) fn leave() {
    // It has one thread.
    FORKS.fetch_add(1, Relaxed);
    // Where another thread of the parent's was just adding one, the memory stays, and nobody uses it.
    let Ok(here) = MAPPED_HERE.try_lock() else { return };
    here.iter().filter_map(Weak::upgrade).for_each(|segment| segment.leave());
}

impl Segment {
    /// Makes one, and the descriptor for the thread.
    ///
    /// # Errors
    /// When the system has no memory or descriptors left.
    pub(crate) fn create() -> nix::Result<(Self, OwnedFd)> {
        let memory = SharedMemory::create(c"rwsgi-bodies", SIZE)?;
        let file = memory.file().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        let segment = Self::of(memory);
        fallocate(&file, FallocateFlags::empty(), 0, FIRST_LARGE as i64)?;
        if segment.populate(0, LINE) == Err(Errno::EINVAL) {
            // A system before Linux 5.14 cannot be asked for the rest later: see `allocate`.
            fallocate(&file, FallocateFlags::empty(), 0, SIZE as i64)?;
        }
        Ok((segment, file))
    }

    /// Maps what the router has made, and lets it know.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub(crate) fn map(file: OwnedFd) -> nix::Result<Arc<Self>> {
        let segment = Arc::new(Self::of(SharedMemory::map(file, SIZE)?));
        let mut here = MAPPED_HERE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        here.retain(|segment| segment.strong_count() > 0);
        here.push(Arc::downgrade(&segment));
        segment.word(MAPPED).store(1, Release);
        Ok(segment)
    }

    fn of(memory: SharedMemory) -> Self {
        Self { map: memory.into_map(), allocated: AtomicU32::new(0), forks: FORKS.load(Relaxed) }
    }

    /// Puts memory of this process alone in its place.
    fn leave(&self) {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED | MapFlags::MAP_NORESERVE;
        let (place, size) = (NonZeroUsize::new(self.map.as_ptr().addr()), NonZeroUsize::new(self.map.len()));
        let Some(size) = size else { return };
        // SAFETY: exactly the mapping that this value owns is replaced, by one of the same size, which it unmaps as it would
        // the old one; any bytes are as good to who has a reference into it.
        let left = unsafe { mmap_anonymous(place, size, protection, flags) };
        // Without memory for that nothing is read of it all the same.
        let _ = left;
    }

    /// Whether this process is a child that the application has forked, with a copy that it must not use.
    pub(crate) fn is_left(&self) -> bool {
        self.forks != FORKS.load(Relaxed)
    }

    /// Whether the thread has it, too.
    pub(crate) fn is_mapped(&self) -> bool {
        self.word(MAPPED).load(Acquire) != 0
    }

    /// Whether the router takes files.
    pub(crate) fn takes_files(&self) -> bool {
        self.word(FILES).load(Relaxed) != 0
    }

    /// The router's: from now on it takes files, or none.
    pub(crate) fn take_files(&self, take: bool) {
        self.word(FILES).store(take.into(), Relaxed);
    }

    /// The thread's: copies the beginning of `bytes` to a free slot. Returns its number, and how many there are.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let slots = if bytes.len() <= SMALL_SLOT_LEN { 0..SMALL_SLOTS } else { SMALL_SLOTS..SLOTS };
        let number = slots.into_iter().find(|slot| self.full(*slot).load(Acquire) == 0)?;
        let (offset, size) = slot(number);
        let len = bytes.len().min(size);
        if size == LARGE_SLOT_LEN && !self.allocate(number, offset, size) {
            return None;
        }
        self.write(offset, &bytes[..len]);
        self.full(number).store(1, Release);
        Some((number, len))
    }

    /// The router's: the first `len` bytes of a slot that is full; `None` where there is no such.
    pub(crate) fn filled(&self, number: usize, len: usize) -> Option<&[u8]> {
        let (offset, size) = slot(number);
        let is_full = number < SLOTS && len <= size && self.full(number).load(Acquire) != 0;
        let is_there = is_full && (size == SMALL_SLOT_LEN || self.allocate(number, offset, size));
        is_there.then(|| self.read(offset, len))
    }

    /// The router's: the thread may fill the slot again. What [`Segment::filled`] gave is not used any more.
    pub(crate) fn empty(&self, number: usize) {
        self.full(number).store(0, Release);
    }

    /// The router's: puts a request's body there, of at most [`REQUEST_MAX`] bytes. The thread is done with the one before.
    /// Returns whether there is memory for it.
    pub(crate) fn put_request(&self, body: &[u8]) -> bool {
        let fits = body.len() <= REQUEST_MAX && self.allocate(SLOTS, REQUEST, REQUEST_MAX);
        if fits {
            self.write(REQUEST, body);
        }
        fits
    }

    /// The thread's: the body of the present request, as long as the router says, from `at` on. Nothing where it was left.
    pub(crate) fn request(&self, len: usize, at: usize) -> &[u8] {
        if self.is_left() {
            return &[];
        }
        self.read(REQUEST, len.min(REQUEST_MAX)).get(at..).unwrap_or_default()
    }

    /// Has the system allocate memory that this side uses for the first time. Returns whether it is there. `bit` is that in
    /// `allocated`.
    fn allocate(&self, bit: usize, offset: usize, len: usize) -> bool {
        let bit = 1 << bit;
        if self.allocated.load(Relaxed) & bit == 0 {
            match self.populate(offset, len) {
                // On such a system all of it was allocated when it was made.
                Ok(()) | Err(Errno::EINVAL) => self.allocated.fetch_or(bit, Relaxed),
                Err(_) => return false,
            };
        }
        true
    }

    #[cold]
    fn populate(&self, offset: usize, len: usize) -> nix::Result<()> {
        let populated = self.map.advise_range(Advice::PopulateWrite, offset, len);
        populated.map_err(|error| error.raw_os_error().map_or(Errno::ENOMEM, Errno::from_raw))
    }

    fn full(&self, number: usize) -> &AtomicU64 {
        self.word(FULL + number.min(SLOTS - 1) * LINE)
    }

    /// The word at `offset`, which is one of the constants above.
    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + size_of::<AtomicU64>() <= FIRST_SMALL, "offset {offset}");
        // SAFETY: within the mapping, whose size is sealed, and aligned; both sides use it as an atomic.
        unsafe { &*self.map.as_ptr().add(offset).cast() }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= SIZE, "{offset} and {}", bytes.len());
        // SAFETY: within the mapping, whose size is sealed. The other process reads here only before this side is told
        // that it may write, and after it is told that this has happened.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(offset), bytes.len()) }
    }

    fn read(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset + len <= SIZE, "{offset} and {len}");
        // SAFETY: within the mapping, whose size is sealed, and initialized, if only with zeros. The other process writes
        // here only after this side says that it is done. An application that breaks that, with a wild pointer,
        // garbles the bytes of its own request: nothing is decided by them.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(offset), len) }
    }
}

/// Where a slot begins, and its size, bytes. A number that no slot has gives the place behind the last one: callers refuse it.
fn slot(number: usize) -> (usize, usize) {
    match number.checked_sub(SMALL_SLOTS) {
        None => (FIRST_SMALL + number * SMALL_SLOT_LEN, SMALL_SLOT_LEN),
        Some(large) => (FIRST_LARGE + large.min(LARGE_SLOTS) * LARGE_SLOT_LEN, LARGE_SLOT_LEN),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn both() -> (Segment, Arc<Segment>) {
        let (router, file) = Segment::create().unwrap();
        assert!(!router.is_mapped());
        let thread = Segment::map(file).unwrap();
        assert!(router.is_mapped());
        (router, thread)
    }

    #[test]
    fn what_is_put_in_slots_arrives_and_a_full_slot_is_filled_only_when_it_was_emptied() {
        for (slots, size) in [(0..SMALL_SLOTS, SMALL_SLOT_LEN), (SMALL_SLOTS..SLOTS, LARGE_SLOT_LEN)] {
            let (router, thread) = both();
            let long: Vec<u8> = (0..size + SLOTS).map(|at| at as u8).collect();
            for number in slots.clone() {
                let piece = &long[number..number + size];
                assert_eq!(thread.fill(piece), Some((number, size)));
                assert_eq!(router.filled(number, size).unwrap(), piece);
            }
            assert_eq!(thread.fill(&long[..size]), None);
            router.empty(slots.start + 2);
            assert_eq!(thread.fill(&long[..size - 1]), Some((slots.start + 2, size - 1)));
            assert_eq!(router.filled(slots.start + 2, size - 1).unwrap(), &long[..size - 1]);
            assert_eq!(router.filled(slots.start + 1, size).unwrap(), &long[slots.start + 1..slots.start + 1 + size]);
        }
    }

    #[test]
    fn a_piece_that_is_longer_than_a_slot_fills_one_with_its_beginning() {
        let (router, thread) = both();
        let long = vec![3; LARGE_SLOT_LEN + 1];
        assert_eq!(thread.fill(&long), Some((SMALL_SLOTS, LARGE_SLOT_LEN)));
        assert_eq!(router.filled(SMALL_SLOTS, LARGE_SLOT_LEN).unwrap(), &long[1..]);
    }

    #[test]
    fn slots_lie_beside_each_other() {
        let mut end = FIRST_SMALL;
        for number in 0..SLOTS {
            assert_eq!(slot(number).0, end);
            end += slot(number).1;
        }
        assert_eq!(end, REQUEST);
    }

    #[test]
    fn nothing_is_read_beyond_a_slot_or_from_one_that_is_not_full() {
        let (router, thread) = both();
        thread.fill(b"x").unwrap();
        assert!(router.filled(0, SMALL_SLOT_LEN).is_some());
        assert_eq!(router.filled(0, SMALL_SLOT_LEN + 1), None);
        assert_eq!(router.filled(1, 1), None);
        thread.fill(&[1; SMALL_SLOT_LEN + 1]).unwrap();
        assert_eq!(router.filled(SMALL_SLOTS, LARGE_SLOT_LEN + 1), None);
        assert_eq!(router.filled(SLOTS, 1), None);
        assert_eq!(router.filled(usize::MAX, 1), None);
    }

    #[test]
    fn a_body_of_a_request_has_its_place_beside_the_slots() {
        let (router, thread) = both();
        let body: Vec<u8> = (0..REQUEST_MAX).map(|at| (at % 251) as u8).collect();
        for number in SMALL_SLOTS..SLOTS {
            assert_eq!(thread.fill(&vec![7; LARGE_SLOT_LEN]), Some((number, LARGE_SLOT_LEN)));
        }
        assert!(router.put_request(&body));
        assert_eq!(thread.request(REQUEST_MAX, 0), body);
        assert_eq!(thread.request(3, 1), &body[1..3]);
        assert_eq!(thread.request(3, 4), b"");
        assert_eq!(router.filled(SLOTS - 1, LARGE_SLOT_LEN).unwrap(), vec![7; LARGE_SLOT_LEN]);
        assert!(!router.put_request(&vec![0; REQUEST_MAX + 1]));
    }

    #[test]
    fn memory_is_allocated_when_it_is_first_used() {
        let (router, file) = Segment::create().unwrap();
        let file = std::fs::File::from(file);
        let thread = Segment::map(file.try_clone().unwrap().into()).unwrap();
        let allocated = || file.metadata().unwrap().blocks() as usize * 512;
        if allocated() == SIZE {
            // A system before Linux 5.14.
            return;
        }
        thread.fill(&[1; SMALL_SLOT_LEN]).unwrap();
        assert_eq!(allocated(), FIRST_LARGE);
        thread.fill(&[1; SMALL_SLOT_LEN + 1]).unwrap();
        assert_eq!(allocated(), FIRST_LARGE + LARGE_SLOT_LEN);
        assert!(router.put_request(b"body"));
        assert_eq!(allocated(), FIRST_LARGE + LARGE_SLOT_LEN + REQUEST_MAX);
    }

    #[test]
    fn what_is_left_shows_nothing_and_changes_nothing() {
        let (router, file) = Segment::create().unwrap();
        // Mapped before the last fork.
        let forks = FORKS.load(Relaxed).wrapping_sub(1);
        let thread = Segment { forks, ..Segment::of(SharedMemory::map(file, SIZE).unwrap()) };
        router.put_request(b"body");
        thread.leave();
        assert!(thread.is_left() && !router.is_left());
        assert_eq!(thread.request(4, 0), b"");
        assert_eq!(thread.fill(b"x"), Some((0, 1)));
        assert_eq!(router.filled(0, 1), None);
    }

    #[test]
    fn a_thread_sees_whether_the_router_takes_files() {
        let (router, thread) = both();
        assert!(!thread.takes_files());
        router.take_files(true);
        assert!(thread.takes_files());
    }
}
