//! `wsgi.file_wrapper`: a response that is a file (PEP 3333, "Optional Platform-Specific File Handling").

use std::fs::File;

use pyo3::prelude::*;

use crate::descriptor::duplicate;

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
    /// Over an open file.
    pub(super) fn over(filelike: Py<PyAny>) -> Self {
        Self { filelike, block_size: 8192 }
    }

    /// What the system can send by itself; `None` when the object is no regular file that is open for reading.
    pub fn extent(&self, py: Python<'_>) -> Option<Extent> {
        let filelike = self.filelike.bind(py);
        if !reads_as_stored(filelike).ok()? {
            return None;
        }
        let fd: i32 = filelike.call_method0("fileno").ok()?.extract().ok()?;
        // The object may have read ahead of what it says: its own word counts, not the descriptor's position.
        let offset: u64 = filelike.call_method0("tell").ok()?.extract().ok()?;
        let file = File::from(duplicate(fd).ok()?);
        let metadata = file.metadata().ok()?;
        metadata.is_file().then(|| Extent { file, offset, len: metadata.len().saturating_sub(offset) })
    }
}

/// Whether `read()` gives what the descriptor holds. A `GzipFile` has a descriptor too, and a text file, and a class that
/// decrypts; only Python's own ways of reading a file are known to change nothing.
fn reads_as_stored(filelike: &Bound<'_, PyAny>) -> PyResult<bool> {
    let io = filelike.py().import("io")?;
    let has_own = |object: &Bound<'_, PyAny>, class: &str, method: &str| -> PyResult<bool> {
        Ok(object.get_type().getattr_opt(method)?.is_some_and(|found| {
            io.getattr(class).and_then(|class| class.getattr(method)).is_ok_and(|known| known.is(&found))
        }))
    };
    if has_own(filelike, "FileIO", "read")? {
        return Ok(true);
    }
    let is_updated = has_own(filelike, "BufferedRandom", "read")?;
    if is_updated {
        // What was written and is still in the buffer belongs to what is read.
        filelike.call_method0("flush")?;
    }
    Ok((is_updated || has_own(filelike, "BufferedReader", "read")?)
        && has_own(&filelike.getattr("raw")?, "FileIO", "readinto")?)
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
