//! Memory that the processes of a server share: a memory file (`memfd_create(2)`) that the master makes, that all other
//! processes inherit and that each maps.
//!
//! A process with the file may write any byte at any time, an application with a wild pointer too. So its size is
//! sealed: nobody can take pages away under the others, who would be killed by SIGBUS; and what lies in it is of types
//! that any bytes are a value of. What the values mean is for the reader to doubt.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::stat::fstat;
use nix::sys::uio::pwrite;
use nix::unistd::{Whence, ftruncate, lseek};

/// Some shared memory, mapped into this process.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    map: MmapRaw,
    file: OwnedFd,
    /// Where in the file it begins, bytes.
    offset: usize,
}

/// What may lie in shared memory.
///
/// # Safety
/// Any bytes are a value of the type, and what is done to a shared reference of it is sound while other processes write
/// any bytes there at any time: it has atomics in it, and what the system makes for use between processes.
pub(crate) unsafe trait Shareable {}
// SAFETY: an atomic, of a type that any bytes are a value of.
unsafe impl Shareable for std::sync::atomic::AtomicU64 {}

/// Keeps a memory file's size as it is, forever.
const SIZE_SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

impl SharedMemory {
    /// Makes `size` bytes of it, all zero. `name` is what `/proc/PID/maps` shows.
    ///
    /// # Errors
    /// When the system has no memory or descriptors left, or `size` is 0.
    pub(crate) fn create(name: &CStr, size: usize) -> nix::Result<Self> {
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        ftruncate(&file, i64::try_from(size).map_err(|_| Errno::EFBIG)?)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SIZE_SEALS))?;
        Self::map(file, size)
    }

    /// Maps what another process made with this size.
    ///
    /// # Errors
    /// When it cannot be mapped; `EINVAL` when it is smaller, or could become so.
    pub(crate) fn map(file: OwnedFd, size: usize) -> nix::Result<Self> {
        Self::map_part(file, 0..size)
    }

    /// Maps a part of it, which begins on a page. Offsets count from there.
    ///
    /// # Errors
    /// When it cannot be mapped; `EINVAL` when the file is smaller, or could become so.
    pub(crate) fn map_part(file: OwnedFd, part: Range<usize>) -> nix::Result<Self> {
        let size = part.len();
        let seals = SealFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GET_SEALS)?);
        let real = usize::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if size == 0 || real < part.end || !seals.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(Errno::EINVAL);
        }
        // A cache is as large as it may ever become, and nobody knows whether it will.
        let map = MmapOptions::new().offset(part.start as u64).len(size).no_reserve_swap().map_raw(&file);
        let map = map.map_err(|error| io_errno(&error))?;
        Ok(Self { map, file, offset: part.start })
    }

    /// The mapping alone: the file is closed.
    #[must_use]
    pub(crate) fn into_map(self) -> MmapRaw {
        self.map
    }

    /// The file, to be inherited by other processes.
    #[must_use]
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What lies at an offset.
    ///
    /// # Panics
    /// When it reaches beyond the end, or is not aligned.
    #[must_use]
    #[inline]
    pub(crate) fn at<T: Shareable>(&self, offset: usize) -> &T {
        let fits = self.map.len().checked_sub(size_of::<T>()).is_some_and(|last| offset <= last);
        assert!(fits && offset.is_multiple_of(align_of::<T>()), "offset {offset}");
        // SAFETY: within the mapping, which begins on a page, is as long as this value lives and never shrinks;
        // aligned. `Shareable` says that any bytes are a value, whichever process writes them.
        unsafe { &*self.map.as_ptr().add(offset).cast() }
    }

    /// Where a range of it is, for a caller that knows that nothing else uses it meanwhile, in any process.
    ///
    /// # Panics
    /// When it reaches beyond the end.
    #[must_use]
    pub(crate) fn bytes(&self, range: Range<usize>) -> *mut [u8] {
        assert!(range.start <= range.end && range.end <= self.map.len(), "bytes {range:?}");
        std::ptr::slice_from_raw_parts_mut(self.map.as_mut_ptr().wrapping_add(range.start), range.len())
    }

    /// Makes a range all zero, and gives its whole pages back to the system.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub(crate) fn clear(&self, range: Range<usize>) -> nix::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, flags, (self.offset + range.start) as i64, range.len() as i64)
    }

    /// Makes a range all zero, and keeps the pages that were written: to take them out of every process that maps them costs
    /// as much as there are such processes.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub(crate) fn zero(&self, range: Range<usize>) -> nix::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let end = (self.offset + range.end) as i64;
        let mut at = (self.offset + range.start) as i64;
        loop {
            // What was never written is zero, and takes no memory now either. Nobody reads or writes at the file's position.
            at = match lseek(&self.file, at, Whence::SeekData) {
                Ok(data) if data < end => data,
                Ok(_) | Err(Errno::ENXIO) => return Ok(()),
                Err(failure) => return Err(failure),
            };
            let hole = lseek(&self.file, at, Whence::SeekHole)?.min(end);
            while at < hole {
                let len = ZEROS.len().min((hole - at) as usize);
                at += pwrite(&self.file, &ZEROS[..len], at)? as i64;
            }
        }
    }

    /// From now on what this process writes is seen by no other, nor what others write by this one: for a child that is
    /// none of ours. Where the system has no memory left for it, all stays as it was.
    pub(crate) fn detach(&self) {
        let Some(size) = std::num::NonZeroUsize::new(self.map.len()) else { return };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED;
        let place = std::num::NonZeroUsize::new(self.map.as_ptr().addr());
        // SAFETY: exactly the mapping that this value owns is replaced, by one of the same size and contents, to which
        // every reference into the old one is as good; this value unmaps it as it would the old one.
        let detached = unsafe { mmap(place, size, protection, flags, &self.file, self.offset as i64) };
        // The counts of such a child are the least worry of a system without memory.
        let _ = detached;
    }
}

