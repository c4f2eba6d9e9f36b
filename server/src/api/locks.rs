//! Locks between processes.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::here::{auxiliary, server};
use crate::ipc::AuxiliaryKind;
use crate::share::{Guard, Mutex};
use nix::errno::Errno;

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(lock, module)?)?;
    module.add_function(wrap_pyfunction!(unlock, module)?)?;
    module.add_function(wrap_pyfunction!(is_locked, module)?)?;
    Ok(())
}

fn find(number: i32) -> PyResult<&'static Mutex> {
    if auxiliary(AuxiliaryKind::Spooler).is_some() {
        return Err(PyValueError::new_err("The spooler cannot lock/unlock resources"));
    }
    let number = usize::try_from(number).ok();
    number
        .and_then(|number| server()?.share.board.lock(number))
        .ok_or_else(|| PyValueError::new_err("Invalid lock number: set locks to have more than lock 0"))
}

/// Waits for a lock, 0 by default.
#[pyfunction]
#[pyo3(signature = (number=0, /))]
fn lock(py: Python<'_>, number: i32) -> PyResult<()> {
    let lock = find(number)?;
    // It stays locked until the application unlocks it. What it guards is the application's: one whose owner has died
    // is as good as any.
    match py.detach(|| lock.lock().map(Guard::keep)) {
        Ok(()) => Ok(()),
        Err(Errno::EDEADLK) => Err(PyRuntimeError::new_err(format!("this thread has lock {number} already"))),
        Err(error) => Err(PyRuntimeError::new_err(format!("lock {number}: {error}"))),
    }
}

/// Gives a lock back. It has no effect on one that this thread does not have, as in uWSGI.
#[pyfunction]
#[pyo3(signature = (number=0, /))]
fn unlock(number: i32) -> PyResult<()> {
    // The system has said that it is another's.
    let _ = find(number)?.unlock();
    Ok(())
}

/// Whether somebody has a lock.
#[pyfunction]
#[pyo3(signature = (number=0, /))]
fn is_locked(number: i32) -> PyResult<bool> {
    let lock = find(number)?;
    // One that died with it counts as nobody. Who only looks must not be taken for an owner by another who looks.
    Ok(lock.owner() != 0 && lock.try_lock().is_err())
}
