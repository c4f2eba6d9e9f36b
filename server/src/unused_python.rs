//! Gives back what the start of a process has written into Python's library, where that process never runs Python.
//!
//! The library's data is full of addresses, which the system's loader writes when it maps the library: more than a megabyte of
//! pages of the process's own. Without Python nobody reads them. What else is in the writable part is of the loader and of the
//! library's end: those pages stay.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;

use nix::libc::{PF_W, PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD, dl_iterate_phdr, dl_phdr_info};

use crate::give_back;
use crate::procfs::page_size;

// elf(5): entries of the part that the loader reads.
const DT_PLTRELSZ: usize = 2;
const DT_PLTGOT: usize = 3;
const DT_INIT_ARRAYSZ: usize = 27;
const DT_FINI_ARRAYSZ: usize = 28;

/// Gives the pages back: some ten microseconds.
///
/// # Safety
/// This process never calls a function of Python that needs its data, and has one thread.
pub(crate) unsafe fn forget() {
    let mut found: Option<Range<usize>> = None;
    // SAFETY: the callback gets the pointer that is given here, and keeps nothing.
    unsafe { dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    if let Some(data) = found {
        // SAFETY: the caller's: nobody reads what is there. The pages are of a private mapping of the library's file.
        unsafe { give_back::give(data) };
    }
}

/// Called for each object that is loaded: a result other than 0 ends that.
unsafe extern "C" fn look(info: *mut dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: the loader describes an object that stays loaded during the call.
    let Some(object) = (unsafe { Object::read(&*info) }) else { return 0 };
    if !object.loaded.contains(&(pyo3::ffi::Py_IsInitialized as *const () as usize)) {
        return 0;
    }
    // SAFETY: what `forget` has given, which waits for this.
    unsafe { *found.cast::<Option<Range<usize>>>() = object.unneeded(page_size()) };
    1
}

/// A library, by addresses in this process.
#[derive(Debug, Default)]
struct Object {
    /// From its first part to the end of its last one.
    loaded: Range<usize>,
    /// The writable part, as far as a file holds it.
    data: Range<usize>,
    /// What the loader makes read-only when it has written there, within `data`.
    relro: Range<usize>,
    /// Where the addresses of functions are that are called through a table.
    table: Range<usize>,
    /// How many functions are called at its start and at its end.
    called: usize,
}

impl Object {
    /// `None` of the program itself, and of what has another shape than linkers give a library.
    ///
    /// # Safety
    /// The object is loaded, and stays so.
    unsafe fn read(info: &dl_phdr_info) -> Option<Self> {
        // SAFETY: may be called at any time.
        let of_program = unsafe { nix::libc::getauxval(nix::libc::AT_PHDR) } as usize;
        if info.dlpi_phdr.is_null() || info.dlpi_phdr.addr() == of_program {
            return None;
        }
        // SAFETY: the loader's table, of this length.
        let parts = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let base = info.dlpi_addr as usize;
        let place = |start, len| base + start as usize..base + start as usize + len as usize;
        let (mut object, mut dynamic, mut writable) = (Self::default(), None, 0);
        for part in parts {
            let whole = place(part.p_vaddr, part.p_memsz);
            match part.p_type {
                PT_LOAD => {
                    if object.loaded.is_empty() {
                        object.loaded = whole.clone();
                    }
                    object.loaded.end = whole.end;
                    if part.p_flags & PF_W != 0 {
                        object.data = place(part.p_vaddr, part.p_filesz);
                        writable += 1;
                    }
                }
                PT_GNU_RELRO => object.relro = whole,
                PT_DYNAMIC => dynamic = Some(whole),
                _ => {}
            }
        }
        let dynamic = dynamic.filter(|_| writable == 1 && !object.relro.is_empty())?;
        let entries = ptr::with_exposed_provenance::<[usize; 2]>(dynamic.start);
        for entry in 0..dynamic.len() / size_of::<[usize; 2]>() {
            // SAFETY: within the part, which is as aligned as its entries.
            let [tag, value] = unsafe { entries.add(entry).read() };
            match tag {
                0 => break,
                // Some loaders write the address there, some leave the file's.
                DT_PLTGOT => object.table.start = if value < base { base + value } else { value },
                // An entry for each address, of two words or three.
                DT_PLTRELSZ => object.table.end = value / 2,
                DT_INIT_ARRAYSZ | DT_FINI_ARRAYSZ => object.called = object.called.max(value / size_of::<usize>()),
                _ => {}
            }
        }
        // The table begins with three words of the loader's.
        object.table.end += object.table.start + 3 * size_of::<usize>();
        Some(object)
    }

    /// Whole pages of data that nobody needs, unless somebody runs what the library is for.
    fn unneeded(&self, page: usize) -> Option<Range<usize>> {
        // A compiler's own code runs at the end of each library. Where there is more, it may need anything.
        if self.called > 1 || !self.data.contains(&self.relro.start) {
            return None;
        }
        let mut start = self.relro.end;
        if self.data.contains(&self.table.start) {
            start = start.max(self.table.end);
        }
        // What the compiler's own code uses comes first. Behind the last whole page are variables that are in no file.
        let unneeded = start.next_multiple_of(page) + page..self.data.end - self.data.end % page;
        (!unneeded.is_empty()).then_some(unneeded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: fn() -> Object = || Object {
        loaded: 0x10_0000..0x20_0000,
        data: 0x15_0ed0..0x18_1234,
        relro: 0x15_0ed0..0x16_0000,
        table: 0x15_ffe8..0x16_2b58,
        called: 1,
    };

    #[test]
    fn the_loaders_pages_and_the_last_one_stay() {
        assert_eq!(LIBRARY().unneeded(0x1000), Some(0x16_4000..0x18_1000));
        // One whose table is read-only.
        assert_eq!(Object { table: 0..0x2000, ..LIBRARY() }.unneeded(0x1000), Some(0x16_1000..0x18_1000));
        assert_eq!(Object { data: 0x15_0ed0..0x16_1234, ..LIBRARY() }.unneeded(0x1000), None);
    }

    #[test]
    fn a_library_that_runs_code_of_its_own_at_its_end_keeps_its_data() {
        assert_eq!(Object { called: 2, ..LIBRARY() }.unneeded(0x1000), None);
    }

    #[test]
    fn a_library_without_a_read_only_part_keeps_its_data() {
        assert_eq!(Object { relro: 0..0, ..LIBRARY() }.unneeded(0x1000), None);
    }
}
