//! The functions of the module that concern caches.

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::here::server;
use super::text::Text;
use crate::share::cache::{Cache, How, Operation};

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cache_get, module)?)?;
    module.add_function(wrap_pyfunction!(cache_set, module)?)?;
    module.add_function(wrap_pyfunction!(cache_update, module)?)?;
    module.add_function(wrap_pyfunction!(cache_del, module)?)?;
    module.add_function(wrap_pyfunction!(cache_exists, module)?)?;
    module.add_function(wrap_pyfunction!(cache_clear, module)?)?;
    module.add_function(wrap_pyfunction!(cache_inc, module)?)?;
    module.add_function(wrap_pyfunction!(cache_dec, module)?)?;
    module.add_function(wrap_pyfunction!(cache_mul, module)?)?;
    module.add_function(wrap_pyfunction!(cache_div, module)?)?;
    module.add_function(wrap_pyfunction!(cache_num, module)?)?;
    module.add_function(wrap_pyfunction!(cache_keys, module)?)?;
    Ok(())
}

/// The cache of this name, or the first; `None` when there is none.
fn find(name: Option<&Text>) -> Option<&'static Cache> {
    let mut caches = server()?.share.caches.iter();
    match name.filter(|name| !name.0.is_empty()) {
        None => caches.next(),
        Some(name) => caches.find(|cache| cache.shape().name.as_bytes() == name.0),
    }
}

/// Does something with a cache, without the GIL: another process may have its lock.
fn with<T: Send>(
    py: Python<'_>,
    name: Option<&Text>,
    f: impl FnOnce(&Cache) -> nix::Result<T> + Send,
) -> PyResult<Option<T>> {
    let Some(cache) = find(name) else { return Ok(None) };
    let done = py.detach(|| f(cache));
    done.map(Some).map_err(|error| PyOSError::new_err(format!("cache '{}': {error}", cache.shape().name)))
}

/// uWSGI says True for what was done, and None for what was not.
fn or_none(done: Option<bool>) -> Option<bool> {
    done.filter(|done| *done)
}

/// A key's value, or None.
#[pyfunction]
#[pyo3(signature = (key, cache=None, /))]
fn cache_get<'py>(py: Python<'py>, key: Text, cache: Option<Text>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let value = with(py, cache.as_ref(), |cache| cache.get(&key.0))?.flatten();
    Ok(value.map(|value| PyBytes::new(py, &value)))
}

/// Sets a key's value for N seconds (0: forever), unless it has one.
#[pyfunction]
#[pyo3(signature = (key, value, expires=0, cache=None, /))]
fn cache_set(py: Python<'_>, key: Text, value: Text, expires: u64, cache: Option<Text>) -> PyResult<Option<bool>> {
    with(py, cache.as_ref(), |cache| cache.set(&key.0, &value.0, expires, How::New)).map(or_none)
}

/// Sets a key's value for N seconds (0: forever).
#[pyfunction]
#[pyo3(signature = (key, value, expires=0, cache=None, /))]
fn cache_update(py: Python<'_>, key: Text, value: Text, expires: u64, cache: Option<Text>) -> PyResult<Option<bool>> {
    with(py, cache.as_ref(), |cache| cache.set(&key.0, &value.0, expires, How::Update)).map(or_none)
}

/// Takes a key's value away.
#[pyfunction]
#[pyo3(signature = (key, cache=None, /))]
fn cache_del(py: Python<'_>, key: Text, cache: Option<Text>) -> PyResult<Option<bool>> {
    with(py, cache.as_ref(), |cache| cache.del(&key.0)).map(or_none)
}

/// Whether a key has a value: True or None.
#[pyfunction]
#[pyo3(signature = (key, cache=None, /))]
fn cache_exists(py: Python<'_>, key: Text, cache: Option<Text>) -> PyResult<Option<bool>> {
    with(py, cache.as_ref(), |cache| cache.exists(&key.0)).map(or_none)
}

/// Takes everything away.
#[pyfunction]
#[pyo3(signature = (cache=None, /))]
fn cache_clear(py: Python<'_>, cache: Option<Text>) -> PyResult<Option<bool>> {
    Ok(with(py, cache.as_ref(), Cache::clear)?.map(|()| true))
}

fn count(
    py: Python<'_>,
    key: &Text,
    by: i64,
    expires: u64,
    cache: Option<&Text>,
    operation: Operation,
) -> PyResult<Option<bool>> {
    with(py, cache, |cache| cache.set(&key.0, &by.to_ne_bytes(), expires, How::Math(operation))).map(or_none)
}

/// Adds to a number.
#[pyfunction]
#[pyo3(signature = (key, value=1, expires=0, cache=None, /))]
fn cache_inc(py: Python<'_>, key: Text, value: i64, expires: u64, cache: Option<Text>) -> PyResult<Option<bool>> {
    count(py, &key, value, expires, cache.as_ref(), Operation::Add)
}

/// Takes from a number.
#[pyfunction]
#[pyo3(signature = (key, value=1, expires=0, cache=None, /))]
fn cache_dec(py: Python<'_>, key: Text, value: i64, expires: u64, cache: Option<Text>) -> PyResult<Option<bool>> {
    count(py, &key, value, expires, cache.as_ref(), Operation::Subtract)
}

/// Multiplies a number.
#[pyfunction]
#[pyo3(signature = (key, value=2, expires=0, cache=None, /))]
fn cache_mul(py: Python<'_>, key: Text, value: i64, expires: u64, cache: Option<Text>) -> PyResult<Option<bool>> {
    count(py, &key, value, expires, cache.as_ref(), Operation::Multiply)
}

/// Divides a number.
#[pyfunction]
#[pyo3(signature = (key, value=2, expires=0, cache=None, /))]
fn cache_div(py: Python<'_>, key: Text, value: i64, expires: u64, cache: Option<Text>) -> PyResult<Option<bool>> {
    count(py, &key, value, expires, cache.as_ref(), Operation::Divide)
}

/// A number; 0 when there is none.
#[pyfunction]
#[pyo3(signature = (key, cache=None, /))]
fn cache_num(py: Python<'_>, key: Text, cache: Option<Text>) -> PyResult<i64> {
    let value = with(py, cache.as_ref(), |cache| cache.get(&key.0))?.flatten();
    Ok(value.and_then(|value| value.try_into().ok()).map_or(0, i64::from_ne_bytes))
}

/// Every key.
#[pyfunction]
#[pyo3(signature = (cache=None, /))]
fn cache_keys<'py>(py: Python<'py>, cache: Option<Text>) -> PyResult<Bound<'py, PyList>> {
    let Some(keys) = with(py, cache.as_ref(), Cache::keys)? else {
        return Err(PyValueError::new_err("no local uWSGI cache available: set cache2"));
    };
    PyList::new(py, keys.iter().map(|key| PyBytes::new(py, key)))
}
