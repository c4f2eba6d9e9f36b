//! The shared memory that answers are written to: a part for each slot of the scoreboard, in it a head, an area for each
//! serving thread, and some for threads of the application. The master makes the file and reads it with `pread(2)`, so
//! that it has a copy of what it judges; a process maps its own slot alone. What was never written takes no memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::ids::SlotId;
use crate::procfs::page_size;
use crate::shared_memory::{Shareable, SharedMemory};
use crate::stats::scoreboard::Layout;

/// Threads of the application that can be asked at once, beside those that serve.
pub(crate) const GUESTS: u32 = 128;
/// Of an area, bytes: pages that no answer reaches take no memory.
pub(crate) const AREA: usize = 32 * 1024;
/// Before an area's frames, bytes.
pub(crate) const ANSWER_HEAD: usize = 256;
/// Bytes of a peer's address that are kept.
pub(crate) const PEER_KEPT: usize = 128;

/// Stands before everything of a process.
#[repr(C)]
pub(crate) struct ProcessHead {
    /// What the process says of itself: [`Readiness`].
    pub readiness: AtomicU32,
    /// Keeps what follows on its boundary.
    pub unused: AtomicU32,
}

/// Whose an area is, at the place of the area in a list behind [`ProcessHead`].
#[repr(C)]
pub(crate) struct Owner {
    /// The system's number of the thread, 0 before there is one.
    pub thread: AtomicU32,
    /// Keeps what follows on its boundary.
    pub unused: AtomicU32,
    /// The frame in which the thread began to serve, 0 for none: it and those around it are the server's.
    pub base: AtomicU64,
}

/// Stands before an area's frames; written by its thread alone.
#[repr(C)]
pub(crate) struct AnswerHead {
    /// Which question is answered, written last; 0 while an answer is written.
    pub question: AtomicU64,
    /// The thread.
    pub thread: AtomicU32,
    /// [`super::answer::Facts`], as bits.
    pub facts: AtomicU32,
    /// The system call, when it waits in one.
    pub call: AtomicU32,
    /// Bytes of the address of the other end of what it waits for.
    pub peer_len: AtomicU32,
    /// Bytes of frames.
    pub frames_len: AtomicU32,
    /// Keeps what follows on its boundary.
    pub unused: AtomicU32,
    /// That address, as the system has it.
    pub peer: [AtomicU64; PEER_KEPT / 8],
}

const _: () = assert!(size_of::<AnswerHead>() <= ANSWER_HEAD);

/// Whether a process can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Readiness {
    /// It has not said so yet: the signal would end it.
    NotYet = 0,
    /// It writes frames.
    Frames = 1,
    /// It says what its threads do, without frames: its Python is of a version that is not known.
    UnknownPython = 2,
    /// As before: what a walk finds is not what Python says.
    OtherBuild = 3,
}

impl Readiness {
    /// The one of this number; `None` for what no process of ours writes.
    #[must_use]
    pub(crate) fn of(number: u32) -> Option<Self> {
        [Self::NotYet, Self::Frames, Self::UnknownPython, Self::OtherBuild].into_iter().find(|it| *it as u32 == number)
    }
}

/// Where things are in a slot's part, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// Threads that serve.
    pub serving: u32,
    head: usize,
}

impl Places {
    /// With so many threads that serve.
    #[must_use]
    pub(crate) fn new(serving: u32) -> Self {
        let owners = (serving + GUESTS) as usize * size_of::<Owner>();
        Self { serving, head: (size_of::<ProcessHead>() + owners).next_multiple_of(page_size().max(AREA)) }
    }

    /// Areas.
    #[must_use]
    pub(crate) fn areas(self) -> u32 {
        self.serving + GUESTS
    }

    /// Where an area's owner stands.
    #[must_use]
    pub(crate) fn owner(self, area: u32) -> usize {
        size_of::<ProcessHead>() + area as usize * size_of::<Owner>()
    }

    /// Where an area begins.
    #[must_use]
    pub(crate) fn area(self, area: u32) -> usize {
        self.head + area as usize * AREA
    }

