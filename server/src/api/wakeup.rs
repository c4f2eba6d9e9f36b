//! Waiting for descriptors without missing a signal.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::IntoPyDict;

/// A pipe that Python writes to when a signal comes: one that comes between a look for signals and the wait for
/// descriptors ends the wait.
pub(crate) struct Wakeup {
    reader: OwnedFd,
    writer: OwnedFd,
    set: Py<PyAny>,
    /// What Python wrote to before; -1 for nothing.
    before: i32,
}

impl Wakeup {
    /// One that is written to from now on; `None` in a thread that handles no signals.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Option<Self>> {
        let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let (reader, writer) = pipe2(flags).map_err(std::io::Error::from)?;
        let set = py.import("signal")?.getattr("set_wakeup_fd")?.unbind();
        let mut made = Self { reader, writer, set, before: -1 };
        match made.arm(py) {
            Ok(before) => made.before = before,
            Err(refused) if refused.is_instance_of::<PyValueError>(py) => return Ok(None),
            Err(raised) => return Err(raised),
        }
        Ok(Some(made))
    }

    /// From now on it is written to: something of the application's may have taken it away (an event loop does).
    ///
    /// # Errors
    /// What a signal's handler raises.
    pub(crate) fn arm(&self, py: Python<'_>) -> PyResult<i32> {
        let quietly = [("warn_on_full_buffer", false)].into_py_dict(py)?;
        self.set.call(py, (self.writer.as_raw_fd(),), Some(&quietly))?.extract(py)
    }

    /// Readable when a signal has come.
    pub(crate) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Takes note of what has come.
    pub(crate) fn clear(&self) {
        // What is left wakes once more.
        let _ = nix::unistd::read(&self.reader, &mut [0; 64]);
    }
}

impl Drop for Wakeup {
    fn drop(&mut self) {
        Python::attach(|py| {
            // Python must not write to what its number stands for next. It cannot fail in the thread that has set it,
            // unless what was written to before is closed.
            if self.set.call1(py, (self.before,)).is_err() {
                let _ = self.set.call1(py, (-1,));
            }
        });
    }
}
