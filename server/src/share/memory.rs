//! Shared memory with mutexes, numbers and guarded bytes in it. It is all zero at first.

#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;

use super::mutex::{Guard, Locked, Mutex};
use crate::shared_memory::{Shareable, SharedMemory};

// SAFETY: the system's mutex, which is made for use between processes, and an atomic.
unsafe impl Shareable for Mutex {}

/// What lies in a mapping, in this order. Both sides of it must say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Mutexes that guard nothing of the mapping.
    pub(crate) mutexes: usize,
    /// Numbers that everybody may read and write at any time.
    pub(crate) numbers: usize,
    /// Bytes that one thread of one process may use at a time, behind a mutex of their own.
    pub(crate) guarded: usize,
}

/// Guarded bytes begin at a multiple of this, so that whatever is laid out in them is aligned.
const ALIGNMENT: usize = 64;

impl Parts {
    fn mutexes_at(self) -> usize {
        if self.guarded == 0 { 0 } else { size_of::<Mutex>() }
    }

    fn numbers_at(self) -> usize {
        self.mutexes_at() + self.mutexes * size_of::<Mutex>()
    }

    fn guarded_at(self) -> usize {
        (self.numbers_at() + self.numbers * size_of::<AtomicU64>()).next_multiple_of(ALIGNMENT)
    }

    fn size(self) -> nix::Result<usize> {
        let size = self.guarded_at().checked_add(self.guarded);
        size.filter(|size| i64::try_from(*size).is_ok()).ok_or(Errno::EFBIG)
    }
}

/// A mapping.
#[derive(Debug)]
pub(crate) struct Memory {
    memory: SharedMemory,
    parts: Parts,
}

impl Memory {
    /// Makes one.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(crate) fn create(name: &std::ffi::CStr, parts: Parts) -> nix::Result<Self> {
        let memory = Self { memory: SharedMemory::create(name, parts.size()?)?, parts };
        let own = (parts.guarded > 0).then(|| memory.own_mutex());
        for mutex in (0..parts.mutexes).filter_map(|number| memory.mutex(number)).chain(own) {
            // SAFETY: nobody else has the file yet.
            unsafe { mutex.prepare()? };
        }
        Ok(memory)
    }

    /// Maps one that another process has made, of the same parts.
    ///
    /// # Errors
    /// `EINVAL` when the file is none, or too small; otherwise when it cannot be mapped.
    pub(crate) fn map(file: OwnedFd, parts: Parts) -> nix::Result<Self> {
        Ok(Self { memory: SharedMemory::map(file, parts.size()?)?, parts })
    }

    /// The file, to be inherited by other processes.
    #[must_use]
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.memory.file()
    }

    /// The mutex of this number, from 0.
    #[must_use]
    pub(crate) fn mutex(&self, number: usize) -> Option<&Mutex> {
        let at = self.parts.mutexes_at() + number * size_of::<Mutex>();
        (number < self.parts.mutexes).then(|| self.memory.at(at))
    }

    /// The number at this place, from 0.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub(crate) fn number(&self, place: usize) -> &AtomicU64 {
        assert!(place < self.parts.numbers, "number {place} of {}", self.parts.numbers);
        self.memory.at(self.parts.numbers_at() + place * size_of::<AtomicU64>())
    }

    /// The mutex of the guarded bytes. Nobody outside may unlock it.
    fn own_mutex(&self) -> &Mutex {
        assert!(self.parts.guarded > 0, "there is nothing to guard");
        self.memory.at(0)
    }

    /// Waits until this thread alone has the guarded bytes.
    ///
    /// # Errors
    /// `EDEADLK` when this thread has them already.
    pub(crate) fn lock(&self) -> nix::Result<Exclusive<'_>> {
        let guard = self.own_mutex().lock()?;
        // SAFETY: they are within the mapping, which is borrowed for as long; whoever wants them, in any process, must hold
        // the mutex, which nobody can unlock but the guard that lives beside them.
        let bytes = unsafe {
            let start = self.memory.as_mut_ptr().add(self.parts.guarded_at());
            std::slice::from_raw_parts_mut(start, self.parts.guarded)
        };
        Ok(Exclusive { guard, bytes })
    }
}

/// The guarded bytes of a mapping, for as long as this thread alone has them.
pub(crate) struct Exclusive<'a> {
    guard: Guard<'a>,
    bytes: &'a mut [u8],
}

impl Exclusive<'_> {
    /// Whether the bytes may be half changed, because whoever had them before has died or panicked.
    #[must_use]
    pub(crate) fn locked(&self) -> Locked {
        self.guard.locked
    }
}

impl Deref for Exclusive<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl DerefMut for Exclusive<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: Parts = Parts { mutexes: 2, numbers: 3, guarded: 100 };

    #[test]
    fn parts_lie_beside_each_other_in_every_process() {
        let memory = Memory::create(c"test", PARTS).unwrap();
        let other = Memory::map(memory.file().try_clone_to_owned().unwrap(), PARTS).unwrap();
        memory.lock().unwrap().fill(7);
        (0..3).for_each(|place| memory.number(place).store(place as u64 + 1, std::sync::atomic::Ordering::Relaxed));
        let guards = [memory.mutex(0).unwrap().lock().unwrap(), memory.mutex(1).unwrap().lock().unwrap()];
        assert!(memory.mutex(2).is_none());
        assert_eq!(other.mutex(1).unwrap().owner(), std::process::id() as i32);
        assert!((0..3).all(|place| other.number(place).load(std::sync::atomic::Ordering::Relaxed) == place as u64 + 1));
        assert_eq!(&*other.lock().unwrap(), [7; 100]);
        drop(guards);
    }

    #[test]
    fn what_is_too_small_for_its_parts_is_not_mapped() {
        let memory = Memory::create(c"test", PARTS).unwrap();
        let larger = Parts { guarded: 1 << 20, ..PARTS };
        assert_eq!(Memory::map(memory.file().try_clone_to_owned().unwrap(), larger).unwrap_err(), Errno::EINVAL);
        assert_eq!(Memory::create(c"test", Parts { guarded: usize::MAX, ..PARTS }).unwrap_err(), Errno::EFBIG);
    }
}
