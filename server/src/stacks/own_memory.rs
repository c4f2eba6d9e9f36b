//! Reading this process's own memory where it may not be there: an address that is wrong is an error, not SIGSEGV.
//! Nothing here allocates or locks: a signal handler calls it.

#![allow(unsafe_code)]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use nix::libc;

/// A security profile forbids `process_vm_readv(2)`: memory is read through a file, which is slower.
static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// This process's memory.
#[derive(Debug)]
pub enum OwnMemory {
    /// By system call. A process may always read itself.
    Call(libc::pid_t),
    /// `/proc/self/mem`.
    File(libc::c_int),
}

impl OwnMemory {
    /// This process's.
    #[must_use]
    pub fn open() -> Self {
        // SAFETY: it has no arguments.
        let pid = unsafe { libc::getpid() };
        if !FORBIDDEN.load(Relaxed) {
            return Self::Call(pid);
        }
        // SAFETY: the path is static, and ends with 0. What cannot be opened cannot be read, which is an error there.
        Self::File(unsafe { libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })
    }

    /// Finds out whether the call is permitted; to be asked before the first use, in this process or the one that it is
    /// forked from.
    pub fn settle() {
        let (there, mut found) = (1_u8, [0]);
        FORBIDDEN.store(false, Relaxed);
        if Self::open().read((&raw const there).addr(), &mut found) != 1 {
            FORBIDDEN.store(true, Relaxed);
        }
    }

    /// Reads what is at `address`, as far as it is there; returns how many bytes.
    pub fn read(&self, address: usize, into: &mut [u8]) -> usize {
        let read = match *self {
            Self::Call(pid) => {
                let ours = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
                let theirs = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: into.len() };
                // SAFETY: the kernel writes to `into` alone, at most its length; it checks the other address.
                unsafe { libc::process_vm_readv(pid, &raw const ours, 1, &raw const theirs, 1, 0) }
            }
            Self::File(file) => match libc::off_t::try_from(address) {
                // SAFETY: the kernel writes to `into` alone, at most its length.
                Ok(at) => unsafe { libc::pread(file, into.as_mut_ptr().cast(), into.len(), at) },
                Err(_) => return 0,
            },
        };
        usize::try_from(read).unwrap_or(0)
    }

    /// The same, of at least that many bytes or none; what is not there is 0.
    #[must_use]
    pub fn read_least<const BYTES: usize>(&self, address: usize, least: usize) -> Option<[u8; BYTES]> {
        let mut bytes = [0; BYTES];
        (self.read(address, &mut bytes) >= least).then_some(bytes)
    }

    /// The same, of all or nothing.
    #[must_use]
    pub fn read_all<const BYTES: usize>(&self, address: usize) -> Option<[u8; BYTES]> {
        self.read_least(address, BYTES)
    }

    /// A pointer.
    #[must_use]
    pub fn read_word(&self, address: usize) -> Option<usize> {
        self.read_all(address).map(usize::from_ne_bytes)
    }
}

impl Drop for OwnMemory {
    fn drop(&mut self) {
        if let Self::File(file) = *self {
            // SAFETY: it is this value's own, and used no more.
            unsafe { libc::close(file) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_an_error_either_way() {
        let file = || {
            // SAFETY: as in `open`.
            OwnMemory::File(unsafe { libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })
        };
        OwnMemory::settle();
        for memory in [OwnMemory::open(), file()] {
            let text = *b"some text";
            let mut found = [0; 9];
            assert_eq!(memory.read(text.as_ptr().addr(), &mut found), 9);
            assert_eq!(&found, b"some text");
            for nowhere in [0, 8, usize::MAX, usize::MAX - 100, 1 << 63] {
                assert_eq!(memory.read(nowhere, &mut found), 0, "{nowhere:#x}");
            }
        }
        assert_eq!(OwnMemory::File(-1).read(found_address(), &mut [0]), 0, "a file that could not be opened");
    }

    fn found_address() -> usize {
        static THERE: u8 = 0;
        (&raw const THERE).addr()
    }
}