    /// The whole part.
    #[must_use]
    pub(crate) fn size(self) -> usize {
        self.area(self.areas())
    }
}

/// The master's side.
#[derive(Clone, Debug)]
pub(crate) struct StackMemory {
    file: Arc<File>,
    places: Places,
}

impl StackMemory {
    /// Makes it, for as many slots as the scoreboard has.
    ///
    /// # Errors
    /// When the system has no memory or descriptors left.
    pub(crate) fn create(layout: Layout) -> io::Result<Self> {
        let places = Places::new(layout.threads);
        let memory = SharedMemory::create(c"rwsgi-stacks", layout.slots as usize * places.size())?;
        let file = File::from(memory.file().try_clone_to_owned()?);
        Ok(Self { file: Arc::new(file), places })
    }

    /// The memory file, to be inherited by other processes.
    #[must_use]
    pub(crate) fn memory(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where things are in each slot's part.
    #[must_use]
    pub(crate) fn places(&self) -> Places {
        self.places
    }

    /// Reads from a slot's part.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub(crate) fn read(&self, slot: SlotId, at: usize, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, (slot.index() * self.places.size() + at) as u64)
    }

    /// Forgets what a slot's process has written, whose end was seen; gives its memory back.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub(crate) fn clear(&self, slot: SlotId) -> nix::Result<()> {
        self.punch(slot.index() * self.places.size(), self.places.size())
    }

    /// Gives the memory of the answers of a slot's serving threads back. Its process goes on, and may be writing one.
    /// Those of the application keep theirs, by which another thread knows that it may take the area of an ended one.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub(crate) fn forget_answers(&self, slot: SlotId) -> nix::Result<()> {
        self.punch(slot.index() * self.places.size() + self.places.head, self.places.serving as usize * AREA)
    }

    fn punch(&self, at: usize, len: usize) -> nix::Result<()> {
        use nix::fcntl::{FallocateFlags, fallocate};
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, flags, at as i64, len as i64)
    }
}

/// A process's own part, mapped.
#[derive(Debug)]
pub(crate) struct OwnPart {
    memory: SharedMemory,
    places: Places,
}

impl OwnPart {
    /// Maps the part of a slot.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub(crate) fn map(file: OwnedFd, layout: Layout, slot: SlotId) -> nix::Result<Self> {
        let places = Places::new(layout.threads);
        let start = slot.index() * places.size();
        let memory = SharedMemory::map_part(file, start..start + places.size())?;
        Ok(Self { memory, places })
    }

    /// Where things are in it.
    #[must_use]
    pub(crate) fn places(&self) -> Places {
        self.places
    }

    /// What stands before everything.
    #[must_use]
    pub(crate) fn head(&self) -> &ProcessHead {
        self.memory.at(0)
    }

    /// Whose an area is.
    ///
    /// # Panics
    /// When there is no such area.
    #[must_use]
    pub(crate) fn owner(&self, area: u32) -> &Owner {
        self.memory.at(self.places.owner(area))
    }

    /// What stands before an area's frames.
    ///
    /// # Panics
    /// When there is no such area.
    #[must_use]
    pub(crate) fn answer(&self, area: u32) -> &AnswerHead {
        self.memory.at(self.places.area(area))
    }

    /// The space for an area's frames; it is its owner's alone.
    ///
    /// # Panics
    /// When there is no such area.
    #[must_use]
    pub(crate) fn frames(&self, area: u32) -> *mut [u8] {
        let start = self.places.area(area);
        self.memory.bytes(start + ANSWER_HEAD..start + AREA)
    }
}

#[allow(unsafe_code)]
mod shareable {
    use super::{AnswerHead, Owner, ProcessHead, Shareable};

    // SAFETY: atomics alone, of which every byte belongs to one.
    unsafe impl Shareable for ProcessHead {}
    // SAFETY: as above.
    unsafe impl Shareable for AnswerHead {}
    // SAFETY: as above.
    unsafe impl Shareable for Owner {}
}
