//! Memory that the http router shares with one thread of a worker, for large bodies: each is copied there once, instead of
//! twice through a socket, whose buffers cost as much again. The router makes it, and its size is sealed.
//!
//! ```text
//! words │ slots for pieces of responses │ a request's body
//! ```
//!
//! A slot belongs to the thread until it has filled it, and to the router until that has passed the bytes on. Neither
//! waits for the other: what finds no free slot goes over the link. Bytes are read exactly as far as the other side says
//! that it has written: what earlier bodies left behind them goes to nobody.

#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, Weak};

use memmap2::MmapRaw;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use crate::shared_memory::SharedMemory;

/// Slots for responses.
pub(crate) const SLOTS: usize = 4;
/// Bytes of a slot.
pub(crate) const SLOT: usize = 256 * 1024;
/// The largest body of a request in it, bytes.
pub(crate) const REQUEST_MAX: usize = 1024 * 1024;
/// A body that is worth it: shorter ones are copied as soon as the other side is woken, bytes.
pub(crate) const WORTH_SHARING: usize = 64 * 1024;

/// Where the words are: for each slot whether it is full, in a line of its own.
const FULL: usize = 128;
const LINE: usize = 64;
/// Whether the thread may pass files.
const FILES: usize = 0;
/// Whether the thread has mapped it.
const MAPPED: usize = LINE;
const FIRST_SLOT: usize = 4096;
const REQUEST: usize = FIRST_SLOT + SLOTS * SLOT;
const SIZE: usize = REQUEST + REQUEST_MAX;

/// What threads of this process have mapped.
static MAPPED_HERE: Mutex<Vec<Weak<Segment>>> = Mutex::new(Vec::new());

/// See the module.
#[derive(Debug)]
pub(crate) struct Segment {
    map: MmapRaw,
    /// This is a child that the application has forked, and has nothing of it.
    is_left: AtomicBool,
}

/// In a child that the application forks: the memory is its parent's. It would read and write what the parent's next requests
/// have there, and keep it as long as it lives.
pub(crate) fn leave() {
    // It has one thread. Where another of the parent's was just adding one, that one is left as it is.
    let Ok(here) = MAPPED_HERE.try_lock() else { return };
    here.iter().filter_map(Weak::upgrade).for_each(|segment| segment.leave());
}

impl Segment {
    /// Makes one, and the descriptor for the thread. All of its memory is there from the start: where the system has none left,
    /// writing to a page that is not there yet would end the process (`SIGBUS`).
    ///
    /// # Errors
    /// When the system has no memory or descriptors left.
    pub(crate) fn create() -> nix::Result<(Self, OwnedFd)> {
        let memory = SharedMemory::create(c"rwsgi-bodies", SIZE)?;
        fallocate(memory.file(), FallocateFlags::empty(), 0, SIZE as i64)?;
        let file = memory.file().try_clone_to_owned().map_err(|_| nix::errno::Errno::EMFILE)?;
        Ok((Self::of(memory), file))
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
        Self { map: memory.into_map(), is_left: AtomicBool::new(false) }
    }

    /// Puts memory of this process alone in its place.
    fn leave(&self) {
        self.is_left.store(true, Relaxed);
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
        let slot = (0..SLOTS).find(|slot| self.full(*slot).load(Acquire) == 0)?;
        let len = bytes.len().min(SLOT);
        self.write(FIRST_SLOT + slot * SLOT, &bytes[..len]);
        self.full(slot).store(1, Release);
        Some((slot, len))
    }

    /// The router's: the first `len` bytes of a slot that is full; `None` where there is no such.
    pub(crate) fn filled(&self, slot: usize, len: usize) -> Option<&[u8]> {
        let is_there = slot < SLOTS && len <= SLOT && self.full(slot).load(Acquire) != 0;
        is_there.then(|| self.read(FIRST_SLOT + slot * SLOT, len))
    }

    /// The router's: the thread may fill the slot again. What [`Segment::filled`] gave is not used any more.
    pub(crate) fn empty(&self, slot: usize) {
        self.full(slot).store(0, Release);
    }

    /// The router's: puts a request's body there, of at most [`REQUEST_MAX`] bytes. The thread is done with the one before.
    pub(crate) fn put_request(&self, body: &[u8]) {
        self.write(REQUEST, &body[..body.len().min(REQUEST_MAX)]);
    }

    /// The thread's: the body of the present request, as long as the router says, from `at` on. Nothing where it was left.
    pub(crate) fn request(&self, len: usize, at: usize) -> &[u8] {
        if self.is_left.load(Relaxed) {
            return &[];
        }
        self.read(REQUEST, len.min(REQUEST_MAX)).get(at..).unwrap_or_default()
    }

    fn full(&self, slot: usize) -> &AtomicU64 {
        self.word(FULL + slot.min(SLOTS - 1) * LINE)
    }

    /// The word at `offset`, which is one of the constants above.
    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + size_of::<AtomicU64>() <= FIRST_SLOT, "offset {offset}");
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

#[cfg(test)]
mod tests {
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
        let (router, thread) = both();
        let long: Vec<u8> = (0..SLOT + 5).map(|at| at as u8).collect();
        for slot in 0..SLOTS {
            assert_eq!(thread.fill(&long[slot..]), Some((slot, SLOT)));
            assert_eq!(router.filled(slot, SLOT).unwrap(), &long[slot..slot + SLOT]);
        }
        assert_eq!(thread.fill(b"more"), None);
        router.empty(2);
        assert_eq!(thread.fill(b"more"), Some((2, 4)));
        assert_eq!(router.filled(2, 4).unwrap(), b"more");
        assert_eq!(router.filled(1, SLOT).unwrap(), &long[1..=SLOT]);
    }

    #[test]
    fn nothing_is_read_beyond_a_slot_or_from_one_that_is_not_full() {
        let (router, thread) = both();
        thread.fill(b"x").unwrap();
        assert!(router.filled(0, SLOT).is_some());
        assert_eq!(router.filled(0, SLOT + 1), None);
        assert_eq!(router.filled(1, 1), None);
        assert_eq!(router.filled(SLOTS, 1), None);
    }

    #[test]
    fn a_body_of_a_request_has_its_place_beside_the_slots() {
        let (router, thread) = both();
        let body: Vec<u8> = (0..REQUEST_MAX).map(|at| (at % 251) as u8).collect();
        thread.fill(&vec![7; SLOT]).unwrap();
        router.put_request(&body);
        assert_eq!(thread.request(REQUEST_MAX, 0), body);
        assert_eq!(thread.request(3, 1), &body[1..3]);
        assert_eq!(thread.request(3, 4), b"");
        assert_eq!(router.filled(0, SLOT).unwrap(), vec![7; SLOT]);
    }

    #[test]
    fn what_is_left_shows_nothing_and_changes_nothing() {
        let (router, thread) = both();
        router.put_request(b"body");
        thread.leave();
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
