//! Functions of the application by name. Those of this process alone: nothing is called over a network.

use pyo3::exceptions::{PyNotImplementedError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use tracing::error;

use super::text::Text;
use crate::wsgi::traceback;

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(register_rpc, module)?)?;
    module.add_function(wrap_pyfunction!(rpc, module)?)?;
    module.add_function(wrap_pyfunction!(call, module)?)?;
    module.add_function(wrap_pyfunction!(rpc_list, module)?)?;
    Ok(())
}

/// The functions by their names, which are bytes. A dictionary of Python's, and not a table behind a mutex: whatever
/// goes from it may run code of the application's, which may let other threads run, or come here again.
static FUNCTIONS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

fn functions(py: Python<'_>) -> &Bound<'_, PyDict> {
    FUNCTIONS.get_or_init(py, || PyDict::new(py).unbind()).bind(py)
}

/// Gives a function a name. The number of its arguments is not checked, as in uWSGI.
#[pyfunction]
#[pyo3(signature = (name, function, argc=0, /))]
fn register_rpc(name: Text, function: &Bound<'_, PyAny>, argc: u8) -> PyResult<bool> {
    let _ = argc;
    let py = function.py();
    functions(py).set_item(PyBytes::new(py, &name.0), function)?;
    Ok(true)
}

/// The names that functions have.
#[pyfunction]
fn rpc_list(py: Python<'_>) -> Bound<'_, PyTuple> {
    let names: Bound<'_, PyList> = functions(py).keys();
    names.to_tuple()
}

/// Calls a function: its result, or None when there is none of this name, or it raised, or gave nothing.
#[pyfunction]
#[pyo3(signature = (name, *args))]
fn call<'py>(py: Python<'py>, name: Text, args: &Bound<'py, PyTuple>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let bytes = args.iter().map(|arg| arg.extract::<Text>());
    let bytes =
        bytes.collect::<PyResult<Vec<_>>>().map_err(|_| PyValueError::new_err("unable to call rpc function"))?;
    let Some(function) = functions(py).get_item(PyBytes::new(py, &name.0))? else { return Ok(None) };
    let args = PyTuple::new(py, bytes.iter().map(|arg| PyBytes::new(py, &arg.0)))?;
    match function.call1(args) {
        Ok(result) if result.is_instance_of::<PyBytes>() || result.is_instance_of::<PyString>() => {
            let result = result.extract::<Text>()?.0;
            Ok((!result.is_empty()).then(|| PyBytes::new(py, &result)))
        }
        Ok(_) => Ok(None),
        Err(raised) => {
            error!("rpc function '{}' raised:", name.shown());
            traceback::log(py, &raised);
            Ok(None)
        }
    }
}

/// The same, on a node: None or nothing for this process, which alone can be called.
#[pyfunction]
#[pyo3(signature = (node, name, *args))]
fn rpc<'py>(
    py: Python<'py>,
    node: Option<Text>,
    name: Text,
    args: &Bound<'py, PyTuple>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    if node.is_some_and(|node| !node.0.is_empty()) {
        let message = "functions of other servers are not available in rwsgi: send a request there";
        return Err(PyNotImplementedError::new_err(message));
    }
    call(py, name, args)
}
