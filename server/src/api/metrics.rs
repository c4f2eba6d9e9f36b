//! Numbers that the application keeps, for all of its processes.

use pyo3::prelude::*;

use super::here::server;
use super::text::Text;
use crate::share::Metric;

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(metric_get, module)?)?;
    module.add_function(wrap_pyfunction!(metric_set, module)?)?;
    module.add_function(wrap_pyfunction!(metric_inc, module)?)?;
    module.add_function(wrap_pyfunction!(metric_dec, module)?)?;
    module.add_function(wrap_pyfunction!(metric_mul, module)?)?;
    module.add_function(wrap_pyfunction!(metric_div, module)?)?;
    module.add_function(wrap_pyfunction!(metric_set_max, module)?)?;
    module.add_function(wrap_pyfunction!(metric_set_min, module)?)?;
    Ok(())
}

/// A metric's value; 0 when there is none of this name.
#[must_use]
pub(crate) fn metric(name: &str) -> i64 {
    find(name.as_bytes()).map_or(0, |(metric, _)| metric.get())
}

/// The metric, and what it began with.
fn find(name: &[u8]) -> Option<(Metric<'static>, i64)> {
    let server = server()?;
    let metrics = &server.config.between.metrics;
    let index = metrics.iter().position(|metric| metric.name.as_bytes() == name)?;
    Some((server.share.board.metric(index), metrics[index].initial))
}

/// Changes a metric: True, or None when there is none of this name.
fn change(name: &Text, change: impl Fn(i64, i64) -> i64) -> Option<bool> {
    let (metric, initial) = find(&name.0)?;
    metric.update(|value| change(value, initial));
    Some(true)
}

/// A metric's value; 0 when there is none of this name.
#[pyfunction]
#[pyo3(signature = (name, /))]
fn metric_get(name: Text) -> i64 {
    find(&name.0).map_or(0, |(metric, _)| metric.get())
}

/// Sets a metric.
#[pyfunction]
#[pyo3(signature = (name, value=1, /))]
fn metric_set(name: Text, value: i64) -> Option<bool> {
    change(&name, |_, _| value)
}

/// Adds to a metric.
#[pyfunction]
#[pyo3(signature = (name, value=1, /))]
fn metric_inc(name: Text, value: i64) -> Option<bool> {
    change(&name, |old, _| old.wrapping_add(value))
}

/// Takes from a metric.
#[pyfunction]
#[pyo3(signature = (name, value=1, /))]
fn metric_dec(name: Text, value: i64) -> Option<bool> {
    change(&name, |old, _| old.wrapping_sub(value))
}

/// Multiplies a metric.
#[pyfunction]
#[pyo3(signature = (name, value=1, /))]
fn metric_mul(name: Text, value: i64) -> Option<bool> {
    change(&name, |old, _| old.wrapping_mul(value))
}

/// Divides a metric; None for a division by zero.
#[pyfunction]
#[pyo3(signature = (name, value=1, /))]
fn metric_div(name: Text, value: i64) -> Option<bool> {
    if value == 0 { None } else { change(&name, |old, _| old.wrapping_div(value)) }
}

/// Sets a metric if it is lower.
#[pyfunction]
#[pyo3(signature = (name, value=1, /))]
fn metric_set_max(name: Text, value: i64) -> Option<bool> {
    change(&name, |old, _| old.max(value))
}

/// Sets a metric if it is higher, and the value is above what the metric began with.
#[pyfunction]
#[pyo3(signature = (name, value=1, /))]
fn metric_set_min(name: Text, value: i64) -> Option<bool> {
    change(&name, |old, initial| if value > initial { old.min(value) } else { old })
}
