//! `wsgi.file_wrapper`: a response that is a file (PEP 3333, "Optional Platform-Specific File Handling").

use std::fs::File;
use std::os::fd::BorrowedFd;

use pyo3::prelude::*;

/// An iterable over a file-like object, which the server may send by itself when it is a real file.
#[pyclass(frozen, module = "rwsgi", name = "file_wrapper")]
pub struct FileWrapper {
    filelike: Py<PyAny>,
    block_size: usize,
}

/// A part of a regular file.
pub struct Extent {
    /// A descriptor of our own, so that the application may close its.
    pub file: File,
    /// Where to begin, bytes.
    pub offset: u64,
    /// Bytes from there to the end.
    pub len: u64,
}

impl FileWrapper {
    /// What the system can send by itself; `None` when the object is no regular file that is open for reading.
    pub fn extent(&self, py: Python<'_>) -> Option<Extent> {
        let filelike = self.filelike.bind(py);
        let fd: i32 = filelike.call_method0("fileno").ok()?.extract().ok()?;
        // The object may have read ahead of what it says: its own word counts, not the descriptor's position.
        let offset: u64 = filelike.call_method0("tell").ok()?.extract().ok()?;
        let file = File::from(borrow(fd)?.try_clone_to_owned().ok()?);
        let metadata = file.metadata().ok()?;
        metadata.is_file().then(|| Extent { file, offset, len: metadata.len().saturating_sub(offset) })
    }
}

#[allow(unsafe_code)]
fn borrow(fd: i32) -> Option<BorrowedFd<'static>> {
    if fd < 0 {
        return None;
    }
    // SAFETY: the application's object has it open; the caller clones it before any Python code runs again, and a
    // number that is not open makes that fail.
    Some(unsafe { BorrowedFd::borrow_raw(fd) })
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, block_size=8192))]
    fn new(filelike: Py<PyAny>, block_size: usize) -> Self {
        Self { filelike, block_size }
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.filelike.bind(py).call_method1("read", (self.block_size,))?;
        Ok(if block.is_truthy()? { Some(block) } else { None })
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.filelike.bind(py).getattr_opt("close")? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }
}
