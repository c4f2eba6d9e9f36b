//! `start_response` and the `write` that it returns (PEP 3333, "The start_response() Callable").

use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use super::active::{Active, CurrentRequest, Progress};
use rwsgi_protocol::response::HeadWriter;

/// The callable that an application is given as its second argument.
#[pyclass(frozen, module = "rwsgi", name = "start_response")]
pub struct StartResponse {
    current: CurrentRequest,
    write: Py<Write>,
}

/// What `start_response` returns.
#[pyclass(frozen, module = "rwsgi", name = "write")]
pub struct Write {
    current: CurrentRequest,
}

impl StartResponse {
    /// For the requests that `current` holds, one after another.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub fn new(py: Python<'_>, current: &CurrentRequest) -> PyResult<Self> {
        Ok(Self { current: current.clone(), write: Py::new(py, Write { current: current.clone() })? })
    }

    /// What every call returns.
    #[must_use]
    pub fn write(&self) -> &Py<Write> {
        &self.write
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info=None, /))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Py<Write>> {
        self.current.with(|active| {
            match (&active.progress, exc_info) {
                (Progress::Nothing, _) | (Progress::Head(_), Some(_)) => {}
                // A framework answers every request. This one has its answer.
                (Progress::Upgraded, _) => return Ok(()),
                (Progress::Head(_), None) => {
                    return Err(PyAssertionError::new_err("start_response was called again without exc_info"));
                }
                // Too late to change the answer: the exception goes on, and ends the connection.
                (Progress::Sending(_), Some(exc_info)) => return Err(exception_of(exc_info)?),
                (Progress::Sending(_), None) => {
                    return Err(PyAssertionError::new_err("start_response was called after the response was begun"));
                }
            }
            start(active, status, headers)
        })?;
        Ok(self.write.clone_ref(py))
    }
}

/// The exception of a `sys.exc_info()` triple.
fn exception_of(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let (_, value, traceback): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) = exc_info.extract()?;
    Ok(PyErr::from_value(value.call_method1("with_traceback", (traceback,))?))
}

fn start(active: &mut Active, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
    let Ok(status) = status.cast::<PyString>() else {
        return Err(PyTypeError::new_err(format!("the status must be a str, not {}", kind(status))));
    };
    let Ok(headers) = headers.cast::<PyList>() else {
        return Err(PyTypeError::new_err(format!("the headers must be a list, not {}", kind(headers))));
    };
    // A head that is replaced gives its place up.
    active.progress = Progress::Nothing;
    active.status = 0;
    let buffer = std::mem::take(&mut active.spare_buffer);
    let refused = |error: rwsgi_protocol::response::HeadError| PyValueError::new_err(error.to_string());
    let mut head = latin1(status, "the status", |status| HeadWriter::new(status, buffer).map_err(refused))?;
    for header in headers.iter() {
        let pair = header.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2);
        let Some(pair) = pair else {
            return Err(PyTypeError::new_err(format!("a header must be a tuple of two str, not {header}")));
        };
        let (name, value) = (pair.get_borrowed_item(0)?, pair.get_borrowed_item(1)?);
        let (Ok(name), Ok(value)) = (name.cast::<PyString>(), value.cast::<PyString>()) else {
            return Err(PyTypeError::new_err(format!("a header must be a tuple of two str, not {header}")));
        };
        latin1(&name, "a header's name", |name| {
            latin1(&value, "a header's value", |value| head.header(name, value).map_err(refused))
        })?;
    }
    active.status = head.status();
    active.headers = head.headers();
    active.progress = Progress::Head(head);
    Ok(())
}

fn kind(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map(|name| name.to_string()).unwrap_or_default()
}

/// A native string's bytes (PEP 3333, "A Note on String Types").
fn latin1<T>(text: &Bound<'_, PyString>, what: &str, f: impl FnOnce(&[u8]) -> PyResult<T>) -> PyResult<T> {
    match super::strings::latin1(text) {
        Some(bytes) => f(bytes),
        None => Err(PyValueError::new_err(format!("{what} has characters beyond latin-1: {text:?}"))),
    }
}

#[pymethods]
impl Write {
    #[pyo3(signature = (data, /))]
    fn __call__(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(data) = data.cast::<PyBytes>() else {
            return Err(PyTypeError::new_err(format!("write() takes bytes, not {}", kind(data))));
        };
        let bytes = data.as_bytes();
        self.current.with(|active| {
            let all_sent = active.send(&[bytes], None, &mut |_| None).map_err(|error| active.raise(error))?;
            if !all_sent {
                py.detach(|| active.transport.flush()).map_err(|error| active.raise(error.into()))?;
            }
            Ok(())
        })
    }
}
