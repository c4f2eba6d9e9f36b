//! Gives back what a process needed for its start, or for something rare, alone: memory that was freed, and pages of programs,
//! libraries and the stack.
//!
//! What a page of a file held is read from the system's cache again when it is needed after all. The system then brings 64 kB
//! around it, too, so that a process that does many different things holds most of its program, and needs few of its pages.

#![allow(unsafe_code)]

use std::collections::HashSet;
use std::ffi::c_void;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr::{NonNull, with_exposed_provenance_mut};

use nix::sys::mman::{MmapAdvise, madvise};

use crate::procfs::{self, page_size};

/// More than the stack that giving it back needs itself, bytes.
const FRAMES: usize = 16 * 1024;

/// Gives back freed memory and pages. For processes that mostly wait from then on. What the system does not take stays.
pub(crate) fn memory_and_pages() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
    pages();
}

/// Gives back pages of programs and libraries, and of the stack: some hundred microseconds.
pub(crate) fn pages() {
    // Another thread could load a library now, or unload one: its parts are laid over a mapping of the whole file, and what is
    // written to them would be gone.
    let is_alone = procfs::further_threads().is_ok_and(|threads| threads.is_empty());
    // These are loaded as long as the process lives.
    let stays = [pages as *const () as usize, pyo3::ffi::Py_IsInitialized as *const () as usize];
    let (Ok(maps), Ok(pagemap)) = (fs::read("/proc/self/maps"), File::open("/proc/self/pagemap")) else { return };
    let maps = String::from_utf8_lossy(&maps);
    let local = 0_u8;
    if let Some(unused) = unused_stack(&maps, (&raw const local).addr() - FRAMES) {
        // SAFETY: this thread's own stack, below all of its frames and those of the call itself: nobody finds anything there
        // again before it has written it. A handler of a signal runs before or after the call, not during it.
        unsafe { give(unused) };
    }
    for part in of_programs(&maps) {
        if (is_alone || stays.iter().any(|place| part.contains(place))) && is_unchanged(&pagemap, &part) {
            // SAFETY: a private mapping of a file, which nobody may write to and of which no page was changed, and no other
            // thread changes that meanwhile: the system finds the same bytes in the file when they are read next, as it does
            // when it is short of memory.
            unsafe { give(part) };
        }
    }
}

/// Has the system forget pages of this process.
///
/// # Safety
/// Nobody reads what is there now, unless the system finds the same elsewhere.
pub(crate) unsafe fn give(Range { start, end }: Range<usize>) {
    if let Some(pointer) = NonNull::new(with_exposed_provenance_mut::<c_void>(start)) {
        // SAFETY: the caller's. It fails for memory that is locked, which stays.
        let _ = unsafe { madvise(pointer, end - start, MmapAdvise::MADV_DONTNEED) };
    }
}

/// Whether no page of a part of a file is this process's own: neither in memory nor in swap.
fn is_unchanged(pagemap: &File, part: &Range<usize>) -> bool {
    // proc_pid_pagemap(5).
    const OF_A_FILE: u64 = 1 << 61;
    const SWAPPED: u64 = 1 << 62;
    const PRESENT: u64 = 1 << 63;
    let mut words = vec![0; part.len() / page_size() * size_of::<u64>()];
    let at = part.start / page_size() * size_of::<u64>();
    let is_of_file = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        word & SWAPPED == 0 && (word & PRESENT == 0 || word & OF_A_FILE != 0)
    };
    pagemap.read_exact_at(&mut words, at as u64).is_ok() && words.as_chunks().0.iter().all(is_of_file)
}

/// A mapping in `/proc/PID/maps`.
struct Mapping<'a> {
    range: Range<usize>,
    rights: &'a str,
    /// Device and inode.
    file: (&'a str, &'a str),
    name: &'a str,
}

fn mappings(maps: &str) -> impl Iterator<Item = Mapping<'_>> {
    maps.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        let (rights, _offset) = (words.next()?, words.next()?);
        Some(Mapping { range, rights, file: (words.next()?, words.next()?), name: words.next().unwrap_or_default() })
    })
}

/// The part of the main thread's stack that ends at `below`, in whole pages; `None` in another thread.
fn unused_stack(maps: &str, below: usize) -> Option<Range<usize>> {
    let stack = mappings(maps).find(|mapping| mapping.name == "[stack]")?.range;
    let below = below - below % page_size();
    (stack.start < below && below < stack.end).then_some(stack.start..below)
}

/// Where the read-only parts of the program and its libraries are: files that code is executed from.
fn of_programs(maps: &str) -> Vec<Range<usize>> {
    let code = |mapping: &Mapping<'_>| mapping.rights == "r-xp" && mapping.file.1 != "0";
    let programs: HashSet<_> = mappings(maps).filter(code).map(|mapping| mapping.file).collect();
    let parts =
        mappings(maps).filter(|mapping| matches!(mapping.rights, "r-xp" | "r--p") && programs.contains(&mapping.file));
    parts.map(|mapping| mapping.range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapOptions;
    use std::io::Write as _;

    #[test]
    fn parts_of_programs_are_found() {
        let maps = [
            "1000-2000 r--p 00000000 fe:00 77   /lib/a b.so",
            "2000-5000 r-xp 00001000 fe:00 77   /lib/a b.so",
            "6000-7000 rw-p 00005000 fe:00 77   /lib/a b.so",
            "7000-8000 rw-p 00000000 00:00 0",
            // Data of the application.
            "8000-9000 r--p 00000000 fe:00 78   /srv/model",
            "9000-a000 r-xs 00000000 fe:00 79   /srv/shared",
            "c000-d000 r-xp 00000000 00:00 0",
            "7ffc0000-7ffd0000 r-xp 00000000 00:00 0   [vdso]",
        ];
        assert_eq!(of_programs(&maps.join("\n")), [0x1000..0x2000, 0x2000..0x5000]);
    }

    #[test]
    fn the_stack_below_the_frames_is_unused() {
        let maps = "1000-2000 rw-p 00000000 00:00 0\n7f0000-7f9000 rw-p 00000000 00:00 0   [stack]\n";
        assert_eq!(unused_stack(maps, 0x7f_1234), Some(0x7f_0000..0x7f_1234 - 0x7f_1234 % page_size()));
        assert_eq!(unused_stack(maps, 0x7f_0001), None);
        assert_eq!(unused_stack(maps, 0x7f_9000), None);
        assert_eq!(unused_stack(maps, 0x1800), None);
        assert_eq!(unused_stack("", 0x1800), None);
    }

    #[test]
    fn a_part_with_a_page_of_the_process_is_changed() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 3 * page_size()]).unwrap();
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        // SAFETY: nobody else has the file.
        let mut map = unsafe { MmapOptions::new().map_copy(&file) }.unwrap();
        let part = map.as_ptr().addr()..map.as_ptr().addr() + map.len();
        assert!(is_unchanged(&pagemap, &part));
        assert_eq!(map.iter().filter(|byte| **byte == 7).count(), map.len());
        assert!(is_unchanged(&pagemap, &part));
        map[page_size()] = 8;
        assert!(!is_unchanged(&pagemap, &part));
        assert!(is_unchanged(&pagemap, &(part.start..part.start + page_size())));
    }

    #[test]
    fn a_process_goes_on_as_it_was() {
        memory_and_pages();
        assert!(!of_programs(&fs::read_to_string("/proc/self/maps").unwrap()).is_empty());
    }
}
