//! Shared memory of parts: mutexes, numbers that anybody may change at any time, and bytes that one thread at a time
//! may use.

use std::ops::{Deref, DerefMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;

use super::mutex::{Guard, Locked, Mutex};
use crate::shared_memory::SharedMemory;

/// What lies in the memory, in this order. All processes must say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Mutexes that guard nothing of the memory.
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
        self.guarded_at().checked_add(self.guarded).ok_or(Errno::EFBIG)
    }
}

/// Shared memory of parts.
#[derive(Debug)]
pub(crate) struct PartedMemory {
    memory: SharedMemory,
    parts: Parts,
}

impl PartedMemory {
    /// Makes some, all zero.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(crate) fn create(name: &std::ffi::CStr, parts: Parts) -> nix::Result<Self> {
        let made = Self { memory: SharedMemory::create(name, parts.size()?)?, parts };
        let own = (parts.guarded > 0).then(|| made.own_mutex());
        for mutex in (0..parts.mutexes).filter_map(|number| made.mutex(number)).chain(own) {
            #[allow(unsafe_code)]
            // SAFETY: nobody else has the file yet.
            unsafe {
                mutex.prepare()?;
            }
        }
        Ok(made)
    }

    /// Maps what another process has made of the same parts.
    ///
    /// # Errors
    /// When it cannot be mapped; `EINVAL` when it is smaller.
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
        let start = self.parts.guarded_at();
        #[allow(unsafe_code)]
        // SAFETY: the memory is borrowed for as long, and a user of these bytes, in any of our processes, must hold
        // the mutex, which nobody can unlock but the guard that lives beside them.
        let bytes = unsafe { &mut *self.memory.bytes(start..start + self.parts.guarded) };
        Ok(Exclusive { guard, bytes })
    }
}

/// The guarded bytes, for as long as this thread alone has them.
pub(crate) struct Exclusive<'a> {
    guard: Guard<'a>,
    bytes: &'a mut [u8],
}

impl Exclusive<'_> {
    /// Whether the bytes may be half changed, because the previous owner has died or panicked.
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
        let memory = PartedMemory::create(c"test", PARTS).unwrap();
        let other = PartedMemory::map(memory.file().try_clone_to_owned().unwrap(), PARTS).unwrap();
        memory.lock().unwrap().fill(7);
        (0..3).for_each(|place| memory.number(place).store(place as u64 + 1, std::sync::atomic::Ordering::Relaxed));
        let guards = [memory.mutex(0).unwrap().lock().unwrap(), memory.mutex(1).unwrap().lock().unwrap()];
        assert!(memory.mutex(2).is_none());
        assert_eq!(other.mutex(1).unwrap().owner(), std::process::id() as i32);
        assert!((0..3).all(|place| other.number(place).load(std::sync::atomic::Ordering::Relaxed) == place as u64 + 1));
        assert_eq!(&*other.lock().unwrap(), [7; 100]);
        drop(guards);
    }
}
