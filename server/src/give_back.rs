//! Gives back what a process needed for its start, or for something rare, alone: memory that was freed, and pages of programs,
//! libraries and the stack.
//!
//! What a page of a file held is read from the system's cache again when it is needed after all. The system then brings 64 kB
//! around it, too, so that a process that does many different things holds most of its program, and needs few of its pages.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::{NonNull, with_exposed_provenance_mut};

use nix::sys::mman::{MmapAdvise, madvise};

use crate::procfs;

/// More than the stack that giving it back needs itself, bytes.
const FRAMES: usize = 16 * 1024;

/// Gives back both. For processes that mostly wait from then on. What the system does not take stays.
pub(crate) fn memory_and_pages() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
    pages();
}

/// Gives back pages of programs and libraries, and of the stack: a few hundred microseconds.
pub(crate) fn pages() {
    let is_alone = procfs::further_threads().is_ok_and(|threads| threads.is_empty());
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    // Another thread could load a library now, or unload one: its parts are laid over a mapping of the whole file, and what is
    // written to them would be gone. The server and Python are loaded as long as the process lives.
    let stays = [pages as *const () as usize, pyo3::ffi::Py_IsInitialized as *const () as usize];
    let local = 0_u8;
    let below = (&raw const local).addr() - FRAMES;
    if let Some(Range { start, end }) = unused_stack(&smaps, below)
        && let Some(start_pointer) = NonNull::new(with_exposed_provenance_mut::<c_void>(start))
    {
        // SAFETY: this thread's own stack, below all of its frames and those of the call itself: nobody finds anything there
        // again before it has written it. A handler of a signal runs before or after the call, not during it.
        let _ = unsafe { madvise(start_pointer, end - start, MmapAdvise::MADV_DONTNEED) };
    }
    for Range { start, end } in of_programs(&smaps, |code| is_alone || stays.iter().any(|place| code.contains(place))) {
        let Some(start_pointer) = NonNull::new(with_exposed_provenance_mut::<c_void>(start)) else { continue };
        // SAFETY: a private mapping of a file, which nobody may write to and of which no page was changed, and no other thread
        // changes that meanwhile: the system finds the same bytes in the file when they are read next, as it does when it is
        // short of memory.
        let _ = unsafe { madvise(start_pointer, end - start, MmapAdvise::MADV_DONTNEED) };
    }
}

/// A mapping in `/proc/PID/smaps`.
struct Mapping<'a> {
    range: Range<usize>,
    rights: &'a str,
    /// Device and inode.
    file: (&'a str, &'a str),
    /// Whether no page of it is this process's own.
    is_unchanged: bool,
}

/// The part of the main thread's stack that ends at `below`, in whole pages; `None` in another thread.
fn unused_stack(smaps: &str, below: usize) -> Option<Range<usize>> {
    let line = smaps.lines().find(|line| line.ends_with("[stack]"))?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let below = below - below % procfs::page_size();
    (start < below && below < end).then_some(start..below)
}

/// Where the unchanged, read-only parts of the program and its libraries are: files that code is executed from, if `takes` says
/// so of where their code is.
fn of_programs(smaps: &str, takes: impl Fn(&Range<usize>) -> bool) -> Vec<Range<usize>> {
    let mut mappings: Vec<Mapping<'_>> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Some((start, end)) = first.split_once('-').filter(|_| !first.ends_with(':')) {
            let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) else {
                continue;
            };
            let mut words = words.skip(1);
            let file = (words.next().unwrap_or_default(), words.next().unwrap_or("0"));
            mappings.push(Mapping { range: start..end, rights: second, file, is_unchanged: false });
        } else if first == "Anonymous:"
            && let Some(mapping) = mappings.last_mut()
        {
            mapping.is_unchanged = second == "0";
        }
    }
    let is_code = |mapping: &Mapping<'_>| mapping.rights == "r-xp" && takes(&mapping.range);
    let is_program = |file| mappings.iter().any(|mapping| mapping.file == file && is_code(mapping));
    let given = mappings.iter().filter(|Mapping { rights, file, is_unchanged, .. }| {
        *is_unchanged && matches!(*rights, "r-xp" | "r--p") && file.1 != "0" && is_program(*file)
    });
    given.map(|mapping| mapping.range.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_parts_of_programs_are_found() {
        let mapping =
            |line: &str, anonymous: u32| format!("{line}\nRss: 8 kB\nAnonymous: {anonymous} kB\nVmFlags: rd mr\n");
        let smaps = [
            mapping("1000-2000 r--p 00000000 fe:00 77   /lib/a b.so", 0),
            mapping("2000-5000 r-xp 00001000 fe:00 77   /lib/a b.so", 0),
            // Its addresses were written into it.
            mapping("5000-6000 r--p 00004000 fe:00 77   /lib/a b.so", 4),
            mapping("6000-7000 rw-p 00005000 fe:00 77   /lib/a b.so", 0),
            mapping("7000-8000 rw-p 00000000 00:00 0", 4),
            // Data of the application.
            mapping("8000-9000 r--p 00000000 fe:00 78   /srv/model", 0),
            mapping("9000-a000 r-xs 00000000 fe:00 79   /srv/shared", 0),
            // A debugger's mark is in it.
            mapping("b000-c000 r-xp 00000000 fe:00 80   /lib/c.so", 4),
            mapping("c000-d000 r-xp 00000000 00:00 0", 0),
            mapping("7ffc0000-7ffd0000 r-xp 00000000 00:00 0   [vdso]", 0),
        ];
        let smaps = smaps.concat();
        assert_eq!(of_programs(&smaps, |_| true), [0x1000..0x2000, 0x2000..0x5000]);
        assert_eq!(of_programs(&smaps, |code| code.contains(&0x4fff)), [0x1000..0x2000, 0x2000..0x5000]);
        assert!(of_programs(&smaps, |code| code.contains(&0x1fff)).is_empty());
    }

    #[test]
    fn the_stack_below_the_frames_is_unused() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0\n7f0000-7f9000 rw-p 00000000 00:00 0   [stack]\nRss: 8 kB\n";
        let page = procfs::page_size();
        assert_eq!(unused_stack(smaps, 0x7f_1234), Some(0x7f_0000..0x7f_1234 - 0x7f_1234 % page));
        assert_eq!(unused_stack(smaps, 0x7f_0001), None);
        assert_eq!(unused_stack(smaps, 0x7f_9000), None);
        assert_eq!(unused_stack(smaps, 0x1800), None);
        assert_eq!(unused_stack("", 0x1800), None);
    }

    #[test]
    fn a_process_goes_on_as_it_was() {
        memory_and_pages();
        assert!(!of_programs(&std::fs::read_to_string("/proc/self/smaps").unwrap(), |_| true).is_empty());
    }
}
