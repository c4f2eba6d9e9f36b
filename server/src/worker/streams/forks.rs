//! Around each fork of the application's.

use std::sync::{Arc, Weak};

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};

use super::Streams;

/// From now on the sender is not there while Python forks.
///
/// # Errors
/// When Python raises, which it has no reason to.
pub(in crate::worker) fn watch_forks(py: Python<'_>, streams: &Arc<Streams>) -> PyResult<()> {
    let hooks = PyDict::new(py);
    // Not to be kept alive by Python, which nothing tears down.
    let hook = |act: fn(&Arc<Streams>)| {
        let streams: Weak<Streams> = Arc::downgrade(streams);
        PyCFunction::new_closure(py, None, None, move |_, _| {
            if let Some(streams) = streams.upgrade() {
                act(&streams);
            }
        })
    };
    hooks.set_item("before", hook(|streams| streams.end_sender())?)?;
    hooks.set_item("after_in_parent", hook(Streams::begin_again)?)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&hooks)).map(drop)
}
