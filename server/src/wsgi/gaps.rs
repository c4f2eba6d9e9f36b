//! Fills the gaps between objects before the fork: free memory in pages that workers share.
//!
//! What a worker allocates there copies the page, for one small object; and the gaps of an application that was just loaded lie
//! all over its memory. Filled, they leave new objects pages of their own, which lie together. What fills them is never
//! freed, and is in memory once.

#![allow(unsafe_code)]

/// Fills the gaps in the memory of Python's objects and of the C library.
pub(super) fn fill(_py: pyo3::Python<'_>) {
    #[cfg(all(Py_3_10, not(Py_GIL_DISABLED), target_pointer_width = "64"))]
    pools::fill();
    #[cfg(target_env = "gnu")]
    heap::fill();
}

/// Python's own allocator, `Objects/obmalloc.c`: blocks of one size lie in a pool, which begins with its header.
#[cfg(all(Py_3_10, not(Py_GIL_DISABLED), target_pointer_width = "64"))]
mod pools {
    use std::ffi::c_void;
    use std::ptr;

    use pyo3::ffi::{PyObject_Free, PyObject_Malloc};

    const POOL: usize = 16 * 1024;
    const HEADER: usize = 48;
    const LARGEST: usize = 512;
    /// Bytes of gaps for one size of objects. With more it is another allocator (`PYTHONMALLOC`), which knows no pools.
    const MOST: usize = 4 << 20;

    /// Blocks that are held, each of which holds the address of the one before it.
    pub(super) struct Held {
        last: *mut c_void,
    }

    impl Held {
        pub(super) fn new() -> Self {
            Self { last: ptr::null_mut() }
        }

        /// # Safety
        /// The block is from `PyObject_Malloc`, of at least a pointer's size, and nobody else's.
        pub(super) unsafe fn hold(&mut self, block: *mut c_void) {
            // SAFETY: the caller's.
            unsafe { block.cast::<*mut c_void>().write(self.last) };
            self.last = block;
        }

        /// # Safety
        /// The calling thread is attached to Python.
        pub(super) unsafe fn free_all(mut self) {
            while !self.last.is_null() {
                let block = self.last;
                // SAFETY: it was given to `hold`, which has written to it, and is freed once.
                unsafe {
                    self.last = block.cast::<*mut c_void>().read();
                    PyObject_Free(block);
                }
            }
        }
    }

    pub(super) fn fill() {
        for size in (16..=LARGEST).step_by(16) {
            let mut held = Held::new();
            let mut is_full = false;
            for _ in 0..MOST / size {
                // SAFETY: this thread is attached to Python. The block is freed, or held and used by nobody else.
                unsafe {
                    let block = PyObject_Malloc(size);
                    is_full = block.is_null() || block.addr() % POOL == HEADER;
                    if is_full {
                        // The first of a new pool: none has a gap. An empty pool may be used for any size.
                        PyObject_Free(block);
                        break;
                    }
                    held.hold(block);
                }
            }
            if !is_full {
                // SAFETY: as above.
                unsafe { held.free_all() };
                return;
            }
        }
    }
}

/// The C library's.
#[cfg(target_env = "gnu")]
mod heap {
    use nix::libc::{free, malloc, malloc_trim};

    /// So large that it comes from the end of the heap, or in a gap that is of use as it is; and smaller than what gets a
    /// mapping of its own.
    const AT_END: usize = 100_000;
    /// Larger gaps hold several pages that nobody uses.
    const LARGEST: usize = 64 * 1024;
    /// Bytes of gaps that are filled. Where the heap goes on at a lower address, what is new is taken for a gap.
    const MOST: usize = 32 << 20;

    pub(super) fn fill() {
        // Pages within gaps go first: what fills them touches few.
        // SAFETY: both may be called at any time. The block is freed below, and never read.
        let end = unsafe {
            malloc_trim(0);
            malloc(AT_END)
        };
        let sizes = (2048..=LARGEST).rev().step_by(512).chain((24..2048).rev().step_by(16));
        let mut left = MOST;
        for size in sizes {
            while left >= size {
                left -= size;
                // SAFETY: the block is freed, or nobody's for ever: it fills its gap.
                unsafe {
                    let block = malloc(size);
                    if block.is_null() || block > end {
                        // No gap is left for it.
                        free(block);
                        break;
                    }
                }
            }
        }
        // SAFETY: from `malloc`.
        unsafe { free(end) };
    }
}

#[cfg(test)]
mod tests {
    use pyo3::prelude::*;

    use super::*;

    #[test]
    fn objects_are_as_they_were_and_new_ones_can_be_made() {
        crate::wsgi::interpreter::start(None).unwrap();
        Python::attach(|py| {
            let made: Vec<_> =
                (0..1000).map(|number| (number, number.to_string()).into_pyobject(py).unwrap()).collect();
            let (kept, gone): (Vec<_>, Vec<_>) = made.into_iter().enumerate().partition(|(at, _)| at % 3 == 0);
            drop(gone);
            fill(py);
            let sum = |of: &[(usize, Bound<'_, pyo3::types::PyTuple>)]| -> usize {
                of.iter().map(|(_, made)| made.get_item(0).unwrap().extract::<usize>().unwrap()).sum()
            };
            assert_eq!(sum(&kept), (0..1000).step_by(3).sum::<usize>());
            py.run(c"assert sum(len(str(n)) for n in range(1000)) == 2890", None, None).unwrap();
        });
    }

    #[test]
    #[cfg(all(Py_3_10, not(Py_GIL_DISABLED), target_pointer_width = "64"))]
    fn what_was_held_can_be_freed() {
        crate::wsgi::interpreter::start(None).unwrap();
        Python::attach(|_py| {
            let mut held = pools::Held::new();
            // SAFETY: this thread is attached. The blocks are nobody else's.
            unsafe {
                (0..10).for_each(|_| held.hold(pyo3::ffi::PyObject_Malloc(64)));
                held.free_all();
            }
        });
    }
}
