//! Mutexes that lie in memory that processes share, and survive the process that holds them.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::errno::Errno;
use nix::libc;

use crate::shared_memory::Shareable;

/// A mutex between processes. When its owner dies, the next one gets it.
///
/// All zero is a valid one, but not one that outlives its owner: [`Mutex::prepare`] makes that of it.
#[repr(C, align(64))]
pub(crate) struct Mutex {
    raw: UnsafeCell<libc::pthread_mutex_t>,
    owner: AtomicI32,
    /// Not 0 after a panic of its owner's, until somebody else has locked it.
    is_poisoned: AtomicU32,
}

// SAFETY: the system's mutex is made for several threads, and the rest are atomics.
unsafe impl Sync for Mutex {}
// SAFETY: the system's mutex is made for several processes, and the rest are atomics.
unsafe impl Shareable for Mutex {}

/// What came of locking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locked {
    /// As it should be.
    Clean,
    /// The owner before has died or panicked: what the mutex guards may be half done.
    Abandoned,
}

/// A mutex that this thread holds until this is dropped. Dropped by a panic, it leaves the mutex abandoned, as the
/// owner's death would.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    mutex: &'a Mutex,
    /// How the mutex was found.
    pub(crate) locked: Locked,
    /// The system wants the thread that locked to unlock.
    stays_here: PhantomData<*const ()>,
}

impl Guard<'_> {
    /// Leaves the mutex locked: [`Mutex::unlock`] gives it back.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.mutex.is_poisoned.store(1, Ordering::Relaxed);
        }
        // It can fail only in a thread that does not hold the mutex, and this one does.
        let _ = self.mutex.unlock();
    }
}

impl Mutex {
    /// Makes it one that outlives its owner.
    ///
    /// # Errors
    /// When the system cannot.
    ///
    /// # Safety
    /// Nobody else may use it yet, in this process or another.
    pub(crate) unsafe fn prepare(&self) -> nix::Result<()> {
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        let check = |error: libc::c_int| if error == 0 { Ok(()) } else { Err(Errno::from_raw(error)) };
        // SAFETY: the attributes are initialized before they are used and destroyed after; that nobody uses the mutex
        // yet is the caller's promise.
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

    /// Locks it, waiting if needed.
    ///
    /// # Errors
    /// `EDEADLK` when this thread has it already.
    pub(crate) fn lock(&self) -> nix::Result<Guard<'_>> {
        // SAFETY: all zero or prepared, it is a mutex; the memory lives as long as the reference.
        self.taken(unsafe { libc::pthread_mutex_lock(self.raw.get()) })
    }

    /// Locks it if nobody holds it: `EBUSY` otherwise.
    ///
    /// # Errors
    /// See above.
    pub(crate) fn try_lock(&self) -> nix::Result<Guard<'_>> {
        // SAFETY: as in `lock`.
        self.taken(unsafe { libc::pthread_mutex_trylock(self.raw.get()) })
    }

    fn taken(&self, outcome: libc::c_int) -> nix::Result<Guard<'_>> {
        let has_died = match outcome {
            0 => false,
            libc::EOWNERDEAD => {
                // SAFETY: this thread has it, and says that it goes on to be used.
                unsafe { libc::pthread_mutex_consistent(self.raw.get()) };
                true
            }
            error => return Err(Errno::from_raw(error)),
        };
        let has_panicked = self.is_poisoned.swap(0, Ordering::Relaxed) != 0;
        self.owner.store(std::process::id() as i32, Ordering::Relaxed);
        let locked = if has_died || has_panicked { Locked::Abandoned } else { Locked::Clean };
        Ok(Guard { mutex: self, locked, stays_here: PhantomData })
    }

    /// Unlocks it.
    ///
    /// # Errors
    /// `EPERM` when this thread does not have it.
    pub(crate) fn unlock(&self) -> nix::Result<()> {
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

    /// The process that has it; 0 when nobody has. A process that died with it is returned until another takes it.
    #[must_use]
    pub(crate) fn owner(&self) -> i32 {
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
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::shared_memory::zeroed;

    fn prepared() -> Box<Mutex> {
        let mutex = zeroed::<Mutex>();
        // SAFETY: nobody else has it.
        unsafe { mutex.prepare().unwrap() };
        mutex
    }

    #[test]
    fn a_mutex_excludes_and_outlives_its_owner() {
        let mutex = prepared();
        // A thread that ends with it is, for the mutex, an owner that died.
        std::thread::scope(|scope| drop(scope.spawn(|| mutex.lock().unwrap().keep()).join()));
        let guard = mutex.lock().unwrap();
        assert_eq!(guard.locked, Locked::Abandoned);
        assert_eq!(mutex.owner(), std::process::id() as i32);
        assert_eq!(mutex.lock().unwrap_err(), Errno::EDEADLK);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(mutex.try_lock().unwrap_err(), Errno::EBUSY);
                assert_eq!(mutex.unlock(), Err(Errno::EPERM));
            });
        });
        assert_ne!(mutex.owner(), 0, "it is still locked");
        drop(guard);
        assert_eq!(mutex.owner(), 0);
        assert_eq!(mutex.lock().unwrap().locked, Locked::Clean);
    }

    #[test]
    fn a_panic_releases_it_and_the_next_owner_knows() {
        let mutex = prepared();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = mutex.lock();
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(mutex.owner(), 0);
        assert_eq!(mutex.lock().unwrap().locked, Locked::Abandoned);
        assert_eq!(mutex.lock().unwrap().locked, Locked::Clean);
    }
}
