//! Gives back what a process needed for its start alone: memory that was freed, and, where it has one thread, pages of
//! programs and libraries.
//!
//! For processes that mostly wait from then on. What a page of a file held is read from the system's cache again when it is
//! needed after all, which takes about a microsecond.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::{NonNull, with_exposed_provenance_mut};

use nix::sys::mman::{MmapAdvise, madvise};

use crate::procfs;

/// Gives it back. What the system does not take stays.
pub(crate) fn what_the_start_needed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
    // Another thread could load a library now: its parts are laid over a mapping of the whole file, and what is written to
    // them would be gone.
    if !procfs::further_threads().is_ok_and(|threads| threads.is_empty()) {
        return;
    }
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    for Range { start, end } in of_programs(&smaps) {
        let Some(start_pointer) = NonNull::new(with_exposed_provenance_mut::<c_void>(start)) else { continue };
        // SAFETY: a private mapping of a file, which nobody may write to and of which no page was changed, and there is no
        // other thread that changes that meanwhile: the system finds the same bytes in the file when they are read next, as it
        // does when it is short of memory.
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

/// Where the unchanged, read-only parts of the program and its libraries are: files that code is executed from.
fn of_programs(smaps: &str) -> Vec<Range<usize>> {
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
    let is_program = |file| mappings.iter().any(|mapping| mapping.rights == "r-xp" && mapping.file == file);
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
        assert_eq!(of_programs(&smaps.concat()), [0x1000..0x2000, 0x2000..0x5000]);
    }

    #[test]
    fn a_process_goes_on_as_it_was() {
        what_the_start_needed();
        assert!(!of_programs(&std::fs::read_to_string("/proc/self/smaps").unwrap()).is_empty());
    }
}
