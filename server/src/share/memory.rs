//! Memory that all processes of a server share. The master makes it, all others inherit it; it is all zero at first.

#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use super::mutex::{Guard, Locked, Mutex};

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
    mapping: MmapRaw,
    parts: Parts,
    file: OwnedFd,
}

impl Memory {
    /// Makes one. Nobody can make it smaller: to read what is not there any more would end the process.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(crate) fn create(name: &std::ffi::CStr, parts: Parts) -> nix::Result<Self> {
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        ftruncate(&file, parts.size()? as i64)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL))?;
        let memory = Self::map(file, parts)?;
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
        let size = parts.size()?;
        let seals = SealFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GET_SEALS)?);
        // What was checked once stays so.
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || fstat(&file)?.st_size < size as i64 {
            return Err(Errno::EINVAL);
        }
        // A cache is as large as it may ever become, and nobody knows whether it will.
        let mapped = MmapOptions::new().len(size).no_reserve_swap().map_raw(file.as_raw_fd());
        let mapping = mapped.map_err(|error| error.raw_os_error().map_or(Errno::ENOMEM, Errno::from_raw))?;
        Ok(Self { mapping, parts, file })
    }

    /// The file, to be inherited by other processes.
    #[must_use]
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The mutex of this number, from 0.
    #[must_use]
    pub(crate) fn mutex(&self, number: usize) -> Option<&Mutex> {
        // SAFETY: within the mapping as `Parts` divides it; it begins on a page, which aligns what is in it.
        (number < self.parts.mutexes).then(|| unsafe { self.at(self.parts.mutexes_at() + number * size_of::<Mutex>()) })
    }

    /// The number at this place, from 0.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub(crate) fn number(&self, place: usize) -> &AtomicU64 {
        assert!(place < self.parts.numbers, "number {place} of {}", self.parts.numbers);
        // SAFETY: as above.
        unsafe { self.at(self.parts.numbers_at() + place * size_of::<AtomicU64>()) }
    }

    /// The mutex of the guarded bytes. Nobody outside may unlock it.
    fn own_mutex(&self) -> &Mutex {
        assert!(self.parts.guarded > 0, "there is nothing to guard");
        // SAFETY: as above.
        unsafe { self.at(0) }
    }

    /// # Safety
    /// A `T` lies there, for which any bytes are valid, and which any process may change at any time: a mutex or an atomic.
    unsafe fn at<T: Sync>(&self, offset: usize) -> &T {
        // SAFETY: the caller's promise; the file cannot shrink, so that what is mapped is there.
        unsafe { &*self.mapping.as_mut_ptr().add(offset).cast() }
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
            let start = self.mapping.as_mut_ptr().add(self.parts.guarded_at());
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
    fn nobody_can_take_memory_away_from_the_others() {
        let memory = Memory::create(c"test", PARTS).unwrap();
        assert_eq!(ftruncate(memory.file(), 0), Err(Errno::EPERM));
        let larger = Parts { guarded: 1 << 20, ..PARTS };
        assert_eq!(Memory::map(memory.file().try_clone_to_owned().unwrap(), larger).unwrap_err(), Errno::EINVAL);
        let unsealed = memfd_create(c"test", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, 4096).unwrap();
        assert_eq!(Memory::map(unsealed, PARTS).unwrap_err(), Errno::EINVAL);
    }
}
