//! What is known of all workers, and orders to the master.

use std::os::fd::AsFd;

use nix::sys::signal::{Signal, kill};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::here::{role, server};
use super::signals::send_to_master;
use crate::ids::SlotId;
use crate::ipc::calls::{CallPacket, CallRequest, WorkerState, ask};

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(workers, module)?)?;
    module.add_function(wrap_pyfunction!(total_requests, module)?)?;
    module.add_function(wrap_pyfunction!(reload, module)?)?;
    module.add_function(wrap_pyfunction!(stop, module)?)?;
    module.add_function(wrap_pyfunction!(ready, module)?)?;
    module.add_function(wrap_pyfunction!(logsize, module)?)?;
    module.add_function(wrap_pyfunction!(set_user_harakiri, module)?)?;
    Ok(())
}

/// The state of every worker: a tuple of dictionaries.
#[pyfunction]
fn workers(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
    let Some(server) = server() else { return Ok(PyTuple::empty(py)) };
    let question = CallPacket { generation: server.generation, what: CallRequest::Workers };
    let states: Vec<WorkerState> = py
        .detach(|| ask(server.calls.as_fd(), &question))
        .map_err(|error| PyOSError::new_err(format!("the master cannot be asked: {error}")))?;
    let chdir = server.config.chdir.as_ref().map(|chdir| chdir.to_string_lossy().into_owned()).unwrap_or_default();
    let workers = states.iter().map(|state| describe(py, state, &chdir)).collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, workers)
}

fn describe<'py>(py: Python<'py>, state: &WorkerState, chdir: &str) -> PyResult<Bound<'py, PyDict>> {
    let app = PyDict::new(py);
    for name in ["id", "modifier1", "startup_time", "interpreter", "callable"] {
        app.set_item(name, 0)?;
    }
    app.set_item("mountpoint", PyBytes::new(py, b""))?;
    app.set_item("requests", state.requests)?;
    app.set_item("exceptions", state.exceptions)?;
    app.set_item("chdir", PyBytes::new(py, chdir.as_bytes()))?;
    let worker = PyDict::new(py);
    worker.set_item("id", state.id)?;
    worker.set_item("pid", state.pid)?;
    worker.set_item("requests", state.requests)?;
    worker.set_item("delta_requests", state.delta_requests)?;
    worker.set_item("signals", state.signals)?;
    worker.set_item("exceptions", state.exceptions)?;
    worker.set_item("status", PyBytes::new(py, state.status.as_bytes()))?;
    worker.set_item("rss", state.rss)?;
    worker.set_item("vsz", state.vsz)?;
    worker.set_item("running_time", state.running_time)?;
    worker.set_item("last_spawn", state.last_spawn)?;
    // As uWSGI counts it here, unlike in the stats: how often after the first time.
    worker.set_item("respawn_count", state.respawn_count.saturating_sub(1))?;
    worker.set_item("tx", state.tx)?;
    worker.set_item("avg_rt", state.avg_rt)?;
    worker.set_item("apps", PyTuple::new(py, [app])?)?;
    Ok(worker)
}

/// How many requests all workers have served.
#[pyfunction]
fn total_requests() -> u64 {
    server().map_or(0, |server| {
        let board = &server.scoreboard;
        let threads = SlotId::first(board.layout().slots).flat_map(|slot| board.threads(slot));
        let living = threads.filter_map(|thread| thread.read().ok()).map(|thread| thread.counters.requests);
        living.fold(server.share.board.past_requests(), u64::saturating_add)
    })
}

fn order(signal: Signal) -> Option<bool> {
    kill(server()?.master, signal).is_ok().then_some(true)
}

/// Reloads the server.
#[pyfunction]
fn reload() -> Option<bool> {
    order(Signal::SIGHUP)
}

/// Stops the server.
#[pyfunction]
fn stop() -> Option<bool> {
    order(Signal::SIGQUIT)
}

/// True in a process that was forked, else None.
#[pyfunction]
fn ready() -> Option<bool> {
    role().map(|_| true)
}

/// Size of the log file, bytes; 0 when the log is none.
#[pyfunction]
fn logsize() -> u64 {
    let Some(config) = server().map(|server| &server.config) else { return 0 };
    let logs = [&config.logto2, &config.logto, &config.daemonize2, &config.daemonize];
    let log = logs.into_iter().flatten().next();
    log.and_then(|log| std::fs::metadata(log).ok()).map_or(0, |metadata| metadata.len())
}

/// Has the master end this process after N seconds, unless it calls this with 0 before.
#[pyfunction]
#[pyo3(signature = (seconds, /))]
pub(crate) fn set_user_harakiri(py: Python<'_>, seconds: i32) -> PyResult<()> {
    let Some(role) = role() else {
        return Err(PyValueError::new_err("the application is still being loaded: there is nothing to end"));
    };
    send_to_master(py, CallRequest::Harakiri { role, seconds: seconds.max(0).unsigned_abs() })
}
