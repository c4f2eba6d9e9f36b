//! Reading this process's own memory where it may not be there: an address that is wrong is an error, not SIGSEGV.
//! Nothing here allocates or locks: a signal handler calls it.
//!
//! The kernel is asked once for each page whether it is there, by a call that reads from it and does nothing else:
//! `rt_sigprocmask(2)` with an invalid `how`. `process_vm_readv(2)` costs ten times as much, and not every
//! security profile permits it. Between the question and the reading a page could go only under a pointer that leads
//! nowhere, for what the thread's own frames refer to stays as long as they do.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::libc;

/// The kernel does not tell in this way which pages are there: they are read by `process_vm_readv(2)`.
static DOES_NOT_TELL: AtomicBool = AtomicBool::new(false);

/// The smallest that there is. Where pages are larger, some are asked for twice.
const PAGE: usize = 4096;
/// Pages that are remembered, by the last bits of their numbers.
const REMEMBERED: usize = 32;

/// This process's memory.
#[derive(Debug)]
pub(crate) struct OwnMemory {
    /// Pages that are there.
    pages: Cell<[usize; REMEMBERED]>,
}

impl OwnMemory {
    /// This process's, as it is now.
    #[must_use]
    pub(crate) fn now() -> Self {
        // The first page is never there.
        Self { pages: Cell::new([0; REMEMBERED]) }
    }

    /// Finds out which way of reading works; to be called before the first use, in this process or the one that it is
    /// forked from.
    pub(crate) fn settle() {
        let there = 1_u64;
        let tells = is_there((&raw const there).addr() & !(PAGE - 1)) && !is_there(0);
        DOES_NOT_TELL.store(!tells, Relaxed);
    }

    /// Reads what is at `address`, as far as it is there; returns how many bytes.
    pub(crate) fn read(&self, address: usize, into: &mut [u8]) -> usize {
        if DOES_NOT_TELL.load(Relaxed) {
            return read_by_call(address, into);
        }
        let mut done = 0;
        while let Some(left) = into.get_mut(done..).filter(|left| !left.is_empty()) {
            let Some(at) = address.checked_add(done) else { break };
            let page = at & !(PAGE - 1);
            if !self.has(page) {
                break;
            }
            let within = left.len().min(page.saturating_add(PAGE) - at);
            let Some(wanted) = left.get_mut(..within) else { break };
            // By words, where they are on their boundaries: most of what is read.
            let (words, _) = wanted.as_chunks_mut::<8>();
            let words = if at.is_multiple_of(8) { words } else { &mut [] };
            let in_words = words.len() * 8;
            for (place, at) in words.iter_mut().zip((at..).step_by(8)) {
                // SAFETY: the page was there a moment ago, and can be read. Others may write there meanwhile: any bytes
                // are a value, and what it means is doubted.
                *place = unsafe { std::ptr::with_exposed_provenance::<u64>(at).read_volatile() }.to_ne_bytes();
            }
            for (place, at) in wanted.iter_mut().zip(at..).skip(in_words) {
                // SAFETY: as above.
                *place = unsafe { std::ptr::with_exposed_provenance::<u8>(at).read_volatile() };
            }
            done += within;
        }
        done
    }

    /// Whether a page is there.
    fn has(&self, page: usize) -> bool {
        let mut pages = self.pages.get();
        let Some(place) = pages.get_mut(page / PAGE % REMEMBERED) else { return false };
        if *place != page || page == 0 {
            if !is_there(page) {
                return false;
            }
            *place = page;
            self.pages.set(pages);
        }
        true
    }

    /// The same, of at least that many bytes or none; what is not there is 0.
    #[must_use]
    pub(crate) fn read_least<const BYTES: usize>(&self, address: usize, least: usize) -> Option<[u8; BYTES]> {
        let mut bytes = [0; BYTES];
        (self.read(address, &mut bytes) >= least).then_some(bytes)
    }

    /// The same, of all or nothing.
    #[must_use]
    pub(crate) fn read_all<const BYTES: usize>(&self, address: usize) -> Option<[u8; BYTES]> {
        self.read_least(address, BYTES)
    }

    /// A pointer.
    #[must_use]
    pub(crate) fn read_word(&self, address: usize) -> Option<usize> {
        self.read_all(address).map(usize::from_ne_bytes)
    }
}

/// Whether a page can be read.
fn is_there(page: usize) -> bool {
    /// No order: nothing is changed, but the set is read before that is seen.
    const NOTHING: libc::c_int = -1;
    /// What the kernel wants the size of a set to be, bytes.
    const SET: usize = 8;
    let set = std::ptr::without_provenance::<u8>(page);
    let old = std::ptr::null_mut::<u8>();
    // SAFETY: the kernel checks the address, and changes nothing.
    let asked = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NOTHING, set, old, SET) };
    asked == -1 && Errno::last() == Errno::EINVAL
}

fn read_by_call(address: usize, into: &mut [u8]) -> usize {
    let ours = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let theirs = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: into.len() };
    // SAFETY: the kernel writes to `into` alone, at most its length; it checks the other address. A process may always
    // read itself.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &raw const ours, 1, &raw const theirs, 1, 0) };
    usize::try_from(read).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_an_error_either_way() {
        OwnMemory::settle();
        assert!(!DOES_NOT_TELL.load(Relaxed));
        for read in [|at, into: &mut [u8]| OwnMemory::now().read(at, into), read_by_call] {
            let text: Vec<u8> = (0..3 * PAGE).map(|at| at as u8).collect();
            let mut found = vec![0; 3 * PAGE];
            assert_eq!(read(text.as_ptr().addr(), &mut found), 3 * PAGE);
            assert_eq!(found, text);
            for nowhere in [0, 8, usize::MAX, usize::MAX - 100, 1 << 63] {
                assert_eq!(read(nowhere, &mut [0; 9]), 0, "{nowhere:#x}");
            }
        }
    }

    #[test]
    fn what_ends_is_read_as_far_as_it_is_there() {
        let map = memmap2::MmapMut::map_anon(2 * PAGE).unwrap();
        let end = map.as_ptr().addr() + PAGE;
        // SAFETY: its own page, which nothing refers to.
        Errno::result(unsafe { libc::mprotect(std::ptr::without_provenance_mut(end), PAGE, libc::PROT_NONE) }).unwrap();
        for read in [|at, into: &mut [u8]| OwnMemory::now().read(at, into), read_by_call] {
            assert_eq!(read(end - 10, &mut [1; 64]), 10);
        }
    }
}
