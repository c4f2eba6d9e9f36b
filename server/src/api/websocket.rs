//! The functions of the module for WebSockets, as uWSGI has them: each concerns the request that this thread serves.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::text::Text;
use crate::wsgi::active::CurrentRequest;
use crate::wsgi::serving;
use crate::wsgi::websocket;

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(websocket_handshake, module)?)?;
    module.add_function(wrap_pyfunction!(websocket_recv, module)?)?;
    module.add_function(wrap_pyfunction!(websocket_recv_nb, module)?)?;
    module.add_function(wrap_pyfunction!(websocket_send, module)?)?;
    module.add_function(wrap_pyfunction!(websocket_send_binary, module)?)?;
    Ok(())
}

fn current() -> PyResult<CurrentRequest> {
    serving::current().ok_or_else(|| PyRuntimeError::new_err("this thread serves no request"))
}

/// Answers the client's handshake; the request's own key, origin and protocol are used where none is given.
#[pyfunction]
#[pyo3(signature = (key=None, origin=None, proto=None, /))]
fn websocket_handshake(py: Python<'_>, key: Option<Text>, origin: Option<Text>, proto: Option<Text>) -> PyResult<()> {
    let given = |text: Option<Text>| text.map(|text| text.0).filter(|text| !text.is_empty());
    websocket::handshake(py, &current()?, given(key), given(origin), given(proto))
}

/// Waits for the next message, and returns its bytes.
#[pyfunction]
fn websocket_recv(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    Ok(PyBytes::new(py, &websocket::receive(py, true)?.unwrap_or_default()))
}

/// The next message if there is one, else no bytes.
#[pyfunction]
fn websocket_recv_nb(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    Ok(PyBytes::new(py, &websocket::receive(py, false)?.unwrap_or_default()))
}

/// Sends a text message.
#[pyfunction]
#[pyo3(signature = (message, /))]
fn websocket_send(py: Python<'_>, message: Text) -> PyResult<()> {
    websocket::send_text(py, message.0)
}

/// Sends a binary message.
#[pyfunction]
#[pyo3(signature = (message, /))]
fn websocket_send_binary(py: Python<'_>, message: Text) -> PyResult<()> {
    websocket::send_binary(py, message.0)
}