fn io_errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}

/// One of a type, all zero, in memory of its own.
#[cfg(test)]
pub(crate) fn zeroed<T: Shareable>() -> Box<T> {
    // SAFETY: any bytes are a value.
    unsafe { Box::new_zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    fn made() -> SharedMemory {
        SharedMemory::create(c"test", 100_000).unwrap()
    }

    #[test]
    fn what_one_mapping_writes_another_reads_until_it_is_detached() {
        let one = made();
        let other = SharedMemory::map(one.file().try_clone_to_owned().unwrap(), 100_000).unwrap();
        one.at::<AtomicU64>(99_992).store(7, Relaxed);
        assert_eq!(other.at::<AtomicU64>(99_992).load(Relaxed), 7);
        other.detach();
        other.at::<AtomicU64>(99_992).store(8, Relaxed);
        assert_eq!(one.at::<AtomicU64>(99_992).load(Relaxed), 7);
    }

    #[test]
    fn zeroed_pages_are_zero_and_those_that_were_never_written_stay_away() {
        let page = crate::procfs::page_size();
        let memory = SharedMemory::create(c"test", 100 * page).unwrap();
        let pages = || fstat(memory.file()).unwrap().st_blocks as usize * 512 / page;
        for written in [10 * page, 11 * page, 50 * page, 90 * page] {
            memory.at::<AtomicU64>(written).store(7, Relaxed);
        }
        assert_eq!(pages(), 4);
        memory.zero(11 * page..90 * page).unwrap();
        let left = [10, 11, 50, 90].map(|at| memory.at::<AtomicU64>(at * page).load(Relaxed));
        assert_eq!((left, pages()), ([7, 0, 0, 7], 4));
        memory.zero(91 * page..100 * page).unwrap();
        assert_eq!(pages(), 4, "there was nothing to zero");
    }

    #[test]
    fn a_part_is_the_same_memory_and_can_be_detached() {
        let page = crate::procfs::page_size();
        let whole = SharedMemory::create(c"test", 3 * page).unwrap();
        let file = || whole.file().try_clone_to_owned().unwrap();
        let part = SharedMemory::map_part(file(), page..2 * page).unwrap();
        let at = |memory: &SharedMemory, offset| memory.at::<AtomicU64>(offset).load(Relaxed);
        whole.at::<AtomicU64>(page + 8).store(7, Relaxed);
        assert_eq!(at(&part, 8), 7);
        part.clear(0..16).unwrap();
        assert_eq!(at(&whole, page + 8), 0);
        part.at::<AtomicU64>(0).store(9, Relaxed);
        part.detach();
        part.at::<AtomicU64>(8).store(8, Relaxed);
        assert_eq!([0, page, page + 8].map(|offset| at(&whole, offset)), [0, 9, 0]);
        assert_eq!(SharedMemory::map_part(file(), 3 * page..4 * page).unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn nobody_can_change_its_size() {
        let memory = made();
        for size in [0, 50_000, 1 << 30] {
            assert_eq!(ftruncate(memory.file(), size), Err(Errno::EPERM));
        }
        let extended = fallocate(memory.file(), FallocateFlags::empty(), 0, 1 << 30);
        assert_eq!(extended, Err(Errno::EPERM));
        assert_eq!(fcntl(memory.file(), FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)), Err(Errno::EPERM));
    }

    #[test]
    fn what_is_smaller_than_was_said_or_may_become_so_is_not_mapped() {
        let memory = made();
        let file = || memory.file().try_clone_to_owned().unwrap();
        assert_eq!(SharedMemory::map(file(), 200_000).unwrap_err(), Errno::EINVAL);
        assert_eq!(SharedMemory::map(file(), 0).unwrap_err(), Errno::EINVAL);
        let open = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&open, 100_000).unwrap();
        assert_eq!(SharedMemory::map(open, 100_000).unwrap_err(), Errno::EINVAL);
        let no_memory_file = std::fs::File::open("/dev/null").unwrap();
        assert!(SharedMemory::map(no_memory_file.into(), 1).is_err());
    }

    #[test]
    fn a_range_is_cleared_whether_or_not_it_is_of_whole_pages() {
        let memory = made();
        for at in [992, 1_000, 90_000, 90_008] {
            memory.at::<AtomicU64>(at).store(1, Relaxed);
        }
        memory.clear(1_000..90_008).unwrap();
        let left = [992, 1_000, 90_000, 90_008].map(|at| memory.at::<AtomicU64>(at).load(Relaxed));
        assert_eq!(left, [1, 0, 0, 1]);
    }

    #[test]
    #[should_panic(expected = "offset 99993")]
    fn nothing_reaches_beyond_the_end() {
        let _ = made().at::<AtomicU64>(99_993);
    }
}
