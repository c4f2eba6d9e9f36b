//! Memory that all processes of a server share, and mutexes that lie in it.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

/// A mapping. The master makes it, all other processes inherit it; it is all zero at first.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    size: usize,
    file: OwnedFd,
}

// SAFETY: the mapping lives as long as the value; what is done with it is the business of `at` and `bytes`.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Makes one of `size` bytes.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn create(name: &std::ffi::CStr, size: usize) -> nix::Result<Self> {
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&file, i64::try_from(size).map_err(|_| Errno::EFBIG)?)?;
        Self::map(file, size)
    }

    /// Maps one that another process made with this size.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn map(file: OwnedFd, size: usize) -> nix::Result<Self> {
        let length = NonZeroUsize::new(size).ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // A cache is as large as it may ever become, and nobody knows whether it will.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of this process.
        let base = unsafe { mmap(None, length, protection, flags, &file, 0)? };
        Ok(Self { base: base.cast(), size, file })
    }

    /// The file, to be inherited by other processes.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What lies at an offset.
    ///
    /// # Panics
    /// When it reaches beyond the mapping, or is not aligned.
    #[must_use]
    pub fn at<T: Shareable>(&self, offset: usize) -> &T {
        assert!(offset + size_of::<T>() <= self.size && offset.is_multiple_of(align_of::<T>()), "offset {offset}");
        // SAFETY: within the mapping, which begins on a page, and aligned; `Shareable` says that every byte pattern is
        // valid and that other processes may write at any time.
        unsafe { self.base.add(offset).cast().as_ref() }
    }

    /// Everything from an offset on.
    ///
    /// # Safety
    /// Nobody else, in this process or another, may read or write it as long as the result lives.
    #[must_use]
    #[expect(clippy::mut_from_ref, reason = "the caller vouches for being alone")]
    pub unsafe fn bytes(&self, offset: usize) -> &mut [u8] {
        assert!(offset <= self.size, "offset {offset}");
        // SAFETY: within the mapping; that nobody else uses it is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(offset).as_ptr(), self.size - offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping, and every reference into it borrows the value.
        // An error would leave the mapping until the process ends, which harms nobody.
        let _ = unsafe { munmap(self.base.cast(), self.size) };
    }
}

/// What may lie in shared memory: all zero is valid, and so is whatever other processes write.
///
/// # Safety
/// The type has only atomics and [`Mutex`]es in it.
pub unsafe trait Shareable {}
// SAFETY: an atomic.
unsafe impl Shareable for std::sync::atomic::AtomicI64 {}
// SAFETY: an atomic.
unsafe impl Shareable for std::sync::atomic::AtomicU64 {}
// SAFETY: a mutex.
unsafe impl Shareable for Mutex {}

/// A mutex between processes. When its owner dies, the next one gets it.
#[repr(C, align(64))]
pub struct Mutex {
    raw: UnsafeCell<libc::pthread_mutex_t>,
    owner: AtomicI32,
}

// SAFETY: the system's mutex is made for several threads, and `owner` is an atomic.
unsafe impl Sync for Mutex {}

/// What came of locking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// As it should be.
    Clean,
    /// The owner before has died: what the mutex guards may be half done.
    Abandoned,
}

impl Mutex {
    /// Makes it usable. To be called once, by the master, before anybody else has the memory.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn prepare(&self) -> nix::Result<()> {
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        let check = |error: libc::c_int| if error == 0 { Ok(()) } else { Err(Errno::from_raw(error)) };
        // SAFETY: the attributes are initialized before they are used and destroyed after; nobody uses the mutex yet.
        unsafe {
            check(libc::pthread_mutexattr_init(attributes))?;
            check(libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED))?;
            check(libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST))?;
            check(libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ERRORCHECK))?;
            let made = check(libc::pthread_mutex_init(self.raw.get(), attributes));
            libc::pthread_mutexattr_destroy(attributes);
            made
        }
    }

    /// Waits for it.
    ///
    /// # Errors
    /// `EDEADLK` when this thread has it already.
    pub fn lock(&self) -> nix::Result<Locked> {
        // SAFETY: `prepare` made it; the memory lives as long as the reference.
        self.taken(unsafe { libc::pthread_mutex_lock(self.raw.get()) })
    }

    /// Takes it if nobody has it: `EBUSY` otherwise.
    ///
    /// # Errors
    /// See above.
    pub fn try_lock(&self) -> nix::Result<Locked> {
        // SAFETY: as in `lock`.
        self.taken(unsafe { libc::pthread_mutex_trylock(self.raw.get()) })
    }

    fn taken(&self, outcome: libc::c_int) -> nix::Result<Locked> {
        let locked = match outcome {
            0 => Locked::Clean,
            libc::EOWNERDEAD => {
                // SAFETY: this thread has it, and says that it goes on to be used.
                unsafe { libc::pthread_mutex_consistent(self.raw.get()) };
                Locked::Abandoned
            }
            error => return Err(Errno::from_raw(error)),
        };
        self.owner.store(std::process::id() as i32, Ordering::Relaxed);
        Ok(locked)
    }

    /// Gives it back.
    ///
    /// # Errors
    /// `EPERM` when this thread does not have it.
    pub fn unlock(&self) -> nix::Result<()> {
        let owner = self.owner.swap(0, Ordering::Relaxed);
        // SAFETY: as in `lock`; that the thread has it is checked by the system.
        match unsafe { libc::pthread_mutex_unlock(self.raw.get()) } {
            0 => Ok(()),
            error => {
                self.owner.store(owner, Ordering::Relaxed);
                Err(Errno::from_raw(error))
            }
        }
    }

    /// The process that has it; 0 when nobody has. One that died with it is told until somebody else takes it.
    #[must_use]
    pub fn owner(&self) -> i32 {
        self.owner.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Mutex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mutex").field("owner", &self.owner()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutex_excludes_and_outlives_its_owner() {
        let memory = std::sync::Arc::new(Memory::create(c"test", 4096).unwrap());
        memory.at::<Mutex>(64).prepare().unwrap();
        let other = std::sync::Arc::clone(&memory);
        // A thread that ends with it is, for the mutex, an owner that died.
        std::thread::spawn(move || other.at::<Mutex>(64).lock().unwrap()).join().unwrap();
        let mutex = memory.at::<Mutex>(64);
        assert_eq!(mutex.lock(), Ok(Locked::Abandoned));
        assert_eq!(mutex.owner(), std::process::id() as i32);
        assert_eq!(mutex.lock(), Err(Errno::EDEADLK));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(mutex.try_lock(), Err(Errno::EBUSY));
                assert_eq!(mutex.unlock(), Err(Errno::EPERM));
            });
        });
        assert_ne!(mutex.owner(), 0, "it is still locked");
        mutex.unlock().unwrap();
        assert_eq!(mutex.owner(), 0);
    }
}
