//! `wsgi.input`: the request's body as a file (PEP 3333, "Input and Error Streams").

use std::io::{self, BufRead, Read};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::active::{Active, CurrentRequest};

/// The body of the request that `current` holds.
#[pyclass(frozen, module = "rwsgi", name = "Input")]
pub struct Input {
    current: CurrentRequest,
}

impl Input {
    /// For the requests that `current` holds, one after another.
    #[must_use]
    pub fn new(current: &CurrentRequest) -> Self {
        Self { current: current.clone() }
    }
}

/// Python's sizes: none or negative means everything.
fn limit(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(u64::MAX)
}

fn failed(error: io::Error) -> PyErr {
    PyOSError::new_err(format!("wsgi.input: cannot read the request body: {error}"))
}

/// Reads without the GIL where reading may wait. Where it need not, the GIL is kept: to get it back can take longer
/// than to read a thousand lines.
fn without_gil<T: Send>(
    py: Python<'_>,
    active: &mut Active,
    is_at_hand: impl FnOnce(&[u8]) -> bool,
    read: impl FnOnce(&mut (dyn BufRead + Send)) -> io::Result<T> + Send,
) -> PyResult<T> {
    let transport = &mut active.transport;
    let at_hand = transport.body_at_hand();
    if at_hand.len() as u64 == transport.body_left() || is_at_hand(at_hand) {
        read(transport.body())
    } else {
        py.detach(|| read(transport.body()))
    }
    .map_err(failed)
}

fn read_line<'py>(py: Python<'py>, active: &mut Active, size: u64) -> PyResult<Bound<'py, PyBytes>> {
    let has_line = |bytes: &[u8]| bytes.len() as u64 >= size || bytes.contains(&b'\n');
    let line = without_gil(py, active, has_line, |body| {
        let mut line = Vec::new();
        body.take(size).read_until(b'\n', &mut line)?;
        Ok(line)
    })?;
    Ok(PyBytes::new(py, &line))
}

#[pymethods]
impl Input {
    /// At most `size` bytes; all that is left without one.
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        self.current.with(|active| {
            let len = limit(size).min(active.transport.body_left());
            let at_hand = active.transport.body_at_hand();
            if let Some(bytes) = usize::try_from(len).ok().and_then(|len| at_hand.get(..len)) {
                let bytes = PyBytes::new(py, bytes);
                active.transport.body().consume(bytes.as_bytes().len());
                return Ok(bytes);
            }
            // The body's end is known, so that the bytes are read to where they stay.
            PyBytes::new_with(py, usize::try_from(len)?, |buffer| {
                without_gil(py, active, |bytes| bytes.len() as u64 >= len, |body| body.read_exact(buffer))
            })
        })
    }

    /// The next line with its end, or at most `size` bytes of it.
    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        self.current.with(|active| read_line(py, active, limit(size)))
    }

    /// The lines that are left; with `hint`, as many as make that many bytes.
    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<i64>) -> PyResult<Bound<'py, PyList>> {
        // As in `io`, a hint of 0 is none.
        let hint = limit(hint.filter(|hint| *hint != 0));
        self.current.with(|active| {
            let lines = PyList::empty(py);
            let mut total = 0;
            while total < hint {
                let line = read_line(py, active, u64::MAX)?;
                let len = line.as_bytes().len() as u64;
                if len == 0 {
                    break;
                }
                total += len;
                lines.append(line)?;
            }
            Ok(lines)
        })
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.current.with(|active| read_line(py, active, u64::MAX))?;
        Ok(Some(line).filter(|line| !line.as_bytes().is_empty()))
    }
}
